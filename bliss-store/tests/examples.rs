//! The examples run, and print what they should.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// `cargo test` builds examples beside the tests, unless it builds this test alone.
fn program(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let program = test.parent().and_then(Path::parent).unwrap().join("examples").join(name);
    assert!(
        program.exists(),
        "{} is not built; run `cargo build -p bliss-store --examples`",
        program.display()
    );
    program
}

fn run(name: &str, directory: &Path, arguments: &[&str]) -> Output {
    Command::new(program(name)).arg(directory).args(arguments).output().unwrap()
}

/// What an example prints when it succeeds.
fn printed(name: &str, directory: &Path, arguments: &[&str]) -> String {
    let output = run(name, directory, arguments);
    assert!(output.status.success(), "{name}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn examples_publish_look_up_and_score() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();

    let early = run("store_look_up", directory, &["192.0.2.1"]);
    assert!(!early.status.success(), "nothing is published yet: {early:?}");
    let early = printed("store_score", directory, &["192.0.2.1"]);
    assert!(early.starts_with("unscored: no snapshot: "), "{early}");

    let published = printed("store_publish", directory, &[]);
    assert!(published.starts_with("features: generation 2, "), "{published}");
    assert!(published.contains("\nmodels: generation 1, "), "{published}");

    let look_up = |address| printed("store_look_up", directory, &[address]);
    assert_eq!(look_up("192.0.2.1"), "ip: fresh\nip.requests_1m = 3\nip.errors_1m = 0\n");
    assert_eq!(look_up("192.0.2.2"), "ip: fresh\nip.requests_1m = 240\nip.errors_1m = 31\n");
    assert_eq!(look_up("192.0.2.3"), "ip: missing\nip.requests_1m = 0\nip.errors_1m = 0\n");
    assert_eq!(look_up("no address"), "ip: absent\nip.requests_1m = 0\nip.errors_1m = 0\n");

    let score = |address| printed("store_score", directory, &[address]);
    assert!(score("192.0.2.1").starts_with("score 94 by model rate, bot probability 0.047\n"));
    assert!(score("192.0.2.2").starts_with("score 6 by model rate, bot probability 0.953\n"));
}
