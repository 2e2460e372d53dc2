use super::*;
use crate::access_log::parse::Parser;

const NOW: u64 = 1_431_857_100_000;
const BAD: &[u8] = b"192.0.2.1 - - no time and \"no\x1b[31m quotes";

fn health(options: HealthOptions) -> Health {
    Health::new(options, NOW, Duration::ZERO)
}

/// So many lines of a kind in the minute `minute`.
fn lines(health: &mut Health, kind: &str, lines: u64, minute: u64) {
    let now_ms = NOW + minute * MINUTE_MS;
    let malformed = Parser::default().parse(BAD).unwrap_err();
    for _ in 0..lines {
        let outcome = match kind {
            "good" => Outcome::Counted,
            "malformed" => Outcome::Malformed(&malformed),
            "late" => Outcome::Late(now_ms - 3_600_000),
            "early" => Outcome::Early(now_ms + 3_600_000),
            other => panic!("{other}"),
        };
        health.line(BAD, outcome, false, now_ms);
    }
}

fn kind(health: &mut Health, minute: u64) -> Option<ProblemKind> {
    health.problem(&[], 0, NOW + minute * MINUTE_MS, Duration::ZERO).map(|problem| problem.kind)
}

/// Each case is minutes, each of lines of some kinds, and what is wrong after each.
#[test]
fn a_minute_in_which_too_many_lines_do_not_count_is_told_of_until_a_good_one() {
    use ProblemKind::*;
    type Minute<'a> = (&'a [(&'a str, u64)], Option<ProblemKind>);
    let cases: &[(&str, &[Minute<'_>])] = &[
        ("half is not more than half", &[(&[("good", 10), ("malformed", 10)], None)]),
        ("malformed", &[(&[("good", 10), ("malformed", 11)], Some(Malformed)), (&[("good", 20)], None)]),
        ("late", &[(&[("good", 10), ("late", 11)], Some(Late)), (&[("good", 11), ("late", 10)], None)]),
        ("early", &[(&[("good", 10), ("early", 11)], Some(Early)), (&[("good", 20)], None)]),
        (
            "together, and named after most of them",
            &[(&[("good", 10), ("malformed", 3), ("late", 5), ("early", 4)], Some(Late))],
        ),
        (
            "one kind after another",
            &[
                (&[("good", 1), ("malformed", 20)], Some(Malformed)),
                (&[("malformed", 1), ("early", 20)], Some(Early)),
                (&[("good", 20)], None),
            ],
        ),
        ("one bad line on a quiet site", &[(&[("good", 1), ("malformed", 2)], None), (&[("good", 9)], None)]),
        (
            "a quiet site's lines are judged together",
            &[
                (&[("good", 1), ("late", 4)], None),
                (&[], None),
                (&[("late", 5)], Some(Late)),
                (&[("good", 5)], Some(Late)),
                (&[("good", 5)], None),
            ],
        ),
        (
            "a minute without lines ends nothing",
            &[(&[("good", 1), ("early", 10)], Some(Early)), (&[], Some(Early))],
        ),
    ];
    for (name, minutes) in cases {
        let mut health = health(HealthOptions::default());
        for (minute, (read, expected)) in (0..).zip(*minutes) {
            read.iter().for_each(|(kind, number)| lines(&mut health, kind, *number, minute));
            assert_eq!(kind(&mut health, minute + 1), *expected, "{name}, minute {minute}");
        }
    }
}

#[test]
fn the_share_is_configurable() {
    for (max_unread_share, good, bad, expected) in [
        (0.0, 100, 1, Some(ProblemKind::Late)),
        (0.1, 90, 10, None),
        (0.1, 89, 11, Some(ProblemKind::Late)),
        (1.0, 0, 100, None),
    ] {
        let mut health = health(HealthOptions { max_unread_share, ..HealthOptions::default() });
        lines(&mut health, "good", good, 0);
        lines(&mut health, "late", bad, 0);
        assert_eq!(kind(&mut health, 1), expected, "{max_unread_share}: {bad} of {}", good + bad);
    }
}

#[test]
fn what_is_told_names_kind_example_and_both_times_and_stays_the_same() {
    for (kind, words) in [
        ("malformed", ["cannot be read", "docs/access-log.md"]),
        ("late", ["2015-05-17T09:05:00Z", "flush="]),
        ("early", ["2015-05-17T11:05:00Z", "time zone"]),
    ] {
        let mut health = health(HealthOptions::default());
        lines(&mut health, "good", 1, 0);
        lines(&mut health, kind, 20, 0);
        let told = health.problem(&[], 0, NOW + MINUTE_MS, Duration::ZERO).unwrap();
        for word in words.into_iter().chain(["of the last 21 lines", "2015-05-17T10:05:00Z", r"no\x1b[31m"]) {
            assert!(told.message.contains(word), "{kind}: no {word} in {}", told.message);
        }
        lines(&mut health, kind, 30, 1);
        let again = health.problem(&[], 0, NOW + 2 * MINUTE_MS, Duration::ZERO).unwrap();
        assert_eq!(again, told, "one message for as long as it lasts");
    }
    let long = example(&[b'x'; 5_000], None, NOW);
    assert!(long.len() < 300 && long.ends_with("x…`"), "{long}");
}

#[test]
fn a_log_of_which_no_line_can_be_read_is_told_of_at_once() {
    let malformed = Parser::default().parse(BAD).unwrap_err();
    for is_backlog in [true, false] {
        let mut health = health(HealthOptions::default());
        assert_eq!(kind(&mut health, 0), None, "an empty log is no fault");
        health.line(BAD, Outcome::Malformed(&malformed), is_backlog, NOW);
        let told = health.problem(&[], 0, NOW, Duration::ZERO).unwrap();
        assert_eq!(told.kind, ProblemKind::Undecodable);
        assert!(told.message.contains("no line could be read yet") && health.is_undecodable());
        health.line(b"good", Outcome::Counted, is_backlog, NOW);
        assert_eq!(kind(&mut health, 0), None);
        health.line(BAD, Outcome::Malformed(&malformed), is_backlog, NOW);
        assert_eq!(kind(&mut health, 0), None, "the first minute is not over");
    }
}

#[test]
fn a_backlog_says_nothing_of_what_is_written_now() {
    let malformed = Parser::default().parse(BAD).unwrap_err();
    let mut health = health(HealthOptions::default());
    health.line(b"good", Outcome::Counted, true, NOW);
    (0..1000).for_each(|_| health.line(BAD, Outcome::Malformed(&malformed), true, NOW));
    (0..1000).for_each(|_| health.line(BAD, Outcome::Late(NOW - 7_000_000), true, NOW));
    assert_eq!(kind(&mut health, 1), None);
}

#[test]
fn a_log_that_stopped_growing_is_told_of_if_asked_for() {
    let at = |health: &mut Health, bytes, seconds| {
        health.problem(&[], bytes, NOW, Duration::from_secs(seconds)).map(|problem| problem.kind)
    };
    let mut off = health(HealthOptions::default());
    assert_eq!(at(&mut off, 0, 1_000_000), None);
    let mut on = health(HealthOptions { quiet_after: Duration::from_secs(60), ..HealthOptions::default() });
    let quiet = Some(ProblemKind::Quiet);
    for (bytes, seconds, expected) in [
        (0, 60, None),
        (0, 61, quiet),
        (0, 80, quiet),
        (5, 90, None),
        (5, 150, None),
        (5, 151, quiet),
        (6, 152, None),
    ] {
        assert_eq!(at(&mut on, bytes, seconds), expected, "{bytes} bytes, {seconds} s");
    }
}

#[test]
fn a_log_that_cannot_be_read_is_the_worst() {
    let unread = |is_missing, message: &str| Unread { is_missing, message: message.to_owned() };
    let mut health = health(HealthOptions::default());
    lines(&mut health, "malformed", 20, 0);
    let mut told = |unread: &[Unread]| health.problem(unread, 0, NOW + MINUTE_MS, Duration::ZERO).unwrap();
    let missing = told(&[unread(true, "a")]);
    assert_eq!((missing.kind, missing.message.as_str()), (ProblemKind::Missing, "a"));
    let both = told(&[unread(true, "a"), unread(false, "b")]);
    assert_eq!((both.kind, both.message.as_str()), (ProblemKind::Unreadable, "b (and 1 more)"));
    assert_eq!(told(&[]).kind, ProblemKind::Undecodable);
}

#[test]
fn a_clock_that_is_set_back_judges_what_there_is() {
    let mut health = health(HealthOptions::default());
    lines(&mut health, "good", 1, 5);
    lines(&mut health, "late", 20, 5);
    assert_eq!(kind(&mut health, 0), Some(ProblemKind::Late));
}
