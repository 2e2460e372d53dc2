//! What it costs to compute all values that a request says by itself: nanoseconds per request, the best and the median of many
//! rounds, for requests of which a server tells more and more.
//!
//! ```text
//! cargo run --profile demo -p bliss-core --example request_values
//! ```

use std::hint::black_box;
use std::time::Instant;

use bliss_core::http::{HttpRequest, RequestValue, is_of_site};

const ROUNDS: usize = 2000;
const REQUESTS: u32 = 1000;

const CHROME: &[u8] = b"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/124.0.0.0 Safari/537.36";
const FIREFOX: &[u8] = b"Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0";
const IPHONE: &[u8] = b"Mozilla/5.0 (iPhone; CPU iPhone OS 17_4 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.4 Mobile/15E148 Safari/604.1";
const CURL: &[u8] = b"curl/8.5.0";

fn main() {
    let combined = HttpRequest {
        method: Some(b"GET"),
        target: Some(b"/articles/2024/05/how-it-works.html?utm_source=letter&page=2"),
        referrer: Some(b"https://www.shop.example/articles/"),
        user_agent: Some(CURL),
        ..HttpRequest::default()
    };
    let with_agent = |agent| HttpRequest { user_agent: Some(agent), ..combined };
    let headers = HttpRequest {
        scheme: Some(b"https"),
        host: Some(b"www.shop.example"),
        accept: Some(
            b"text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8",
        ),
        accept_language: Some(b"en-GB,en;q=0.9,de;q=0.8"),
        accept_encoding: Some(b"gzip, deflate, br, zstd"),
        sec_fetch_site: Some(b"same-origin"),
        sec_fetch_mode: Some(b"navigate"),
        sec_fetch_dest: Some(b"document"),
        sec_ch_ua: Some(b""),
        sec_ch_ua_mobile: Some(b""),
        sec_ch_ua_platform: Some(b""),
        ..combined
    };
    let chrome = HttpRequest {
        user_agent: Some(CHROME),
        sec_ch_ua: Some(b"\"Chromium\";v=\"124\", \"Google Chrome\";v=\"124\", \"Not-A.Brand\";v=\"99\""),
        sec_ch_ua_mobile: Some(b"?0"),
        sec_ch_ua_platform: Some(b"\"Windows\""),
        ..headers
    };
    let cases = [
        ("combined log, curl", combined),
        ("combined log, Chrome", with_agent(CHROME)),
        ("combined log, Firefox", with_agent(FIREFOX)),
        ("combined log, Safari of an iPhone", with_agent(IPHONE)),
        ("all headers, curl", headers),
        ("all headers, Chrome", chrome),
        ("all headers, Firefox", HttpRequest { user_agent: Some(FIREFOX), ..headers }),
        ("all headers, Safari of an iPhone", HttpRequest { user_agent: Some(IPHONE), ..headers }),
    ];
    println!("| request | best | median |\n|---|---|---|");
    for (name, request) in cases {
        let mut rounds: Vec<f64> = (0..ROUNDS).map(|_| round(&request)).collect();
        rounds.sort_by(f64::total_cmp);
        println!("| {name} | {:.0} ns | {:.0} ns |", rounds[0], rounds[ROUNDS / 2]);
    }
}

/// Nanoseconds per request.
fn round(request: &HttpRequest<'_>) -> f64 {
    let started = Instant::now();
    for _ in 0..REQUESTS {
        let site = [b"shop.example".as_slice()];
        let is_site = |host: &[u8]| is_of_site(site.into_iter(), host);
        black_box(black_box(request).values(RequestValue::ALL_BITS, is_site));
    }
    started.elapsed().as_secs_f64() * 1e9 / f64::from(REQUESTS)
}
