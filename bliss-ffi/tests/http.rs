//! D2: whole requests through the C ABI say what `docs/http-vectors.jsonl` says.

// Calls as a C program makes them; what they ask for stands right beside them.
#![allow(clippy::undocumented_unsafe_blocks)]

use std::collections::BTreeMap;

use blissffi::answer::bliss_text_t;
use blissffi::codes::bliss_result_e::*;
use blissffi::handle::{bliss_close, bliss_last_error, bliss_maintain, bliss_open, bliss_t};
use blissffi::http::{bliss_http_register, bliss_http_t, bliss_request_http, bliss_request_value};
use blissffi::request::bliss_request_clear;

#[path = "support/mod.rs"]
mod support;

#[derive(serde::Deserialize)]
struct Vector {
    name: String,
    site_hosts: Vec<String>,
    request: BTreeMap<String, String>,
    values: BTreeMap<String, Option<f32>>,
}

fn vectors() -> Vec<Vector> {
    let lines = include_str!("../../docs/http-vectors.jsonl").lines();
    lines.map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn empty() -> bliss_http_t {
    bliss_http_t::default()
}

fn http(request: &BTreeMap<String, String>) -> bliss_http_t {
    let mut http = empty();
    for (name, value) in request {
        let field = http.text_mut(name).unwrap_or_else(|| panic!("{name}"));
        *field = value.as_str().into();
    }
    http
}

fn open(site: &support::Site) -> *mut bliss_t {
    let directory = site.path().to_str().unwrap();
    let mut handle = std::ptr::null_mut();
    let null: *mut std::ffi::c_char = std::ptr::null_mut();
    let opened =
        unsafe { bliss_open(directory.as_ptr().cast(), directory.len(), null.cast(), &mut handle, null, 0) };
    assert_eq!(opened, BLISS_OK);
    handle
}

fn value(handle: *mut bliss_t, name: &str) -> Result<f32, String> {
    let mut value = 0.0;
    match unsafe { bliss_request_value(handle, name.as_ptr().cast(), name.len(), &mut value) } {
        BLISS_OK => Ok(value),
        code => Err(format!("{code:?}: {}", last_error(handle))),
    }
}

fn last_error(handle: *mut bliss_t) -> String {
    let mut text = [0; 600];
    unsafe {
        bliss_last_error(handle, text.as_mut_ptr(), text.len());
        std::ffi::CStr::from_ptr(text.as_ptr()).to_string_lossy().into_owned()
    }
}

#[test]
fn d2_vectors_of_request_values_through_c() {
    let mut site = support::Site::published();
    let handle = open(&site);
    assert_eq!(unsafe { bliss_http_register(handle) }, BLISS_OK);
    for vector in vectors() {
        site.publish_site_hosts(&vector.site_hosts);
        let http = http(&vector.request);
        unsafe {
            assert_eq!(bliss_maintain(handle), BLISS_OK);
            assert_eq!(bliss_request_clear(handle), BLISS_OK);
            assert_eq!(bliss_request_http(handle, &http), BLISS_OK);
        }
        for (name, expected) in &vector.values {
            let found = value(handle, &format!("request.{name}")).unwrap();
            assert_eq!(Some(found).filter(|value| !value.is_nan()), *expected, "{}: {name}", vector.name);
        }
    }
    unsafe { bliss_close(handle) };
}

#[test]
fn f5_wrong_requests_are_refused_and_change_nothing() {
    let site = support::Site::published();
    let handle = open(&site);
    let request = BTreeMap::from([("method".to_owned(), "GET".to_owned())]);
    let good = http(&request);
    assert_eq!(unsafe { bliss_request_http(handle, &good) }, BLISS_ERROR_ARGUMENT);
    assert!(last_error(handle).contains("bliss_http_register"), "{}", last_error(handle));
    assert_eq!(unsafe { bliss_http_register(handle) }, BLISS_OK);
    assert!(value(handle, "is_get").unwrap_err().contains("no request was handed over"));
    assert_eq!(unsafe { bliss_request_http(handle, &good) }, BLISS_OK);
    assert_eq!(value(handle, "is_get"), Ok(1.0));
    assert!(value(handle, "no_such").unwrap_err().contains("no value of this name"));

    let long = vec![b'x'; 65_537];
    let too_long = bliss_text_t { data: long.as_ptr().cast(), len: long.len() };
    let without_data = bliss_text_t { data: std::ptr::null(), len: 3 };
    for (wrong, code) in [
        (bliss_http_t { method: too_long, ..empty() }, BLISS_ERROR_ARGUMENT),
        (bliss_http_t { sec_ch_ua_platform: without_data, ..empty() }, BLISS_ERROR_NULL),
        (bliss_http_t { size: 8, ..empty() }, BLISS_ERROR_SIZE),
        (bliss_http_t { size: 0, ..empty() }, BLISS_ERROR_SIZE),
    ] {
        assert_eq!(unsafe { bliss_request_http(handle, &wrong) }, code);
        assert_eq!(value(handle, "is_get"), Ok(1.0), "as before");
    }
    assert_eq!(unsafe { bliss_request_http(handle, std::ptr::null()) }, BLISS_ERROR_NULL);
    assert_eq!(unsafe { bliss_request_http(std::ptr::null_mut(), &good) }, BLISS_ERROR_NULL);
    unsafe { bliss_request_clear(handle) };
    assert!(value(handle, "is_get").is_err());
    unsafe { bliss_close(handle) };
}
