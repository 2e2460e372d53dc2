//! A writer and readers that are killed, stopped and started at random, in other PID namespaces, with `membarrier` refused, while
//! their files are removed and moved away. Alone in its file, since it needs the processors.

mod common;

use std::process::Command;

use common::Dir;

/// Seconds; `make soak` runs it for longer.
fn seconds() -> String {
    std::env::var("MMAP_SYNC_CHAOS_SECONDS").unwrap_or_else(|_| "60".to_owned())
}

#[test]
fn m2_chaos_tears_nothing_and_leaves_nothing_behind() {
    let dir = Dir::new();
    let output = Command::new(env!("CARGO_BIN_EXE_mmap-sync-stress"))
        .args(["chaos", dir.path().to_str().unwrap(), &seconds()])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    eprintln!("{text}");
    assert!(output.status.success(), "{text} {}", String::from_utf8_lossy(&output.stderr));
}
