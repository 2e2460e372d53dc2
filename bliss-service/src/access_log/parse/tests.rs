use super::*;

const LINE: &str = r#"83.149.9.216 - frank [17/May/2015:10:05:03 +0000] "GET /a/b.png?x=1 HTTP/1.1" 200 203023 "http://s.com/p/" "Mozilla/5.0 (X)""#;

fn parse(line: &str) -> Result<Record<'_>, ParseError> {
    Parser::default().parse(line.as_bytes())
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
        ("http://host", ""),
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
        ("garbage in here", "`[`"),
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
    let long = format!("{LINE}{}", "x".repeat(MAX_LINE_BYTES));
    assert_eq!(parse(&long).unwrap_err(), ParseError::TooLong);
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
        (r#"{"msec":1,"remote_addr":7}"#, "expected text"),
        (r#"{"msec":1} x"#, "trailing"),
    ] {
        let error = parse(line).unwrap_err().to_string();
        assert!(error.contains(expected), "{line}: {error}");
    }
}

proptest::proptest! {
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
