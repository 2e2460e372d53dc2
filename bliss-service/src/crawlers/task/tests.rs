use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::crawlers::dimension;
use crate::decode::Limits;
use crate::lists::{Column, ListDecoder, ListFormat};
use bliss_core::key::{KeySecret, SECRET_BYTES};
use bliss_core::schema::{Feature, Schema};
use prometheus_client::metrics::counter::Counter;

fn layer(text: &str) -> Arc<Layer> {
    let limits = Limits {
        max_bytes: 1 << 20,
        max_line_bytes: 1 << 10,
        max_decoded_bytes: 1 << 20,
        max_rows: None,
        min_rows: 0,
    };
    let feature = Feature::number("crawler");
    let column = Column { index: 0, feature, field: String::new(), rules: None };
    Arc::new(
        ListDecoder::new(ListFormat::Text, vec![column], limits).decode("list", text.as_bytes()).unwrap(),
    )
}

#[test]
fn networks_say_who_is_inside_and_only_all_of_them_who_is_not() {
    let of = |lists: &[(usize, Option<Arc<Layer>>, bool)], ip: &str| {
        RangeLists { lists: lists.to_vec() }.of(ClientId { ip: ip.parse().unwrap(), crawler: 3 })
    };
    let v4 = layer("192.0.2.0/24\n198.51.100.7\n");
    let v6 = layer("2001:db8::/32\n");
    let both =
        [(3, Some(v4.clone()), true), (3, Some(v6.clone()), true), (4, Some(layer("203.0.113.0/24")), true)];
    for (ip, expected) in [
        ("192.0.2.255", Ranges::Inside),
        ("198.51.100.7", Ranges::Inside),
        ("198.51.100.8", Ranges::Outside),
        ("::ffff:192.0.2.1", Ranges::Inside),
        ("2001:db8::1", Ranges::Inside),
        ("2001:db9::1", Ranges::Outside),
        ("203.0.113.1", Ranges::Outside),
    ] {
        assert_eq!(of(&both, ip), expected, "{ip}");
    }
    assert_eq!(of(&[], "192.0.2.1"), Ranges::None);
    // One that was not read, or is not good now: who is in no other one may be in that.
    for missing in [(3, None, false), (3, Some(v6), false)] {
        let lists = [(3, Some(v4.clone()), true), missing];
        assert_eq!(of(&lists, "192.0.2.1"), Ranges::Inside);
        assert_eq!(of(&lists, "203.0.113.1"), Ranges::Unknown);
    }
}

#[test]
fn addresses_of_no_stranger_are_not_asked_about() {
    for (ip, expected) in [
        ("66.249.66.1", true),
        ("192.0.2.1", true),
        ("2a00:1450::1", true),
        ("127.0.0.1", false),
        ("10.1.2.3", false),
        ("172.31.0.1", false),
        ("192.168.1.1", false),
        ("169.254.1.1", false),
        ("100.64.0.1", false),
        ("0.0.0.0", false),
        ("::1", false),
        ("::ffff:10.1.2.3", false),
        ("fd00::1", false),
        ("fe80::1", false),
    ] {
        assert_eq!(is_public(ip.parse().unwrap()), expected, "{ip}");
    }
}

fn claimed(last: u8) -> ClientId {
    ClientId { ip: [192, 0, 2, last].into(), crawler: 3 }
}

#[tokio::test]
async fn p9_a_verification_that_panics_says_nothing_of_its_client() {
    let mut running = Running::default();
    running.spawn(claimed(1), async { panic!("as if there were a mistake") });
    let (id, verdict) = running.next().await;
    assert_eq!(id, claimed(1));
    assert!(matches!(&verdict, Verdict::Unknown(why) if why.contains("panicked")), "{verdict:?}");
    running.spawn(claimed(2), async { Verdict::Untold });
    assert_eq!(running.next().await, (claimed(2), Verdict::Untold));
    assert_eq!((running.len(), running.clients.len()), (0, 0));
}

/// A publication that is under way, and ones that fail, are waited for, not asked after again and again.
#[tokio::test]
async fn p9_the_task_sleeps_while_nothing_can_be_published() {
    for fails in [false, true] {
        let schema = Schema { dimensions: vec![dimension(Duration::from_secs(100))], ..Schema::default() };
        let keys = DimensionKeys::new(&KeySecret([7; SECRET_BYTES]), &schema, &schema.dimensions[0]);
        let options =
            CrawlerOptions { resolvers: vec!["127.0.0.1:1".parse().unwrap()], ..CrawlerOptions::default() };
        let claims = Claims::new(Counter::default());
        let (turns, seen) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(Vec::new())));
        let (turned, sent) = (turns.clone(), seen.clone());
        let task = Task {
            verifier: Verifier::new(&options, Counter::default(), Counter::default()).unwrap(),
            options,
            rules: Arc::new(Rules::shipped().unwrap()),
            claims: claims.clone(),
            dimension: 0,
            keys,
            publish_interval: Duration::from_millis(20),
            publish: move |_| {
                let (answer, waiting) = oneshot::channel();
                if fails {
                    answer.send(Err("no room".to_owned())).unwrap();
                } else {
                    sent.lock().unwrap().push(answer);
                }
                waiting
            },
            ranges: RangeLists::default,
            has_old_rows: false,
            report: Box::new(move |report| {
                if matches!(report, Report::Counts(_)) {
                    turned.fetch_add(1, Ordering::Relaxed);
                }
            }),
        };
        let running = tokio::spawn(task.run());
        // One whose row is to be published at once, and then one that is held back for a moment.
        let untold =
            bliss_core::http::CRAWLERS.iter().position(|crawler| crawler.name == "ClaudeBot").unwrap();
        for last in 1..=2 {
            claims.watch().claim([192, 0, 2, last].into(), untold);
            claims.watch().claim([10, 0, 2, last].into(), 0);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert!(turns.load(Ordering::Relaxed) < 60, "fails {fails}: {} turns", turns.load(Ordering::Relaxed));
        assert!(fails || seen.lock().unwrap().len() == 1);
        running.abort();
    }
}
