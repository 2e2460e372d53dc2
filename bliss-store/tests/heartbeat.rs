//! What is published decides nothing any more once the daemon has given no sign of life for too long.

use std::path::Path;
use std::time::Duration;

use bliss_core::build::{Change, DimensionChange, Rows};
use bliss_core::request::Request;
use bliss_core::schema::{Dimension, Feature, KeyPart, Schema};
use bliss_core::score::{Status, Unscored};
use bliss_store::{Client, PublishOptions, Publisher};

/// Of the callers, as far from the clock's as may be: their time need not be the system's.
const NOW: u32 = 1_000_000;

fn publisher(directory: &Path, max_heartbeat_age_seconds: u32) -> Publisher {
    let ip = Dimension {
        name: "ip".into(),
        key: vec![KeyPart::whole("ip")],
        max_age_seconds: 0,
        on_stale: Default::default(),
        features: vec![Feature::number("requests_1m")],
    };
    let schema = Schema { dimensions: vec![ip], max_heartbeat_age_seconds, ..Schema::default() };
    let mut publisher = Publisher::open(directory, &PublishOptions::default(), schema).unwrap();
    let mut rows = Rows::new(1);
    rows.push(publisher.key(0, &["192.0.2.1".into()]).unwrap(), NOW, &[7.0]);
    publisher.publish(Change { dimensions: vec![(0, DimensionChange::Replace(rows))] }).unwrap();
    publisher.publish_models(&Default::default()).unwrap();
    publisher
}

/// What a lookup finds; a score must be refused for the same reason.
fn ask(client: &mut Client, now: u32) -> Result<f32, Unscored> {
    let ip = client.names().attribute("ip").unwrap();
    let mut request = Request::new();
    request.set_attribute(ip, "192.0.2.1".into());
    let score = client.score(&request, "", now).outcome.unwrap_err();
    let found = client.look_up(&request, now).map(|(values, statuses)| {
        assert_eq!(statuses, [Status::Fresh]);
        values[0]
    });
    assert_eq!(score, found.err().unwrap_or(Unscored::NoActiveModel));
    found
}

#[test]
fn s10_requests_are_unscored_once_the_daemon_is_silent() {
    const OLD: Result<f32, Unscored> = Err(Unscored::OldSnapshot);
    const ALIVE: Result<f32, Unscored> = Ok(7.0);
    let directory = tempfile::tempdir().unwrap();
    let publisher = publisher(directory.path(), 3);
    let mut client = Client::open(directory.path()).unwrap();
    // Seconds of the caller's time, what happens before, and what is found.
    enum Before {
        Nothing,
        Silence,
        Beat,
    }
    use Before::{Beat, Nothing, Silence};
    let steps = [
        (0, Nothing, ALIVE),
        (3, Nothing, ALIVE),
        // A time that is put forward, or goes back, says nothing; by the clock the daemon lives.
        (4_000, Nothing, ALIVE),
        (10, Nothing, ALIVE),
        (u32::MAX - NOW, Nothing, ALIVE),
        (10, Nothing, ALIVE),
        (14, Silence, OLD),
        (14, Nothing, OLD),
        (15, Nothing, OLD),
        (4_000, Nothing, OLD),
        (15, Nothing, OLD),
        (15, Beat, ALIVE),
        (19, Nothing, ALIVE),
        (23, Silence, OLD),
        (23, Beat, ALIVE),
    ];
    for (step, (after, before, expected)) in steps.into_iter().enumerate() {
        match before {
            Nothing => {}
            Silence => std::thread::sleep(Duration::from_millis(4_100)),
            Beat => publisher.heartbeat(),
        }
        assert_eq!(ask(&mut client, NOW + after), expected, "step {step}");
    }
    let key = client.key(0, &["192.0.2.1".into()]).unwrap().unwrap();
    assert_eq!(client.look_up_keys(&[key], NOW + 23).unwrap().0, [7.0]);
    std::thread::sleep(Duration::from_millis(4_100));
    assert_eq!(client.look_up_keys(&[key], NOW + 27).err(), Some(Unscored::OldSnapshot));
    let why = client.last_error().unwrap().to_string();
    let expected = "at most 3 s are allowed (publish.max_heartbeat_age); is bliss-service running?";
    assert!(why.contains("is 4 s old") && why.ends_with(expected), "{why}");
}

#[test]
fn s10_without_a_limit_requests_are_scored_for_ever() {
    let directory = tempfile::tempdir().unwrap();
    drop(publisher(directory.path(), 0));
    let mut client = Client::open(directory.path()).unwrap();
    assert_eq!((ask(&mut client, NOW), ask(&mut client, u32::MAX)), (Ok(7.0), Ok(7.0)));
}

/// A worker that starts, or has its first request, long after the daemon ended knows it by the clock.
#[test]
fn s10_a_late_worker_knows_that_the_daemon_is_gone() {
    let directory = tempfile::tempdir().unwrap();
    let publisher = publisher(directory.path(), 2);
    let mut waiting = Client::open(directory.path()).unwrap();
    assert_eq!(ask(&mut waiting, NOW), Ok(7.0));
    publisher.heartbeat();
    drop(publisher);
    std::thread::sleep(Duration::from_millis(3_100));
    let mut late = Client::open(directory.path()).unwrap();
    assert_eq!(ask(&mut late, NOW), Err(Unscored::OldSnapshot));
    // It has not seen that the heartbeat changed; a second of its own has passed.
    assert_eq!(ask(&mut waiting, NOW + 1), Err(Unscored::OldSnapshot));
}

/// The daemon that follows is found at once, also where it had to make new files.
#[test]
fn s10_the_next_daemon_is_found() {
    for removed in [false, true] {
        let directory = tempfile::tempdir().unwrap();
        drop(publisher(directory.path(), 2));
        let mut client = Client::open(directory.path()).unwrap();
        assert_eq!(ask(&mut client, NOW), Ok(7.0));
        std::thread::sleep(Duration::from_millis(3_100));
        assert_eq!(ask(&mut client, NOW + 100), Err(Unscored::OldSnapshot));
        if removed {
            for entry in std::fs::read_dir(directory.path()).unwrap() {
                std::fs::remove_file(entry.unwrap().path()).unwrap();
            }
        }
        let publisher = publisher(directory.path(), 2);
        // Files are looked at once a second, and only where nothing was heard for three.
        let found = (101..200).find(|after| {
            std::thread::sleep(Duration::from_millis(100));
            publisher.heartbeat();
            ask(&mut client, NOW + after) == Ok(7.0)
        });
        assert!(found.is_some(), "removed: {removed}");
    }
}
