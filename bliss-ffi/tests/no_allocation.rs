//! F1: after opening and registering names, no function allocates, not even at a switch to a new version.

// Calls as a C program makes them; what they ask for stands right beside them.
#![allow(clippy::undocumented_unsafe_blocks)]

use blissffi::answer::{bliss_answer_t, bliss_score};
use blissffi::codes::bliss_result_e::*;
use blissffi::decide::{bliss_decide, bliss_decision_t, bliss_request_set_id};
use blissffi::explain::{
    bliss_contribution_get, bliss_contribution_t, bliss_explain, bliss_explain_register, bliss_explanation_t,
};
use blissffi::handle::{
    bliss_close, bliss_last_error, bliss_maintain, bliss_metrics_error, bliss_open, bliss_t,
};
use blissffi::http::{bliss_http_register, bliss_http_t, bliss_request_http, bliss_request_value};
use blissffi::lookup::{bliss_features_t, bliss_key_compute, bliss_lookup, bliss_lookup_keys, bliss_value_t};
use blissffi::names::{bliss_dimension_count, bliss_dimension_name, bliss_feature_name, bliss_model_get};
use blissffi::pass::{BLISS_PASS_BYTES, bliss_pass};
use blissffi::request::*;
use blissffi::shadow::{bliss_shadow_count, bliss_shadow_get, bliss_shadow_t};

#[path = "support/mod.rs"]
mod support;

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

struct Ids {
    ip: i32,
    agent: i32,
    headers: i32,
    country: i32,
}

/// Calls everything that a worker calls; returns the score, or 0.
unsafe fn everything(handle: *mut bliss_t, ids: &Ids, now: u32) -> u32 {
    unsafe {
        let mut answer: bliss_answer_t = std::mem::zeroed();
        answer.size = size_of::<bliss_answer_t>();
        let mut features: bliss_features_t = std::mem::zeroed();
        features.size = size_of::<bliss_features_t>();
        bliss_maintain(handle);
        assert_eq!(bliss_request_clear(handle), BLISS_OK);
        assert_eq!(bliss_request_set_text(handle, ids.ip, c"192.0.2.77".as_ptr(), 10), BLISS_OK);
        assert_eq!(bliss_request_set_binary(handle, ids.agent, b"curl/8".as_ptr(), 6), BLISS_OK);
        assert_eq!(bliss_request_set_number(handle, ids.headers, 3.0), BLISS_OK);
        assert_eq!(bliss_request_set_category(handle, ids.country, c"XX".as_ptr(), 2), BLISS_OK);
        assert_eq!(bliss_request_set_u64(handle, 999, 7), BLISS_ERROR_ARGUMENT);
        let mut http: bliss_http_t = std::mem::zeroed();
        http.size = size_of::<bliss_http_t>();
        http.referrer = "https://shop.example/".into();
        http.ip = "192.0.2.77".into();
        http.user_agent = "Mozilla/5.0 (X11; Linux x86_64; rv:125.0) Gecko/20100101 Firefox/125.0".into();
        http.accept = "*/*".into();
        http.pass = "v1.4000000000.00000000000000000000000000000000".into();
        assert_eq!(bliss_request_http(handle, &http), BLISS_OK);
        let mut value = 0.0;
        assert_eq!(bliss_request_value(handle, c"has_accept".as_ptr(), 10, &mut value), BLISS_OK);
        bliss_score(handle, c"login".as_ptr(), 5, now, &mut answer);
        let mut decision: bliss_decision_t = std::mem::zeroed();
        decision.size = size_of::<bliss_decision_t>();
        assert_eq!(bliss_decide(handle, c"login".as_ptr(), 5, now, &mut decision, &mut answer), BLISS_OK);
        let mut pass = [0; BLISS_PASS_BYTES];
        bliss_pass(handle, 60, now, pass.as_mut_ptr(), pass.len());
        assert_ne!(bliss_pass(handle, 0, now, pass.as_mut_ptr(), pass.len()), BLISS_OK);
        assert_eq!(bliss_request_set_id(handle, c"7".as_ptr(), 1), BLISS_OK);
        assert_eq!(bliss_decide(handle, c"login".as_ptr(), 5, now, &mut decision, &mut answer), BLISS_OK);
        let mut shadow: bliss_shadow_t = std::mem::zeroed();
        shadow.size = size_of::<bliss_shadow_t>();
        for index in 0..=bliss_shadow_count(handle) {
            bliss_shadow_get(handle, index, &mut shadow);
        }
        assert_eq!(shadow.score > 0, answer.score > 0, "each model is the other's shadow");
        let mut why: bliss_explanation_t = std::mem::zeroed();
        why.size = size_of::<bliss_explanation_t>();
        let mut part: bliss_contribution_t = std::mem::zeroed();
        part.size = size_of::<bliss_contribution_t>();
        for model in [c"", c"demo", c"nobody"] {
            let (name, len) = (model.as_ptr(), model.count_bytes());
            let code = bliss_explain(handle, c"login".as_ptr(), 5, name, len, now, &mut why);
            assert_eq!(code == BLISS_OK, answer.score > 0 && model != c"nobody");
            let parts =
                (0..).take_while(|at| bliss_contribution_get(handle, *at, &mut part) == BLISS_OK).count();
            assert_eq!(parts, if code == BLISS_OK { 3 } else { 0 });
        }
        bliss_lookup(handle, now, &mut features);
        let mut key = 0;
        let value = bliss_value_t { kind: 0, reserved: 0, number: 0, data: b"192.0.2.77".as_ptr(), len: 10 };
        bliss_key_compute(handle, 0, &value, 1, &mut key);
        bliss_lookup_keys(handle, &key, 1, now, &mut features);
        let mut text = [0; 600];
        bliss_last_error(handle, text.as_mut_ptr(), text.len());
        bliss_metrics_error(handle, text.as_mut_ptr(), text.len());
        let mut name = std::mem::zeroed();
        bliss_dimension_name(handle, bliss_dimension_count(handle), &mut name);
        bliss_feature_name(handle, 0, &mut name, std::ptr::null_mut());
        bliss_model_get(handle, 0, &mut name, std::ptr::null_mut(), std::ptr::null_mut());
        answer.score
    }
}

#[test]
fn f1_no_function_allocates_after_opening() {
    let mut site = support::Site::empty();
    let directory = site.path().to_str().unwrap().to_owned();
    let now = support::now();
    let _profiler = dhat::Profiler::builder().testing().build();
    let blocks = || dhat::HeapStats::get().total_blocks;
    let mut handle = std::ptr::null_mut();
    let ids = unsafe {
        let null: *mut std::ffi::c_char = std::ptr::null_mut();
        let opened =
            bliss_open(directory.as_ptr().cast(), directory.len(), null.cast(), &mut handle, null, 0);
        assert_eq!(opened, BLISS_OK);
        assert_eq!(bliss_http_register(handle), BLISS_OK);
        assert_eq!(bliss_explain_register(handle), BLISS_OK);
        Ids {
            ip: bliss_attribute_register(handle, c"ip".as_ptr(), 2),
            agent: bliss_attribute_register(handle, c"user_agent".as_ptr(), 10),
            headers: bliss_number_register(handle, c"header_count".as_ptr(), 12),
            country: bliss_category_register(handle, c"request.country".as_ptr(), 15),
        }
    };
    let mut scores = 0;
    for round in 0..20 {
        match round {
            0 => {}
            1 => site.publish_features(),
            2 | 9 => site.publish_models(&format!("{round}")),
            3 | 8 | 12 => site.publish_policies(round),
            _ => site.publish_row("192.0.2.77", round as f32 * 10.0),
        }
        let before = blocks();
        for _ in 0..50 {
            scores += u32::from(unsafe { everything(handle, &ids, now) } > 0);
        }
        assert_eq!(blocks() - before, 0, "round {round}");
    }
    // Files that were not there are looked for once a second at most; finding them allocates nothing either.
    support::wait_until("a score", || {
        let before = blocks();
        let score = unsafe { everything(handle, &ids, now) };
        assert_eq!(blocks() - before, 0);
        score > 0
    });
    for round in 0..10 {
        site.publish_row("192.0.2.77", round as f32);
        site.publish_models("3");
        let before = blocks();
        scores += u32::from(unsafe { everything(handle, &ids, now) } > 0);
        assert_eq!(blocks() - before, 0, "round {round}");
    }
    assert!(scores >= 10);
    assert_eq!(
        unsafe { bliss_metrics_error(handle, std::ptr::null_mut(), 0) },
        0,
        "a slot was taken meanwhile"
    );
    unsafe { bliss_close(handle) };
}
