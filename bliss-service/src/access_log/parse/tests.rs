use super::*;

#[path = "../../../fuzz/request_model.rs"]
mod request_model;

use request_model::{Found, Request};

const LINE: &str = r#"83.149.9.216 - frank [17/May/2015:10:05:03 +0000] "GET /a/b.png?x=1 HTTP/1.1" 200 203023 "http://s.com/p/" "Mozilla/5.0 (X)""#;

fn parse(line: &str) -> Result<Record<'_>, ParseError> {
    Parser::default().parse(line.as_bytes()).map_err(|malformed| malformed.error)
}

fn partial(line: &str) -> Option<Partial> {
    Parser::default().parse(line.as_bytes()).unwrap_err().partial
}

fn bytes(text: &str) -> Option<Cow<'_, [u8]>> {
    Some(Cow::Borrowed(text.as_bytes()))
}

#[test]
fn combined_line() {
    let record = parse(LINE).unwrap();
    assert_eq!(record.time_ms, 1_431_857_103_000);
    assert_eq!(record.ip, "83.149.9.216".parse::<IpAddr>().unwrap());
    assert_eq!(record.user_agent, bytes("Mozilla/5.0 (X)"));
    assert_eq!(record.referrer, bytes("http://s.com/p/"));
    assert_eq!(record.method.as_ref(), b"GET");
    assert_eq!(record.path.as_ref(), b"/a/b.png");
    assert_eq!(record.status, 200);
    assert!(matches!(record.path, Cow::Borrowed(_)), "a line without escapes is not copied");
}

#[test]
fn combined_line_with_more_after_it_and_a_carriage_return() {
    assert_eq!(parse(&format!("{LINE} \"10.0.0.1\" 0.003\r")).unwrap(), parse(LINE).unwrap());
}

#[test]
fn time_zone_is_taken_off() {
    let line = LINE.replace("17/May/2015:10:05:03 +0000", "17/May/2015:15:35:03 +0530");
    assert_eq!(parse(&line).unwrap().time_ms, 1_431_857_103_000);
    let line = LINE.replace("17/May/2015:10:05:03 +0000", "17/May/2015:02:05:03 -0800");
    assert_eq!(parse(&line).unwrap().time_ms, 1_431_857_103_000);
}

#[test]
fn escapes_of_nginx_and_apache_are_undone() {
    let line = LINE.replace("Mozilla/5.0 (X)", r#"a\x22b\x5Cc \"d\" \\ \xD0\xBF"#);
    assert_eq!(parse(&line).unwrap().user_agent.unwrap().as_ref(), "a\"b\\c \"d\" \\ п".as_bytes());
}

#[test]
fn missing_headers_are_none() {
    let line = LINE.replace("\"http://s.com/p/\" \"Mozilla/5.0 (X)\"", "\"-\" \"-\"");
    let record = parse(&line).unwrap();
    assert_eq!((record.referrer, record.user_agent), (None, None));
}

#[test]
fn a_request_that_is_no_http_has_no_method_and_no_path() {
    for request in ["-", "", r"\x16\x03\x01\x00 x", "nonsense"] {
        let line = LINE.replace("GET /a/b.png?x=1 HTTP/1.1", request);
        let record = parse(&line).unwrap();
        assert_eq!((record.method.as_ref(), record.path.as_ref()), (&b""[..], &b""[..]), "{request}");
    }
}

#[test]
fn paths_lose_query_and_host() {
    for (target, path) in [
        ("/", "/"),
        ("/a b c", "/a b c"),
        ("/?q=/x", "/"),
        ("http://host/x/y?z", "/x/y"),
        ("http://host", "/"),
        ("HTTP://host/up?x", "/up"),
        ("/h#frag?x=1", "/h#frag"),
        (" /sp ", "/sp"),
        ("*", "*"),
        ("//double", "//double"),
    ] {
        let line = LINE.replace("/a/b.png?x=1", target);
        assert_eq!(parse(&line).unwrap().path.as_ref(), path.as_bytes(), "{target}");
    }
}

#[test]
fn mapped_ipv6_is_ipv4() {
    let record_ip = parse(&LINE.replace("83.149.9.216", "::ffff:192.0.2.1")).unwrap().ip;
    assert_eq!(record_ip, "192.0.2.1".parse::<IpAddr>().unwrap());
    assert!(parse(&LINE.replace("83.149.9.216", "2001:db8::1")).unwrap().ip.is_ipv6());
}

#[test]
fn broken_combined_lines_say_what_was_expected() {
    for (line, expected) in [
        ("", "address"),
        ("83.149.9.216", "address"),
        ("garbage in here", "IP address"),
        ("192.0.2.1 in here", "`[time] \"request\"`"),
        (&LINE[..70], "quoted request"),
        (&LINE[..LINE.len() - 1], "quoted user agent"),
        (&LINE.replace("May", "Mai"), "17/May/2015"),
        (&LINE.replace("17/May", "31/Feb"), "17/May/2015"),
        (&LINE.replace("10:05:03", "25:05:03"), "17/May/2015"),
        (&LINE.replace("17/May/2015", "17/May/1969"), "17/May/2015"),
        (&LINE.replace("83.149.9.216", "host.example"), "host.example"),
        (&LINE.replace(" 200 ", " 2000 "), "2000"),
        (&LINE.replace(" 200 ", " abc "), "abc"),
    ] {
        let error = parse(line).unwrap_err().to_string();
        assert!(error.contains(expected), "{line}: {error}");
    }
    let long = format!("{LINE} {}", "x".repeat(MAX_LINE_BYTES));
    assert_eq!(parse(&long).unwrap_err(), ParseError::TooLong);
    assert_eq!(partial(&long).unwrap().time_ms, Some(1_431_857_103_000));
}

#[test]
fn json_line_of_nginx() {
    let line = r#"{"time_local":"01/Jan/2020:00:00:00 +0000","msec":"1431857103.250","remote_addr":"192.0.2.1",
        "request":"GET /ignored HTTP/1.1","request_method":"HEAD","request_uri":"/x?y","status":"404","host":"a.example",
        "http_user_agent":"a \"b\" \u00e9","http_referer":"","upstream":{"time":[0.1,null]},"bytes":12}"#;
    let record = parse(line).unwrap();
    assert_eq!(record.time_ms, 1_431_857_103_250);
    assert_eq!(record.method.as_ref(), b"HEAD");
    assert_eq!(record.path.as_ref(), b"/x");
    assert_eq!(record.status, 404);
    assert_eq!(record.host, bytes("a.example"));
    assert_eq!(record.user_agent.unwrap().as_ref(), "a \"b\" é".as_bytes());
    assert_eq!(record.referrer, None);
}

#[test]
fn json_times_and_numbers() {
    for time in [
        r#""time_iso8601":"2015-05-17T10:05:03+00:00""#,
        r#""time_iso8601":"2015-05-17T12:05:03+02:00""#,
        r#""time_local":"17/May/2015:10:05:03 +0000""#,
        r#""msec":1431857103"#,
        r#""timestamp":"1431857103""#,
    ] {
        let line =
            format!(r#"{{{time},"remote_addr":"192.0.2.1","status":200,"request":"GET /q?x HTTP/1.1"}}"#);
        let record = parse(&line).unwrap();
        assert_eq!((record.time_ms, record.status), (1_431_857_103_000, 200), "{time}");
        assert_eq!(record.path.as_ref(), b"/q");
    }
}

#[test]
fn json_header_bytes_need_not_be_utf8() {
    let mut line = br#"{"msec":1,"remote_addr":"192.0.2.1","status":200,"request":"GET / HTTP/1.1","http_user_agent":"a"#.to_vec();
    line.extend_from_slice(&[0xff, 0xfe]);
    line.extend_from_slice(br#"","other":""#);
    line.extend_from_slice(&[0xff]);
    line.extend_from_slice(b"\"}");
    let parser = Parser::default();
    let record = parser.parse(&line).unwrap();
    assert_eq!(record.user_agent.unwrap().as_ref(), &[b'a', 0xff, 0xfe]);
}

#[test]
fn own_names_of_json_fields_go_first() {
    let fields = [(FieldKind::Ip, "real_ip".to_owned()), (FieldKind::Time, "t".to_owned())];
    let parser = Parser::new(Format::Json, &fields);
    let line = br#"{"remote_addr":"10.0.0.1","real_ip":"192.0.2.9","msec":5,"t":7,"status":200,"request":"GET / HTTP/1.1"}"#;
    let record = parser.parse(line).unwrap();
    assert_eq!(record.ip.to_string(), "192.0.2.9");
    assert_eq!(record.time_ms, 7000);
}

#[test]
fn broken_json_lines_say_what_is_wrong() {
    for (line, expected) in [
        ("{", "EOF"),
        (r#"{"msec":1}"#, "client's address"),
        (r#"{"remote_addr":"192.0.2.1"}"#, "time"),
        (r#"{"msec":-1,"remote_addr":"192.0.2.1"}"#, "since 1970"),
        (r#"{"msec":1,"remote_addr":"192.0.2.1"}"#, "status"),
        (r#"{"msec":1,"remote_addr":"192.0.2.1","status":1e9}"#, "a status"),
        (r#"{"msec":1,"remote_addr":"192.0.2.1","status":200}"#, "method or path"),
        (r#"{"msec":1,"remote_addr":7}"#, "expected an IP address, found `7`"),
        (r#"{"msec":1} x"#, "trailing"),
    ] {
        let error = parse(line).unwrap_err().to_string();
        assert!(error.contains(expected), "{line}: {error}");
    }
}

/// A request for [`Request::new`]: parts with their lengths, rich in what lines and their escapes are made of.
fn requests() -> impl proptest::strategy::Strategy<Value = Vec<u8>> {
    use proptest::prelude::*;
    let piece = prop_oneof![
        proptest::sample::select(b"[]\"\\ -{}:#?/%,x\t\0\n\x7f\x1f".to_vec()).prop_map(|byte| vec![byte]),
        Just(b"] \"".to_vec()),
        Just(b"\\x22".to_vec()),
        Just(b"\\u0022".to_vec()),
        Just(b" [01/Jan/2020:00:00:00 +0000] \"GET /x HTTP/1.1\" 200 1 \"-\" \"y\"".to_vec()),
        Just(b"\",\"remote_addr\":\"192.0.2.200".to_vec()),
        Just("\u{e9}\u{2028}".as_bytes().to_vec()),
        any::<u8>().prop_map(|byte| vec![byte]),
    ];
    let part = prop::collection::vec(piece, 0..8).prop_map(|pieces| {
        let mut part = pieces.concat();
        part.truncate(255);
        [&[part.len() as u8], part.as_slice()].concat()
    });
    prop::collection::vec(part, 0..7).prop_map(|parts| parts.concat())
}

proptest::proptest! {
    /// A Basic user with `[` once made a client's lines unreadable, and the client invisible.
    #[test]
    fn s18_whatever_a_client_sends_its_request_counts(bytes in requests()) {
        let request = Request::new(&bytes);
        for line in [request.combined(), request.json()] {
            let record = Parser::default().parse(&line).unwrap();
            let found = Found {
                address: record.ip,
                time_ms: record.time_ms,
                method: record.method.to_vec(),
                path: record.path.to_vec(),
                referrer: record.referrer.map(|referrer| referrer.to_vec()),
                agent: record.user_agent.map(|agent| agent.to_vec()),
            };
            proptest::prop_assert_eq!(found, request.expected(), "{:?}", String::from_utf8_lossy(&line));
        }
    }

    #[test]
    fn where_a_line_is_cut_or_damaged_its_address_counts(at in 13usize..LINE.len(), byte: u8) {
        let cut = &LINE.as_bytes()[..at];
        let mut damaged = LINE.as_bytes().to_vec();
        damaged[at] = byte;
        for line in [cut, damaged.as_slice()] {
            let ip = match Parser::default().parse(line) {
                Ok(record) => record.ip,
                Err(malformed) => malformed.partial.unwrap().ip,
            };
            proptest::prop_assert_eq!(ip.to_string(), "83.149.9.216");
        }
    }

    #[test]
    fn no_bytes_make_it_panic(line in proptest::collection::vec(proptest::num::u8::ANY, 0..300)) {
        let _ = Parser::default().parse(&line);
        let _ = Parser::new(Format::Json, &[]).parse(&line);
    }

    #[test]
    fn no_change_of_a_line_makes_it_panic(at in 0usize..LINE.len(), byte: u8) {
        let mut line = LINE.as_bytes().to_vec();
        line[at] = byte;
        let _ = Parser::default().parse(&line);
    }
}

#[test]
fn users_with_brackets_hide_no_line() {
    for user in ["-", "a[b", ";run [one];stop", "CN=x,[OU=y]", "x [01/Jan/2020:00:00:00 +0000]", "[]", "a] b"]
    {
        let line = LINE.replace("frank", user);
        assert_eq!(parse(&line).as_ref(), parse(LINE).as_ref(), "{user}");
    }
}

#[test]
fn vhost_combined_has_the_host_in_front() {
    for (host, expected) in
        [("www.Example.com:443", "www.example.com"), ("[2001:db8::1]:80", "[2001:db8::1]")]
    {
        let line = format!("{host} {LINE}");
        let record = parse(&line).unwrap();
        assert_eq!(record.host, bytes(expected));
        assert_eq!(Record { host: None, ..record }, parse(LINE).unwrap());
    }
    assert!(parse(&format!("a b {LINE}")).is_err());
}

#[test]
fn quotes_that_are_not_escaped_leave_no_part_of_a_value() {
    for (from, to) in [
        ("Mozilla/5.0 (X)", r#"Mozilla "quoted" UA"#),
        ("Mozilla/5.0 (X)", r#""x"#),
        ("http://s.com/p/", r#"http://example.com/?q="a""#),
        ("/a/b.png", r#"/a"b.png"#),
    ] {
        let line = LINE.replace(from, to);
        assert!(parse(&line).is_err(), "{line}");
        assert_eq!(partial(&line).unwrap().time_ms, Some(1_431_857_103_000));
    }
}

#[test]
fn byte_order_mark_and_nuls_in_front_of_a_line_are_skipped() {
    for front in ["\u{feff}", "\0\0\0", "\0\u{feff}"] {
        assert_eq!(parse(&format!("{front}{LINE}")).unwrap(), parse(LINE).unwrap());
    }
}

#[test]
fn methods_are_any_token() {
    let dash = LINE.replace("\"GET", "\"-");
    let record = parse(&dash).unwrap();
    assert_eq!((record.method.as_ref(), record.path.as_ref()), (&b""[..], &b"/a/b.png"[..]));
    for method in ["M-SEARCH", "VERSION_CONTROL", "X2", "get"] {
        let line = LINE.replace("\"GET", &format!("\"{method}"));
        assert_eq!(parse(&line).unwrap().method.as_ref(), method.as_bytes());
    }
}

const JSON: &str = r#"{"msec":1431857103,"remote_addr":"192.0.2.1","status":200,"request":"GET /p HTTP/1.1","http_user_agent":"UA"#;

#[test]
fn values_of_other_types_under_known_names_do_not_matter() {
    let plain = format!("{JSON}\"}}");
    for name in [
        "host",
        "http_host",
        "time",
        "timestamp",
        "ip",
        "client_ip",
        "method",
        "path",
        "uri",
        "user_agent",
        "referrer",
        "ts",
    ] {
        for value in [
            r#"{"name":"shipper","os":{"a":[1]}}"#,
            "7",
            "-1e300",
            "true",
            "null",
            "[]",
            "[1,[2]]",
            "[{}]",
            "{}",
        ] {
            let line = format!("{JSON}\",\"{name}\":{value}}}");
            assert_eq!(parse(&line), parse(&plain), "{line}");
            let line = format!("{{\"{name}\":{value},{}\"}}", &JSON[1..]);
            assert_eq!(parse(&line), parse(&plain), "{line}");
        }
    }
    let line = format!(r#"{JSON}","status":{{"code":1}},"request":{{"id":1}}}}"#);
    assert_eq!(parse(&line), parse(&plain));
}

#[test]
fn lines_of_caddy_are_read_without_configuration() {
    let line = r#"{"level":"info","ts":1431857103.5,"msg":"handled request","request":{"remote_ip":"10.0.0.1","remote_port":"41342",
        "client_ip":"192.0.2.7","proto":"HTTP/2.0","method":"GET","host":"Shop.Example:8443","uri":"/x?y","headers":{"User-Agent":["curl/7.82.0"],
        "Accept":["*/*"],"Referer":["http://a/"]},"tls":{"version":772}},"duration":0.0009,"status":404}"#;
    let record = parse(line).unwrap();
    assert_eq!((record.time_ms, record.status), (1_431_857_103_500, 404));
    assert_eq!(record.ip.to_string(), "192.0.2.7");
    assert_eq!((record.method.as_ref(), record.path.as_ref()), (&b"GET"[..], &b"/x"[..]));
    assert_eq!(record.host, bytes("shop.example"));
    assert_eq!((record.user_agent, record.referrer), (bytes("curl/7.82.0"), bytes("http://a/")));
}

#[test]
fn dotted_names_reach_nested_fields_and_flat_ones() {
    let parser = Parser::new(Format::Json, &[(FieldKind::Ip, "client.geo.ip".to_owned())]);
    for line in [
        format!(r#"{JSON}","client":{{"geo":{{"ip":"192.0.2.9"}},"ip":"192.0.2.8"}}}}"#),
        format!(r#"{JSON}","client.geo.ip":"192.0.2.9"}}"#),
        format!(r#"{JSON}","client":{{"geo.ip":"192.0.2.9"}}}}"#),
    ] {
        assert_eq!(parser.parse(line.as_bytes()).unwrap().ip.to_string(), "192.0.2.9", "{line}");
    }
}

#[test]
fn json_lines_that_are_cut_or_too_long_count_for_their_address() {
    let whole = format!("{JSON}\"}}");
    for end in 45..whole.len() {
        let found = partial(&whole[..end]).unwrap();
        assert_eq!((found.ip.to_string().as_str(), found.time_ms), ("192.0.2.1", Some(1_431_857_103_000)));
    }
    let long = format!("{JSON}{}\"}}", "\\u0001".repeat(MAX_LINE_BYTES / 6));
    assert_eq!(parse(&long).unwrap_err(), ParseError::TooLong);
    assert_eq!(partial(&long).unwrap().ip.to_string(), "192.0.2.1");
}

#[test]
fn json_bytes_that_are_no_utf8_come_back_as_they_were() {
    for value in [&b"\xff"[..], b"a\xc3\xa9\xe9z", b"\xf4\x8f\xbc\x80\xff", b"\xed\xa0\x80", b"\xf0\x9f\x98"]
    {
        let line = [JSON.replace("UA", "").as_bytes(), value, b"\"}"].concat();
        assert_eq!(Parser::default().parse(&line).unwrap().user_agent.unwrap().as_ref(), value);
    }
}

#[test]
fn what_our_decision_did_is_read_from_the_log() {
    for (action, own) in [
        ("", false),
        ("-", false),
        ("allow", false),
        ("Allow", false),
        ("observe", false),
        ("tag", false),
        ("rate_limit_key", false),
        ("block", true),
        ("challenge", true),
    ] {
        let json = format!("{JSON}\",\"bot_action\":\"{action}\"}}");
        assert_eq!(parse(&json).unwrap().own_answer, own, "{json}");
        let parser = Parser::new(Format::Json, &[(FieldKind::BotAction, "edge.did".to_owned())]);
        let named = format!("{JSON}\",\"bot_action\":\"block\",\"edge\":{{\"did\":\"{action}\"}}}}");
        assert_eq!(parser.parse(named.as_bytes()).unwrap().own_answer, own, "{named}");
        for more in ["", " \"10.0.0.1\" 0.003"] {
            let combined = format!("{LINE} bot_action={action}{more}");
            assert_eq!(parse(&combined).unwrap().own_answer, own, "{combined}");
        }
    }
    for value in ["null", "false", "1", "{}", "[]"] {
        let json = format!("{JSON}\",\"bot_action\":{value}}}");
        assert!(!parse(&json).unwrap().own_answer, "{json}");
    }
    for (status, own) in [(200, false), (404, false), (503, false), (429, true)] {
        for name in ["bliss_action", "bot_action"] {
            let json =
                format!("{JSON}\",\"{name}\":\"rate_limit_key\"}}").replace("200", &status.to_string());
            assert_eq!(parse(&json).unwrap().own_answer, own, "{json}");
            let line = format!("{LINE} {name}=rate_limit_key").replace(" 200 ", &format!(" {status} "));
            assert_eq!(parse(&line).unwrap().own_answer, own, "{line}");
        }
    }
    // What a client can write is not what we did.
    for more in [" \"bot_action=block\"", " \"x\" bot_action=block", " bot_action", " bot_actions=block"] {
        assert!(!parse(&format!("{LINE}{more}")).unwrap().own_answer, "{more}");
    }
    assert!(!parse(&LINE.replace("Mozilla/5.0 (X)", "x\\x22 bot_action=block")).unwrap().own_answer);
}

/// D2: what the worker found of a pass is what a log of it says; P11 has what the worker finds.
#[test]
fn d2_a_log_says_of_a_pass_what_the_worker_found() {
    use bliss_core::http::{NO_SITES, RequestValue};
    let told = |json: &str| {
        let record = parse(json).unwrap();
        let values = record.http(&[192, 0, 2, 1]).values(RequestValue::ALL_BITS, NO_SITES);
        Some(values[RequestValue::ChallengePassed.index()]).filter(|value| !value.is_nan())
    };
    for (logged, expected) in [
        ("\"1\"", Some(1.0)),
        ("\"0\"", Some(0.0)),
        ("1", Some(1.0)),
        ("0", Some(0.0)),
        ("\"\"", None),
        ("\"-\"", None),
        ("\"v1.1800000000.00\"", None),
        ("2", None),
        ("true", None),
        ("null", None),
    ] {
        assert_eq!(told(&format!("{JSON}\",\"bliss_passed\":{logged}}}")), expected, "{logged}");
    }
    assert_eq!(told(&format!("{JSON}\"}}")), None);
    assert_eq!(parse(LINE).unwrap().told.passed, None);
    // A cookie in the log is no pass: nobody checked it.
    assert_eq!(told(&format!("{JSON}\",\"cookie_bliss_pass\":\"1\"}}")), None);
    // Under another name.
    let parser = Parser::new(Format::Auto, &[(FieldKind::Passed, "edge.human".into())]);
    let line = format!("{JSON}\",\"edge\":{{\"human\":\"1\"}},\"bliss_passed\":\"0\"}}");
    assert_eq!(parser.parse(line.as_bytes()).unwrap().told.passed, Some(true));
}

/// D2: a log with headers says of a request what a worker says.
#[test]
fn d2_vectors_of_request_values_through_a_log() {
    use bliss_core::http::{RequestValue, is_of_site};
    let nginx = [
        ("method", "request_method"),
        ("target", "request_uri"),
        ("scheme", "scheme"),
        ("host", "host"),
        ("user_agent", "http_user_agent"),
        ("referrer", "http_referer"),
    ];
    let of_target = ["is_asset", "is_data", "path_depth", "query_length"];
    for line in include_str!("../../../../docs/http-vectors.jsonl").lines() {
        let vector: serde_json::Value = serde_json::from_str(line).unwrap();
        let request = vector["request"].as_object().unwrap();
        let mut log =
            serde_json::json!({ "msec": 1_431_857_103.5, "remote_addr": "192.0.2.1", "status": 200 });
        for (name, value) in request {
            let variable = nginx.iter().find(|(known, _)| known == name);
            log[variable.map_or(format!("http_{name}"), |(_, variable)| (*variable).to_owned())] =
                value.clone();
        }
        // A log without these cannot be read.
        let has = |name: &str| request.contains_key(name);
        for (name, variable) in &nginx[..2] {
            if !has(name) {
                log[*variable] = "GET".into();
            }
        }
        let log = log.to_string();
        let record = parse(&log).unwrap();
        let hosts = vector["site_hosts"].as_array().unwrap();
        let hosts = hosts.iter().map(|host| host.as_str().unwrap().as_bytes());
        let values = record
            .http(&[192, 0, 2, 1])
            .values(RequestValue::ALL_BITS, |host| is_of_site(hosts.clone(), host));
        for value in RequestValue::ALL {
            let name = value.name();
            if (has("method") || name != "is_get") && (has("target") || !of_target.contains(&name)) {
                let found = Some(values[value.index()]).filter(|value| !value.is_nan()).map(f64::from);
                assert_eq!(found, vector["values"][name].as_f64(), "{}: {name}: {log}", vector["name"]);
            }
        }
    }
}

/// Caddy logs all headers: one that is not there the request does not have.
#[test]
fn what_a_log_tells_and_what_the_request_does_not_have() {
    let caddy = r#"{"ts":1.5,"status":200,"request":{"remote_ip":"192.0.2.1","method":"GET","uri":"/a?b",
        "headers":{"Accept":["*/*"]}}}"#;
    let record = parse(caddy).unwrap();
    let http = record.http(&[]);
    assert_eq!((http.accept, http.accept_language), (Some(b"*/*".as_slice()), Some(b"".as_slice())));
    assert_eq!((http.referrer, http.user_agent), (Some(b"".as_slice()), Some(b"".as_slice())));
    assert_eq!((http.target, http.scheme), (Some(b"/a?b".as_slice()), None));
    let nginx = r#"{"msec":1.5,"status":200,"remote_addr":"192.0.2.1","request":"GET /a?b HTTP/1.1","http_referer":"-"}"#;
    let record = parse(nginx).unwrap();
    let http = record.http(&[]);
    assert_eq!((http.referrer, http.user_agent, http.accept), (Some(b"".as_slice()), None, None));
    assert_eq!(http.target, Some(b"/a?b".as_slice()));
    let combined = parse(LINE).unwrap();
    assert!(combined.http(&[]).user_agent.is_some() && combined.http(&[]).accept.is_none());
}
