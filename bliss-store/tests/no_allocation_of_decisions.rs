//! F1: after opening, no decision allocates, whatever the path, and not even at the switch to another policy.

use std::time::{SystemTime, UNIX_EPOCH};

use bliss_core::attribute::Value;
use bliss_core::http::HttpRequest;
use bliss_core::request::Request;
use bliss_store::{Client, PublishOptions};

#[path = "../../bliss-ffi/tests/support/policy.rs"]
mod support;

use support::{publisher, vectors};

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

/// Decisions in all; `BLISS_DECISIONS` asks for another number.
const DECISIONS: u64 = 200_000;

#[test]
fn f1_no_decision_allocates() {
    let wanted = std::env::var("BLISS_DECISIONS").ok().map(|number| number.parse::<u64>().unwrap());
    let wanted = wanted.unwrap_or(DECISIONS);
    let directory = tempfile::tempdir().unwrap();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as u32;
    let mut publisher = publisher(directory.path(), &PublishOptions::default(), now);
    let vectors = vectors();
    let _profiler = dhat::Profiler::builder().testing().build();
    let blocks = || dhat::HeapStats::get().total_blocks;
    let mut client = Client::open(directory.path()).unwrap();
    let id = client.names().http().unwrap();
    let mut request = Request::new();
    let (mut decisions, mut denied, mut round) = (0, 0, 0);
    let each = wanted / 100;
    while decisions < wanted {
        let vector = &vectors[round % vectors.len()];
        round += 1;
        support::publish(&mut publisher, vector, now);
        let before = blocks();
        for case in vector.requests.iter().cycle().take(usize::try_from(each.max(1)).unwrap()) {
            let field = |name: &str| case.request.get(name).map(|value| value.as_bytes());
            let http = HttpRequest {
                ip: field("ip").map(Value::Text),
                method: field("method"),
                target: field("target"),
                host: field("host"),
                user_agent: field("user_agent"),
                ..HttpRequest::default()
            };
            request.set_http(&id, http);
            let decision = client.decide(&request, &case.route, now);
            denied += u64::from(decision.status >= 400);
            assert!(!decision.rule.is_empty());
            client.next_request_id(now);
            decisions += 1;
        }
        assert_eq!(blocks() - before, 0, "{}", vector.name);
    }
    assert!(denied > wanted / 10, "{denied} of {decisions}");
}
