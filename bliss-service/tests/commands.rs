//! Two programs: the daemon, and `blissctl`, whose commands were the daemon's once.

use std::process::{Command, Output};

const SERVICE: &str = env!("CARGO_BIN_EXE_bliss-service");
const CTL: &str = env!("CARGO_BIN_EXE_blissctl");

fn run(program: &str, arguments: &[&str]) -> Output {
    Command::new(program).args(arguments).output().unwrap()
}

#[test]
fn old_spellings_do_the_same_and_name_the_new_ones() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let line = r#"192.0.2.1 - - [05/Jan/2026:10:00:00 +0000] "GET / HTTP/1.1" 200 12 "-" "curl/8.0""#;
    std::fs::write(path("some.log"), format!("{line}\n{line}\n")).unwrap();
    let model = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/demo.cbm");
    let log = path("some.log");
    for arguments in [
        ["model", "inspect", model].as_slice(),
        &["features", "--log", &log, "--out", "-"],
        &["features", "--log", &path("absent.log"), "--out", "-"],
        &["demo", "--log", &path("absent.log"), "--scorer", "none"],
    ] {
        let (old, new) = (run(SERVICE, arguments), run(CTL, arguments));
        assert_eq!(old.status, new.status, "{arguments:?}");
        assert_eq!(old.stdout, new.stdout, "{arguments:?}");
        assert_eq!(old.stderr, new.stderr, "{arguments:?}");
        assert_eq!(new.status.success(), !arguments.contains(&path("absent.log").as_str()), "{new:?}");
    }
    let help = String::from_utf8(run(SERVICE, &["--help"]).stdout).unwrap();
    for command in ["demo", "features", "model"] {
        assert!(help.contains(&format!("Now `blissctl {command}`")), "{help}");
    }
}

#[test]
fn the_daemon_is_not_a_command_of_blissctl() {
    for command in ["run", "check"] {
        assert!(!run(CTL, &[command, "--config", "x"]).status.success());
        assert!(run(SERVICE, &[command, "--help"]).status.success());
    }
}
