//! The test vectors of `docs/http-vectors.jsonl`, which hold for every binding.

use std::collections::BTreeMap;

use super::{HttpRequest, RequestValue, Rule, is_of_site};
use crate::attribute::{Canonical, TextRoom, Value};
use crate::schema::Schema;

#[derive(serde::Deserialize)]
struct Vector {
    name: String,
    site_hosts: Vec<String>,
    request: BTreeMap<String, String>,
    values: BTreeMap<String, Option<f32>>,
    attributes: BTreeMap<String, Option<String>>,
}

impl Vector {
    fn told(&self, name: &str) -> Option<&[u8]> {
        self.request.get(name).map(|value| value.as_bytes())
    }

    fn http(&self) -> HttpRequest<'_> {
        HttpRequest {
            ip: self.told("ip").map(Value::Text),
            method: self.told("method"),
            target: self.told("target"),
            scheme: self.told("scheme"),
            host: self.told("host"),
            user_agent: self.told("user_agent"),
            referrer: self.told("referrer"),
            accept: self.told("accept"),
            accept_language: self.told("accept_language"),
            accept_encoding: self.told("accept_encoding"),
            sec_fetch_site: self.told("sec_fetch_site"),
            sec_fetch_mode: self.told("sec_fetch_mode"),
            sec_fetch_dest: self.told("sec_fetch_dest"),
            sec_ch_ua: self.told("sec_ch_ua"),
            sec_ch_ua_mobile: self.told("sec_ch_ua_mobile"),
            sec_ch_ua_platform: self.told("sec_ch_ua_platform"),
            pass: None,
        }
    }
}

fn vectors() -> Vec<Vector> {
    let lines = include_str!("../../../docs/http-vectors.jsonl").lines();
    lines.map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn d2_vectors_of_request_values() {
    for vector in vectors() {
        let hosts = vector.site_hosts.iter().map(|host| host.as_bytes());
        let http = vector.http();
        let found = http.values(RequestValue::ALL_BITS, |host| is_of_site(hosts.clone(), host));
        for value in RequestValue::ALL {
            // Of a pass no request says by itself whether it holds: `pass-vectors.jsonl` has those.
            let expected = vector.values.get(value.name()).copied().flatten();
            let found = Some(found[value.index()]).filter(|value| !value.is_nan());
            assert_eq!(found, expected, "{}: {}", vector.name, value.name());
            // Alone it is the same, and the others are NaN.
            let alone = http.values(value.bit(), |host| is_of_site(hosts.clone(), host));
            let told: Vec<_> = alone.iter().enumerate().filter(|(_, found)| !found.is_nan()).collect();
            let expected: Vec<_> = expected.iter().map(|expected| (value.index(), expected)).collect();
            assert_eq!(told, expected, "{}: {} alone", vector.name, value.name());
        }
        assert_eq!(vector.values.len(), RequestValue::ALL.len() - 1, "{}", vector.name);
    }
}

#[test]
fn d2_vectors_of_attributes() {
    for vector in vectors() {
        for (attribute, expected) in &vector.attributes {
            let told = vector.told(match attribute.as_str() {
                "path" => "target",
                "browser" | "crawler" => "user_agent",
                other => other,
            });
            let kind = Schema::default().attribute_kind(attribute).unwrap();
            let found =
                told.and_then(|told| Canonical::by_rule(kind, Rule::of(attribute), Value::Text(told)));
            let mut room = TextRoom::default();
            let found = found.as_ref().map(|canonical| canonical.text(kind, &mut room));
            assert_eq!(found, expected.as_ref().map(|text| text.as_bytes()), "{}: {attribute}", vector.name);
        }
    }
}
