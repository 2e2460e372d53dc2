//! Any request, logged as nginx does: the parser gives back address, time, method, path, referrer and agent. And any line: no
//! panic.
#![no_main]

#[path = "../request_model.rs"]
mod request_model;

use bliss_service::access_log::parse::Parser;
use libfuzzer_sys::fuzz_target;
use request_model::{Found, Request};

fuzz_target!(|bytes: &[u8]| {
    let parser = Parser::default();
    let request = Request::new(bytes);
    for line in [request.combined(), request.json()] {
        let record = parser.parse(&line).unwrap_or_else(|error| panic!("{error:?} in {line:?}"));
        let found = Found {
            address: record.ip,
            time_ms: record.time_ms,
            method: record.method.to_vec(),
            path: record.path.to_vec(),
            referrer: record.referrer.map(|referrer| referrer.to_vec()),
            agent: record.user_agent.map(|agent| agent.to_vec()),
        };
        assert_eq!(found, request.expected(), "{:?}", String::from_utf8_lossy(&line));
    }
    let _ = parser.parse(bytes);
});
