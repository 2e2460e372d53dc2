//! Models that take what a request says by itself.

use super::*;
use crate::http::{HttpRequest, RequestValue};

fn requests<'a>() -> [(&'static str, HttpRequest<'a>); 4] {
    let told = HttpRequest { method: Some(b"GET"), host: Some(b"shop.example"), ..HttpRequest::default() };
    [
        ("nothing told", HttpRequest::default()),
        ("no referrer", HttpRequest { referrer: Some(b""), ..told }),
        ("the site's", HttpRequest { referrer: Some(b"https://www.static.example/"), ..told }),
        ("foreign", HttpRequest { referrer: Some(b"https://search.example/"), ..told }),
    ]
}

fn probability(bench: &mut Bench, request: &Request<'_>) -> f64 {
    bench.score(request, "").outcome.unwrap().bot_probability
}

#[test]
fn d2_models_take_values_of_whole_requests() {
    let inputs = [
        ("request.no_referrer", 0.5, 1.0),
        ("request.site_referrer", 0.5, 2.0),
        ("ip.requests_1m", 40.0, 4.0),
    ];
    let mut bench = Bench::new(rows_of_one_client(), &one_model(&stumps(&inputs)));
    let mut request = Request::new();
    assert_eq!(bench.score(&request, "").outcome, Err(Unscored::MissingInput), "not registered");
    let id = bench.names.http().unwrap();
    bench.bind();
    for ((name, http), raw) in requests().into_iter().zip([0.0, 1.0, 2.0, 0.0]) {
        request.set_http(&id, http);
        assert_eq!(probability(&mut bench, &request), sigmoid(raw), "{name}");
        let values = bench.scorer.request_values(&request, 1_000).unwrap();
        assert!(values[RequestValue::IsAsset.index()].is_nan(), "not told");
        // Its attributes make keys.
        request.set_http(&id, HttpRequest { ip: Some("192.0.2.1".into()), ..http });
        assert_eq!(probability(&mut bench, &request), sigmoid(raw + 4.0), "{name}");
        request.clear();
        assert_eq!(probability(&mut bench, &request), 0.5, "{name}: nothing is left of it");
    }
}

#[test]
fn what_the_caller_registers_itself_comes_first() {
    let mut bench =
        Bench::new(rows_of_one_client(), &one_model(&stumps(&[("request.no_referrer", 0.5, 1.0)])));
    let own = bench.names.number("no_referrer").unwrap();
    let id = bench.names.http().unwrap();
    bench.bind();
    let mut request = Request::new();
    request.set_http(&id, HttpRequest { referrer: Some(b""), ..HttpRequest::default() });
    assert_eq!(probability(&mut bench, &request), 0.5);
    request.set_number(own, 1.0);
    assert_eq!(probability(&mut bench, &request), sigmoid(1.0));
}

#[test]
fn whole_requests_need_room_for_their_attributes() {
    let mut names = Names::default();
    for i in 0..60 {
        names.attribute(&format!("x{i}")).unwrap();
    }
    let before = names.registered();
    assert!(names.http().is_err());
    assert_eq!(names.registered(), before, "nothing is registered by halves");
}
