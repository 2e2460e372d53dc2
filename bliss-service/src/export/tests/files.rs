//! What is written to CSV and to Parquet comes back from strict readers of both.

use std::borrow::Cow;
use std::net::Ipv6Addr;

use ::parquet::basic::{LogicalType, TimeUnit, Type as Physical};
use ::parquet::file::reader::{FileReader, SerializedFileReader};
use ::parquet::record::Field;
use bliss_core::score::Status;
use proptest::prelude::*;

use super::*;
use crate::access_log::parse::{Record, Told};

fn columns() -> Columns {
    Columns {
        statuses: vec!["ip.status".into()],
        inputs: vec![("ip.x".into(), false), ("ip.kind".into(), true)],
    }
}

type Given = (Option<Vec<u8>>, Vec<u8>, Vec<u8>, [u8; 16], f32, u32, u32);

fn given() -> impl Strategy<Value = Given> {
    let bytes = || proptest::collection::vec(any::<u8>(), 0..12);
    let looks_guessed =
        proptest::sample::select(vec!["NA", "007", "1e5", "null", "\\x41", "\"", "a,b", "-", "\0"]);
    let text = prop_oneof![bytes(), looks_guessed.prop_map(|text| text.as_bytes().to_vec())];
    let agent = proptest::option::of(text);
    (agent, bytes(), bytes(), any::<[u8; 16]>(), any::<f32>(), any::<u32>(), any::<u32>())
}

/// Writes the rows as both, and compares what strict readers see with what was given.
fn round_trip(rows: &[Given]) {
    let columns = columns();
    let mut text = Vec::new();
    let file = tempfile::tempfile().unwrap();
    let mut outs: [Box<dyn Rows + '_>; 2] = [
        Box::new(Csv::new(&columns, &mut text).unwrap()),
        Box::new(Parquet::new(&columns, file.try_clone().unwrap()).unwrap()),
    ];
    for (line, (agent, method, path, ip, number, hash, time_ms)) in rows.iter().enumerate() {
        let record = Record {
            time_ms: (*time_ms).into(),
            ip: Ipv6Addr::from(*ip).into(),
            user_agent: agent.clone().map(Cow::Owned),
            referrer: None,
            method: method.clone().into(),
            path: path.clone().into(),
            target: [path.as_slice(), b"?", method].concat().into(),
            host: agent.clone().map(Cow::Owned),
            told: Told::default(),
            status: ip[0].into(),
            own_answer: ip[1] > 100,
            is_noted: false,
        };
        let values = [f32::from_bits(*hash)];
        let row = Row {
            line: line as u64,
            record: &record,
            request_values: &[*number],
            values: &values,
            statuses: &[Status::Missing],
        };
        outs.iter_mut().for_each(|out| out.write(&row).unwrap());
    }
    outs.into_iter().for_each(|out| out.finish().unwrap());

    let text = std::str::from_utf8(&text).expect("CSV is UTF-8");
    assert!(!text.contains(|c: char| c.is_control() && c != '\n'), "{text:?}");
    assert_eq!(text.lines().count(), rows.len() + 1, "one line a row: {text:?}");
    let mut csv = csv::Reader::from_reader(text.as_bytes());
    let csv: Vec<csv::StringRecord> = csv.records().map(Result::unwrap).collect();
    let parquet: Vec<_> =
        SerializedFileReader::new(file).unwrap().get_row_iter(None).unwrap().map(Result::unwrap).collect();
    assert_eq!((csv.len(), parquet.len()), (rows.len(), rows.len()));
    for (at, (agent, method, path, ip, number, hash, time_ms)) in rows.iter().enumerate() {
        let (csv, parquet) = (&csv[at], parquet[at].clone().into_columns());
        let fields: Vec<&Field> = parquet.iter().map(|(_, field)| field).collect();
        assert_eq!(csv[0].parse::<f64>().unwrap(), f64::from(*time_ms) / 1000.0);
        assert_eq!(*fields[0], Field::TimestampMillis((*time_ms).into()));
        assert_eq!((&csv[1], fields[1]), (at.to_string().as_str(), &Field::Long(at as i64)));
        let address = Ipv6Addr::from(*ip);
        assert_eq!((&csv[2], fields[2]), (address.to_string().as_str(), &Field::Str(address.to_string())));
        let agent = agent.as_deref().unwrap_or_default();
        let target = [path.as_slice(), b"?", method].concat();
        let query = bliss_core::http::query(&target);
        for (column, text) in
            [(3, agent), (4, method.as_slice()), (5, path), (6, query), (7, agent), (8, b"".as_slice())]
        {
            assert_eq!(text::unescape(&csv[column]), text);
            let expected = if text.is_empty() { Field::Null } else { Field::Str(csv[column].to_owned()) };
            assert_eq!(*fields[column], expected);
        }
        assert_eq!((&csv[9], fields[9]), (ip[0].to_string().as_str(), &Field::Int(ip[0].into())));
        assert_eq!(
            (&csv[10], fields[10]),
            (if ip[1] > 100 { "1" } else { "0" }, &Field::Int((ip[1] > 100).into()))
        );
        assert_eq!((&csv[11], fields[11]), ("missing", &Field::Str("missing".into())));
        let read: f32 = csv[12].parse().unwrap();
        assert!(read.to_bits() == number.to_bits() || read.is_nan() && number.is_nan(), "{number}");
        let Field::Float(read) = *fields[12] else { panic!("{:?}", fields[12]) };
        assert!(read.to_bits() == number.to_bits());
        assert_eq!((&csv[13], fields[13]), (hash.to_string().as_str(), &Field::UInt(*hash)));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_rows_come_back_from_both_files(rows in proptest::collection::vec(given(), 0..12)) {
        round_trip(&rows);
    }
}

#[test]
fn rows_of_several_groups_are_all_there() {
    let columns = columns();
    let file = tempfile::tempfile().unwrap();
    let mut out: Box<dyn Rows> = Box::new(Parquet::new(&columns, file.try_clone().unwrap()).unwrap());
    let record = crate::access_log::parse::Partial { ip: [192, 0, 2, 1].into(), time_ms: None }.record(5);
    let count = 150_000;
    for line in 0..count {
        let values = [line as f32, 0.0];
        let row =
            Row { line, record: &record, request_values: &[], values: &values, statuses: &[Status::Fresh] };
        out.write(&row).unwrap();
    }
    out.finish().unwrap();
    let reader = SerializedFileReader::new(file).unwrap();
    let metadata = reader.metadata();
    assert_eq!((metadata.num_row_groups(), metadata.file_metadata().num_rows()), (3, count as i64));
    for (line, row) in reader.get_row_iter(None).unwrap().enumerate() {
        let columns = row.unwrap().into_columns();
        assert_eq!((&columns[1].1, &columns[12].1), (&Field::Long(line as i64), &Field::Float(line as f32)));
    }
}

#[test]
fn parquet_has_the_types_that_are_documented() {
    let dir = tempfile::tempdir().unwrap();
    let (log, out) = (dir.path().join("log"), dir.path().join("rows.Parquet"));
    fs::write(&log, line(1, "192.0.2.1", "a") + &line(2, "192.0.2.1", "a")).unwrap();
    let exported = run(&Options {
        log: vec![log],
        out: out.clone(),
        config: None,
        list: Vec::new(),
        rewrite: None,
        interval_seconds: 1,
    })
    .unwrap();
    let reader = SerializedFileReader::new(fs::File::open(out).unwrap()).unwrap();
    let schema = reader.metadata().file_metadata().schema_descr_ptr();
    assert_eq!(
        (schema.num_columns(), exported.columns),
        (11 + 15 + 7 + 132 + 28 + 1, 11 + 15 + 7 + 132 + 28 + 1)
    );
    let of = |name: &str| {
        let column = schema.columns().iter().find(|column| column.name() == name).unwrap();
        (column.physical_type(), column.logical_type_ref().cloned(), column.self_type().is_optional())
    };
    let text = |optional| (Physical::BYTE_ARRAY, Some(LogicalType::String), optional);
    let time = LogicalType::timestamp(true, TimeUnit::MILLIS);
    assert_eq!(of("time"), (Physical::INT64, Some(time), false));
    assert_eq!(of("line"), (Physical::INT64, None, false));
    assert_eq!(of("ip"), text(false));
    for name in ["user_agent", "method", "path", "query", "host", "referrer"] {
        assert_eq!(of(name), text(true));
    }
    for name in ["response_status", "own_answer"] {
        assert_eq!(of(name), (Physical::INT32, None, false));
    }
    assert_eq!(of("request.no_referrer"), (Physical::FLOAT, None, false));
    assert_eq!(of("ip.status"), text(false));
    assert_eq!(of("ip.requests_1m"), (Physical::FLOAT, None, false));
    let rows: Vec<_> = reader.get_row_iter(None).unwrap().map(Result::unwrap).collect();
    let of = |row: usize, name: &str| {
        rows[row].get_column_iter().find(|(column, _)| *column == name).map(|(_, field)| field.clone())
    };
    assert_eq!(of(0, "time"), Some(Field::TimestampMillis(1_431_857_101_000)));
    assert_eq!(of(0, "ip.status"), Some(Field::Str("missing".into())));
    assert_eq!(of(1, "ip.status"), Some(Field::Str("fresh".into())));
    assert_eq!(of(1, "ip.requests_1m"), Some(Field::Float(1.0)));
    assert_eq!(of(1, "user_agent"), Some(Field::Str("a".into())));
}
