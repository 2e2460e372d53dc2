//! P11: passes are made and checked without allocation, whatever clients make up, whether rules and models ask for them or not.

use std::time::{SystemTime, UNIX_EPOCH};

use bliss_core::attribute::Value;
use bliss_core::http::HttpRequest;
use bliss_core::pass::Pass;
use bliss_core::request::Request;
use bliss_store::{Client, PublishOptions};

#[path = "../../bliss-ffi/tests/support/policy.rs"]
mod support;

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

#[test]
fn p11_making_and_checking_passes_allocates_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as u32;
    let mut publisher = support::publisher(directory.path(), &PublishOptions::default(), now);
    let vectors = support::vectors_of(&publisher, now);
    let vector = vectors.iter().find(|vector| vector.name == "passes").unwrap();
    let long = "a".repeat(8192);
    let made_up = ["v1.4000000000.00000000000000000000000000000000", "v1.", "\u{e4}", &long, ""];
    let _profiler = dhat::Profiler::builder().testing().build();
    let blocks = || dhat::HeapStats::get().total_blocks;
    let mut client = Client::open(directory.path()).unwrap();
    let id = client.names().http().unwrap();
    let (mut held, mut refused, mut not_made) = (0, 0, 0);
    for with_policy in [false, true] {
        if with_policy {
            support::publish(&mut publisher, vector, now);
        }
        let before = blocks();
        for number in 0..20_000_u32 {
            let ip = (0xc000_0200 + number % 300).to_be_bytes();
            let agent = if number % 7 == 0 { long.as_bytes() } else { b"Mozilla/5.0" };
            let pass = client.pass(Some(Value::Binary(&ip)), agent, number % 4000, now);
            let Ok(pass) = pass else {
                not_made += 1;
                continue;
            };
            let made_up = made_up[number as usize % made_up.len()];
            for (cookie, now) in [(pass.as_str(), now), (made_up, now), (pass.as_str(), now + 5000)] {
                let pass = Some(Pass::Cookie(cookie.as_bytes()));
                let http = HttpRequest {
                    ip: Some(Value::Binary(&ip)),
                    user_agent: Some(agent),
                    pass,
                    ..HttpRequest::default()
                };
                let mut request = Request::new();
                request.set_http(&id, http);
                match client.decide(&request, "", now).challenge_passed {
                    Some(true) => held += 1,
                    Some(false) => refused += 1,
                    None => panic!("{cookie}"),
                }
            }
        }
        assert_eq!(blocks() - before, 0, "{with_policy}");
    }
    assert_eq!((held + not_made, refused, not_made), (40_000, 2 * held, 10));
}
