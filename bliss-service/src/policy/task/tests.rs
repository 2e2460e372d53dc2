use super::*;

#[test]
fn what_needs_a_restart_is_named() {
    let base =
        "directory = \"a\"\n[publish]\ninterval = \"1s\"\n[[route]]\nname = \"default\"\nactive = \"m\"\n";
    assert!(changed(base, base).is_empty());
    let policies = format!(
        "{base}policy = \"p\"\n[[policy]]\nname = \"p\"\n[[test]]\nname = \"t\"\n[policy_gate]\nhours = 1\n[[route]]\nname = \"shop\"\npolicy = \"p\"\n"
    );
    assert!(changed(base, &policies).is_empty() && changed(&policies, base).is_empty());
    let other = policies.replace("1s", "2s").replace("\"m\"", "\"n\"") + "[log]\nlevel = \"debug\"\n";
    assert_eq!(changed(base, &other), ["log", "publish", "route"]);
}

#[test]
fn refused_policies_at_the_start_leave_what_is_published_unless_they_are_switched_off() {
    let mut overrides = Overrides::default();
    assert_eq!(wanted(None, &overrides, false), None);
    let policies = PolicySet { routes: vec![("a".into(), "b".into())], ..PolicySet::default() };
    assert_eq!(wanted(Some(&policies), &overrides, false), Some(policies.clone()));
    overrides.off = Some(crate::policy::overrides::Off { since: Timestamp::now(), reason: String::new() });
    assert_eq!(wanted(None, &overrides, false), Some(PolicySet { off: true, ..PolicySet::default() }));
    assert_eq!(wanted(Some(&policies), &overrides, true), Some(PolicySet { off: true, ..policies }));
}

#[test]
fn a_file_that_is_damaged_while_the_daemon_runs_takes_nothing_out_of_force() {
    let dir = tempfile::tempdir().unwrap();
    let folder = Folder::new(dir.path().to_owned());
    let off = crate::policy::overrides::Off { since: Timestamp::now(), reason: "why".into() };
    folder
        .change(&mut |_| {}, |overrides| {
            overrides.off = Some(off.clone());
            Ok(())
        })
        .unwrap();
    let mut looker = Looker { folder: folder.clone(), seen: None, began: false };
    let known = looker.look(&Overrides::default()).unwrap().unwrap();
    std::fs::write(folder.file(), "{").unwrap();
    let after = looker.look(&known).unwrap().unwrap();
    assert_eq!((&after.off, after.revision > known.revision), (&Some(off), true));
    assert_eq!(folder.read().unwrap(), after, "it is written again");
    std::fs::remove_file(folder.file()).unwrap();
    assert_eq!(looker.look(&after).unwrap().unwrap().off, None, "who removes it removes what it says");
    assert!(looker.look(&Overrides::default()).is_none());
}
