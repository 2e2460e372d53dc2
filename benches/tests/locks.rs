//! `locks` measures every way and says what a stopped reader does to the others; nothing here looks at a time. In a file of
//! its own, so that no other test's thread is at work when processes are forked.

use benches::locks;
use benches::report::Report;

#[test]
fn locks_measures_every_way_and_stops_a_reader() {
    let options = locks::Options { readers: vec![1, 2], pauses_us: vec![20], bytes: 1024, seconds: 0.1 };
    let mut report = Report::new(true);
    locks::run(&options, &mut report).unwrap();
    for bench in ["locks_1r_pause_20us", "locks_2r_pause_20us", "locks_stopped"] {
        let rows: Vec<_> = report.rows().iter().filter(|row| row.bench == bench).collect();
        let found: Vec<_> = rows.iter().map(|row| row.subject.as_str()).collect();
        let ways = [
            "bliss (wait-free)",
            "mutex",
            "reader–writer lock",
            "reader–writer lock (writers first)",
            "spin lock",
            "seqlock",
            "arc-swap (threads)",
        ];
        assert_eq!(found, ways, "{bench}");
        assert!(rows.iter().all(|row| row.number("torn_reads") == Some(0.0)));
        let is_stopped = |row: &&&benches::report::Row| row.field("stopped").is_some();
        assert_eq!(rows.iter().filter(is_stopped).count(), if bench == "locks_stopped" { 7 } else { 0 });
    }
}
