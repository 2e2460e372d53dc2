//! Every promise of `docs/design.md` has tests that carry its number, and every number in a test's name is a promise.

use std::collections::{BTreeMap, BTreeSet};

use repository::{Promise, files, functions, promise_of, promises, root};

fn design() -> Vec<Promise> {
    let found = promises(&std::fs::read_to_string(root().join("docs/design.md")).unwrap());
    assert!(found.len() >= 24, "only {} promises were found in docs/design.md", found.len());
    found
}

/// Test functions whose names start with the number of a promise, and where each is.
fn tests_of_promises(files: &[(String, String)]) -> BTreeMap<&str, &str> {
    let mut found = BTreeMap::new();
    for (path, text) in files {
        // Helpers of this crate's own tests are not meant, nor are functions with types for prefixes (`u8_`, `f32_at`).
        let types = ["U8", "U16", "U32", "U64", "I8", "I16", "I32", "I64", "F16", "F32", "F64"];
        for name in functions(path, text) {
            if promise_of(name).is_some_and(|number| !types.contains(&number.as_str()))
                && !path.starts_with("repository/")
            {
                found.insert(name, path.as_str());
            }
        }
    }
    found
}

#[test]
fn every_promise_has_a_test_of_its_number() {
    let files = files();
    let tests = tests_of_promises(&files);
    let tested: BTreeSet<_> = tests.keys().filter_map(|name| promise_of(name)).collect();
    let mut wrong = Vec::new();
    for promise in design() {
        let (number, lower) = (&promise.number, promise.number.to_lowercase());
        match (promise.not_yet, tested.contains(number)) {
            (false, false) => wrong.push(format!("{number}: no test `{lower}_…`")),
            (true, true) => wrong.push(format!("{number}: is marked `not yet` and has a test `{lower}_…`")),
            _ => {}
        }
    }
    assert!(wrong.is_empty(), "docs/design.md:\n{}", wrong.join("\n"));
}

#[test]
fn every_number_in_a_tests_name_is_a_promise() {
    let files = files();
    let numbers: BTreeSet<_> = design().into_iter().map(|promise| promise.number).collect();
    let strangers: Vec<_> = tests_of_promises(&files)
        .into_iter()
        .filter(|(name, _)| promise_of(name).is_none_or(|number| !numbers.contains(&number)))
        .map(|(name, path)| format!("{path}: {name}"))
        .collect();
    assert!(strangers.is_empty(), "no promise of docs/design.md has this number:\n{}", strangers.join("\n"));
}

#[test]
fn files_and_tests_named_in_the_design_exist() {
    let files = files();
    let names: BTreeSet<_> = files.iter().flat_map(|(path, text)| functions(path, text)).collect();
    let mut wrong = Vec::new();
    for promise in design() {
        let number = &promise.number;
        if !promise.not_yet && (promise.kept_in.is_empty() || promise.tests.is_empty()) {
            wrong.push(format!("{number}: names no file or no test"));
        }
        for path in promise.kept_in.iter().filter(|path| !root().join(path).exists()) {
            wrong.push(format!("{number}: {path} is missing"));
        }
        for name in promise.tests.iter().filter(|name| !names.contains(name.as_str())) {
            wrong.push(format!("{number}: no function `{name}`"));
        }
        for name in promise.tests.iter().filter(|name| promise_of(name).as_ref() != Some(number)) {
            wrong.push(format!("{number}: `{name}` does not start with the number"));
        }
    }
    assert!(wrong.is_empty(), "docs/design.md:\n{}", wrong.join("\n"));
}
