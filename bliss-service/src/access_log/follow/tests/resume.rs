//! Followers that go on where another one stopped.

use std::os::unix::fs::MetadataExt;

use super::*;

impl Log {
    /// One that has read `before`.
    fn read(before: &str) -> Self {
        let mut log = Self::new(before, ALL);
        assert_eq!(log.lines().concat(), before.replace('\n', ""));
        log
    }

    /// Another follower goes on.
    fn restart(&mut self) {
        let saved = self.follower.positions().unwrap();
        self.follower = Follower::new(LogPaths::file(self.path()), ALL).resume(saved);
    }

    /// Lines as a user reads them who may open what is in the folder, and not list it.
    fn lines_without_listing(&mut self) -> Vec<String> {
        set_mode(self.dir.path(), 0o111);
        let lines = as_user(|| self.lines());
        set_mode(self.dir.path(), 0o755);
        lines
    }
}

#[test]
fn a_folder_that_cannot_be_listed_hides_nothing_of_the_log() {
    let mut log = Log::read("a\n");
    log.append("access.log", "b\n");
    log.restart();
    assert_eq!(log.lines_without_listing(), ["b"]);
    assert!(log.follower.left_out.is_empty(), "nothing was looked for in it");
    // Another file is under the path now, and where the one before is cannot be seen.
    log.append("access.log", "c\n");
    log.rotate();
    log.append("access.log", "d\n");
    log.restart();
    assert_eq!(log.lines_without_listing(), ["d"]);
    assert_eq!(log.follower.left_out.len(), 1);
    // A new line of the file that is read.
    log.append("access.log", "e\n");
    assert_eq!(log.lines_without_listing(), ["e"]);
}

#[test]
fn what_cannot_be_seen_for_a_moment_is_not_read_twice() {
    let mut log = Log::read("a\n");
    log.append("access.log", "b\n");
    log.rotate();
    log.restart();
    assert!(log.lines_without_listing().is_empty());
    log.now += LOOK;
    assert!(log.lines_without_listing().is_empty());
    assert_eq!(log.follower.left_out.len(), 1, "said once");
    log.now += LOOK;
    assert_eq!(log.lines(), ["b"]);
    log.append("access.log", "c\n");
    assert_eq!(log.lines(), ["c"]);
}

/// What there is of a missing log is looked for now and then, and what is left out is said once.
#[test]
fn a_missing_log_costs_little_until_it_is_back() {
    let mut log = Log::read("a\n");
    fs::remove_file(log.path()).unwrap();
    log.append("access.log.1.gz", "no gzip file");
    log.restart();
    assert!(log.lines().is_empty());
    assert!(log.lines().is_empty());
    assert_eq!(log.follower.left_out.len(), 1);
    log.append("access.log.2", "a\nb\n");
    assert!(log.lines().is_empty(), "it is not due yet");
    log.now += LOOK;
    assert_eq!(log.lines(), ["b"]);
    log.append("access.log", "c\n");
    assert_eq!(log.lines(), ["c"], "the log itself is read at once");
}

/// A log that is not there yet keeps its place, however often others are rotated meanwhile, and although another file system
/// has a file with the same inode.
#[test]
fn a_log_that_is_not_there_yet_keeps_its_place() {
    let mut log = Log::new("a\n", ALL);
    log.append("other.log", "1\n");
    let other = log.dir.path().join("other.log");
    let names = ["access.log".to_owned(), "other.log".to_owned()];
    let paths = LogPaths::globs(log.dir.path(), &names).unwrap();
    log.follower = Follower::new(paths.clone(), ALL);
    assert_eq!(log.lines(), ["a", "1"]);
    let mut saved = log.follower.positions().unwrap();
    let inode = fs::metadata(log.path()).unwrap().ino();
    saved.iter_mut().for_each(|position| position.inode = inode);
    let away = log.dir.path().join("away");
    fs::rename(&other, &away).unwrap();
    for _ in 0..2 {
        log.follower = Follower::new(paths.clone(), ALL).resume(saved);
        assert!(log.lines().is_empty());
        for number in 0..MARKS as u64 + 1 {
            let tail = log.follower.files[0].reader.tail().unwrap();
            log.follower.marks.push_back(Mark { identity: (1, number), ..tail.mark() });
        }
        log.follower.marks.pop_front();
        saved = log.follower.positions().unwrap();
        assert_eq!(saved.len(), MARKS + 2);
    }
    fs::rename(&away, &other).unwrap();
    log.append("other.log", "2\n");
    log.follower = Follower::new(paths, ALL).resume(saved);
    assert_eq!(log.lines(), ["2"]);
}

/// What a damaged position says of a line that had not ended takes no memory.
#[test]
fn d6_a_line_longer_than_any_is_no_place_to_go_on() {
    let text = "0123456789abcde\n".repeat(MAX_LINE_BYTES / 8);
    let log = Log::read(&text);
    for (back, is_sound) in [(16, true), (MAX_LINE_BYTES + 1, false)] {
        let mut saved = log.follower.positions().unwrap();
        saved[0].back = back as u64;
        fs::write(log.dir.path().join("access.log.1.gz"), gzip(&text)).unwrap();
        let _ = fs::remove_file(log.path());
        let mut next = Follower::new(LogPaths::file(log.path()), ALL).resume(saved);
        let mut lines = Vec::new();
        while next.poll(log.now, |line| lines.push(line.is_doubtful)).more {}
        assert_eq!(lines.is_empty(), is_sound, "{back}");
        assert!(lines.iter().all(|is_doubtful| *is_doubtful));
    }
}
