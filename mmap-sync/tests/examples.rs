//! The examples `publish` and `read`, run together.

mod common;

use std::process::{Command, Stdio};

use common::Dir;

/// `cargo test` builds the examples, beside the directory of the tests; before `--test examples` alone run
/// `cargo build -p mmap-sync --examples`.
fn example(name: &str) -> Command {
    let deps = std::env::current_exe().unwrap();
    Command::new(deps.parent().unwrap().with_file_name("examples").join(name))
}

#[test]
fn the_examples_read_what_they_publish() {
    let dir = Dir::new();
    let prefix = dir.prefix();
    // The reader comes first, and waits for the files.
    let reader = example("read").arg(&prefix).arg("20").stdout(Stdio::piped()).spawn().unwrap();
    let publisher = example("publish").arg(&prefix).arg("20").output().unwrap();
    assert!(publisher.status.success(), "{}", String::from_utf8_lossy(&publisher.stderr));
    let published = String::from_utf8(publisher.stdout).unwrap();
    assert_eq!(published.lines().count(), 20);
    let read = reader.wait_with_output().unwrap();
    assert!(read.status.success());
    let read = String::from_utf8(read.stdout).unwrap();
    assert_eq!(read.lines().last(), Some("generation 20 version 20 whole true"));
    assert!(read.lines().all(|line| line.ends_with("whole true")), "{read}");
}
