//! Links in documents lead somewhere, and nothing in the repository needs what lies outside of it.

use std::path::Path;

use repository::{anchors, files, links, root};

#[test]
fn relative_links_resolve() {
    let mut wrong = Vec::new();
    for (path, text) in files().iter().filter(|(path, _)| path.ends_with(".md")) {
        for link in links(text) {
            let (target, anchor) = link.split_once('#').unwrap_or((link, ""));
            if link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            let folder = root().join(Path::new(path).parent().unwrap());
            let file = if target.is_empty() { root().join(path) } else { folder.join(target) };
            let reachable = file.exists()
                && (anchor.is_empty()
                    || std::fs::read_to_string(&file)
                        .is_ok_and(|text| anchors(&text).iter().any(|a| a == anchor)));
            if !reachable {
                wrong.push(format!("{path}: {link}"));
            }
        }
    }
    assert!(wrong.is_empty(), "links that lead nowhere:\n{}", wrong.join("\n"));
}

#[test]
fn nothing_refers_to_what_lies_outside() {
    // In parts, so that this file does not find itself.
    let patterns = [
        concat!("../sha", "red"),
        concat!("the see", "ds"),
        concat!("of the design's se", "ction"),
        concat!("the design do", "es not"),
        concat!("beyond the desi", "gn"),
        concat!("DESI", "GN.md"),
        concat!("PEE", "RS.md"),
        concat!("/wo", "rk/"),
    ];
    let mut wrong = Vec::new();
    for (path, text) in files() {
        for (number, line) in text.lines().enumerate() {
            if let Some(pattern) = patterns.iter().find(|pattern| line.contains(**pattern)) {
                wrong.push(format!("{path}:{}: `{pattern}`", number + 1));
            }
        }
    }
    assert!(wrong.is_empty(), "the repository stands by itself:\n{}", wrong.join("\n"));
}

/// Cargo builds the examples of all packages into one folder, where the last of two of a name wins.
#[test]
fn examples_have_names_of_their_own() {
    let mut names = std::collections::BTreeMap::<String, Vec<String>>::new();
    for (path, _) in files() {
        if let [_, "examples", file] = path.split('/').collect::<Vec<_>>()[..]
            && let Some(name) = file.strip_suffix(".rs")
        {
            names.entry(name.to_owned()).or_default().push(path.clone());
        }
    }
    assert!(names.len() > 5, "{names:?}");
    let twice: Vec<_> = names.values().filter(|paths| paths.len() > 1).collect();
    assert!(twice.is_empty(), "examples of one name: {twice:?}");
}
