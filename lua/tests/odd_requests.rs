//! What the log says of a request and what the worker looked up for it are one: odd requests go through a real nginx, their
//! log is read by the parser of the `access_log` origin, rows are published for the values found, and the same requests must
//! find them, for every attribute; and what the request says by itself is the same.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use bliss_core::build::{Change, DimensionChange, Rows};
use bliss_core::http::{NO_SITES, RequestValue};
use bliss_core::schema::{Dimension, Feature, KeyPart, Schema};
use bliss_service::access_log::features::{ATTRIBUTES, attribute};
use bliss_service::access_log::parse::{Parser, Record};
use bliss_store::{PublishOptions, Publisher};

#[path = "nginx/server.rs"]
mod server;
#[path = "../../bliss-ffi/tests/support/mod.rs"]
mod support;

use server::{Nginx, Setup, can_run};
use support::{Site, wait_until};

/// A request, and whether nginx must take it. The others are up to its version: what it refuses (400) no worker looks up.
struct Odd {
    bytes: Vec<u8>,
    taken: bool,
}

/// A request as a client would send it, but for `line` and `headers`.
fn odd(line: &[u8], headers: &[&[u8]], taken: bool) -> Odd {
    let mut bytes = line.to_vec();
    bytes.extend_from_slice(b"\r\n");
    for header in headers {
        bytes.extend_from_slice(header);
        bytes.extend_from_slice(b"\r\n");
    }
    Odd { bytes, taken }
}

const HOST: &[u8] = b"Host: shop.example";

/// Forms of each part of a request, one part at a time.
fn named() -> Vec<Odd> {
    let long = |start: &str, len: usize| [start.as_bytes(), &vec![b'x'; len]].concat();
    let mut all = Vec::new();
    // Targets; with all else as usual.
    for (target, taken) in [
        ("/", true),
        ("/h#frag?x=1", true),
        ("/#", true),
        ("/?u=http://x/y#z", true),
        ("HTTP://shop.example/up?x", true),
        ("http://shop.example", true),
        ("http://shop.example?x=/y", true),
        ("http://Other.Example:8080/x", true),
        ("https://shop.example./x", true),
        ("http://[2001:db8::1]:80/six", true),
        ("http://shop.example//x", true),
        ("//x", true),
        ("///", true),
        ("//shop.example/x", true),
        ("/%2f%2F/%41", true),
        ("/%e9%ff", true),
        ("/a/../b/./c", true),
        ("/a;b=c", true),
        ("/\"quoted\"", true),
        ("/back\\slash", true),
        ("/'|{}<>^`", true),
        ("/é", true),
        ("/x?\"\\", true),
        (" /sp ", true),
        ("/-", true),
        ("/:", true),
        ("/http://x/y", true),
        // nginx 1.22 refuses those that follow, and others below that need not be taken.
        ("-", false),
        ("x", false),
        ("?x", false),
        ("/a b", false),
        ("/../x", false),
        ("http://user@shop.example/", false),
        ("shop.example:443", false),
    ] {
        all.push(odd(format!("GET {target} HTTP/1.1").as_bytes(), &[HOST, b"User-Agent: ua"], taken));
    }
    for (line, taken) in [
        (b"GET /\x01 HTTP/1.1".to_vec(), false),
        (b"GET /\xff\xfe HTTP/1.1".to_vec(), true),
        ([&long("GET /", 7000)[..], b" HTTP/1.1"].concat(), true),
        ([&long("GET /", 9000)[..], b" HTTP/1.1"].concat(), false),
        (b"GET  /two HTTP/1.1".to_vec(), true),
        (b"GET /two  HTTP/1.1".to_vec(), true),
        (b"GET /ten HTTP/1.0".to_vec(), true),
        (b"\x16\x03\x01\x02\x00\x01".to_vec(), false),
        // Methods.
        (b"HEAD /m HTTP/1.1".to_vec(), true),
        (b"OPTIONS /m HTTP/1.1".to_vec(), true),
        (b"OPTIONS * HTTP/1.1".to_vec(), false),
        (b"M-SEARCH /m HTTP/1.1".to_vec(), true),
        (b"VERSION_CONTROL /m HTTP/1.1".to_vec(), true),
        (b"- /m HTTP/1.1".to_vec(), true),
        (b"_ /m HTTP/1.1".to_vec(), true),
        (b"XYZZY /m HTTP/1.1".to_vec(), true),
        (b"get /m HTTP/1.1".to_vec(), false),
        (b"X2 /m HTTP/1.1".to_vec(), false),
        (b"GET! /m HTTP/1.1".to_vec(), false),
        (b"TRACE /m HTTP/1.1".to_vec(), false),
        (b"CONNECT shop.example:443 HTTP/1.1".to_vec(), false),
        ([&vec![b'M'; 3000][..], b" /m HTTP/1.1"].concat(), true),
    ] {
        all.push(odd(&line, &[HOST, b"User-Agent: ua"], taken));
    }
    // User agents and referrers: the same bytes in both.
    let values: Vec<Vec<u8>> = vec![
        b"".to_vec(),
        b"-".to_vec(),
        b"--".to_vec(),
        b" - ".to_vec(),
        b"   ".to_vec(),
        b"  spaces around  ".to_vec(),
        b"a\tb".to_vec(),
        b"\"".to_vec(),
        b"a \"quoted\" \\ agent \\x22 \\\" \\u0022".to_vec(),
        b"\\".to_vec(),
        b"\" bot_action=block".to_vec(),
        b"null".to_vec(),
        b"{\"a\":[1]}".to_vec(),
        b"\x01\x02\x1f\x7f\x1b[31m".to_vec(),
        "é ü \u{10ffff} \u{feff}".as_bytes().to_vec(),
        b"\xff\xfe \xc3 \xed\xa0\x80 \xf0\x9f\x98".to_vec(),
        (0x20..=0xff).collect(),
        long("a", 7500),
        vec![b'"'; 4000],
        vec![1; 4000],
        vec![0xff; 4000],
    ];
    for value in &values {
        let agent = [b"User-Agent: ", &value[..]].concat();
        let referrer = [b"Referer: ", &value[..]].concat();
        all.push(odd(b"GET /v HTTP/1.1", &[HOST, &agent, &referrer], true));
    }
    for (headers, taken) in [
        (&[HOST][..], true),
        (&[HOST, b"User-Agent:"], true),
        (&[HOST, b"User-Agent:tight", b"Referer:tight"], true),
        (&[HOST, b"user-agent: lower", b"REFERER: upper"], true),
        (&[HOST, b"User-Agent: one", b"User-Agent: two", b"Referer: one", b"Referer: two"], true),
        (&[HOST, b"User-Agent: -", b"User-Agent: two"], true),
        (&[HOST, b"User-Agent: ", b"User-Agent: two"], true),
        (&[HOST, b"User_Agent: underscore", b"Referrer: two r"], true),
        (&[HOST, b"User-Agent: folded", b" line"], false),
        (&[HOST, b"User-Agent : space"], false),
        (&[HOST, b"User-Agent: nul\0"], false),
        (&[HOST, HOST], false),
        (&[], false),
    ] {
        all.push(odd(b"GET /h HTTP/1.1", headers, taken));
    }
    // Hosts.
    let upper = [b"Host: ", &vec![b'A'; 200][..], b".example:80"].concat();
    for (host, taken) in [
        (&b"Host: Shop.Example"[..], true),
        (b"Host: shop.example:8080", true),
        (b"Host: shop.example.", true),
        (b"Host: Shop.Example.:443", true),
        (b"Host: shop.example:", true),
        (b"Host: [2001:DB8::1]:8080", true),
        (b"Host: [2001:db8::1]", true),
        (b"Host: 192.0.2.1:80", true),
        (b"Host: -", true),
        (b"Host: _", true),
        (b"Host: a\"b", true),
        (b"Host: a\\b", true),
        (b"Host: \xff\xc3\xa9", true),
        (&upper, true),
        (b"Host: shop.example..", false),
        (b"Host: a/b", false),
        (b"Host: a b", false),
        (b"Host: [2001:db8::1", false),
    ] {
        all.push(odd(b"GET /host HTTP/1.1", &[host, b"User-Agent: ua"], taken));
    }
    for headers in [&[][..], &[HOST], &[b"Host:"], &[b"Host: -"]] {
        all.push(odd(b"GET /ten HTTP/1.0", headers, false));
    }
    all
}

/// A source of numbers that is the same each time.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        ((u128::from(self.0 ^ (self.0 >> 29)) * end as u128) >> 64) as usize
    }

    fn of<'a>(&mut self, pieces: &[&'a [u8]]) -> &'a [u8] {
        pieces[self.below(pieces.len())]
    }

    /// Up to `most` of the pieces in a row.
    fn some(&mut self, pieces: &[&[u8]], most: usize) -> Vec<u8> {
        (0..self.below(most + 1)).flat_map(|_| self.of(pieces).to_vec()).collect()
    }
}

/// Odd things in all parts of a request at once.
fn generated(count: usize) -> Vec<Odd> {
    let mut random = Random(12);
    let methods: [&[u8]; 7] = [b"GET", b"POST", b"M-SEARCH", b"A_B", b"-", b"X2", b"G\"T"];
    let starts: [&[u8]; 8] =
        [b"/", b"/", b"//", b" /", b"http://shop.example", b"HTTP://Shop.Example:80/", b"coap+tcp://h/", b""];
    let pieces: [&[u8]; 20] = [
        b"/",
        b"?",
        b"#",
        b"%2f",
        b"..",
        b".",
        b":",
        b"@",
        b"\"",
        b"\\",
        b"\xc3\xa9",
        b"\xff",
        b"~",
        b"{",
        b"a",
        b"-",
        b"&",
        b"\\x22",
        b"'",
        b"[",
    ];
    let bytes: [&[u8]; 18] = [
        b"-",
        b" ",
        b"\t",
        b"\"",
        b"\\",
        b"\x01",
        b"\x7f",
        b"\xff",
        b"\xc3\xa9",
        b"\xf4\x8f\xbf\xbf",
        b"a",
        b"{",
        b"}",
        b":",
        b",",
        b"\\x22",
        b"\\u0041",
        b"\" \"",
    ];
    let hosts: [&[u8]; 12] =
        [b"Shop", b".", b"example", b":80", b":", b"[::1]", b"-", b"_", b"\"", b"\\", b"\xe9", b"A"];
    let request = |_| {
        let target = [random.of(&starts), &random.some(&pieces, 8)].concat();
        let line =
            [random.of(&methods), b" ", &target, random.of(&[b" HTTP/1.1", b"  HTTP/1.1", b" HTTP/1.0"])]
                .concat();
        let mut headers = vec![[b"Host: ", &random.some(&hosts, 4)[..]].concat()];
        for name in [&b"User-Agent:"[..], b"Referer:", b"User-Agent: ", b"Referer: "] {
            if random.below(2) == 0 {
                headers.push([name, &random.some(&bytes, 6)].concat());
            }
        }
        let headers: Vec<&[u8]> = headers.iter().map(Vec::as_slice).collect();
        odd(&line, &headers, false)
    };
    (0..count).map(request).collect()
}

/// Addresses as nginx's `$remote_addr` and `$binary_remote_addr` have them.
const CLIENTS: [&str; 5] =
    ["192.0.2.1", "2001:db8::1", "::ffff:192.0.2.9", "255.255.255.255", "2001:DB8:0:0::2"];

fn schema() -> Schema {
    let dimension = |attribute: &&str| Dimension {
        name: (*attribute).to_owned(),
        key: vec![KeyPart::whole(attribute)],
        max_age_seconds: 0,
        on_stale: Default::default(),
        features: vec![Feature::number("place")],
    };
    Schema { dimensions: ATTRIBUTES.iter().map(dimension).collect(), ..Schema::default() }
}

/// Sends all requests; returns status and body of each.
fn send(nginx: &Nginx, requests: &[Odd]) -> Vec<(u16, String)> {
    let one = |(i, odd): (usize, &Odd)| {
        let client = CLIENTS[i % CLIENTS.len()];
        let rest = format!("X-Tag: {i}\r\nX-Client: {client}\r\nConnection: close\r\n\r\n");
        let request = [&odd.bytes, rest.as_bytes()].concat();
        let reply = nginx.send(&request).map(|reply| (reply.status, reply.body));
        // HTTP/0.9, and what nginx closes without an answer.
        reply.unwrap_or((0, String::new()))
    };
    requests.iter().enumerate().map(one).collect()
}

/// The lines of a log by their tags, which stand behind the last tabulator.
fn tagged(path: &std::path::Path) -> BTreeMap<usize, Vec<u8>> {
    let log = fs::read(path).unwrap();
    let lines = log.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let tagged = lines.filter_map(|line| {
        let tab = line.iter().rposition(|byte| *byte == b'\t')?;
        let tag = std::str::from_utf8(&line[tab + 1..]).ok()?.parse().ok()?;
        Some((tag, line[..tab].to_vec()))
    });
    tagged.collect()
}

/// How a dimension answers where the log has this record: the place of its value, or none.
fn places(record: &Record<'_>, publisher: &Publisher, places: &mut BTreeMap<u64, usize>) -> Vec<String> {
    let ip = match record.ip {
        std::net::IpAddr::V4(ip) => ip.octets().to_vec(),
        std::net::IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let place = |(i, name): (usize, &&str)| {
        let key = attribute(record, &ip, name).and_then(|value| publisher.key(i, &[value]));
        let Some(key) = key else { return format!("{name}=absent") };
        let next = places.len();
        format!("{name}={}", places.entry(key).or_insert(next))
    };
    let values = record.http(&ip).values(RequestValue::ALL_BITS, NO_SITES);
    let value = |of: RequestValue| {
        let value = values[of.index()];
        if value.is_nan() { format!("{}={UNTOLD}", of.name()) } else { format!("{}={value}", of.name()) }
    };
    let values = RequestValue::ALL.into_iter().map(value);
    ATTRIBUTES.iter().enumerate().map(place).chain(values).collect()
}

/// What a log does not tell.
const UNTOLD: &str = "untold";

/// Answers with what the worker finds for the attributes that the example has set.
const LOCATION: &str = r#"
    location / {
        chunked_transfer_encoding off;
        content_by_lua_block {
            local h = HANDLE
            local count, reason = h:lookup(ngx.time())
            if not count then return ngx.say(reason) end
            for i, name in ipairs(h:dimensions()) do
                local status = h:status(i)
                ngx.say(name, "=", status == "fresh" and h:value(i) or status)
            end
            for _, name in ipairs(VALUES) do
                local value = h:request_value(name)
                ngx.say(name, "=", value ~= value and "untold" or value)
            end
        }
    }"#;

/// Keeps the handle that the example opens.
const KEEP_HANDLE: &str = r#"
    local bliss = require "resty.bliss"
    local open = bliss.open
    bliss.open = function(...)
        HANDLE = open(...)
        return HANDLE
    end"#;

const LOGS: &str = r#"
    log_format tagged_json escape=json
        '{"msec":$msec,"remote_addr":"$remote_addr","request_method":"$request_method","request_uri":"$request_uri",'
        '"status":$status,"scheme":"$scheme","host":"$host","http_referer":"$http_referer",'
        '"http_user_agent":"$http_user_agent","http_accept":"$http_accept",'
        '"http_accept_language":"$http_accept_language","http_accept_encoding":"$http_accept_encoding",'
        '"http_sec_fetch_site":"$http_sec_fetch_site","http_sec_fetch_mode":"$http_sec_fetch_mode",'
        '"http_sec_fetch_dest":"$http_sec_fetch_dest","http_sec_ch_ua":"$http_sec_ch_ua",'
        '"http_sec_ch_ua_mobile":"$http_sec_ch_ua_mobile","http_sec_ch_ua_platform":"$http_sec_ch_ua_platform","bliss_passed":"$bliss_passed"}	$http_x_tag';
    log_format tagged_request escape=json
        '{"time_iso8601":"$time_iso8601","client_ip":"$remote_addr","request":"$request","http_host":"$http_host",'
        '"status":"$status","referer":"$http_referer","user_agent":"$http_user_agent"}	$http_x_tag';
    log_format tagged_combined '$remote_addr - $remote_user [$time_local] "$request" $status $body_bytes_sent '
        '"$http_referer" "$http_user_agent"	$http_x_tag';
    log_format tagged_vhost '$host:$server_port $remote_addr - $remote_user [$time_local] "$request" $status '
        '$body_bytes_sent "$http_referer" "$http_user_agent"	$http_x_tag';
"#;

/// The formats, and the attributes that they do not have, or only where the request says them.
const FORMATS: [(&str, &[&str]); 4] = [
    ("json", &[]),
    ("request", &["host", "scheme"]),
    ("combined", &["host", "scheme"]),
    ("vhost", &["scheme"]),
];

#[test]
fn d2_the_log_says_what_the_worker_looks_up() {
    if !can_run() {
        return;
    }
    let mut requests = named();
    requests.extend(generated(if cfg!(debug_assertions) { 600 } else { 3000 }));
    let site = Site::empty();
    let folder = tempfile::tempdir().unwrap();
    let log = |format: &str| folder.path().join(format);
    let logs: String = FORMATS
        .iter()
        .map(|(format, _)| format!("access_log {} tagged_{format};\n", log(format).display()))
        .collect();
    let http = format!("{LOGS} large_client_header_buffers 8 8k;");
    let values = RequestValue::ALL.map(|value| format!("\"{}\"", value.name())).join(", ");
    let lua = format!("{KEEP_HANDLE}\n    VALUES = {{ {values} }}");
    let setup =
        Setup { http: &http, server: &logs, location: Some(LOCATION), lua: &lua, ..Setup::new(site.path()) };
    let nginx = setup.start();

    // What the log has of each request; nothing is published yet.
    let first = send(&nginx, &requests);
    let taken: Vec<usize> =
        (0..requests.len()).filter(|i| first[*i] == (200, "no snapshot\n".into())).collect();
    let others: Vec<String> = (0..requests.len())
        .filter(|i| {
            let odd = &requests[*i];
            odd.taken && !taken.contains(i) && !is_head(odd)
        })
        .map(|i| format!("{:?}: {}", first[i], shown(&requests[i])))
        .collect();
    assert_eq!(others, Vec::<String>::new(), "nginx refused these: {}", nginx.error_log());
    assert!(taken.len() > 300, "{}", taken.len());
    for (format, _) in FORMATS {
        wait_until("the log", || taken.iter().all(|i| tagged(&log(format)).contains_key(i)));
        // What nginx refused is in the log too, and can be read.
        for line in
            fs::read(log(format)).unwrap().split(|byte| *byte == b'\n').filter(|line| !line.is_empty())
        {
            let tab = line.iter().rposition(|byte| *byte == b'\t').unwrap();
            let read = Parser::default().parse(&line[..tab]);
            assert!(read.is_ok(), "{format}: {read:?}: {}", String::from_utf8_lossy(line));
        }
    }

    // A row for each value.
    let mut publisher = Publisher::open(site.path(), &PublishOptions::default(), schema()).unwrap();
    let mut keys = vec![BTreeMap::new(); ATTRIBUTES.len()];
    let mut all_places = BTreeMap::new();
    let mut expected = BTreeMap::new();
    for (format, _) in FORMATS {
        for (tag, line) in tagged(&log(format)) {
            let record = Parser::default().parse(&line).unwrap();
            let found = places(&record, &publisher, &mut all_places);
            expected.insert((format, tag), found);
        }
    }
    for (key, place) in &all_places {
        // Keys of different dimensions differ, since the dimension's name is hashed too.
        keys.iter_mut().for_each(|keys| _ = keys.insert(*key, *place));
    }
    let table = |(i, keys): (usize, BTreeMap<u64, usize>)| {
        let mut rows = Rows::new(1);
        keys.into_iter().for_each(|(key, place)| rows.push(key, support::now(), &[place as f32]));
        (i, DimensionChange::Replace(rows))
    };
    let dimensions = keys.into_iter().enumerate().map(table).collect();
    publisher.publish(Change { dimensions }).unwrap();
    let mut workers = BTreeSet::new();
    wait_until("rows in both workers", || {
        let reply = nginx.get("/", "192.0.2.1").unwrap();
        if reply.body != "no snapshot\n" {
            workers.insert(reply.header("x-worker").to_owned());
        }
        workers.len() == 2
    });

    // The same requests find the rows of what the log said.
    let second = send(&nginx, &requests);
    let mut differences = Vec::new();
    let names: Vec<&str> = ATTRIBUTES.into_iter().chain(RequestValue::ALL.map(RequestValue::name)).collect();
    for i in &taken {
        let found: Vec<&str> = second[*i].1.lines().collect();
        assert_eq!(found.len(), names.len(), "{found:?}");
        for (format, without) in FORMATS {
            for ((expected, found), name) in expected[&(format, *i)].iter().zip(&found).zip(&names) {
                let is_untold = format != "json" && expected.ends_with(UNTOLD);
                if expected != found && !without.contains(name) && !is_untold {
                    let shown = shown(&requests[*i]);
                    differences.push(format!("{format} {name}: log {expected}, worker {found}: {shown}"));
                }
            }
        }
    }
    differences.truncate(20);
    assert_eq!(differences, Vec::<String>::new());
}

fn shown(odd: &Odd) -> String {
    format!("{:?}", String::from_utf8_lossy(&odd.bytes[..odd.bytes.len().min(300)]))
}

/// Whose answer has no body.
fn is_head(odd: &Odd) -> bool {
    odd.bytes.starts_with(b"HEAD")
}
