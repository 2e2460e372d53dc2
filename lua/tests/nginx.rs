//! The configuration of `examples/nginx` in a real nginx with two workers.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

#[path = "nginx/server.rs"]
mod server;
#[path = "../../bliss-ffi/tests/support/mod.rs"]
mod support;

use server::{Nginx, Reply, can_run, is_root, under_load};
use support::{Site, skipped, wait_until, web_score};

/// A site with a model that nginx can feed.
fn published() -> Site {
    let mut site = Site::empty();
    site.publish_features();
    site.publish_web_model("1");
    site
}

/// Asks until two workers have answered, and checks what each says.
fn both_workers(nginx: &Nginx, client: &str, check: impl Fn(&Reply)) -> BTreeSet<String> {
    let mut workers = BTreeSet::new();
    wait_until("both workers", || {
        for _ in 0..20 {
            let reply = nginx.ask(client);
            check(&reply);
            workers.insert(reply.header("x-worker").to_owned());
        }
        workers.len() == 2
    });
    workers
}

#[test]
fn two_workers_score() {
    if !can_run() {
        return;
    }
    let site = published();
    let nginx = Nginx::start(site.path(), "");
    for (client, requests) in [("192.0.2.7", 7.0), ("192.0.2.70", 70.0), ("2001:db8::1", 0.0)] {
        both_workers(&nginx, client, |reply| {
            assert_eq!(reply.score(), Some(web_score(requests)), "{}", nginx.error_log());
            assert_eq!(reply.header("x-bot-status"), "scored");
            assert_eq!(reply.header("x-bot-model"), "web/1");
        });
    }
    // The log is JSON and tells the same.
    nginx.get("/nothing?a=%22b%22", "192.0.2.70").unwrap();
    let mut lines = Vec::new();
    wait_until("the log", || {
        lines = nginx.access_log().lines().map(str::to_owned).collect();
        lines.iter().any(|line| line.contains("/nothing"))
    });
    let lines: Vec<serde_json::Value> =
        lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let last = lines.iter().find(|line| line["request_uri"] == "/nothing?a=%22b%22").unwrap();
    assert_eq!(last["status"], 404);
    assert_eq!(last["bot_score"], web_score(70.0).to_string());
    assert_eq!(last["bot_status"], "scored");
    assert_eq!(last["bot_model"], "web");
    assert_eq!(last["remote_addr"], "192.0.2.70");
    assert_eq!(nginx.error_log(), "");
}

#[test]
fn f4_nginx_may_start_before_anything_was_published() {
    if !can_run() {
        return;
    }
    let parent = Site::empty();
    // Not even the directory is there.
    let later = parent.path().join("later");
    let nginx = Nginx::start(&later, "");
    both_workers(&nginx, "192.0.2.7", |reply| {
        assert_eq!((reply.header("x-bot-score"), reply.header("x-bot-status")), ("", "no snapshot"));
    });
    std::fs::create_dir(&later).unwrap();
    let mut site = Site::at(&later);
    site.publish_features();
    wait_until("features", || nginx.ask("192.0.2.7").header("x-bot-status") == "no models");
    site.publish_web_model("1");
    let mut scoring = BTreeSet::new();
    wait_until("scores in both workers", || {
        let reply = nginx.ask("192.0.2.7");
        if reply.score() == Some(web_score(7.0)) {
            scoring.insert(reply.header("x-worker").to_owned());
        }
        scoring.len() == 2
    });
}

#[test]
fn m5_the_publisher_may_be_restarted_while_requests_run() {
    if !can_run() {
        return;
    }
    let mut site = published();
    let nginx = Nginx::start(site.path(), "");
    both_workers(&nginx, "192.0.2.7", |reply| assert!(reply.score().is_some()));
    let (scores, failures) = under_load(&nginx, || {
        for round in 0..10 {
            site.stop_publisher();
            std::thread::sleep(Duration::from_millis(50));
            // The same scores, by other rows and other models.
            site.publish_row("192.0.2.7", round as f32);
            site.publish_row("192.0.2.70", 100.0 + round as f32);
            site.publish_web_model(&format!("{round}"));
            std::thread::sleep(Duration::from_millis(50));
        }
    });
    assert_eq!(failures, Vec::<String>::new(), "{}", nginx.error_log());
    let expected = BTreeSet::from([web_score(7.0), web_score(70.0)]);
    assert_eq!(scores.keys().copied().collect::<BTreeSet<_>>(), expected);
    both_workers(&nginx, "192.0.2.7", |reply| assert_eq!(reply.header("x-bot-model"), "web/9"));
    site.publish_row("192.0.2.7", 99.0);
    both_workers(&nginx, "192.0.2.7", |reply| assert_eq!(reply.score(), Some(web_score(99.0))));
    assert_eq!(nginx.error_log(), "");
}

#[test]
fn m4_a_worker_may_be_killed() {
    if !can_run() {
        return;
    }
    let mut site = published();
    let nginx = Nginx::start(site.path(), "");
    for round in 0..5 {
        let workers = both_workers(&nginx, "192.0.2.7", |reply| assert!(reply.score().is_some()));
        // nginx starts another one in its place.
        let pid = workers.first().unwrap().parse().unwrap();
        // SAFETY:
        // - the process answered a moment ago, and it is our own nginx that waits for it.
        unsafe { libc::kill(pid, libc::SIGKILL) };
        wait_until("another worker", || {
            nginx.get("/", "192.0.2.7").is_ok_and(|r| !workers.contains(r.header("x-worker")))
        });
        for requests in 0..5 {
            site.publish_row("192.0.2.7", (round * 10 + requests) as f32);
        }
        both_workers(&nginx, "192.0.2.7", |reply| assert_eq!(reply.score(), Some(web_score(7.0))));
    }
}

#[test]
fn nginx_may_be_reloaded_while_requests_run() {
    if !can_run() {
        return;
    }
    let mut site = published();
    let nginx = Nginx::start(site.path(), "");
    let before = both_workers(&nginx, "192.0.2.7", |reply| assert!(reply.score().is_some()));
    let (scores, failures) = under_load(&nginx, || {
        for round in 0..3 {
            nginx.reload();
            std::thread::sleep(Duration::from_millis(400));
            site.publish_row("192.0.2.7", round as f32);
        }
    });
    assert_eq!(failures, Vec::<String>::new(), "{}", nginx.error_log());
    let expected = BTreeSet::from([web_score(7.0), web_score(70.0)]);
    assert_eq!(scores.keys().copied().collect::<BTreeSet<_>>(), expected);
    wait_until("new workers", || !before.contains(nginx.ask("192.0.2.7").header("x-worker")));
}

#[test]
fn requests_below_the_threshold_are_blocked() {
    if !can_run() {
        return;
    }
    let site = published();
    let extra = "
        location = /strict { set $bot_route strict; try_files /index.html =404; }
        location = /lenient { set $bot_route lenient; try_files /index.html =404; }";
    let nginx = Nginx::start(site.path(), extra);
    let status = |path: &str, client: &str| nginx.get(path, client).unwrap().status;
    assert!(web_score(70.0) < 50 && web_score(7.0) > 50 && web_score(70.0) > 2);
    assert_eq!(status("/strict", "192.0.2.7"), 200);
    assert_eq!(status("/strict", "192.0.2.70"), 403);
    let blocked = nginx.get("/strict", "192.0.2.70").unwrap();
    assert_eq!((blocked.score(), blocked.header("x-bot-action")), (Some(web_score(70.0)), "block"));
    assert_eq!(status("/lenient", "192.0.2.70"), 200);
    assert_eq!(status("/", "192.0.2.70"), 200);
    // Without a score nobody is blocked.
    let empty = Site::empty();
    let nginx = Nginx::start(empty.path(), extra);
    assert_eq!(nginx.get("/strict", "192.0.2.70").unwrap().status, 200);
}

/// The example's server for people: why an address has its score.
#[test]
fn d4_an_operator_is_told_why_an_address_has_its_score() {
    if !can_run() {
        return;
    }
    let mut site = Site::empty();
    let nginx = Nginx::start(site.path(), "");
    let ask = |target: &str| {
        let reply = nginx.ask_people(target);
        (reply.status, reply.body)
    };
    let (status, text) = ask("/explain?ip=192.0.2.70");
    assert!(status == 404 && text.contains("no snapshot"), "{status}: {text}");
    site.publish_features();
    site.publish_explainable_web_model("1");
    both_workers_score(&nginx);
    let (status, text) = ask("/explain?ip=192.0.2.70&user_agent=curl%2F8&target=%2Fcart");
    assert_eq!(status, 200, "{text}");
    let score = web_score(70.0);
    assert!(text.starts_with(&format!("score {score} by told/1; ")), "{text}");
    let input = text.lines().find(|line| line.ends_with(" ip.requests_1m")).unwrap();
    assert!(input.trim_start().starts_with('-') && input.contains(" 70  fresh "), "{text}");
    assert!(ask("/explain?ip=198.51.100.1").1.contains(" 0  missing "), "{text}");
    assert_eq!(ask("/explain").0, 400);
    assert_eq!(ask("/explain?ip=192.0.2.70&ip=192.0.2.7").0, 400);
    assert!(ask("/explain?ip=192.0.2.70&model=nobody").1.starts_with("no such model\n"));
    // Requests go on as before, and a model without leaf weights scores and says why it is not explained.
    both_workers(&nginx, "192.0.2.70", |reply| assert_eq!(reply.score(), Some(score)));
    site.publish_web_model("2");
    wait_until("the other model", || ask("/explain?ip=192.0.2.70").1.contains("explain = true"));
    assert_eq!(nginx.ask("192.0.2.70").score(), Some(score));
    assert_eq!(nginx.error_log(), "");
}

/// Waits until both workers have found what was published.
fn both_workers_score(nginx: &Nginx) {
    let mut scoring = BTreeSet::new();
    wait_until("scores in both workers", || {
        let reply = nginx.ask("192.0.2.7");
        if reply.score().is_some() {
            scoring.insert(reply.header("x-worker").to_owned());
        }
        scoring.len() == 2
    });
}

#[test]
fn f2_without_the_library_requests_go_on() {
    if !can_run() {
        return;
    }
    let site = published();
    let nginx = Nginx::start_without_library(site.path());
    let reply = nginx.ask("192.0.2.7");
    assert_eq!((reply.header("x-bot-score"), reply.header("x-bot-status")), ("", "not open"));
    assert!(nginx.error_log().contains("cannot load libblissffi; tried"), "{}", nginx.error_log());
}

/// As docs/lua.md says: directory and files belong to a group that the workers' user is in.
#[test]
fn m7_workers_of_another_user_read_through_a_group() {
    if !can_run() {
        return;
    }
    let group = std::process::Command::new("id").args(["-g", "www-data"]).output().unwrap();
    let (true, Ok(group)) = (is_root(), String::from_utf8_lossy(&group.stdout).trim().parse()) else {
        skipped("only root can start workers of another user, and there must be a www-data");
        return;
    };
    let mut site = Site::empty().for_group(group);
    std::os::unix::fs::chown(site.path(), None, Some(group)).unwrap();
    std::fs::set_permissions(site.path(), std::fs::Permissions::from_mode(0o750)).unwrap();
    site.publish_features();
    site.publish_web_model("1");
    let nginx = Nginx::start_as_www_data(site.path());
    both_workers(&nginx, "192.0.2.7", |reply| {
        assert_eq!(reply.score(), Some(web_score(7.0)), "{}", nginx.error_log());
    });

    // Without the group there are no scores, a reason in the log, and no harm.
    let closed = published();
    let nginx = Nginx::start_as_www_data(closed.path());
    assert_eq!(nginx.ask("192.0.2.7").score(), None);
    assert!(nginx.error_log().contains("Permission denied"), "{}", nginx.error_log());
}
