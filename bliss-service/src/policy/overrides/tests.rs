use std::os::unix::fs::{PermissionsExt as _, symlink};

use super::*;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap()
}

fn folder() -> (tempfile::TempDir, Folder) {
    let dir = tempfile::tempdir().unwrap();
    let folder = Folder::new(dir.path().to_owned());
    (dir, folder)
}

fn quiet(text: String) {
    panic!("{text}");
}

fn add(folder: &Folder, kind: Kind, text: &str) -> u64 {
    let subject = subject(text).unwrap();
    folder.change(&mut quiet, |overrides| overrides.add(kind, &subject, at(100), at(200), "why")).unwrap().0
}

#[test]
fn subjects_are_addresses_networks_and_agents() {
    let text = |text: &str| subject(text).map(|subject| written(&subject));
    assert_eq!(text("192.0.2.1").unwrap(), ("192.0.2.1/32".to_owned(), false));
    assert_eq!(text(" 192.0.2.0/24 ").unwrap().0, "192.0.2.0/24");
    assert_eq!(text("::ffff:192.0.2.0/120").unwrap().0, "192.0.2.0/24", "one form");
    assert_eq!(text("2001:db8::/32").unwrap().0, "2001:db8::/32");
    for agent in ["curl/8.5.0", "Mozilla/5.0 (compatible)", "Googlebot", "12"] {
        assert_eq!(text(agent).unwrap(), (agent.to_owned(), true));
    }
    for wrong in ["", "-", "192.0.2.300", "192.0.2.1/24", "192.0.2.0/33", "2001:db8:::1", "fe80::/129"] {
        assert!(text(wrong).is_err(), "{wrong}");
    }
    assert!(subject(&"x".repeat(MAX_AGENT_BYTES + 1)).is_err());
}

#[test]
fn what_is_written_is_read_back_and_published() {
    let (_dir, folder) = folder();
    assert_eq!(folder.read().unwrap(), Overrides::default().begun(), "without a file there is nothing");
    assert_eq!(add(&folder, Kind::Allow, "192.0.2.1"), 1);
    assert_eq!(add(&folder, Kind::Deny, "192.0.2.0/24"), 2);
    assert_eq!(add(&folder, Kind::Challenge, "curl/8"), 3);
    let found = folder.read().unwrap();
    let exceptions = found.exceptions(at(150));
    let names: Vec<_> = exceptions.iter().map(|exception| exception.name.as_str()).collect();
    assert_eq!(names, ["allow 1", "deny 2", "challenge 3"]);
    assert_eq!(exceptions[2].subject, Subject::UserAgent("curl/8".into()));
    assert_eq!(exceptions[0].until, 200);
    assert!(found.exceptions(at(200)).is_empty(), "they ran out");
    // A second one for the same client takes the place of the first, and those that ran out go.
    assert_eq!(add(&folder, Kind::Deny, "192.0.2.1"), 4);
    let later = folder.read().unwrap();
    assert!(later.revision > found.revision);
    assert_eq!(later.exceptions.iter().map(|entry| entry.id).collect::<Vec<_>>(), [2, 3, 4]);
    let gone = folder.change(&mut quiet, |overrides| Ok(overrides.forget("192.0.2.0/24"))).unwrap().0;
    assert_eq!((gone.len(), gone[0].id), (1, 2));
    let gone = folder.change(&mut quiet, |overrides| Ok(overrides.forget("4"))).unwrap().0;
    assert_eq!(gone[0].subject, "192.0.2.1/32");
    assert_eq!(folder.read().unwrap().exceptions.len(), 1);
    assert_eq!(std::fs::metadata(folder.file()).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_change_that_is_refused_changes_nothing() {
    let (_dir, folder) = folder();
    add(&folder, Kind::Allow, "192.0.2.1");
    let before = std::fs::read(folder.file()).unwrap();
    let refused = folder.change(&mut quiet, |overrides| {
        overrides.off = Some(Off { since: at(1), reason: String::new() });
        Err::<(), _>("no".into())
    });
    assert_eq!(refused.unwrap_err(), "no");
    assert_eq!(std::fs::read(folder.file()).unwrap(), before);
}

#[test]
fn exceptions_have_a_limit() {
    let mut overrides = Overrides::default().begun();
    for n in 0..MAX_ENTRIES as u64 {
        let subject = format!("agent {n}");
        let entry = Entry {
            id: n,
            kind: Kind::Deny,
            subject,
            is_user_agent: true,
            since: at(1),
            until: at(200),
            reason: String::new(),
        };
        overrides.exceptions.push(entry);
    }
    overrides.check().unwrap();
    let more = subject("one more").unwrap();
    let refused = overrides.clone().add(Kind::Deny, &more, at(100), at(200), "").unwrap_err();
    assert!(refused.contains("65536") && refused.contains("forget"), "{refused}");
    overrides.clone().add(Kind::Deny, &more, at(200), at(300), "").unwrap();
    overrides.exceptions.push(overrides.exceptions[0].clone());
    assert!(overrides.check().is_err());
}

#[test]
fn a_damaged_file_is_set_aside_and_never_a_panic() {
    let (dir, folder) = folder();
    add(&folder, Kind::Deny, "192.0.2.1");
    let good = std::fs::read(folder.file()).unwrap();
    let mut damaged = vec![b"".to_vec(), b"{}".to_vec(), b"\xff".to_vec(), good[..good.len() / 2].to_vec()];
    damaged.push(String::from_utf8(good.clone()).unwrap().replace("\"version\":1", "\"version\":9").into());
    damaged.push(String::from_utf8(good.clone()).unwrap().replace("192.0.2.1/32", "192.0.2.1/99").into());
    for bytes in damaged {
        std::fs::write(folder.file(), &bytes).unwrap();
        assert!(matches!(folder.read(), Err(Unusable::Damaged { .. })), "{bytes:?}");
    }
    let mut said = Vec::new();
    let ((), overrides) = folder
        .change(&mut |text| said.push(text), |overrides| {
            overrides.off = Some(Off { since: at(1), reason: "x".into() });
            Ok(())
        })
        .unwrap();
    assert!(said.len() == 1 && said[0].contains("is damaged") && said[0].contains("is kept as"), "{said:?}");
    assert_eq!(folder.read().unwrap(), overrides, "it is begun anew");
    let aside =
        std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert_eq!(aside.filter(|name| name.contains("damaged")).count(), 1);
    // Bytes of any kind are an error at most.
    for flip in 0..good.len() {
        let mut bytes = good.clone();
        bytes[flip] ^= 1 << (flip % 8);
        std::fs::write(folder.file(), &bytes).unwrap();
        let _ = folder.read();
    }
}

#[test]
fn what_others_may_write_is_not_read() {
    let (dir, folder) = folder();
    add(&folder, Kind::Deny, "192.0.2.1");
    std::fs::set_permissions(folder.file(), std::fs::Permissions::from_mode(0o620)).unwrap();
    assert!(matches!(folder.read(), Err(Unusable::Foreign { .. })));
    std::fs::remove_file(folder.file()).unwrap();
    std::fs::create_dir(folder.file()).unwrap();
    assert!(matches!(folder.read(), Err(Unusable::Unreadable { .. })));
    std::fs::remove_dir(folder.file()).unwrap();
    symlink("/etc/passwd", dir.path().join(LOCK_FILE)).unwrap_or_default();
    let _ = std::fs::remove_file(dir.path().join(LOCK_FILE));
    symlink("/dev/null", dir.path().join(LOCK_FILE)).unwrap();
    assert!(folder.change(&mut quiet, |_| Ok(())).is_err(), "a link is not followed");
}

#[test]
fn two_writers_lose_nothing() {
    let (_dir, folder) = folder();
    std::thread::scope(|scope| {
        for writer in 0..4 {
            let folder = &folder;
            scope.spawn(move || {
                for n in 0..10 {
                    add(folder, Kind::Deny, &format!("192.0.{writer}.{n}"));
                }
            });
        }
    });
    let found = folder.read().unwrap();
    assert_eq!(found.exceptions.len(), 40);
    let mut ids: Vec<_> = found.exceptions.iter().map(|entry| entry.id).collect();
    ids.sort();
    assert_eq!(ids, (1..=40).collect::<Vec<_>>());
}

#[test]
fn labels_are_lines() {
    let (_dir, folder) = folder();
    add(&folder, Kind::Deny, "192.0.2.0/24");
    add(&folder, Kind::Allow, "a \"quoted\" agent");
    let entries = folder.read().unwrap().exceptions;
    folder.label(Some(Kind::Deny), &entries[0]).unwrap();
    folder.label(Some(Kind::Allow), &entries[1]).unwrap();
    folder.label(None, &entries[0]).unwrap();
    let text = std::fs::read_to_string(folder.labels()).unwrap();
    let lines: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let labels: Vec<_> =
        lines.iter().map(|line| (&line["label"], &line["network"], &line["user_agent"])).collect();
    let null = serde_json::Value::Null;
    assert_eq!(labels[0], (&"robot".into(), &"192.0.2.0/24".into(), &null));
    assert_eq!(labels[1], (&"person".into(), &null, &"a \"quoted\" agent".into()));
    assert_eq!(labels[2].0, &null);
    assert_eq!(lines[0]["reason"], "why");
}
