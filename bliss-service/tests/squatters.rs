//! A user of the host who has the daemon's directory before the daemon: nobody gets a score out of it.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;

use bliss_core::request::Request;
use bliss_store::{Client, PublishOptions, Publisher};
use common::{COMMON, directory, run};

mod common;

const STRANGER: u32 = 65534;

/// What their daemon would publish: here a schema without dimensions.
fn publish(directory: &Path) {
    let mut publisher =
        Publisher::open(directory, &PublishOptions::default(), bliss_core::schema::Schema::default())
            .unwrap();
    publisher.publish(bliss_core::build::Change::default()).unwrap();
}

#[test]
fn s11_a_squatted_directory_gives_nobody_a_score() {
    let dir = directory();
    let (config, shm) = (dir.path().join("bliss.toml"), dir.path().join("shm"));
    fs::write(&config, COMMON).unwrap();
    // They made it, in a folder where everybody may make folders, as /dev/shm is. Or it is the daemon's, which lets them
    // write. Their files have all been published properly.
    let shared = |mode| fs::set_permissions(dir.path(), fs::Permissions::from_mode(mode)).unwrap();
    fs::create_dir(&shm).unwrap();
    publish(&shm);
    let theirs =
        [shm.clone()].into_iter().chain(fs::read_dir(&shm).unwrap().map(|entry| entry.unwrap().path()));
    let given = theirs.map(|path| chown(path, Some(STRANGER), None)).all(|given| given.is_ok());
    if !given {
        let _ = std::io::Write::write_all(
            &mut std::io::stderr(),
            b"SKIPPED: s11_a_squatted_directory_gives_nobody_a_score: a directory of another user (needs root)\n",
        );
        return;
    }
    shared(0o1777);
    for (mode, refused) in [(0o755, "belongs to user 65534"), (0o777, "belongs to user 65534")] {
        fs::set_permissions(&shm, fs::Permissions::from_mode(mode)).unwrap();
        let (status, log) = run(&config);
        assert!(!status.success() && log.contains(refused) && log.contains("remove it"), "{mode:o}: {log}");
        let error = Client::open(&shm).unwrap_err().to_string();
        assert!(error.contains(refused), "{mode:o}: {error}");
    }
    chown(&shm, Some(0), None).unwrap();
    for mode in [0o777, 0o770, 0o1777] {
        fs::set_permissions(&shm, fs::Permissions::from_mode(mode)).unwrap();
        let (status, log) = run(&config);
        assert!(!status.success() && log.contains("may be written by others"), "{mode:o}: {log}");
        let error = Client::open(&shm).unwrap_err().to_string();
        assert!(
            error.contains("may be written by others") && error.contains("chmod go-w"),
            "{mode:o}: {error}"
        );
    }
    // A link of theirs to it is nothing better.
    fs::set_permissions(&shm, fs::Permissions::from_mode(0o755)).unwrap();
    let link = dir.path().join("link");
    std::os::unix::fs::symlink(&shm, &link).unwrap();
    assert!(Client::open(&link).unwrap_err().to_string().contains("is a symbolic link"));
    // Nothing is wrong with the daemon's own, but the files there are a stranger's.
    let mut client = Client::open(&shm);
    let answer = client.as_mut().map(|client| client.score(&Request::new(), "", 1).outcome.is_ok());
    assert!(!answer.unwrap_or(false));
    assert!(bliss_store::check_directory(&shm).is_ok());
}
