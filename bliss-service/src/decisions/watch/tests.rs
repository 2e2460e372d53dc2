use super::*;
use crate::access_log::parse::Parser;

fn line(more: &str) -> String {
    format!(
        r#"{{"msec":1431857100.5,"remote_addr":"::ffff:192.0.2.7","request_method":"GET","request_uri":"/a?b=c","host":"Shop.example","status":403,"http_user_agent":"curl/8"{more}}}"#
    )
}

fn read(line: &str) -> Decision {
    let record = Parser::default().parse(line.as_bytes()).unwrap();
    Decision::read(line.as_bytes(), &record)
}

#[test]
fn what_the_web_server_logs_of_a_decision_is_read() {
    let decision = read(&line(
        r#","bliss_request_id":"5f1e","bliss_action":"challenge","bliss_rule":"robots","bliss_simulated":"trial","bliss_simulated_action":"block","bliss_score":"17","bliss_status":"scored","bliss_model":"m","bliss_model_version":"2","bliss_route":"login""#,
    ));
    let text = |text: &str| Some(text.to_owned());
    assert_eq!((decision.ip.to_string().as_str(), decision.path.as_str()), ("192.0.2.7", "/a"));
    assert_eq!((decision.host, decision.user_agent), (text("shop.example"), text("curl/8")));
    assert_eq!((decision.request_id, decision.rule), (text("5f1e"), text("robots")));
    assert_eq!((decision.action.as_str(), decision.route.as_str()), ("challenge", "login"));
    assert_eq!(decision.simulated, Some(Simulated { rule: "trial".into(), action: text("block") }));
    assert_eq!((decision.score, decision.unscored), (Some(17), None));
    assert_eq!((decision.model, decision.model_version), (text("m"), text("2")));
    assert_eq!(decision.time.as_millisecond(), 1_431_857_100_500);
}

#[test]
fn a_rule_on_trial_is_read_as_nginx_logs_it() {
    let simulated = |more: &str| read(&line(more)).simulated.map(|s| (s.rule, s.action));
    let some = |rule: &str, action: Option<&str>| Some((rule.to_owned(), action.map(str::to_owned)));
    assert_eq!(simulated(r#","bliss_simulated":"on trial: block""#), some("on trial", Some("block")));
    assert_eq!(
        simulated(r#","bliss_simulated":"a: b: rate_limit_key""#),
        some("a: b", Some("rate_limit_key"))
    );
    assert_eq!(simulated(r#","bliss_simulated":"a: b""#), some("a: b", None));
    assert_eq!(simulated(r#","bliss_simulated":"""#), None);
}

#[test]
fn what_a_rule_said_is_a_decision_and_what_was_let_through_is_none() {
    let is_noted = |more: &str| Parser::default().parse(line(more).as_bytes()).unwrap().is_noted;
    for more in [
        r#","bliss_action":"block""#,
        r#","bliss_action":"tag""#,
        r#","bot_action":"observe""#,
        r#","bliss_action":"rate_limit_key""#,
        r#","bliss_action":"allow","bliss_simulated":"trial: block""#,
    ] {
        assert!(is_noted(more), "{more}");
    }
    for more in ["", r#","bliss_action":"allow""#, r#","bliss_action":"-","bliss_simulated":"""#] {
        assert!(!is_noted(more), "{more}");
    }
}

#[test]
fn what_is_not_logged_is_not_made_up() {
    let decision = read(&line(r#","bot_action":"block","bot_score":"","bot_status":"no models""#));
    assert_eq!((decision.action.as_str(), decision.route.as_str()), ("block", "default"));
    assert_eq!((decision.score, decision.unscored.as_deref()), (None, Some("no models")));
    assert_eq!((decision.request_id, decision.rule, decision.simulated), (None, None, None));
    let numbers = read(&line(r#","bot_action":"block","bot_score":7,"bot_rule":{"a":1}"#));
    assert_eq!((numbers.score, numbers.rule), (Some(7), None));
    let both = read(&line(r#","bot_action":"block","bliss_action":"tag""#));
    assert_eq!(both.action, "tag");
}

#[test]
fn more_than_the_limit_is_dropped_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let counts = DecisionCounts::default();
    let options = DecisionOptions { max_per_second: 3, ..DecisionOptions::default() };
    let file = dir.path().join("decisions.jsonl");
    let watch = Watch::start(&options, file.clone(), dir.path().join("none"), counts.clone()).unwrap();
    let mut log = watch.of_log(&Parser::default());
    let text = line(r#","bot_action":"block""#);
    let record = Parser::default().parse(text.as_bytes()).unwrap();
    for _ in 0..20 {
        log.offer(text.as_bytes(), &record);
    }
    let begun = Instant::now();
    while counts.written.get() + counts.dropped.get() < 20 {
        assert!(begun.elapsed().as_secs() < 30, "{counts:?}");
        std::thread::yield_now();
    }
    let mut written = Vec::new();
    super::super::file::read(&file, |decision| written.push(decision)).unwrap();
    assert_eq!(written.len() as u64, counts.written.get());
    assert!((3..20).contains(&written.len()), "{}", written.len());
    // Old lines are told, and not explained.
    assert!(written[0].not_explained.as_deref().unwrap().contains("after it was made"), "{written:?}");
}

#[test]
fn requests_that_were_let_through_are_written_where_that_is_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    for (sample_one_in, expected) in [(0, 0), (10, 4)] {
        let counts = DecisionCounts::default();
        let file = dir.path().join(format!("decisions-{sample_one_in}.jsonl"));
        let options = DecisionOptions { sample_one_in, ..DecisionOptions::default() };
        let watch = Watch::start(&options, file, dir.path().join("none"), counts.clone()).unwrap();
        let mut log = watch.of_log(&Parser::default());
        let text = line(r#","bot_action":"allow""#);
        let record = Parser::default().parse(text.as_bytes()).unwrap();
        (0..40).for_each(|_| log.offer(text.as_bytes(), &record));
        // One more that is written, behind all others.
        let last = line(r#","bot_action":"block""#);
        log.offer(last.as_bytes(), &Parser::default().parse(last.as_bytes()).unwrap());
        let begun = Instant::now();
        while counts.written.get() < expected + 1 {
            assert!(begun.elapsed().as_secs() < 30, "{counts:?}");
            std::thread::yield_now();
        }
        assert_eq!((counts.written.get(), counts.dropped.get()), (expected + 1, 0));
    }
}
