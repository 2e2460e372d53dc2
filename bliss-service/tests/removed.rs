//! Published files that somebody removes, replaces or gives away while the daemon runs or between two runs.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::time::{Duration, Instant};

use bliss_core::request::Request;
use bliss_core::score::Status;
use bliss_store::Client;
use common::{COMMON, Daemon, command, directory};

mod common;

const ADDRESS: &str = "192.0.2.1";

/// A web server whose rows never change, which says so to who knows their tag.
fn server() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let head: Vec<String> = BufReader::new(&stream)
                .lines()
                .map_while(Result::ok)
                .take_while(|line| !line.is_empty())
                .collect();
            let body = format!("key.ip,updated_at,x\n{ADDRESS},7,5\n");
            let known = head.iter().any(|line| line.to_lowercase().starts_with("if-none-match"));
            let (status, body) = if known { ("304 Not Modified", "") } else { ("200 OK", body.as_str()) };
            let answer = format!(
                "HTTP/1.1 {status}\r\nETag: \"1\"\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            );
            let _ = (&stream).write_all(answer.as_bytes());
        }
    });
    port
}

/// `x` of the dimension whose rows come from a file or a server, or the requests of a log; if there is a row.
fn look_up(client: &mut Client, address: &str) -> Option<f32> {
    let id = client.names().attribute("ip").unwrap();
    let mut request = Request::new();
    request.set_attribute(id, address.into());
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let (values, statuses) = client.look_up(&request, u32::try_from(now).unwrap()).ok()?;
    matches!(statuses[0], Status::Fresh | Status::Stale).then_some(values[0])
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().into_string().unwrap()).collect()
}

fn remove(directory: &Path, chosen: impl Fn(&str) -> bool) {
    for name in names(directory).into_iter().filter(|name| chosen(name)) {
        // A file that is being replaced may be gone already.
        let _ = fs::remove_file(directory.join(name));
    }
}

type Removal = (&'static str, fn(&Path));

const REMOVALS: [Removal; 11] = [
    ("the folder, made again", |shm| {
        fs::remove_dir_all(shm).unwrap();
        fs::create_dir(shm).unwrap();
    }),
    ("the folder", |shm| fs::remove_dir_all(shm).unwrap()),
    ("the folder, moved away", |shm| fs::rename(shm, shm.with_extension("away")).unwrap()),
    ("everything in it", |shm| remove(shm, |_| true)),
    ("models_*", |shm| remove(shm, |name| name.starts_with("models_"))),
    ("models_state", |shm| remove(shm, |name| name == "models_state")),
    ("features_state", |shm| remove(shm, |name| name == "features_state")),
    ("data files", |shm| remove(shm, |name| name.contains("_data_"))),
    ("*_readers", |shm| remove(shm, |name| name.ends_with("_readers"))),
    ("*_lock", |shm| remove(shm, |name| name.ends_with("_lock"))),
    ("counters", |shm| remove(shm, |name| name == "counters")),
];

const EXPECTED: [&str; 7] = [
    "counters",
    "features_lock",
    "features_readers",
    "features_state",
    "models_lock",
    "models_readers",
    "models_state",
];

#[test]
fn what_is_removed_is_published_again_whatever_the_origin() {
    let file =
        "[[origin.file]]\nname = \"o\"\npath = \"rows.csv\"\ndimensions = [\"ip\"]\ninterval = \"50ms\"\n";
    let http = |port| {
        format!(
            "[[origin.http]]\nname = \"o\"\nurl = \"http://127.0.0.1:{port}/rows.csv\"\ndimensions = [\"ip\"]\n\
             interval = \"50ms\"\n"
        )
    };
    let log = "[[origin.access_log]]\nname = \"o\"\npath = \"access.log\"\n";
    let dimension = "[[dimension]]\nname = \"ip\"\nkey = [\"ip\"]\nfeatures = [{ name = \"x\" }]\n";
    let origins = [
        ("log", log.to_owned()),
        ("file", format!("{dimension}{file}")),
        ("http", format!("{dimension}{}", http(server()))),
    ];
    for (kind, origin) in origins {
        let dir = directory();
        let shm = dir.path().join("shm");
        let good = concat!(env!("CARGO_MANIFEST_DIR"), "/../bliss-catboost/testdata/models/scale_bias.cbm");
        fs::copy(good, dir.path().join("m.cbm")).unwrap();
        fs::write(dir.path().join("rows.csv"), format!("key.ip,updated_at,x\n{ADDRESS},7,5\n")).unwrap();
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
        let line = format!(
            "{{\"msec\":{now:.3},\"remote_addr\":\"{ADDRESS}\",\"status\":200,\"request\":\"GET / HTTP/1.1\",\
             \"http_user_agent\":\"curl/8\"}}\n"
        );
        fs::write(dir.path().join("access.log"), line).unwrap();
        let text = format!("{origin}\n[[model]]\nname = \"m\"\nversion = \"3\"\npath = \"m.cbm\"\n");
        let mut daemon = Daemon::start(dir.path(), &text);
        let mut old = Client::open(&shm).unwrap();
        daemon.until("readiness", |d| d.get("/readyz").unwrap().0 == 200);
        daemon.until("models", |d| !d.status()["models_generation"].is_null());
        daemon.until("the row", |_| look_up(&mut old, ADDRESS).is_some());
        for (what, remove) in REMOVALS {
            let case = format!("{kind}: {what}");
            let before = daemon.status()["files"]["made_again"].as_u64().unwrap();
            remove(&shm);
            let removed = Instant::now();
            // Only the moment in which the daemon has already made them again may be in between.
            let (code, reason) = daemon.get("/readyz").unwrap();
            let at_once = daemon.status()["files"]["made_again"].as_u64().unwrap() > before;
            assert!(code == 503 && reason.contains("missing in") || at_once, "{case}: {code} {reason}");
            daemon.until(&case, |d| d.status()["files"]["made_again"].as_u64().unwrap() > before);
            daemon.until(&case, |d| d.get("/readyz").unwrap().0 == 200);
            assert!(removed.elapsed() < Duration::from_secs(20), "{case}");
            let status = daemon.status();
            assert_eq!(status["files"]["missing"], serde_json::json!([]), "{case}");
            let found = names(&shm);
            for expected in EXPECTED {
                assert!(found.iter().any(|name| name == expected), "{case}: no {expected} in {found:?}");
            }
            let mut new = Client::open(&shm).unwrap();
            assert!(look_up(&mut new, ADDRESS).is_some(), "{case}: the row is there again");
            assert_eq!(new.metrics_error(), None, "{case}");
            // A worker that has the old files comes over: it sees what is published from now on.
            daemon.until(&case, |_| {
                let _ = old.maintain();
                look_up(&mut old, ADDRESS).is_some() && old.metrics_error().is_none()
            });
        }
        // One line when it begins, and none for each of the others, that came within a minute.
        assert_eq!(daemon.said(0, "have been published again").len(), 1, "{kind}");
        let log = daemon.said(0, "");
        assert!(log.len() < 25, "{kind}: {log:#?}");
        assert_eq!(daemon.said(0, "ERROR"), Vec::<String>::new(), "{kind}");
        assert!(daemon.terminate().success());
    }
}

/// A directory that cannot be made again: `/readyz` and `/status` say why, and the log says it once, however long it lasts.
#[test]
fn what_cannot_be_made_again_is_said_once_and_mended_later() {
    let dir = directory();
    let parent = dir.path().join("parent");
    fs::create_dir(&parent).unwrap();
    let config = dir.path().join("bliss.toml");
    let text = COMMON.replace("\"shm\"", "\"parent/shm\"")
        + "[[origin.access_log]]\nname = \"o\"\npath = \"access.log\"\nwindows = true\n";
    let now = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
    let append = || {
        let line = format!(
            "{{\"msec\":{:.3},\"remote_addr\":\"{ADDRESS}\",\"status\":200,\"request\":\"GET / HTTP/1.1\"}}\n",
            now()
        );
        let mut log =
            fs::OpenOptions::new().append(true).create(true).open(dir.path().join("access.log")).unwrap();
        log.write_all(line.as_bytes()).unwrap();
    };
    fs::write(&config, text).unwrap();
    append();
    let mut daemon = Daemon::start_with(&mut command(&config));
    daemon.until("readiness", |d| d.get("/readyz").unwrap().0 == 200);
    let mut client = Client::open(parent.join("shm")).unwrap();
    daemon.until("the row", |_| look_up(&mut client, ADDRESS).is_some());
    let from = daemon.log.lock().unwrap().len();
    fs::rename(&parent, dir.path().join("away")).unwrap();
    daemon.until("the failure", |d| !d.status()["files"]["failure"].is_null());
    // Several publications are tried, and fail.
    for _ in 0..20 {
        append();
        std::thread::sleep(Duration::from_millis(100));
    }
    let (code, reason) = daemon.get("/readyz").unwrap();
    assert!(
        code == 503 && reason.contains("cannot be made again") && reason.contains("parent"),
        "{code} {reason}"
    );
    assert!(look_up(&mut client, ADDRESS).is_some(), "workers go on with what they have");
    let errors = daemon.said(from, "");
    assert_eq!(daemon.said(from, "cannot be made again").len(), 1, "{errors:#?}");
    // The other line is the origin's.
    assert!(errors.len() <= 3, "{errors:#?}");
    fs::create_dir(&parent).unwrap();
    daemon.until("readiness", |d| d.get("/readyz").unwrap().0 == 200);
    assert_eq!(daemon.said(from, "in place again").len(), 1);
    daemon.until("new counts", |_| look_up(&mut client, ADDRESS).is_some_and(|requests| requests > 10.0));
    std::thread::sleep(Duration::from_millis(500));
    let all = daemon.said(from, "");
    assert!(all.len() <= 6, "{all:#?}");
}

/// Files that a previous daemon made, and a group that the next one is told to give them; as root, and as a user who is no
/// member of it.
#[test]
fn group_and_modes_that_were_corrected_apply_to_files_that_exist_or_it_is_said_why_not() {
    // SAFETY:
    // - the call has no preconditions
    if unsafe { libc::geteuid() } != 0 {
        let _ = writeln!(std::io::stderr(), "SKIPPED: group_and_modes_…: only root may give files away");
        return;
    }
    for user in [0, 65_534] {
        let dir = directory();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let shm = dir.path().join("shm");
        fs::create_dir(&shm).unwrap();
        chown(&shm, Some(user), Some(user)).unwrap();
        let config = dir.path().join("bliss.toml");
        let start = |publish: &str| {
            let file = format!(
                "{COMMON}{publish}[[dimension]]\nname = \"ip\"\nkey = [\"ip\"]\nfeatures = [{{ name = \"x\" }}]\n\
                 [[origin.file]]\nname = \"o\"\npath = \"rows.csv\"\ndimensions = [\"ip\"]\n"
            );
            fs::write(&config, file).unwrap();
            let mut daemon = Daemon::start_with(command(&config).uid(user).gid(user));
            daemon.until("readiness", |d| d.get("/readyz").unwrap().0 == 200);
            daemon
        };
        fs::write(dir.path().join("rows.csv"), format!("key.ip,updated_at,x\n{ADDRESS},7,5\n")).unwrap();
        assert!(start("").terminate().success());
        let of = |name: &str| {
            let metadata = fs::metadata(shm.join(name)).unwrap();
            (metadata.gid(), metadata.permissions().mode() & 0o777)
        };
        assert_eq!([of("features_state"), of("counters")], [(user, 0o640), (user, 0o660)]);
        let daemon =
            start("publish.group = 54321\npublish.mode = \"0644\"\npublish.readers_mode = \"0666\"\n");
        let refused = daemon.status()["files"]["permissions"].as_array().unwrap().clone();
        let names = [
            "features_state",
            "features_readers",
            "features_data_1",
            "models_state",
            "models_readers",
            "counters",
        ];
        for name in names {
            if user == 0 {
                let mode = if name.ends_with("readers") || name == "counters" { 0o666 } else { 0o644 };
                assert_eq!(of(name), (54_321, mode), "{name}");
                if name != "counters" {
                    let said = daemon.said(0, name);
                    assert!(said.len() == 1 && said[0].contains("group 54321 in place of 0"), "{said:?}");
                }
            } else {
                // In the log, and in `/status`: which file, which group, why, and what to do.
                for said in [daemon.said(0, name), refused.iter().map(ToString::to_string).collect()] {
                    let said: Vec<_> = said.iter().filter(|line| line.contains(name)).collect();
                    assert_eq!(said.len(), 1, "{said:?}");
                    for part in ["54321", "not permitted", "member of that group"] {
                        assert!(said[0].contains(part), "{said:?}");
                    }
                }
            }
        }
        assert_eq!(refused.is_empty(), user == 0, "{refused:?}");
        assert!(look_up(&mut Client::open(&shm).unwrap(), ADDRESS).is_some());
    }
}

#[test]
fn a_directory_on_a_disk_is_warned_of_once() {
    let cases = [(Path::new("/dev/shm"), true), (Path::new(env!("CARGO_TARGET_TMPDIR")), false)];
    for (parent, in_memory) in cases {
        if bliss_store::is_in_memory(parent) != Some(in_memory) {
            let _ = writeln!(std::io::stderr(), "SKIPPED: {} is of the other kind here", parent.display());
            continue;
        }
        let dir = tempfile::tempdir_in(parent).unwrap();
        let daemon = Daemon::start(dir.path(), "");
        assert_eq!(daemon.status()["files"]["in_memory"], in_memory);
        assert_eq!(daemon.said(0, "not on a tmpfs").len(), usize::from(!in_memory), "{}", parent.display());
    }
}
