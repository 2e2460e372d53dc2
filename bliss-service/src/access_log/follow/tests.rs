use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::access_log::parse::MAX_LINE_BYTES;
use tail::CHUNK_BYTES;

const ALL: Start = Start::Backlog { bytes: u64::MAX, since_ms: 0 };

fn last(bytes: u64) -> Start {
    Start::Backlog { bytes, since_ms: 0 }
}

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
        Self { follower: Follower::new(LogPaths::file(path), start), dir, now: Duration::ZERO }
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

    fn unread(&mut self) -> Vec<Unread> {
        self.follower.poll(self.now, |_| ()).unread
    }

    /// Lines of as many polls as it takes.
    fn lines(&mut self) -> Vec<String> {
        let mut lines = vec![];
        let text = |line: Line<'_>| String::from_utf8(line.bytes.to_vec()).unwrap();
        while self.follower.poll(self.now, |line| lines.push(text(line))).more {}
        lines
    }
}

#[test]
fn lines_come_once_and_whole() {
    let mut log = Log::new("a\nb\n", ALL);
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

    let mut log = Log::new("first\nsecond\nthird\n", last(8));
    assert_eq!(log.lines(), ["third"]);
    let mut log = Log::new("first\nsecond\nthird\n", last(6));
    assert_eq!(log.lines(), ["third"], "a line that begins right there is whole");
}

#[test]
fn a_file_that_comes_later_is_read_from_its_beginning() {
    let mut log = Log::new("", Start::End);
    fs::remove_file(log.path()).unwrap();
    let unread = log.unread();
    assert!(unread[0].is_missing && unread[0].message.contains("access.log: No such file"), "{unread:?}");
    log.append("access.log", "a\n");
    assert_eq!(log.lines(), ["a"]);
}

#[test]
fn rotation_loses_nothing_of_the_old_file_and_nothing_of_the_new() {
    let mut log = Log::new("a\n", ALL);
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
    let mut log = Log::new("a\nb\nunfinished", ALL);
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
    let mut log = Log::new("a\n", ALL);
    log.append("access.log", &format!("y{}", "x".repeat(MAX_LINE_BYTES + 2 * CHUNK_BYTES)));
    let lines = log.lines();
    assert_eq!((lines.len(), lines[0].as_str()), (2, "a"));
    assert!(lines[1].starts_with("yx") && lines[1].len() > MAX_LINE_BYTES, "{}", lines[1].len());
    log.append("access.log", "\nb\n");
    assert_eq!(log.lines(), ["b"]);
}

#[test]
fn nuls_that_a_truncation_in_place_leaves_hide_no_line() {
    let mut log = Log::new("a\n", ALL);
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
        let error = Follower::new(LogPaths::file(path), Start::End).poll(Duration::ZERO, |_| ()).unread;
        assert!(error[0].message.contains("regular file") && !error[0].is_missing, "{error:?}");
    }
}

#[test]
fn a_log_that_vanishes_is_read_to_its_end_told_of_and_let_go() {
    let mut log = Log::new("a\n", ALL);
    assert_eq!(log.lines(), ["a"]);
    log.append("access.log", "b\n");
    fs::rename(log.path(), log.dir.path().join("elsewhere")).unwrap();
    assert_eq!(log.lines(), ["b"]);
    assert!(log.unread().is_empty(), "a rotation has two steps");
    log.now += MISSING;
    let unread = log.unread();
    assert!(unread[0].is_missing && unread[0].message.contains("correct its path"), "{unread:?}");
    log.now += ROTATED_GRACE;
    assert!(log.lines().is_empty());
    assert_eq!(log.follower.open_files(), 0, "its space on the disk is free");
    // It comes back, and nothing is passed twice.
    log.append("elsewhere", "c\n");
    fs::rename(log.dir.path().join("elsewhere"), log.path()).unwrap();
    assert_eq!(log.lines(), ["c"]);
    assert!(log.unread().is_empty());
    // Another file may have the same inode.
    fs::remove_file(log.path()).unwrap();
    log.lines();
    log.now += ROTATED_GRACE;
    log.lines();
    log.append("access.log", "d\ne\nf\n");
    assert_eq!(log.lines(), ["d", "e", "f"]);
}

#[test]
fn rotated_files_are_read_as_far_as_asked_for() {
    let log = Log::new("5\n6\n", ALL);
    let path = |name: &str| log.dir.path().join(name);
    log.append("access.log.1", "3\n4\nnever finish");
    fs::write(path("access.log.2.gz"), gzip("1\n2\n")).unwrap();
    log.append("access.log.3", "long ago\n");
    fs::write(path("access.log.4.gz"), "no gzip file").unwrap();
    let old = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
    fs::File::options().write(true).open(path("access.log.3")).unwrap().set_modified(old).unwrap();
    let read = |start| {
        let mut reader = Log::new("", ALL);
        reader.follower = Follower::new(LogPaths::file(log.path()), start);
        reader.lines()
    };
    let since = |bytes| Start::Backlog { bytes, since_ms: 1_000_001 };
    assert_eq!(read(since(u64::MAX)), ["1", "2", "3", "4", "5", "6"]);
    assert_eq!(read(ALL), ["long ago", "1", "2", "3", "4", "5", "6"]);
    assert_eq!(read(since(2)), ["2", "6"], "of each file so much of its end");
    assert_eq!(read(since(3)), ["2", "6"], "and whole lines");
    assert!(read(Start::End).is_empty());
}

#[test]
fn a_rotated_file_that_the_server_still_writes_to_is_followed_after_a_restart() {
    let mut log = Log::new("a\n", ALL);
    log.rotate();
    assert_eq!(log.lines(), ["a"]);
    log.append("access.log.1", "b\n");
    log.append("access.log", "c\n");
    assert_eq!(log.lines(), ["b", "c"]);
    assert!(log.unread().is_empty());
}

#[test]
fn a_pattern_without_a_log_is_told_of_until_there_is_one() {
    let mut log = Log::new("", ALL);
    fs::remove_file(log.path()).unwrap();
    let paths = LogPaths::globs(log.dir.path(), &["*access.log".to_owned()]).unwrap();
    log.follower = Follower::new(paths, ALL);
    let unread = log.unread();
    assert!(unread[0].is_missing && unread[0].message.contains("*access.log: no file matches"), "{unread:?}");
    log.append("a.access.log", "a\n");
    log.now += LOOK;
    assert_eq!(log.lines(), ["a"], "a log that comes later is found, and new from its first byte");
    log.append("b.access.log", "b\n");
    log.now += LOOK;
    assert_eq!(log.lines(), ["b"]);
    assert!(log.unread().is_empty());
    // One of several may go: that is how sites are removed.
    fs::remove_file(log.dir.path().join("a.access.log")).unwrap();
    log.now += LOOK + MISSING;
    assert!(log.unread().is_empty());
    log.now += ROTATED_GRACE;
    log.lines();
    assert_eq!(log.follower.open_files(), 1);
}

#[test]
fn a_file_with_several_names_is_read_once() {
    let mut log = Log::new("a\n", ALL);
    fs::hard_link(log.path(), log.dir.path().join("b.access.log")).unwrap();
    std::os::unix::fs::symlink(log.path(), log.dir.path().join("c.access.log")).unwrap();
    let patterns = ["*access.log".to_owned(), "access.log".to_owned()];
    log.follower = Follower::new(LogPaths::globs(log.dir.path(), &patterns).unwrap(), ALL);
    assert_eq!(log.lines(), ["a"]);
    log.append("access.log", "b\n");
    assert_eq!(log.lines(), ["b"]);
}

fn is_root() -> bool {
    // SAFETY:
    // - the call has no preconditions
    unsafe { libc::geteuid() == 0 }
}

/// Does it with a user's rights. Root may read everything, so a thread of root's takes another user's rights for files.
fn as_user<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    let work = || {
        if is_root() {
            // SAFETY:
            // - the call has no preconditions, and holds for this thread alone
            unsafe { libc::setfsuid(65534) };
        }
        work()
    };
    std::thread::scope(|scope| scope.spawn(work).join().unwrap())
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Who may not read a log learns which group may.
#[test]
fn a_log_that_may_not_be_read_is_told_of_with_its_group() {
    let dir = tempfile::tempdir().unwrap();
    set_mode(dir.path(), 0o755);
    let folder = dir.path().join("nginx");
    fs::create_dir(&folder).unwrap();
    let log = folder.join("access.log");
    fs::write(&log, "a\n").unwrap();
    let has_adm = is_root() && fs::read_to_string("/etc/group").unwrap_or_default().contains("adm:x:4:");
    let unread = |paths: LogPaths| {
        as_user(|| {
            let mut follower = Follower::new(paths, ALL);
            (follower.poll(Duration::ZERO, |_| ()).unread, follower.has_opened())
        })
    };
    let globs = |pattern: &str| LogPaths::globs(&folder, &[pattern.to_owned()]).unwrap();
    set_mode(&folder, 0o755);
    for (closed, open_mode) in [(&log, 0o644), (&folder, 0o755)] {
        if has_adm {
            std::os::unix::fs::chown(closed, None, Some(4)).unwrap();
        }
        set_mode(closed, if is_root() { 0o740 } else { 0 });
        for paths in [LogPaths::file(&log), globs("*.log"), globs("access.log")] {
            let (unread, has_opened) = unread(paths);
            assert!(!has_opened);
            let [Unread { is_missing: false, message }] = unread.as_slice() else { panic!("{unread:?}") };
            let words = if has_adm { "usermod -aG adm bliss" } else { "usermod -aG" };
            assert!(message.contains("Permission denied") && message.contains(words), "{message}");
        }
        set_mode(closed, open_mode);
        assert_eq!(unread(globs("*.log")), (vec![], true));
    }
}

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

mod resume;
mod rotation;
