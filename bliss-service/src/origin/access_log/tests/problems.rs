//! What an operator is told of a log that does not count, and that it is over when it does.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::{line, line_of};
use crate::access_log::health::{Problem, ProblemKind};
use crate::config::Config;
use crate::state::State;
use crate::test_support::{Kept, Running};

/// What is done to a site.
type Change = fn(&Path);

struct Case {
    name: &'static str,
    origin: &'static str,
    before: Change,
    /// What goes wrong once the origin was well; none if it is wrong from the start.
    wrong: Option<Change>,
    cured: Change,
    kind: &'static str,
    words: &'static [&'static str],
    /// What the origin is refused for.
    refusal: Option<&'static str>,
}

fn nothing(_: &Path) {}

fn write(folder: &Path) {
    fs::write(folder.join("access.log"), line(1)).unwrap();
}

fn append(folder: &Path) {
    let log = folder.join("access.log");
    let text = fs::read_to_string(&log).unwrap_or_default();
    fs::write(log, text + &line(2)).unwrap();
}

/// Until the log is gone.
fn keep_appending(folder: &Path) {
    let log = folder.join("access.log");
    std::thread::spawn(move || {
        while let Ok(mut log) = fs::File::options().append(true).open(&log) {
            let _ = log.write_all(line(2).as_bytes());
            std::thread::sleep(Duration::from_millis(20));
        }
    });
}

fn mode(folder: &Path, mode: u32) {
    fs::set_permissions(folder.join("access.log"), fs::Permissions::from_mode(mode)).unwrap();
}

const CASES: &[Case] = &[
    Case {
        name: "missing from the start",
        origin: "path = \"access.log\"",
        before: nothing,
        wrong: None,
        cured: write,
        kind: "missing",
        words: &["access.log: No such file", "correct its path"],
        refusal: Some("unavailable"),
    },
    Case {
        name: "no file matches",
        origin: "paths = [\"*.log\"]",
        before: nothing,
        wrong: None,
        cured: write,
        kind: "missing",
        words: &["*.log: no file matches"],
        refusal: Some("unavailable"),
    },
    Case {
        name: "vanished",
        origin: "path = \"access.log\"",
        before: write,
        wrong: Some(|folder| fs::remove_file(folder.join("access.log")).unwrap()),
        cured: write,
        kind: "missing",
        words: &["access.log: No such file"],
        refusal: Some("unavailable"),
    },
    Case {
        name: "a folder",
        origin: "path = \"access.log\"",
        before: |folder| fs::create_dir(folder.join("access.log")).unwrap(),
        wrong: None,
        cured: |folder| {
            fs::remove_dir(folder.join("access.log")).unwrap();
            write(folder);
        },
        kind: "unreadable",
        words: &["not a regular file"],
        refusal: Some("unavailable"),
    },
    Case {
        name: "not allowed",
        origin: "path = \"access.log\"",
        before: |folder| {
            write(folder);
            mode(folder, 0);
        },
        wrong: None,
        cured: |folder| mode(folder, 0o640),
        kind: "unreadable",
        words: &["Permission denied", "usermod -aG"],
        refusal: Some("unavailable"),
    },
    Case {
        name: "no line can be read",
        origin: "path = \"access.log\"",
        before: |folder| fs::write(folder.join("access.log"), "2026-11-26 a line of another kind\n").unwrap(),
        wrong: None,
        cured: append,
        kind: "undecodable",
        words: &["no line could be read yet", "a line of another kind", "docs/access-log.md"],
        refusal: Some("undecodable"),
    },
    Case {
        name: "of no line more than the address can be read",
        origin: "path = \"access.log\"",
        before: |folder| {
            fs::write(folder.join("access.log"), "192.0.2.1 what follows is not known\n").unwrap()
        },
        wrong: None,
        cured: append,
        kind: "undecodable",
        words: &["no line could be read yet"],
        refusal: Some("undecodable"),
    },
    Case {
        name: "quiet",
        origin: "path = \"access.log\"\nquiet_after = \"300ms\"",
        before: write,
        wrong: None,
        cured: keep_appending,
        kind: "quiet",
        words: &["300ms", "quiet_after"],
        refusal: None,
    },
];

/// Runs `test`. What it starts may read files as any other user may, while the test itself may do what it likes.
fn as_another_user(test: impl Future<Output = ()>) {
    let become_another = || {
        // SAFETY:
        // - the call has no preconditions, and holds for this thread and those that it starts alone
        unsafe { libc::setfsuid(65534) };
    };
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime.worker_threads(2).enable_all().on_thread_start(become_another).build().unwrap().block_on(test);
}

#[test]
fn each_problem_is_in_readyz_status_and_a_metric_until_it_is_over() {
    for case in CASES {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        as_another_user(is_told(case, dir.path()));
    }
}

async fn is_told(case: &Case, folder: &Path) {
    (case.before)(folder);
    let text = format!("[[origin.access_log]]\nname = \"log\"\ndimensions = [\"ip\"]\n{}\n", case.origin);
    let running = Running::start(folder, &text, Kept::default());
    let state = || running.status("/origins/0/state");
    if let Some(wrong) = case.wrong {
        running.until(case.name, |r| r.state.ready().is_ok() && state() == "accepted").await;
        wrong(folder);
    }
    running.until(case.name, |r| r.status("/origins/0/problem")["kind"] == case.kind).await;
    let ready = running.state.ready().unwrap_err();
    for word in case.words.iter().chain([&"origin log", &case.kind]) {
        assert!(ready.contains(word), "{}: no {word} in {ready}", case.name);
    }
    let metric = format!("bliss_access_log_problem{{origin=\"log\",problem=\"{}\"}} ", case.kind);
    let metrics = running.state.metrics.encode().unwrap();
    assert!(metrics.contains(&format!("{metric}1")), "{}: {metrics}", case.name);
    match case.refusal {
        Some(reason) => {
            running.until_refused(0, reason, "").await;
            assert_eq!(state(), "refused", "{}", case.name);
        }
        None => assert_eq!(state(), "accepted", "{}", case.name),
    }

    (case.cured)(folder);
    running.until("readiness", |r| r.state.ready().is_ok() && state() == "accepted").await;
    running.until("the state", |r| r.status("/origins/0/problem").is_null()).await;
    let metrics = || running.state.metrics.encode().unwrap();
    running.until("the metric", |_| metrics().contains(&format!("{metric}0"))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_previous_daemon_published_stays_while_nothing_counts() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("access.log"), "2026-11-26 a line of another kind\n").unwrap();
    let text = "[[origin.access_log]]\nname = \"log\"\npath = \"access.log\"\ndimensions = [\"ip\"]\n";
    let running = Running::start(dir.path(), text, Kept::default());
    running.until_refused(0, "undecodable", "no line could be read yet").await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(running.kept.publications(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn several_logs_share_an_aggregate_and_one_that_is_missing_holds_no_other_up() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a.access.log"), line_of(1, 5)).unwrap();
    fs::write(dir.path().join("b.access.log"), line_of(1, 5) + &line_of(2, 5)).unwrap();
    fs::write(dir.path().join("b.access.log.1"), line_of(1, 6)).unwrap();
    let text = "[[origin.access_log]]\nname = \"log\"\npaths = [\"*access.log\", \"missing.log\"]\n\
                dimensions = [\"ip\"]\nwindows = true\n";
    let running = Running::start(dir.path(), text, Kept::default());
    running.until("rows", |r| r.kept.publications() > 0).await;
    let (rows, values) = running.kept.last();
    let mut requests: Vec<_> = values.chunks(values.len() / rows).map(|row| row[0]).collect();
    requests.sort_by(f32::total_cmp);
    assert_eq!(requests, [1.0, 3.0], "requests_1m of two addresses");
    let ready = running.state.ready().unwrap_err();
    assert!(ready.contains("missing.log") && ready.contains("missing"), "{ready}");
    fs::write(dir.path().join("missing.log"), "").unwrap();
    running.until("readiness", |r| r.state.ready().is_ok()).await;
    let before = running.kept.publications();
    fs::write(dir.path().join("c.access.log"), line(3)).unwrap();
    running.until("the new log's row", |r| r.kept.publications() > before && r.kept.last().0 == 1).await;
}

#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl Write for Written {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_problem_is_logged_when_it_begins_and_when_it_ends() {
    let text = "directory = \"d\"\n[[origin.access_log]]\nname = \"log\"\npath = \"l\"\n";
    let state = State::new(&Config::parse(Path::new("/x/bliss.toml"), text).unwrap());
    let written = Written::default();
    let writer = written.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    tracing::subscriber::with_default(subscriber, || {
        let problem = |kind: ProblemKind| Problem { kind, message: format!("what is {}", kind.name()) };
        use ProblemKind::*;
        // A missing log is a refusal, which is logged as such.
        for kinds in [
            [Some(Malformed), Some(Malformed), Some(Malformed), Some(Late)],
            [None, None, Some(Missing), None],
            [Some(Quiet), Some(Quiet), None, None],
        ] {
            kinds.into_iter().for_each(|kind| state.log_problem(0, kind.map(problem).as_ref()));
        }
    });
    let written = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
    let lines = written.lines().map(|line| {
        let level = if line.contains(" WARN ") { "begins" } else { "ends" };
        let kind = ["malformed", "late", "missing", "quiet"].into_iter().find(|kind| line.contains(kind));
        (level, kind.unwrap_or(line))
    });
    assert_eq!(
        lines.collect::<Vec<_>>(),
        [
            ("begins", "malformed"),
            ("ends", "malformed"),
            ("begins", "late"),
            ("ends", "late"),
            ("begins", "quiet"),
            ("ends", "quiet"),
        ]
    );
}
