//! Policies from the publication to the decision.

use std::sync::Barrier;
use std::time::{SystemTime, UNIX_EPOCH};

use bliss_core::attribute::Value;
use bliss_core::build::{PolicySet, Subject};
use bliss_core::http::HttpRequest;
use bliss_core::pass::{NoPass, Pass};
use bliss_core::policy::compiled::Action;
use bliss_core::policy::source::{Policy, Rule};
use bliss_core::request::Request;
use bliss_core::schema::Schema;
use bliss_core::score::Unscored;
use bliss_core::scorer::{Decision, NoPolicy};
use bliss_store::{Client, ClientError, PublishOptions, Publisher};

#[path = "../../bliss-ffi/tests/support/policy.rs"]
mod support;

use support::{Decided, publish_model, publisher, vectors_of};

fn now() -> u32 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as u32
}

fn decided(decision: Decision<'_>) -> Decided {
    let word = |action: Action| {
        let word = match action {
            Action::Allow => "allow",
            Action::Observe => "observe",
            Action::Tag => "tag",
            Action::RateLimitKey => "rate_limit_key",
            Action::Challenge => "challenge",
            Action::Block => "block",
        };
        word.to_owned()
    };
    Decided {
        action: word(decision.action),
        rule: decision.rule.into(),
        status: decision.status,
        header: decision.header.map(str::to_owned),
        simulated: decision.simulated.map(|(rule, action)| (rule.to_owned(), word(action))),
        exception: decision.exception.map(str::to_owned),
    }
}

#[test]
fn p5_vectors_of_decisions() {
    let directory = tempfile::tempdir().unwrap();
    let now = now();
    let mut publisher = publisher(directory.path(), &PublishOptions::default(), now);
    let mut client = Client::open(directory.path()).unwrap();
    let id = client.names().http().unwrap();
    for vector in vectors_of(&publisher, now) {
        support::publish(&mut publisher, &vector, now);
        for case in &vector.requests {
            let field = |name: &str| case.request.get(name).map(|value| value.as_bytes());
            let mut request = Request::new();
            let http = HttpRequest {
                ip: field("ip").map(Value::Text),
                method: field("method"),
                target: field("target"),
                host: field("host"),
                user_agent: field("user_agent"),
                pass: field("pass").map(Pass::Cookie),
                ..HttpRequest::default()
            };
            request.set_http(&id, http);
            let decision = client.decide(&request, &case.route, now);
            assert_eq!(decision.answer.outcome.is_err(), vector.unscored, "{}", vector.name);
            assert_eq!(decision.no_policy, None);
            assert_eq!(decided(decision), case.decision, "{}: {:?}", vector.name, case.request);
        }
        let unbound: Vec<_> = client.scorer().policies().unbound().collect();
        assert_eq!(unbound.len(), vector.unbound, "{}: {unbound:?}", vector.name);
        assert_eq!(client.policies_generation(), publisher.policies_generation());
    }
}

/// Everything that can be missing, and what then is decided.
#[test]
fn p4_every_answer_has_a_rule_and_a_failure_of_ours_blocks_nobody() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let mut client = Client::open(path).unwrap();
    let id = client.names().http().unwrap();
    let mut request = Request::new();
    let of = |target: &'static [u8]| HttpRequest {
        ip: Some("192.0.2.70".into()),
        target: Some(target),
        ..HttpRequest::default()
    };
    request.set_http(&id, of(b"/"));
    let rules = |path: &str, when: &[&str]| Rule {
        name: "r".into(),
        path: Some(path.to_owned()).filter(|p| !p.is_empty()).into_iter().collect(),
        when: when.iter().map(|text| (*text).to_owned()).collect(),
        ..Rule::default()
    };
    let set = |deny: Rule| PolicySet {
        policies: vec![Policy { name: "p".into(), deny: vec![deny], ..Policy::default() }],
        routes: vec![("default".into(), "p".into())],
        ..PolicySet::default()
    };
    let nothing = client.decide(&request, "", 1_000);
    assert_eq!(
        (nothing.action, nothing.rule, nothing.no_policy),
        (Action::Allow, "unscored", Some(NoPolicy::NotPublished))
    );
    assert_eq!(nothing.answer.outcome, Err(Unscored::NoSnapshot));

    // Policies alone: what the request says by itself is decided on; what is not there is not even missing.
    let now = now();
    let mut publisher = Publisher::open(path, &PublishOptions::default(), Schema::default()).unwrap();
    publisher.publish_policies(&set(rules("/a", &[]))).unwrap();
    let mut client = Client::open(path).unwrap();
    let id = client.names().http().unwrap();
    let mut ask = |client: &mut Client, target: &'static [u8]| {
        request.set_http(&id, of(target));
        let decision = client.decide(&request, "", now);
        assert!(!decision.rule.is_empty());
        (decision.action, decision.rule.to_owned(), decision.no_policy)
    };
    let blocked = (Action::Block, "r".to_owned(), None);
    assert_eq!(ask(&mut client, b"/a"), blocked);
    assert_eq!(ask(&mut client, b"/b"), (Action::Allow, "unscored".into(), None));
    publisher.publish_policies(&set(rules("", &["ip.requests_1m missing"]))).unwrap();
    assert_eq!(ask(&mut client, b"/a"), (Action::Allow, "unscored".into(), None));
    drop(publisher);

    // With features and a model a row that is missing is missing.
    let mut publisher = publisher_of(path, now);
    publish_model(&mut publisher);
    assert_eq!(ask(&mut client, b"/a"), (Action::Allow, "default".into(), None));
    publisher.publish_policies(&set(rules("", &["ip.requests_1m > 50"]))).unwrap();
    assert_eq!(ask(&mut client, b"/a"), blocked);

    // Damaged bytes: no policy, and the reason is told; the next good ones are followed.
    drop(publisher);
    let writer = mmap_sync::Options::new(path.join(bliss_store::POLICY)).private_directory(true);
    writer.open_writer().unwrap().write_bytes(b"no policies at all").unwrap();
    assert_eq!(ask(&mut client, b"/a"), (Action::Allow, "default".into(), Some(NoPolicy::BadPolicy)));
    assert!(matches!(client.last_error(), Some(ClientError::Policies(_))), "{:?}", client.last_error());
    let mut publisher = publisher_of(path, now);
    publisher.publish_policies(&set(rules("", &["ip.requests_1m > 50"]))).unwrap();
    assert_eq!(ask(&mut client, b"/a"), blocked);

    // Who could not be switched off any more blocks nobody.
    publisher.set_schema(Schema { max_heartbeat_age_seconds: 1, ..support::schema() }).unwrap();
    publisher.publish(Default::default()).unwrap();
    assert_eq!(ask(&mut client, b"/a"), blocked);
    std::thread::sleep(std::time::Duration::from_millis(2_100));
    request.set_http(&id, of(b"/a"));
    let silent = client.decide(&request, "", now + 3);
    assert_eq!(
        (silent.action, silent.rule, silent.no_policy),
        (Action::Allow, "unscored", Some(NoPolicy::OldPolicy))
    );
    assert_eq!(silent.answer.outcome, Err(Unscored::OldSnapshot));
    publisher.heartbeat();
    assert_eq!(client.decide(&request, "", now + 3).action, Action::Block);
}

fn publisher_of(path: &std::path::Path, now: u32) -> Publisher {
    publisher(path, &PublishOptions::default(), now)
}

/// Without features there is no secret. Who was never given a pass is challenged as ever.
#[test]
fn p11_where_a_pass_cannot_be_checked_its_bearer_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let now = now();
    let mut publisher =
        Publisher::open(directory.path(), &PublishOptions::default(), support::schema()).unwrap();
    let rule = |name: &str, even_if_passed| Rule {
        name: name.into(),
        path: vec![format!("/{name}")],
        action: Some(Action::Challenge),
        even_if_passed,
        ..Rule::default()
    };
    let set = PolicySet {
        policies: vec![Policy {
            name: "p".into(),
            deny: vec![rule("asked", false), rule("always", true)],
            ..Policy::default()
        }],
        routes: vec![("default".into(), "p".into())],
        ..PolicySet::default()
    };
    publisher.publish_policies(&set).unwrap();
    let mut client = Client::open(directory.path()).unwrap();
    let id = client.names().http().unwrap();
    let (ip, agent) = (Some(Value::Text(b"192.0.2.1")), b"Mozilla/5.0");
    let ask = |client: &mut Client, target: &'static [u8], pass: Option<Pass<'static>>| {
        let http =
            HttpRequest { ip, user_agent: Some(agent), target: Some(target), pass, ..HttpRequest::default() };
        let mut request = Request::new();
        request.set_http(&id, http);
        let decision = client.decide(&request, "", now);
        (decision.action, decision.challenge_passed)
    };
    let made_up = Some(Pass::Cookie(b"v1.4000000000.00000000000000000000000000000000"));
    let none = Some(Pass::Cookie(b""));
    assert_eq!(client.pass(ip, agent, 60, now), Err(NoPass::Unscored(Unscored::NoSnapshot)));
    assert_eq!(ask(&mut client, b"/asked", None), (Action::Challenge, None));
    assert_eq!(ask(&mut client, b"/asked", none), (Action::Challenge, Some(false)));
    assert_eq!(ask(&mut client, b"/asked", made_up), (Action::Allow, None));
    assert_eq!(ask(&mut client, b"/always", made_up), (Action::Challenge, None));
    // What the server's own log says needs no secret.
    assert_eq!(ask(&mut client, b"/asked", Some(Pass::Checked(true))), (Action::Allow, Some(true)));
    // With features it is checked.
    publisher.publish(Default::default()).unwrap();
    assert_eq!(ask(&mut client, b"/asked", made_up), (Action::Challenge, Some(false)));
    assert!(client.pass(ip, agent, 60, now).is_ok());
}

/// Four workers, each with a handle of its own, whose next request after the switch is allowed, whatever denied it.
#[test]
fn p6_off_holds_for_the_next_request_of_every_worker() {
    const WORKERS: usize = 4;
    let directory = tempfile::tempdir().unwrap();
    let now = now();
    let mut publisher = publisher(directory.path(), &PublishOptions::default(), now);
    publish_model(&mut publisher);
    let deny_all = |name: &str| Rule { name: name.into(), ..Rule::default() };
    let mut set = PolicySet {
        policies: vec![Policy { name: "p".into(), deny: vec![deny_all("all")], ..Policy::default() }],
        routes: vec![("default".into(), "p".into())],
        exceptions: vec![bliss_core::build::Exception {
            kind: bliss_core::policy::exceptions::ExceptionKind::Deny,
            subject: Subject::UserAgent("denied".into()),
            until: u32::MAX,
            name: "denied".into(),
            status: None,
            header: None,
        }],
        off: false,
    };
    let barrier = Barrier::new(WORKERS + 1);
    std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                let mut client = Client::open(directory.path()).unwrap();
                let id = client.names().http().unwrap();
                let mut request = Request::new();
                for round in 0..40 {
                    barrier.wait();
                    for agent in ["denied", "other"] {
                        let http =
                            HttpRequest { user_agent: Some(agent.as_bytes()), ..HttpRequest::default() };
                        request.set_http(&id, http);
                        let decision = client.decide(&request, "", now);
                        let expected = if round % 2 == 1 { Action::Allow } else { Action::Block };
                        assert_eq!(decision.action, expected, "round {round}");
                        assert_eq!(decision.rule == "off", round % 2 == 1);
                    }
                    barrier.wait();
                }
            });
        }
        for round in 0..40 {
            set.off = round % 2 == 1;
            publisher.publish_policies(&set).unwrap();
            barrier.wait();
            barrier.wait();
        }
    });
}
