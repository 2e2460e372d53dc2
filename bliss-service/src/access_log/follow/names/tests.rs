use super::*;

fn touch(folder: &Path, names: &[&str]) {
    names.iter().for_each(|name| std::fs::write(folder.join(name), "").unwrap());
}

fn logs(folder: &Path, patterns: &[&str], with_rotated: bool) -> Vec<String> {
    let patterns: Vec<_> = patterns.iter().map(|pattern| (*pattern).to_owned()).collect();
    let found = LogPaths::globs(folder, &patterns).unwrap().find(&|_| false, with_rotated);
    let name = |path: &Path| path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned();
    let mut names: Vec<_> = found.logs.iter().map(|(path, _)| name(path)).collect();
    names.sort();
    names
}

#[test]
fn globs_match_logs_and_no_rotated_ones() {
    let dir = tempfile::tempdir().unwrap();
    let names = [
        "access.log",
        "access.log.1",
        "access.log.2.gz",
        "access.log-20261126",
        "access.log-20261125.gz",
        "access.log.2026-11-24",
        "site-1",
        "site-1.1",
        "192.0.2.1",
        "shop.access.log",
        "shop.access.log.1",
        "gone.access.log.1",
        "old.log.bz2",
        ".hidden.log",
        "error.log",
    ];
    touch(dir.path(), &names);
    std::fs::create_dir(dir.path().join("folder.log")).unwrap();
    let cases: &[(&[&str], &[&str])] = &[
        (&["access.log"], &["access.log"]),
        (&["*access.log"], &["access.log", "shop.access.log"]),
        (&["access.log*"], &["access.log"]),
        (&["*"], &["192.0.2.1", "access.log", "error.log", "shop.access.log", "site-1"]),
        (&["access.log", "*access.log"], &["access.log", "shop.access.log"]),
        // What the configuration names is a log, whatever it is called.
        (&["access.log.1"], &["access.log.1"]),
        // A log for each day is no predecessor of a log that is not one.
        (&["access.log-*"], &["access.log-20261126"]),
        (&["site-[0-9]"], &["site-1"]),
        (&["s?te-1"], &["site-1"]),
        (&["no*"], &[]),
    ];
    for (patterns, expected) in cases {
        assert_eq!(logs(dir.path(), patterns, false), *expected, "{patterns:?}");
    }
    assert_eq!(
        logs(dir.path(), &["*access.log"], true),
        ["access.log", "gone.access.log", "shop.access.log"],
        "a log of which only predecessors exist has a past"
    );
}

#[test]
fn a_log_that_is_gone_for_a_moment_still_has_its_predecessors() {
    let dir = tempfile::tempdir().unwrap();
    touch(dir.path(), &["access.log.1", "access.log.2"]);
    let paths = LogPaths::globs(dir.path(), &["access*".to_owned()]).unwrap();
    let log = dir.path().join("access.log");
    assert!(paths.find(&|path| path == log, false).logs.is_empty());
}

#[test]
fn predecessors_come_from_the_newest_to_the_oldest() {
    let dir = tempfile::tempdir().unwrap();
    let names =
        ["a.log", "a.log.10.gz", "a.log.2.gz", "a.log.1", "a.log.1.gz", "a.log.x", "a.log.", "b.a.log.1"];
    touch(dir.path(), &names);
    touch(dir.path(), &["a.log-20261124.gz", "a.log-20261126", "a.log-20261125.gz", "a.log2"]);
    let found = predecessors(&dir.path().join("a.log")).unwrap();
    let found: Vec<_> = found
        .iter()
        .map(|found| (found.path.file_name().unwrap().to_str().unwrap().to_owned(), found.is_gzip))
        .collect();
    let expected = [
        ("a.log.1", false),
        ("a.log.2.gz", true),
        ("a.log.10.gz", true),
        ("a.log-20261126", false),
        ("a.log-20261125.gz", true),
        ("a.log-20261124.gz", true),
    ];
    assert_eq!(found, expected.map(|(name, is_gzip)| (name.to_owned(), is_gzip)));
}

#[test]
fn patterns_start_at_their_folder_and_bad_ones_are_errors() {
    let dir = tempfile::tempdir().unwrap();
    let odd = dir.path().join("a[1]*");
    std::fs::create_dir(&odd).unwrap();
    touch(&odd, &["x.log"]);
    assert_eq!(logs(&odd, &["*.log"], false), ["x.log"], "the folder is no pattern");
    let error = LogPaths::globs(&odd, &["a[".to_owned()]).unwrap_err();
    assert!(error.contains("\"a[\""), "{error}");
    let found = LogPaths::globs(&odd, &["n*".to_owned()]).unwrap().find(&|_| false, true);
    assert_eq!(found.unmatched.len(), 1);
}
