//! Every benchmark runs on a few rows and gets right answers; nothing here looks at a time.

use benches::lookup::{self, Subject};
use benches::report::{Report, Row};
use benches::workload::Distribution;
use benches::{ipc, prefixes, publish, score, sync};

fn subjects(report: &Report, bench: &str) -> Vec<String> {
    report.rows().iter().filter(|row: &&Row| row.bench == bench).map(|row| row.subject.clone()).collect()
}

#[test]
fn fetch_measures_all_that_are_installed() {
    for distribution in [Distribution::Uniform, Distribution::Zipf] {
        let options = lookup::Options {
            keys: 1200,
            distribution,
            subjects: vec![
                Subject::Bliss,
                Subject::BlissC,
                Subject::MmapSync,
                Subject::Memcached,
                Subject::Redis,
                Subject::Lmdb,
                Subject::HashMap,
                Subject::Floor,
                Subject::OwnFloor,
            ],
            publish: distribution == Distribution::Uniform,
            seconds: 0.01,
            rounds: 2,
        };
        let mut report = Report::new(true);
        lookup::run(&options, &mut report).unwrap();
        let found = subjects(&report, "lookup");
        for subject in
            ["bliss", "bliss C ABI", "mmap-sync 2.0.4", "lmdb", "HashMap", "floor", "floor (own mapping)"]
        {
            assert!(found.iter().any(|f| f == subject), "{subject} not in {found:?}");
        }
        if options.publish {
            assert_eq!(subjects(&report, "lookup_publishing"), ["bliss"]);
        }
    }
}

#[test]
fn publish_measures_every_change() {
    let options = publish::Options {
        keys: 6000,
        subjects: vec![publish::Subject::Bliss, publish::Subject::MmapSync],
        rounds: 3,
    };
    let mut report = Report::new(true);
    publish::run(&options, &mut report).unwrap();
    for bench in ["publish_all", "publish_1pct", "publish_0.1pct", "publish_one"] {
        assert_eq!(subjects(&report, bench), ["bliss", "mmap-sync 2.0.4"], "{bench}");
    }
}

#[test]
fn sync_measures_pins_reads_writes_and_updates() {
    let options = sync::Options { sizes: vec![64_000], seconds: 0.01, only: vec![] };
    let mut report = Report::new(true);
    sync::run(&options, &mut report).unwrap();
    let benches: Vec<_> = report.rows().iter().map(|row| row.bench.as_str()).collect();
    for bench in [
        "pin_1_reader",
        "pin_2_readers",
        "read_typed",
        "read_while_publishing",
        "write_small",
        "write_64000b",
        "write_raw_64000b",
        "update_1pct_contiguous_64000b",
        "update_1pct_scattered_64000b",
    ] {
        assert!(benches.contains(&bench), "{bench} not in {benches:?}");
    }
}

#[test]
fn score_is_bit_equal_and_measures_every_path() {
    let own = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../bliss-catboost/testdata/models");
    let options = score::Options {
        models: ["scale_bias", "ctr"].map(String::from).into(),
        folder: Some(own),
        together: 2,
        seconds: 0.01,
    };
    let mut report = Report::new(true);
    score::run(&options, &mut report).unwrap();
    for bench in ["score_scale_bias", "score_2x_scale_bias_displaced", "score_ctr"] {
        assert!(subjects(&report, bench).iter().any(|s| s == "bliss portable"), "{bench}");
    }
}

#[test]
fn ipc_measures_every_way() {
    let options = ipc::Options { bytes: vec![1, 1024], batches: vec![1, 10], seconds: 0.02 };
    let mut report = Report::new(true);
    ipc::run(&options, &mut report).unwrap();
    for bench in ["ipc_1b_1", "ipc_1b_10", "ipc_1024b_1", "ipc_1024b_10"] {
        let found = subjects(&report, bench);
        for way in [
            "memory-mapped file",
            "POSIX shared memory",
            "Unix socket",
            "TCP loopback",
            "pipe",
            "FIFO",
            "eventfd",
        ] {
            assert!(found.iter().any(|f| f == way), "{way} not in {found:?}");
        }
    }
}

#[test]
fn prefixes_gives_the_same_answers_for_all() {
    let options = prefixes::Options { prefixes: 20_000, values: 300, lookups: 20_000, seconds: 0.01 };
    let mut report = Report::new(true);
    prefixes::run(&options, &mut report).unwrap();
    for bench in ["prefixes_v4", "prefixes_v6"] {
        let expected = ["bliss", "bliss (table alone)", "maxminddb", "ip_network_table", "prefix-trie"];
        assert_eq!(subjects(&report, bench), expected, "{bench}");
    }
    assert_eq!(subjects(&report, "prefixes_build").len(), 4);
}
