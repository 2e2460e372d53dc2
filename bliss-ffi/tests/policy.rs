//! P5: decisions through the C ABI are those of `docs/policy-vectors.jsonl`.

// Calls as a C program makes them; what they ask for stands right beside them.
#![allow(clippy::undocumented_unsafe_blocks)]

use std::collections::BTreeMap;

use bliss_store::PublishOptions;
use blissffi::answer::{bliss_answer_t, bliss_text_t};
use blissffi::codes::bliss_result_e::*;
use blissffi::decide::{bliss_decide, bliss_decision_t, bliss_no_policy_e, bliss_request_set_id};
use blissffi::handle::{bliss_close, bliss_last_error, bliss_open, bliss_t};
use blissffi::http::{bliss_http_register, bliss_http_t, bliss_request_http};
use blissffi::pass::{BLISS_PASS_BYTES, bliss_pass};
use blissffi::request::bliss_request_clear;

#[path = "support/policy.rs"]
mod policy;
#[path = "support/mod.rs"]
mod support;

use policy::{Decided, vectors_of};

const ACTIONS: [&str; 6] = ["allow", "observe", "tag", "rate_limit_key", "challenge", "block"];

fn open(directory: &std::path::Path) -> *mut bliss_t {
    let directory = directory.to_str().unwrap();
    let mut handle = std::ptr::null_mut();
    let null: *mut std::ffi::c_char = std::ptr::null_mut();
    let opened =
        unsafe { bliss_open(directory.as_ptr().cast(), directory.len(), null.cast(), &mut handle, null, 0) };
    assert_eq!(opened, BLISS_OK);
    assert_eq!(unsafe { bliss_http_register(handle) }, BLISS_OK);
    handle
}

fn ask(
    handle: *mut bliss_t,
    request: &BTreeMap<String, String>,
    route: &str,
    now: u32,
) -> (bliss_decision_t, bliss_answer_t) {
    let mut http = bliss_http_t::default();
    for (name, value) in request {
        *http.text_mut(name).unwrap() = value.as_str().into();
    }
    let (mut decision, mut answer) = (bliss_decision_t::default(), bliss_answer_t::default());
    unsafe {
        assert_eq!(bliss_request_clear(handle), BLISS_OK);
        assert_eq!(bliss_request_http(handle, &http), BLISS_OK);
        let (route, len) = (route.as_ptr().cast(), route.len());
        assert_eq!(bliss_decide(handle, route, len, now, &mut decision, &mut answer), BLISS_OK);
    }
    (decision, answer)
}

fn text(text: bliss_text_t) -> Option<String> {
    if text.data.is_null() {
        return None;
    }
    let bytes = unsafe { std::slice::from_raw_parts(text.data.cast::<u8>(), text.len) };
    Some(String::from_utf8(bytes.to_vec()).unwrap())
}

fn decided(decision: &bliss_decision_t) -> Decided {
    let word = |action: u32| ACTIONS[action as usize].to_owned();
    let header = text(decision.header_name).zip(text(decision.header_value));
    Decided {
        action: word(decision.action),
        rule: text(decision.rule).unwrap(),
        status: decision.status as u16,
        header: header.map(|(name, value)| format!("{name}: {value}")),
        simulated: text(decision.simulated_rule).map(|rule| (rule, word(decision.simulated_action))),
        exception: text(decision.exception),
    }
}

#[test]
fn p5_vectors_of_decisions_through_c() {
    let directory = tempfile::tempdir().unwrap();
    let now = support::now();
    let mut publisher = policy::publisher(directory.path(), &PublishOptions::default(), now);
    let handle = open(directory.path());
    for (generation, vector) in vectors_of(&publisher, now).iter().enumerate() {
        policy::publish(&mut publisher, vector, now);
        for case in &vector.requests {
            let (decision, answer) = ask(handle, &case.request, &case.route, now);
            assert_eq!(decided(&decision), case.decision, "{}: {:?}", vector.name, case.request);
            assert_eq!(answer.score == 0, vector.unscored);
            assert_eq!((decision.no_policy, text(decision.no_policy_reason)), (0, None));
            assert_eq!(decision.policies_generation, generation as u64 + 1);
            assert_eq!(decision.unbound_count as usize, vector.unbound);
        }
    }
    unsafe { bliss_close(handle) };
}

#[test]
fn p4_without_a_policy_everything_is_allowed_and_the_reason_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let handle = open(directory.path());
    let (decision, answer) = ask(handle, &BTreeMap::new(), "", 7);
    assert_eq!((decision.action, text(decision.rule).as_deref()), (0, Some("unscored")));
    assert_eq!(decision.no_policy, bliss_no_policy_e::BLISS_POLICY_NOT_PUBLISHED as u32);
    assert_eq!(text(decision.no_policy_reason).as_deref(), Some("no policy"));
    assert_eq!(text(decision.policy), None);
    assert_eq!(answer.result, BLISS_NO_SNAPSHOT as i32);
    unsafe { bliss_close(handle) };
}

#[test]
fn p11_a_pass_goes_from_a_challenge_to_the_next_request_through_c() {
    let directory = tempfile::tempdir().unwrap();
    let now = support::now();
    let handle = open(directory.path());
    let mut buffer = [7_u8; BLISS_PASS_BYTES];
    let make = |seconds: u32, buffer: &mut [u8]| unsafe {
        bliss_pass(handle, seconds, now, buffer.as_mut_ptr().cast(), buffer.len())
    };
    let last_error = || {
        let mut text = [0; 600];
        unsafe { bliss_last_error(handle, text.as_mut_ptr(), text.len()) };
        unsafe { std::ffi::CStr::from_ptr(text.as_ptr()) }.to_string_lossy().into_owned()
    };
    assert_eq!(make(60, &mut buffer), BLISS_ERROR_ARGUMENT, "no request");
    assert!(last_error().contains("bliss_request_http"), "{}", last_error());
    let request = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    };
    // The handle reads them when a pass is made.
    let own = request(&[("ip", "2001:db8:1:2::7"), ("user_agent", "Mozilla/5.0"), ("pass", "")]);
    let nobody = request(&[("user_agent", "Mozilla/5.0")]);
    let passed =
        |request: &BTreeMap<String, String>, now: u32| ask(handle, request, "", now).0.challenge_passed;
    assert_eq!(passed(&own, now), 0, "a request without one needs no secret");
    assert_eq!(make(60, &mut buffer), BLISS_NO_SNAPSHOT);

    let publisher = policy::publisher(directory.path(), &PublishOptions::default(), now);
    // Files that were not there are looked for once a second.
    support::wait_until("the features", || make(60, &mut buffer) == BLISS_OK);
    buffer = [7; BLISS_PASS_BYTES];
    assert_eq!(passed(&own, now), 0);
    for (seconds, len, code) in
        [(0, 64, BLISS_ERROR_ARGUMENT), (2_592_001, 64, BLISS_ERROR_ARGUMENT), (60, 63, BLISS_ERROR_ARGUMENT)]
    {
        assert_eq!(make(seconds, &mut buffer[..len]), code, "{seconds} {}", last_error());
    }
    let null = std::ptr::null_mut();
    assert_eq!(unsafe { bliss_pass(handle, 60, now, null, 64) }, BLISS_ERROR_NULL);
    assert_eq!(unsafe { bliss_pass(std::ptr::null_mut(), 60, now, null, 64) }, BLISS_ERROR_NULL);
    assert_eq!(buffer, [7; BLISS_PASS_BYTES], "as it was");
    assert_eq!(make(60, &mut buffer), BLISS_OK);
    let pass = std::ffi::CStr::from_bytes_until_nul(&buffer).unwrap().to_str().unwrap().to_owned();
    assert!(pass.starts_with(&format!("v1.{}.", now + 60)), "{pass}");

    let with = |name: &'static str, value: &str| {
        let mut changed = own.clone();
        changed.insert("pass".into(), pass.clone());
        changed.insert(name.into(), value.to_owned());
        changed
    };
    for (changed, now, expected) in [
        (with("host", "shop.example"), now, 1),
        (with("host", "shop.example"), now + 59, 1),
        (with("ip", "2001:db8:1:2:ffff::1"), now, 1),
        (with("host", "shop.example"), now + 60, 0),
        (with("ip", "2001:db8:1:3::7"), now, 0),
        (with("user_agent", "Mozilla/5.1"), now, 0),
        (with("pass", &pass.replace("v1.", "v1.0")), now, 0),
    ] {
        assert_eq!(passed(&changed, now), expected, "{changed:?} {now}");
    }
    // A handle that never heard of an address makes none, and a struct of before tells none.
    assert_eq!(passed(&nobody, now), -1);
    assert_eq!(make(60, &mut buffer), BLISS_ERROR_ARGUMENT);
    assert!(last_error().contains("a pass is for an address"), "{}", last_error());
    let mut older = bliss_http_t { ip: "192.0.2.1".into(), pass: pass.as_str().into(), ..Default::default() };
    older.size = std::mem::offset_of!(bliss_http_t, pass);
    let mut decision = bliss_decision_t::default();
    unsafe {
        assert_eq!(bliss_request_http(handle, &older), BLISS_OK);
        let nothing = std::ptr::null_mut();
        assert_eq!(bliss_decide(handle, std::ptr::null(), 0, now, &mut decision, nothing), BLISS_OK);
        bliss_close(handle);
    }
    assert_eq!(decision.challenge_passed, -1);
    drop(publisher);
}

#[test]
fn requests_have_ids() {
    let directory = tempfile::tempdir().unwrap();
    let handle = open(directory.path());
    let id = |now: u32| text(ask(handle, &BTreeMap::new(), "", now).0.request_id).unwrap();
    let (first, second) = (id(0x0012_abcd), id(0x0012_abcd));
    assert!(first.len() == 32 && first.starts_with("0012abcd") && first < second, "{first} {second}");
    assert_eq!(first[8..24], second[8..24]);

    let mut decision = bliss_decision_t::default();
    let decide = |decision: &mut bliss_decision_t| unsafe {
        bliss_decide(handle, std::ptr::null(), 0, 7, decision, std::ptr::null_mut())
    };
    let set = |id: &str| unsafe { bliss_request_set_id(handle, id.as_ptr().cast(), id.len()) };
    assert_eq!(set("own-id/1"), BLISS_OK);
    for wrong in ["", "a b", "a\"b", "a\\b", "a\nb", "\u{e4}", &"x".repeat(65)] {
        assert_eq!(set(wrong), BLISS_ERROR_ARGUMENT, "{wrong:?}");
    }
    assert_eq!(decide(&mut decision), BLISS_OK);
    assert_eq!(text(decision.request_id).as_deref(), Some("own-id/1"));
    assert_eq!(set(&"x".repeat(64)), BLISS_OK);
    assert_eq!(unsafe { bliss_request_clear(handle) }, BLISS_OK);
    assert_eq!(decide(&mut decision), BLISS_OK);
    let made = text(decision.request_id).unwrap();
    assert_eq!(made.len(), 32);
    assert_eq!(decide(&mut decision), BLISS_OK);
    assert_eq!(text(decision.request_id), Some(made), "one request has one id");
    unsafe { bliss_close(handle) };
}

#[test]
fn f5_wrong_calls_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let handle = open(directory.path());
    let (mut decision, mut answer) = (bliss_decision_t::default(), bliss_answer_t::default());
    let call = |handle: *mut bliss_t, decision: *mut bliss_decision_t, answer: *mut bliss_answer_t| unsafe {
        bliss_decide(handle, std::ptr::null(), 0, 7, decision, answer)
    };
    assert_eq!(call(std::ptr::null_mut(), &mut decision, &mut answer), BLISS_ERROR_NULL);
    assert_eq!(call(handle, std::ptr::null_mut(), &mut answer), BLISS_ERROR_NULL);
    decision.size = 8;
    assert_eq!(call(handle, &mut decision, &mut answer), BLISS_ERROR_SIZE);
    decision.size = size_of::<bliss_decision_t>();
    answer.size = 8;
    assert_eq!(call(handle, &mut decision, &mut answer), BLISS_ERROR_SIZE);
    // A route that is none is the default one.
    let long = [0xff_u8; 200];
    let code = unsafe {
        bliss_decide(handle, long.as_ptr().cast(), long.len(), 7, &mut decision, std::ptr::null_mut())
    };
    assert_eq!(code, BLISS_OK);
    let code = unsafe { bliss_decide(handle, std::ptr::null(), 3, 7, &mut decision, std::ptr::null_mut()) };
    assert_eq!(code, BLISS_ERROR_NULL);
    unsafe { bliss_close(handle) };
}
