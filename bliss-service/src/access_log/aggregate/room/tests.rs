use std::collections::HashSet;

use bliss_core::build::{Change, DimensionChange};
use bliss_core::key::{KeySecret, SECRET_BYTES};
use bliss_core::schema::Schema;

use super::*;
use crate::access_log::aggregate::{AggregateOptions, Aggregator};
use crate::access_log::features::{WINDOWED_DIMENSIONS, windowed_dimension};
use crate::access_log::parse::Parser;
use crate::keys::DimensionKeys;

const SECRET: KeySecret = KeySecret([5; SECRET_BYTES]);
const START: u64 = 1_431_857_100;
const MAX_KEYS: usize = 2000;

/// A request: second, address, agent.
type Request = (u64, String, String);

/// 200 people in networks of their own, 20 requests each in ten minutes.
fn people() -> Vec<Request> {
    let request =
        |person: u64, at: u64| (at + person % 30, format!("192.0.{person}.9"), format!("human{person}"));
    (0..200).flat_map(|person| (0..20).map(move |at| request(person, at * 30))).collect()
}

/// Requests of new clients, each with this address and an agent of its own, a hundred a second from `second` on.
fn flood(second: u64, clients: u64, requests: u64, address: impl Fn(u64) -> String) -> Vec<Request> {
    let request = |at: u64| {
        let client = at % clients;
        (second + at / 100, address(client), format!("x{client}"))
    };
    (0..clients * requests).map(request).collect()
}

fn schema() -> Schema {
    let dimensions = WINDOWED_DIMENSIONS.iter().map(|name| windowed_dimension(name).unwrap()).collect();
    Schema { dimensions, ..Schema::default() }
}

/// Of each dimension, the keys that readers have in the end, with a publication each second.
fn published(mut requests: Vec<Request>) -> Vec<HashSet<u64>> {
    requests.sort();
    let schema = schema();
    let options = AggregateOptions { max_keys: MAX_KEYS, ..AggregateOptions::default() };
    let mut aggregator = Aggregator::new(&schema, &[0, 1, 2, 3], &SECRET, options).unwrap();
    let mut keys = vec![HashSet::new(); 4];
    let mut apply = |Change { dimensions }: Change| {
        for (dimension, change) in dimensions {
            let keys: &mut HashSet<u64> = &mut keys[dimension];
            match change {
                DimensionChange::Prefixes(_) => panic!("a log has no networks"),
                DimensionChange::Replace(rows) => *keys = rows.keys.into_iter().collect(),
                DimensionChange::Patch { upserts, deletes } => {
                    deletes.iter().for_each(|key| _ = keys.remove(key));
                    keys.extend(upserts.keys);
                }
            }
            assert!(keys.len() <= MAX_KEYS);
        }
    };
    let mut second = 0;
    for (at, ip, agent) in requests {
        while second < at {
            second += 1;
            apply(aggregator.tick((START + second) * 1000));
        }
        let line = format!(
            r#"{{"msec":{}.5,"remote_addr":"{ip}","status":200,"request":"GET / HTTP/1.1","http_user_agent":"{agent}"}}"#,
            START + at
        );
        aggregator.ingest(&Parser::default().parse(line.as_bytes()).unwrap());
    }
    apply(aggregator.tick((START + second + 1) * 1000));
    for table in &aggregator.tables {
        let held: usize = table.networks.values().map(|held| held.keys).sum();
        assert_eq!(held, table.entries.iter().filter(|row| row.network.is_some()).count());
    }
    keys
}

/// Which share of people has no row, in the worst dimension.
fn lost(requests: Vec<Request>, people: &[Request]) -> f64 {
    let keys = published(requests);
    let people: HashSet<(String, String)> =
        people.iter().map(|(_, ip, agent)| (ip.clone(), agent.clone())).collect();
    let schema = schema();
    let lost_of = |(at, dimension): (usize, &bliss_core::schema::Dimension)| {
        let of = DimensionKeys::new(&SECRET, &schema, dimension);
        let names: Vec<&str> = of.attributes().collect();
        let key = |ip: &str, agent: &str| {
            of.key(|part| Some(if names[part] == "ip" { ip.into() } else { agent.into() })).unwrap()
        };
        people.iter().filter(|(ip, agent)| !keys[at].contains(&key(ip, agent))).count()
    };
    let lost = schema.dimensions.iter().enumerate().map(lost_of).max().unwrap();
    lost as f64 / people.len() as f64
}

fn one_network(client: u64) -> String {
    format!("2001:db8:1:{:x}::{client:x}", client % 65_536)
}

/// The attack: 6,000 requests of one /48, each with another address and agent, in a table of 2,000 keys with 200 people.
#[test]
fn s14_a_flood_of_one_network_pushes_nobody_out() {
    let people = people();
    for (what, flood, most) in [
        ("one request each", flood(600, 6000, 1, one_network), 0.0),
        ("as active as people", flood(600, 6000, 20, one_network), 0.05),
        ("few, and more active than people", flood(600, 2500, 60, one_network), 0.05),
        (
            "of one /24 and many agents",
            flood(600, 6000, 1, |client| format!("198.51.100.{}", client % 256)),
            0.0,
        ),
    ] {
        let lost = lost([people.clone(), flood].concat(), &people);
        eprintln!("{what}: {lost} lost");
        assert!(lost <= most, "{what}: {lost}");
    }
}

/// Agents that a flood used first are not its own once others use them.
#[test]
fn s14_what_others_use_too_belongs_to_nobody() {
    let mut people = people();
    people.iter_mut().for_each(|(_, _, agent)| *agent = format!("x{}", agent.trim_start_matches("human")));
    let early = flood(0, 200, 1, one_network).into_iter().map(|(_, ip, agent)| (0, ip, agent)).collect();
    let lost = lost([early, people.clone(), flood(600, 6000, 20, one_network)].concat(), &people);
    assert!(lost <= 0.05, "{lost}");
}

/// Networks do not help against one who has many; that others ask more often does.
#[test]
fn s14_a_flood_of_many_networks_that_asks_once_pushes_nobody_out() {
    let people = people();
    let many = |client: u64| format!("2001:db8:{client:x}::1");
    let lost = lost([people.clone(), flood(600, 30_000, 1, many)].concat(), &people);
    assert!(lost <= 0.05, "{lost}");
}

/// Who comes when the table is full of a flood gets in.
#[test]
fn s14_people_who_come_after_a_flood_get_rows() {
    let people: Vec<Request> = people().into_iter().map(|(at, ip, agent)| (at + 1300, ip, agent)).collect();
    for requests in [1, 20] {
        let lost = lost([flood(0, 6000, requests, one_network), people.clone()].concat(), &people);
        assert!(lost <= 0.05, "a flood of {requests} requests for each client: {lost}");
    }
}

/// Without a flood, of those that asked as often, the one that was not seen for longest goes.
#[test]
fn without_a_flood_the_oldest_gives_way() {
    let requests: Vec<Request> = (0..4000)
        .map(|client| (client / 20, format!("10.{}.{}.1", client / 200, client % 200), "a".to_owned()))
        .collect();
    let keys = published(requests.clone());
    let of = DimensionKeys::new(&SECRET, &schema(), &schema().dimensions[0]);
    let has = |range: std::ops::Range<usize>| {
        let requests = &requests[range];
        let held = requests
            .iter()
            .filter(|(_, ip, _)| keys[0].contains(&of.key(|_| Some(ip.as_str().into())).unwrap()));
        held.count() as f64 / requests.len() as f64
    };
    let (oldest, newest) = (has(0..1000), has(3000..4000));
    assert!(oldest < 0.1 && newest > 0.85, "{oldest} {newest}");
}

#[test]
fn activity_fades() {
    let mut activity = Activity::default();
    let minute = 60_000;
    for at in 0..8 {
        activity.add(600 * minute + at);
    }
    assert_eq!(activity.at(600 * minute), 8);
    assert_eq!(activity.at(615 * minute), 4);
    activity.add(615 * minute);
    assert_eq!(activity.at(615 * minute), 5);
    // A late one.
    activity.add(600 * minute);
    assert_eq!(activity.at(615 * minute), 6);
    assert_eq!(activity.at(u64::MAX), 0);
}

/// The most bytes of a dimension while these come, the share of people without a row, and how many keys there are.
fn bytes_and_lost(
    mut requests: Vec<(u64, String, String, String)>,
    people: u64,
    max_bytes: usize,
) -> (usize, f64) {
    requests.sort();
    let schema = schema();
    let options = AggregateOptions { max_keys: 1_000_000, max_bytes, ..AggregateOptions::default() };
    let mut aggregator = Aggregator::new(&schema, &[0, 1, 2, 3], &SECRET, options).unwrap();
    let (mut second, mut most) = (0, 0);
    for (at, ip, agent, path) in requests {
        while second < at {
            second += 1;
            aggregator.tick((START + second) * 1000);
            most = most.max(aggregator.tables.iter().map(Table::bytes).max().unwrap());
        }
        let line = format!(
            r#"{{"msec":{}.5,"remote_addr":"{ip}","status":200,"request":"GET {path} HTTP/1.1","http_user_agent":"{agent}"}}"#,
            START + at
        );
        aggregator.ingest(&Parser::default().parse(line.as_bytes()).unwrap());
    }
    aggregator.tick((START + second + 1) * 1000);
    for table in &aggregator.tables {
        let sum: usize = table.entries.iter().map(|row| row.bytes).sum();
        assert_eq!(table.bytes(), sum, "what is kept is the sum");
        let mut held = std::collections::HashMap::<u64, Held>::new();
        for row in &table.entries {
            if let Some(network) = row.network {
                let held = held.entry(network).or_default();
                *held = Held { keys: held.keys + 1, bytes: held.bytes + row.bytes };
            }
        }
        assert!(held == table.networks);
    }
    let of = DimensionKeys::new(&SECRET, &schema, &schema.dimensions[0]);
    let has = |person: &u64| {
        let address = format!("192.0.{person}.9");
        let key = of.key(|_| Some(address.as_str().into())).unwrap();
        aggregator.tables[0].entries.iter().any(|row| row.key() == key)
    };
    (most, (0..people).filter(|person| !has(person)).count() as f64 / people as f64)
}

/// Limits by bytes: few keys with huge sets, and many keys, of one network and of many. 200 people ask 20 times each.
#[test]
fn s14_neither_huge_sets_nor_many_keys_take_more_bytes_than_they_may() {
    let with_paths = |requests: Vec<Request>, paths: u64| {
        let path = |at: usize| format!("/{}", at as u64 % paths);
        let named = requests.into_iter().enumerate();
        named.map(|(at, (second, ip, agent))| (second, ip, agent, path(at))).collect::<Vec<_>>()
    };
    // 200 clients with five requests a second each, for a minute.
    let burst = |address: fn(u64) -> String| -> Vec<Request> {
        let requests = flood(0, 200, 300, address);
        requests.into_iter().map(|(second, ip, agent)| (300 + second / 10, ip, agent)).collect()
    };
    let people = with_paths(people(), 10);
    for (what, attack, max_bytes) in [
        ("huge sets of one network", with_paths(burst(one_network), 50_000), 1_800_000),
        (
            "huge sets of many networks",
            with_paths(burst(|client| format!("2001:db8:{client:x}::1")), 50_000),
            1_800_000,
        ),
        ("many keys of one network", with_paths(flood(0, 30_000, 1, one_network), 10), 4 << 20),
        (
            "many keys of many networks",
            with_paths(flood(0, 30_000, 1, |client| format!("2001:db8:{client:x}::1")), 10),
            4 << 20,
        ),
    ] {
        let (most, lost) = bytes_and_lost([people.clone(), attack].concat(), 200, max_bytes);
        eprintln!("{what}: {most} bytes, {lost} lost");
        assert!((max_bytes..max_bytes + max_bytes / 10).contains(&most), "{what}: {most} bytes");
        assert!(lost <= 0.05, "{what}: {lost} lost");
    }
}
