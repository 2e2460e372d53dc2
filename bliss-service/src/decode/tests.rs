use super::*;
use bliss_core::key::SECRET_BYTES;
use bliss_core::schema::{Dimension, KeyPart};

const SECRET: KeySecret = KeySecret([3; SECRET_BYTES]);

fn schema() -> Schema {
    let dimension = |name: &str, key: &[&str], features: Vec<Feature>| Dimension {
        name: name.into(),
        key: key.iter().map(|part| KeyPart::whole(part)).collect(),
        max_age_seconds: 600,
        on_stale: Default::default(),
        features,
    };
    let range = Feature { default: 0.5, min: Some(0.0), max: Some(10.0), ..Feature::number("a") };
    let category = Feature { kind: FeatureKind::Category, ..Feature::number("kind") };
    let dimensions = vec![
        dimension("other", &["ip"], vec![Feature::number("x")]),
        dimension("ip", &["ip"], vec![range, Feature::number("b"), category]),
        dimension("pair", &["ip", "asn"], vec![Feature::number("c")]),
        Dimension {
            key: vec![KeyPart::network("ip")],
            ..dimension("network", &[], vec![Feature::number("n"), Feature::number("m")])
        },
    ];
    Schema { dimensions, ..Schema::default() }
}

const LIMITS: Limits = Limits {
    max_bytes: 4096,
    max_line_bytes: 4096,
    max_decoded_bytes: 4096,
    max_rows: Some(10),
    min_rows: 1,
};

fn decoder(dimensions: &[usize]) -> Decoder {
    Decoder::new(&schema(), dimensions, &SECRET, LIMITS)
}

fn jsonl(dimensions: &[usize], text: &str) -> Result<Accepted, Refusal> {
    decoder(dimensions).decode("rows.jsonl", RowFormat::Jsonl, text.as_bytes())
}

fn csv(dimensions: &[usize], text: &str) -> Result<Accepted, Refusal> {
    decoder(dimensions).decode("rows.csv", RowFormat::Csv, text.as_bytes())
}

fn rows(accepted: &Accepted, index: usize) -> &Rows {
    match accepted.change.dimensions.iter().find(|(at, _)| *at == index) {
        Some((_, DimensionChange::Replace(rows))) => rows,
        other => panic!("{other:?}"),
    }
}

const TWO: &str = r#"{"dimension":"ip","key":{"ip":"192.0.2.1"},"updated_at":7,"features":{"b":3,"a":1.5,"kind":"home"}}

{"dimension":"pair","key":{"asn":64496,"ip":"2001:db8::1"},"updated_at":8,"features":{"c":null}}
{"dimension":"ip","updated_at":9,"key":{"ip":"192.0.2.2"}}"#;

#[test]
fn json_lines_become_rows() {
    let accepted = jsonl(&[1, 2], TWO).unwrap();
    assert_eq!((accepted.rows, accepted.newest_updated_at, accepted.key_collisions), (3, 9, 0));
    let ip = rows(&accepted, 1);
    assert_eq!(ip.updated_at, [7, 9]);
    let category = crate::category::category("home");
    assert_eq!(ip.row(0)[..2], [1.5, 3.0]);
    assert_eq!(ip.row(0)[2].to_bits(), category.to_bits());
    assert_eq!(ip.row(1), [0.5, 0.0, 0.0], "defaults");
    assert_eq!(rows(&accepted, 2).row(0), [0.0], "null is the default");
    let schema = schema();
    let key = DimensionKeys::new(&SECRET, &schema, &schema.dimensions[1])
        .key(|_| Some("192.0.2.1".into()))
        .unwrap();
    assert_eq!(ip.keys[0], key);
}

#[test]
fn csv_and_json_lines_give_the_same() {
    let text = "\u{feff}dimension,key.ip,key.asn,updated_at,a,b,kind,c\n\
        ip,192.0.2.1,,7,1.5,3,home,\n\
        pair,2001:db8::1,64496,8,,,,\n\
        \"ip\",192.0.2.2,,9, ,,,\n"
        .replace(", ,", ",,");
    assert_eq!(csv(&[1, 2], &text).unwrap(), jsonl(&[1, 2], TWO).unwrap());
}

#[test]
fn one_dimension_needs_no_name() {
    let accepted = csv(&[1], "key.ip,updated_at,b\n192.0.2.1,7,1\n").unwrap();
    assert_eq!(rows(&accepted, 1).len(), 1);
    assert_eq!(
        jsonl(&[1], r#"{"key":{"ip":"192.0.2.1"},"updated_at":7,"features":{"b":1}}"#).unwrap(),
        accepted
    );
}

#[test]
fn the_same_row_twice_is_one_row() {
    let text = "key.ip,updated_at,b\n192.0.2.1,7,1\n::ffff:192.0.2.1,8,1\n";
    let accepted = csv(&[1], text).unwrap();
    assert_eq!((accepted.rows, &rows(&accepted, 1).updated_at), (1, &vec![8]));
}

/// Every refusal has its reason, and names file and line.
#[test]
fn s2_json_lines_are_refused_whole() {
    let good = r#"{"dimension":"ip","key":{"ip":"192.0.2.1"},"updated_at":7,"features":{"b":3}}"#;
    let cases = [
        ("{", Reason::Undecodable, "EOF"),
        ("[]", Reason::Undecodable, "struct Row"),
        ("null", Reason::Undecodable, "null"),
        (r#"{"dimension":"ip"} x"#, Reason::Undecodable, "key"),
        (&good.replace("\"b\":3", "\"b\":\"3\""), Reason::Undecodable, "`b`"),
        (&good.replace("\"b\":3", "\"b\":true"), Reason::Undecodable, "boolean"),
        (&good.replace("\"b\":3", "\"kind\":3"), Reason::Undecodable, "`kind`"),
        (&good.replace("\"updated_at\":7,", ""), Reason::Undecodable, "updated_at"),
        (&good.replace("\"updated_at\":7", "\"updated_at\":-7"), Reason::Undecodable, "-7"),
        (&good.replace("\"updated_at\":7", "\"updated_at\":7,\"more\":1"), Reason::Undecodable, "more"),
        (
            &good.replace("\"updated_at\":7", "\"updated_at\":7,\"updated_at\":7"),
            Reason::Undecodable,
            "duplicate",
        ),
        (&good.replace("\"dimension\":\"ip\"", "\"dimension\":\"nope\""), Reason::UnknownDimension, "`nope`"),
        (
            &good.replace("\"dimension\":\"ip\"", "\"dimension\":\"other\""),
            Reason::UnknownDimension,
            "`other`",
        ),
        (&good.replace("\"dimension\":\"ip\",", ""), Reason::UnknownDimension, "several"),
        (&good.replace("\"b\":3", "\"nope\":3"), Reason::UnknownFeature, "`nope`"),
        (&good.replace("\"b\":3", "\"c\":3"), Reason::UnknownFeature, "`c`"),
        (&good.replace("\"b\":3", "\"b\":3,\"b\":3"), Reason::DuplicateFeature, "`b`"),
        (&good.replace("\"b\":3", "\"b\":NaN"), Reason::NotFinite, "finite"),
        (&good.replace("\"b\":3", "\"b\":Infinity"), Reason::NotFinite, "finite"),
        (&good.replace("\"b\":3", "\"b\": -Infinity"), Reason::NotFinite, "finite"),
        (&good.replace("\"b\":3", "\"b\":1e999"), Reason::NotFinite, "finite"),
        (&good.replace("\"b\":3", "\"b\":1e39"), Reason::NotFinite, "`b`"),
        (&good.replace("\"b\":3", "\"a\":10.5"), Reason::OutOfRange, "max 10"),
        (&good.replace("\"b\":3", "\"a\":-1"), Reason::OutOfRange, "min 0"),
        (&good.replace("192.0.2.1", "192.0.2"), Reason::BadKey, "`key.ip`"),
        (&good.replace("\"ip\":\"192.0.2.1\"", ""), Reason::BadKey, "`key.ip`"),
        (&good.replace("\"ip\":\"192.0.2.1\"", "\"ip\":5"), Reason::BadKey, "`key.ip`"),
        (&good.replace("{\"ip\":", "{\"asn\":1,\"ip\":"), Reason::BadKey, "`key.asn`"),
        (&good.replace("{\"ip\":", "{\"ip\":\"192.0.2.1\",\"ip\":"), Reason::BadKey, "twice"),
        (&good.replace("\"b\":3", "\"b\":4"), Reason::DuplicateKey, "different"),
    ];
    for (line, reason, expected) in cases {
        let refusal = jsonl(&[1, 2], &format!("{good}\n{line}\n{good}\n")).unwrap_err();
        assert_eq!(refusal.reason, reason, "{line}: {refusal}");
        assert!(refusal.message.starts_with("rows.jsonl, line 2: "), "{line}: {refusal}");
        assert!(refusal.message.contains(expected), "{line}: {refusal}");
    }
}

#[test]
fn s2_csv_is_refused_whole() {
    let good = "dimension,key.ip,key.asn,updated_at,a,b,c\nip,192.0.2.1,,7,1,1,\n";
    let cases = [
        ("a,b,c", "a,b,b,c", 1, Reason::DuplicateFeature, "`b`"),
        ("a,b,c", "a,b,nope", 1, Reason::UnknownFeature, "`nope`"),
        ("key.asn", "key.nope", 1, Reason::BadKey, "`key.nope`"),
        ("key.asn", "key.ip", 1, Reason::Undecodable, "`key.ip`"),
        ("updated_at,", "", 1, Reason::Undecodable, "updated_at"),
        ("7,1,1,", "7,1", 2, Reason::Undecodable, "columns"),
        ("7,1,1,", "x,1,1,", 2, Reason::Undecodable, "updated_at"),
        ("7,1,1,", "7,1,1,1", 2, Reason::UnknownFeature, "`c`"),
        ("7,1,1,", "7,one,1,", 2, Reason::Undecodable, "\"one\""),
        ("7,1,1,", "7,NaN,1,", 2, Reason::NotFinite, "`a`"),
        ("7,1,1,", "7,1,-inf,", 2, Reason::NotFinite, "`b`"),
        ("7,1,1,", "7,11,1,", 2, Reason::OutOfRange, "`a`"),
        ("ip,192", "nope,192", 2, Reason::UnknownDimension, "`nope`"),
        ("ip,192.0.2.1,,", "ip,192.0.2.1,5,", 2, Reason::BadKey, "`key.asn`"),
        ("ip,192.0.2.1,,", "pair,192.0.2.1,,", 2, Reason::UnknownFeature, "`a`"),
        ("ip,192.0.2.1,,7,1,1,", "pair,192.0.2.1,,7,,,1", 2, Reason::BadKey, "`key.asn`"),
        ("7,1,1,\n", "7,1,1,\nip,192.0.2.1,,7,2,1,\n", 3, Reason::DuplicateKey, "different"),
    ];
    csv(&[1, 2], good).unwrap();
    for (from, to, line, reason, expected) in cases {
        assert!(good.contains(from));
        let refusal = csv(&[1, 2], &good.replacen(from, to, 1)).unwrap_err();
        assert_eq!(refusal.reason, reason, "{to}: {refusal}");
        assert!(refusal.message.starts_with(&format!("rows.csv, line {line}: ")), "{to}: {refusal}");
        assert!(refusal.message.contains(expected), "{to}: {refusal}");
    }
    let bytes = b"key.ip,updated_at,b\n192.0.2.1,7,\xff\n".as_slice();
    let refusal = decoder(&[1]).decode("rows.csv", RowFormat::Csv, bytes).unwrap_err();
    assert_eq!(refusal.reason, Reason::Undecodable);
}

#[test]
fn s2_rows_and_bytes_are_limited() {
    let many: String = (0..11).map(|i| format!("192.0.2.{i},7\n")).collect();
    let text = format!("key.ip,updated_at\n{many}");
    assert_eq!(csv(&[1], &text).unwrap_err().reason, Reason::TooManyRows);
    assert_eq!(csv(&[1], text.trim_end().rsplit_once('\n').unwrap().0).unwrap().rows, 10);
    let large = format!("key.ip,updated_at\n{}", "192.0.2.1,7\n".repeat(1000));
    let large_json = format!("{}\n", " ".repeat(5000));
    for refusal in [csv(&[1], &large).unwrap_err(), jsonl(&[1], &large_json).unwrap_err()] {
        assert!(matches!(refusal.reason, Reason::TooLarge | Reason::TooManyRows), "{refusal}");
    }
    assert_eq!(jsonl(&[1], &" ".repeat(5000)).unwrap_err().reason, Reason::TooLarge);
    for empty in [csv(&[1], ""), csv(&[1], "key.ip,updated_at\n"), jsonl(&[1], "")] {
        assert_eq!(empty.unwrap_err().reason, Reason::TooFewRows);
    }
}

/// The same rows, with and without a byte order mark, however the input is cut.
#[test]
fn a_byte_order_mark_is_no_part_of_the_rows() {
    let csv = "dimension,key.ip,key.asn,updated_at,a,b,kind,c\nip,192.0.2.1,,7,1.5,3,home,\n";
    let quoted = csv.replacen("dimension", "\"dimension\"", 1);
    let blank = format!("\n{TWO}");
    for (format, text) in [
        (RowFormat::Jsonl, TWO),
        (RowFormat::Jsonl, &blank),
        (RowFormat::Csv, csv),
        (RowFormat::Csv, &quoted),
    ] {
        let decoded = |bytes: &[u8], chunk: usize| {
            decoder(&[1, 2]).decode("x", format, std::io::BufReader::with_capacity(chunk, bytes))
        };
        let expected = decoded(text.as_bytes(), 4096).unwrap();
        let marked = format!("\u{feff}{text}");
        for chunk in [1, 2, 3, 4, 5, 64, 4096] {
            assert_eq!(decoded(marked.as_bytes(), chunk).unwrap(), expected, "{format:?}, chunks of {chunk}");
        }
    }
    for empty in ["", "\u{feff}"] {
        assert_eq!(jsonl(&[1], empty).unwrap_err().reason, Reason::TooFewRows);
        assert_eq!(super::tests::csv(&[1], empty).unwrap_err().reason, Reason::TooFewRows);
    }
    assert!(jsonl(&[1], "\u{feff}{").unwrap_err().message.contains("line 1"));
}

#[test]
fn what_was_given_beside_defaults_is_counted() {
    let given = |accepted: Accepted| {
        let of = |given: &Given| (given.dimension, given.rows, given.values, given.numbers, given.nonzero);
        accepted.given.iter().map(of).collect::<Vec<_>>()
    };
    assert_eq!(given(jsonl(&[1, 2], TWO).unwrap()), [(1, 2, 3, 2, 2), (2, 1, 0, 0, 0)]);
    let csv = csv(&[1], "key.ip,updated_at,a,b\n192.0.2.1,7,0,-0.0\n192.0.2.2,7,,0\n").unwrap();
    assert_eq!(given(csv), [(1, 2, 3, 3, 0)]);
}

/// Each limit alone: what fits exactly is taken, one more is not, and the message names the limit and the place.
#[test]
fn s12_lines_and_decoded_rows_are_limited_to_the_byte() {
    let row = |i: usize| format!("{{\"key\":{{\"ip\":\"192.0.2.{i}\"}},\"updated_at\":7}}\n");
    let decode = |limits: Limits, format, text: &str| {
        let decoder = Decoder::new(&schema(), &[1], &SECRET, limits);
        decoder.decode("f", format, text.as_bytes()).map(|accepted| accepted.rows).map_err(|refusal| {
            assert_eq!(
                refusal.reason,
                if refusal.message.contains("rows, as many") {
                    Reason::TooManyRows
                } else {
                    Reason::TooLarge
                }
            );
            refusal.message
        })
    };
    let free = Limits { max_rows: None, max_bytes: 1 << 20, max_decoded_bytes: 1 << 20, ..LIMITS };
    let (one, two) = (row(1), row(1) + &row(2));
    let most = one.len() as u64 - 1;
    assert_eq!(decode(Limits { max_line_bytes: most, ..free }, RowFormat::Jsonl, &two), Ok(2));
    for text in [&two, one.trim_end()] {
        let message =
            decode(Limits { max_line_bytes: most - 1, ..free }, RowFormat::Jsonl, text).unwrap_err();
        assert!(message.starts_with("f, line 1: ") && message.contains("(max_line_bytes)"), "{message}");
    }
    let bytes = super::row_bytes(schema().dimensions[1].features.len());
    assert_eq!(decode(Limits { max_decoded_bytes: 2 * bytes, ..free }, RowFormat::Jsonl, &two), Ok(2));
    let message =
        decode(Limits { max_decoded_bytes: 2 * bytes - 1, ..free }, RowFormat::Jsonl, &two).unwrap_err();
    assert!(
        message.contains("line 2: more than 1 rows") && message.contains("(max_decoded_bytes)"),
        "{message}"
    );
    let given = Limits { max_decoded_bytes: 2 * bytes - 1, max_rows: Some(9), ..free };
    let message = decode(given, RowFormat::Jsonl, &two).unwrap_err();
    assert!(message.contains("line 2: the rows so far, 2, take more than"), "{message}");
    // CSV: rows end, whatever the line ends in quotes; the reader's buffer is 8 KiB.
    let head = "key.ip,updated_at,kind\n";
    let many: String = (0..3000).map(|i| format!("10.0.{}.{},7,\"a\nb\"\n", i / 250, i % 250)).collect();
    let limits = Limits { max_line_bytes: 64, ..free };
    assert_eq!(decode(limits, RowFormat::Csv, &format!("{head}{many}")), Ok(3000));
    for (text, line) in [
        (format!("{head}1.2.3.4,7,\"{}\"\n", "a\n".repeat(20_000)), "f, line "),
        (format!("{head}1.2.3.4,7,{}\n", "a".repeat(40_000)), "f, line 2: "),
        (",".repeat(40_000), "f, line 1: "),
    ] {
        let message = decode(limits, RowFormat::Csv, &text).unwrap_err();
        assert!(message.starts_with(line) && message.contains("(max_line_bytes)"), "{message}");
    }
    let long = format!("{{\"key\":{{\"{}\":1}},\"updated_at\":7}}\n", "ü".repeat(2000));
    let decoder = Decoder::new(&schema(), &[1], &SECRET, Limits { max_line_bytes: 1 << 20, ..free });
    assert!(decoder.decode("f", RowFormat::Jsonl, long.as_bytes()).unwrap_err().message.len() < 1010);
}

proptest::proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200), cut in 0usize..300) {
        let decoder = decoder(&[1, 2]);
        for format in [RowFormat::Jsonl, RowFormat::Csv] {
            let _ = decoder.decode("x", format, bytes.as_slice());
        }
        let _ = decoder.decode("x", RowFormat::Jsonl, &TWO.as_bytes()[..cut.min(TWO.len())]);
    }
}

fn networks(accepted: &Accepted) -> Vec<Option<(u32, Vec<f32>)>> {
    let Some((3, DimensionChange::Prefixes(prefixes))) = accepted.change.dimensions.first() else {
        panic!("{accepted:?}")
    };
    let prefixes = prefixes.open().unwrap();
    let row = |address: &str| {
        let row = prefixes.get(address.parse::<std::net::IpAddr>().unwrap().into())?;
        Some((row.updated_at, row.values().collect()))
    };
    ["192.0.2.1", "192.0.2.200", "198.51.100.7", "2001:db8::1"].map(row).into()
}

#[test]
fn networks_become_prefixes() {
    let text = "key.ip,updated_at,n,m\n192.0.2.0/24,7,1,\n192.0.2.128/25,8,2,3\n198.51.100.7,9,4,\n\
        2001:db8::/32,7,1,0\n::ffff:192.0.2.0/120,9,1,\n";
    let expected = [(9, [1.0, 0.0]), (8, [2.0, 3.0]), (9, [4.0, 0.0]), (7, [1.0, 0.0])];
    let accepted = csv(&[3], text).unwrap();
    assert_eq!(networks(&accepted), expected.map(|(at, values)| Some((at, values.to_vec()))));
    assert_eq!((accepted.rows, accepted.newest_updated_at), (4, 9));
    let lines = r#"{"key":{"ip":"192.0.2.0/24"},"updated_at":9,"features":{"n":1}}"#;
    let accepted = jsonl(&[3], lines).unwrap();
    assert_eq!(networks(&accepted), [Some((9, vec![1.0, 0.0])), Some((9, vec![1.0, 0.0])), None, None]);
}

#[test]
fn s2_networks_are_refused_whole() {
    let good = "key.ip,updated_at,n\n192.0.2.0/24,7,1\n";
    for (line, reason, message) in [
        (
            "192.0.2.1/24,7,1",
            Reason::BadKey,
            "line 3: `key.ip`: bits beyond the prefix length are set; the network is 192.0.2.0/24",
        ),
        ("192.0.2.0/33,7,1", Reason::BadKey, "0 to 32"),
        ("example.com,7,1", Reason::BadKey, "expected an address or a network"),
        (",7,1", Reason::BadKey, "no `key.ip`"),
        ("192.0.2.0/24,7,2", Reason::DuplicateKey, "the network 192.0.2.0/24 of `network` appears twice"),
        ("192.0.2.0/25,7,NaN", Reason::NotFinite, "NaN"),
    ] {
        let refusal = csv(&[3], &format!("{good}{line}\n")).unwrap_err();
        assert_eq!(refusal.reason, reason, "{line}: {refusal}");
        assert!(refusal.message.contains(message), "{line}: {refusal}");
    }
    let number = r#"{"key":{"ip":7},"updated_at":9}"#;
    assert_eq!(jsonl(&[3], number).unwrap_err().reason, Reason::BadKey);
    let many: String = (0..11).map(|i| format!("192.0.{i}.0/24,7,1\n")).collect();
    let refusal = csv(&[3], &format!("key.ip,updated_at,n\n{many}")).unwrap_err();
    assert_eq!(refusal.reason, Reason::TooManyRows);
    let limits = Limits { max_decoded_bytes: 1000, ..LIMITS };
    let decoder = Decoder::new(&schema(), &[3], &SECRET, limits);
    let refusal =
        decoder.decode("f", RowFormat::Csv, format!("key.ip,updated_at,n\n{many}").as_bytes()).unwrap_err();
    assert_eq!(refusal.reason, Reason::TooLarge, "{refusal}");
}
