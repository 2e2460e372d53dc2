//! Any bytes as published policies: opening them, and whatever can be done with those that open, never panics; what opens
//! decides by a rule that has a name, and exceptions are found in bounded time.
#![no_main]

use std::sync::OnceLock;

use bliss_core::build::{Exception, PolicySet, Subject};
use bliss_core::policy::decide::{Facts, Seen};
use bliss_core::policy::exceptions::ExceptionKind;
use bliss_core::policy::path::normalize;
use bliss_core::policy::source::{Policy, Rule};
use bliss_core::prefixes::{Address, Prefix};
use bliss_core::publication::policies::PoliciesRef;
use libfuzzer_sys::fuzz_target;
use rkyv::util::AlignedVec;

static WHOLE: OnceLock<AlignedVec<64>> = OnceLock::new();

/// A publication with something of everything, for flips to start from.
fn whole() -> AlignedVec<64> {
    let rule = |name: &str| Rule { name: name.into(), ..Rule::default() };
    let policy = Policy {
        name: "p".into(),
        deny: vec![Rule { when: vec!["ip.requests_1m > 5 or missing".into()], ..rule("many") }],
        allow: vec![Rule { path_prefix: vec!["/a".into()], percent: Some(50.0), ..rule("half") }],
        ..Policy::default()
    };
    let exception = |subject| Exception {
        kind: ExceptionKind::Deny,
        subject,
        until: 5,
        name: "e".into(),
        status: Some(418),
        header: Some("X-Why: e".into()),
    };
    let prefix = |text: &[u8]| Prefix::parse(text).map(Subject::Prefix);
    let prefixes = ["192.0.0.0/8", "192.0.2.0/24", "192.0.2.1", "2001:db8::/32"];
    let mut exceptions: Vec<_> =
        prefixes.iter().filter_map(|text| prefix(text.as_bytes()).ok()).map(exception).collect();
    exceptions.push(exception(Subject::UserAgent("curl".into())));
    let routes = vec![("default".into(), "p".into())];
    PolicySet { off: false, policies: vec![policy], routes, exceptions }.pack().unwrap_or_default()
}

fuzz_target!(|data: &[u8]| {
    // The path first: anything a client sends.
    let mut buffer = [0; 64];
    if let Some(path) = normalize(data, &mut buffer) {
        assert!(path.first() == Some(&b'/') && path.len() <= 64);
    }
    // Bytes as they are, or flips of good ones: pairs of an offset and a byte.
    let mut bytes = AlignedVec::<64>::new();
    match data.split_first() {
        Some((first, flips)) if first & 1 == 0 => {
            bytes.extend_from_slice(WHOLE.get_or_init(whole));
            let len = bytes.len();
            for flip in flips.chunks_exact(3) {
                bytes[usize::from(u16::from_le_bytes([flip[0], flip[1]])) % len] ^= flip[2];
            }
        }
        Some((_, rest)) => bytes.extend_from_slice(rest),
        None => return,
    }
    let Ok(policies) = PoliciesRef::open(&bytes) else { return };
    let _ = policies.policy_of_route("x");
    for address in [Address::V4(0xc000_0201), Address::V4(u32::MAX), Address::V6(0x2001_0db8 << 96)] {
        for now in [0, 4, 5, u32::MAX] {
            let exception = policies.exceptions().find(Some(address), Some(b"curl"), now);
            for index in 0..policies.len() {
                let policy = policies.policy(index).expect("it was opened");
                let facts = Facts { path: Some(b"/a"), now, ..Facts::default() };
                for seen in [Seen::Unbound, Seen::Missing, Seen::Is(7.0)] {
                    let _ = policy.decide_with(false, &facts, exception, |_| seen);
                }
            }
        }
    }
});
