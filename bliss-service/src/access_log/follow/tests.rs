use std::fs;
use std::io::Write;

use super::*;

struct Log {
    dir: tempfile::TempDir,
    follower: Follower,
    now: Duration,
}

impl Log {
    fn new(before: &str, start: Start) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("access.log");
        fs::write(&path, before).unwrap();
        Self { follower: Follower::new(path, start), dir, now: Duration::ZERO }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("access.log")
    }

    fn append(&self, name: &str, text: &str) {
        let path = self.dir.path().join(name);
        let mut file = fs::OpenOptions::new().append(true).create(true).open(path).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    fn rotate(&self) {
        fs::rename(self.path(), self.dir.path().join("access.log.1")).unwrap();
    }

    /// Lines of as many polls as it takes.
    fn lines(&mut self) -> Vec<String> {
        let mut lines = vec![];
        let mut on = |line: &[u8]| lines.push(String::from_utf8(line.to_vec()).unwrap());
        while let Ok(Poll::More) = self.follower.poll(self.now, &mut on) {}
        lines
    }
}

#[test]
fn lines_come_once_and_whole() {
    let mut log = Log::new("a\nb\n", Start::Backlog(u64::MAX));
    assert_eq!(log.lines(), ["a", "b"]);
    log.append("access.log", "c\nd");
    assert_eq!(log.lines(), ["c"]);
    log.append("access.log", "e\n\n");
    assert_eq!(log.lines(), ["de", ""]);
    assert!(log.lines().is_empty());
}

#[test]
fn start_at_the_end_or_some_bytes_before_it() {
    let mut log = Log::new("first\nsecond\nthi", Start::End);
    assert!(log.lines().is_empty());
    log.append("access.log", "rd\nfourth\n");
    assert_eq!(log.lines(), ["fourth"], "a line of which the beginning was not read is not given");

    let mut log = Log::new("first\nsecond\nthird\n", Start::Backlog(8));
    assert_eq!(log.lines(), ["third"]);
    let mut log = Log::new("first\nsecond\nthird\n", Start::Backlog(6));
    assert_eq!(log.lines(), ["third"], "a line that begins right there is whole");
}

#[test]
fn a_file_that_comes_later_is_read_from_its_beginning() {
    let mut log = Log::new("", Start::End);
    fs::remove_file(log.path()).unwrap();
    let error = log.follower.poll(Duration::ZERO, |_| ()).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
    log.append("access.log", "a\n");
    assert_eq!(log.lines(), ["a"]);
}

#[test]
fn rotation_loses_nothing_of_the_old_file_and_nothing_of_the_new() {
    let mut log = Log::new("a\n", Start::Backlog(u64::MAX));
    assert_eq!(log.lines(), ["a"]);
    log.append("access.log", "b\n");
    log.rotate();
    assert_eq!(log.lines(), ["b"], "the new file is not there yet");
    log.append("access.log.1", "c\n");
    log.append("access.log", "d\n");
    assert_eq!(log.lines(), ["c", "d"]);
    log.now += Duration::from_secs(5);
    log.append("access.log.1", "late\n");
    log.append("access.log", "e\n");
    assert_eq!(log.lines(), ["late", "e"], "the server had not opened the new file yet");
    log.now += ROTATED_GRACE;
    log.lines();
    log.append("access.log.1", "much later\n");
    assert!(log.lines().is_empty());
    assert_eq!(log.follower.counters().rotations, 1);
}

#[test]
fn truncation_in_place_begins_anew() {
    let mut log = Log::new("a\nb\nunfinished", Start::Backlog(u64::MAX));
    assert_eq!(log.lines(), ["a", "b"]);
    fs::write(log.path(), "c\n").unwrap();
    assert_eq!(log.lines(), ["c"]);
    // Truncated, and longer than before by the time of the next poll.
    fs::write(log.path(), "d\ne\nf\ng\n").unwrap();
    assert_eq!(log.lines(), ["d", "e", "f", "g"]);
    assert_eq!(log.follower.counters().truncations, 2);
}

#[test]
fn of_a_line_that_is_too_long_the_beginning_is_passed_once() {
    let mut log = Log::new("a\n", Start::Backlog(u64::MAX));
    log.append("access.log", &format!("y{}", "x".repeat(MAX_LINE_BYTES + 2 * CHUNK_BYTES)));
    let lines = log.lines();
    assert_eq!((lines.len(), lines[0].as_str()), (2, "a"));
    assert!(lines[1].starts_with("yx") && lines[1].len() > MAX_LINE_BYTES, "{}", lines[1].len());
    log.append("access.log", "\nb\n");
    assert_eq!(log.lines(), ["b"]);
}

#[test]
fn nuls_that_a_truncation_in_place_leaves_hide_no_line() {
    let mut log = Log::new("a\n", Start::Backlog(u64::MAX));
    assert_eq!(log.lines(), ["a"]);
    // A server that does not append goes on where it was.
    log.append("access.log", &"\0".repeat(2 * MAX_LINE_BYTES));
    assert!(log.lines().is_empty());
    log.append("access.log", "b\nc\n");
    assert_eq!(log.lines().last().unwrap(), "c");
    log.append("access.log", "d\n");
    assert_eq!(log.lines(), ["d"]);
}

#[test]
fn what_is_no_regular_file_is_an_error_and_does_not_hang() {
    let dir = tempfile::tempdir().unwrap();
    let pipe = dir.path().join("pipe");
    let name = std::ffi::CString::new(pipe.to_str().unwrap()).unwrap();
    // SAFETY:
    // - `name` is a C string that lives through the call, which keeps no pointer
    assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
    for path in [pipe, dir.path().to_owned()] {
        let error = Follower::new(path, Start::End).poll(Duration::ZERO, |_| ()).unwrap_err();
        assert!(error.to_string().contains("regular file"), "{error}");
    }
}

/// What happens to a log between two polls.
#[derive(Clone, Debug)]
enum Step {
    /// So many whole lines, and then a piece of the next.
    Write(u8, u8),
    /// The line under way is ended, and another file comes under the path.
    Rotate,
    Poll,
}

fn step() -> impl proptest::strategy::Strategy<Value = Step> {
    use proptest::prelude::*;
    prop_oneof![(0u8..5, 0u8..12).prop_map(|(l, p)| Step::Write(l, p)), Just(Step::Rotate), Just(Step::Poll)]
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(100))]

    /// Each line comes exactly once, whole, and in order, wherever writing was cut and polling happened.
    #[test]
    fn every_line_comes_exactly_once(steps in proptest::collection::vec(step(), 1..40)) {
        let mut log = Log::new("", Start::Backlog(u64::MAX));
        // A file that goes before it was ever seen is not known.
        log.lines();
        let (mut written, mut read) = (0, vec![]);
        let mut pending = String::new();
        let mut rotated_since_poll = false;
        for step in steps {
            match step {
                Step::Write(lines, piece) => {
                    for _ in 0..lines {
                        if pending.is_empty() {
                            pending = format!("line {written}\n");
                        }
                        log.append("access.log", &pending);
                        pending.clear();
                        written += 1;
                    }
                    if pending.is_empty() {
                        pending = format!("line {written}\n");
                        let rest = pending.split_off(usize::from(piece).min(pending.len() - 1));
                        log.append("access.log", &pending);
                        pending = rest;
                    }
                }
                // Two rotations between two polls lose the file between them; that is documented.
                Step::Rotate if rotated_since_poll => (),
                Step::Rotate => {
                    log.append("access.log", &pending);
                    written += usize::from(!pending.is_empty());
                    pending.clear();
                    log.rotate();
                    log.append("access.log", "");
                    rotated_since_poll = true;
                }
                Step::Poll => {
                    read.extend(log.lines());
                    rotated_since_poll = false;
                }
            }
        }
        log.append("access.log", &pending);
        written += usize::from(!pending.is_empty());
        read.extend(log.lines());
        let expected: Vec<_> = (0..written).map(|i| format!("line {i}")).collect();
        proptest::prop_assert_eq!(read, expected);
    }
}
