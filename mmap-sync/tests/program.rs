//! The program `mmap-sync`.

mod common;

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::process::Command;

use common::{Dir, publish, written};
use mmap_sync::Error;

#[test]
fn the_program_inspects_and_verifies() {
    let dir = written();
    let run = |command: &str| {
        let mut program = Command::new(env!("CARGO_BIN_EXE_mmap-sync"));
        let output = program.arg(command).arg(dir.prefix()).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
        (output.status.code().unwrap(), text)
    };
    let mut writer = dir.options().open_writer().unwrap();
    let reader = dir.options().open_reader().unwrap();
    let _guard = reader.pin().unwrap();
    publish(&mut writer, 1000);
    publish(&mut writer, 1000);
    let (code, text) = run("inspect");
    let pid = format!("pid {}", std::process::id());
    for part in
        ["generation   4", "alive", &pid, "pins generation 2 for at least", "x_old_2", "x_data_0: 8192 bytes"]
    {
        assert!(code == 0 && text.contains(part), "{part} is not in:\n{text}");
    }
    let (code, text) = run("verify");
    assert!(code == 0 && text.contains("generation 4") && text.contains("not looked at"), "{text}");
    drop(_guard);
    drop(writer);
    let (code, text) = run("verify");
    assert!(code == 0 && text.matches("checksum right").count() == 2, "{text}");
    let file = OpenOptions::new().write(true).open(dir.path().join("x_data_1")).unwrap();
    file.write_all_at(b"!", 4096 + 10).unwrap();
    let (code, text) = run("verify");
    assert!(code == 1 && text.contains("x_data_1") && text.contains("generation 3"), "{text}");
    let nothing = Dir::new();
    let (_, errors) = mmap_sync::inspect::verify(&nothing.options());
    assert!(matches!(errors[..], [Error::NotPublished]));
}
