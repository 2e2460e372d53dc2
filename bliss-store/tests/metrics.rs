//! What workers count in the file that they share with the daemon.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;

use bliss_catboost::compile;
use bliss_catboost::ir::{Bins, Distribution, FloatFeature, InputBins, Model, ObliviousTree, Split, Trees};
use bliss_core::build::Rows;
use bliss_core::build::{Change, DimensionChange};
use bliss_core::build::{ModelSet, NamedModel, NamedRoute};
use bliss_core::metrics::{self, Cells, Kind, MAX_CELLS, SLOT_BYTES, Series, SeriesId};
use bliss_core::request::Request;
use bliss_core::schema::{Dimension, Feature, KeyPart, Schema};
use bliss_core::score::{Status, Unscored};
use bliss_store::{Client, METRICS, MetricsError, MetricsFile, PublishOptions, Publisher};

use common::{directory, in_child, wait};

mod common;

const NOW: u32 = 1000;

struct Site {
    directory: tempfile::TempDir,
    publisher: Publisher,
    file: MetricsFile,
}

/// Bins up to 10, up to 50 and above.
fn distribution(input: &str) -> Distribution {
    let bins = Bins { borders: vec![10.0, 50.0], shares: vec![0.5, 0.25, 0.25], missing: 0.0 };
    let input = InputBins { name: input.into(), bins: bins.clone() };
    Distribution { requests: 1, score: bins, inputs: vec![input] }
}

/// A model whose raw value is `low` for `ip.x` up to 10, else `high`.
fn model(name: &str, input: &str, low: f64, high: f64) -> NamedModel {
    let model = Model {
        dimensions: 1,
        scale: 1.0,
        floats: vec![FloatFeature { name: input.into(), borders: vec![10.0], ..FloatFeature::default() }],
        trees: Trees::Oblivious(vec![ObliviousTree {
            splits: vec![Split::Float(0, 0)],
            leaves: vec![low, high],
        }]),
        distribution: Some(distribution(input)),
        ..Model::default()
    };
    NamedModel { name: name.into(), version: "1".into(), bot_class: 1, compiled: compile(&model).unwrap() }
}

impl Site {
    fn new() -> Self {
        let directory = directory();
        let dimension = |name: &str, key: &str| Dimension {
            name: name.into(),
            key: vec![KeyPart::whole(key)],
            max_age_seconds: 600,
            on_stale: Default::default(),
            features: vec![Feature::number("x")],
        };
        let schema = Schema {
            dimensions: vec![dimension("ip", "ip"), dimension("agent", "user_agent")],
            ..Schema::default()
        };
        // The inputs of every request are counted too.
        let options = PublishOptions { sample_one_in: 1, ..PublishOptions::default() };
        let mut publisher = Publisher::open(directory.path(), &options, schema).unwrap();
        let mut rows = Rows::new(1);
        for i in 0..100_u8 {
            let address = format!("192.0.2.{i}");
            rows.push(publisher.key(0, &[address.as_str().into()]).unwrap(), NOW, &[f32::from(i)]);
        }
        publisher.publish(Change { dimensions: vec![(0, DimensionChange::Replace(rows))] }).unwrap();
        let route = |name: &str, active: &str, shadows: &[&str]| NamedRoute {
            name: name.into(),
            active: Some(active.into()),
            shadows: shadows.iter().map(|s| (*s).into()).collect(),
        };
        let set = ModelSet {
            models: vec![
                model("old", "ip.x", -2.0, 2.0),
                model("new", "ip.x", 1.0, 1.0),
                model("broken", "ip.gone", 0.0, 0.0),
            ],
            routes: vec![route("default", "old", &["new", "broken"]), route("shop", "broken", &[])],
        };
        publisher.publish_models(&set).unwrap();
        let file = MetricsFile::open(directory.path(), &PublishOptions::default()).unwrap();
        Self { directory, publisher, file }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn client(&self) -> Client {
        let client = Client::open(self.path()).unwrap();
        assert_eq!(client.metrics_error(), None);
        client
    }

    fn totals(&mut self) -> BTreeMap<Series, Cells> {
        let mut totals = BTreeMap::new();
        self.file
            .slots(|slot| {
                for (series, cells) in slot.entries() {
                    let total: &mut Cells = totals.entry(series).or_insert([0; MAX_CELLS]);
                    total.iter_mut().zip(cells).for_each(|(sum, count)| *sum = sum.wrapping_add(count));
                }
            })
            .unwrap();
        totals
    }

    /// Lookups of dimension `ip`.
    fn lookups(&mut self) -> u64 {
        let totals = self.totals();
        totals.get(&Series::Of(SeriesId::lookups("ip"))).map_or(0, |cells| cells.iter().sum())
    }

    /// Row `row` of what is counted of inputs: its three bins, and that of NaN.
    fn bins(&mut self, row: usize) -> [u64; 4] {
        let mut sum = [0; 4];
        self.file
            .slots(|slot| {
                let found = slot.drift().row(row);
                sum.iter_mut().zip([0, 1, 2, 15]).for_each(|(sum, bin)| *sum += found[bin]);
            })
            .unwrap();
        sum
    }

    /// How many slots were ever used.
    fn slots(&mut self) -> usize {
        let mut slots = 0;
        self.file.slots(|_| slots += 1).unwrap();
        slots
    }
}

/// Scores a known address `times` times.
fn score(client: &mut Client, times: u64) {
    let ip = client.names().attribute("ip").unwrap();
    let mut request = Request::new();
    request.set_attribute(ip, "192.0.2.50".into());
    for _ in 0..times {
        client.score(&request, "", NOW);
    }
}

#[test]
fn what_is_looked_up_and_scored_is_counted() {
    let mut site = Site::new();
    let mut client = site.client();
    let ip = client.names().attribute("ip").unwrap();
    let mut scored = Vec::new();
    for i in [5, 50, 150] {
        let address = format!("192.0.2.{i}");
        let mut request = Request::new();
        request.set_attribute(ip, address.as_str().into());
        let active = client.score(&request, "", NOW).outcome.unwrap().score;
        let shadow = client.shadows()[0].outcome.unwrap().score;
        scored.push((active, shadow));
        assert_eq!(client.score(&request, "shop", NOW).outcome, Err(Unscored::MissingInput));
    }
    client.score(&Request::new(), "", NOW + 601);
    client.look_up(&Request::new(), NOW).unwrap();
    client.look_up_keys(&[1], NOW).unwrap();
    let totals = site.totals();
    let of = |id| totals[&Series::Of(id)];
    // The broken model of `shop` takes nothing that is published, so that its route looks nothing up.
    assert_eq!(
        metrics::lookups(&of(SeriesId::lookups("ip"))),
        [(Status::Fresh, 2), (Status::Stale, 0), (Status::Missing, 2), (Status::Absent, 2)]
    );
    assert_eq!(metrics::lookups(&of(SeriesId::lookups("agent")))[3], (Status::Absent, 2));
    let (bands, sum) = metrics::scores(&of(SeriesId::scores("default", "old", "1")));
    assert_eq!(bands.map(|(_, count)| count).sum::<u64>(), 4);
    // The request without an address has the default, as the missing one has.
    scored.push(scored[2]);
    assert_eq!(sum, scored.iter().map(|(active, _)| u64::from(*active)).sum::<u64>());
    let shadow = of(SeriesId::shadow("default", "new", "1"));
    let (bands, sum) = metrics::differences(&shadow);
    assert_eq!(bands.map(|(_, count)| count).sum::<u64>(), 4);
    assert_eq!(
        sum,
        scored.iter().map(|(active, shadow)| i64::from(*shadow) - i64::from(*active)).sum::<i64>()
    );
    assert!(metrics::shadow_unscored(&shadow).all(|(_, count)| count == 0));
    let broken = of(SeriesId::shadow("default", "broken", "1"));
    let missing =
        |(reason, count): (Unscored, u64)| (reason == Unscored::MissingInput && count == 4) || count == 0;
    assert!(metrics::shadow_unscored(&broken).all(missing));
    let shop: u64 = metrics::unscored(&of(SeriesId::unscored("shop"))).map(|(_, count)| count).sum();
    assert_eq!(shop, 3);
}

#[test]
fn requests_that_no_route_answers_are_counted_by_reason() {
    let directory = directory();
    let mut file = MetricsFile::open(directory.path(), &PublishOptions::default()).unwrap();
    let mut client = Client::open(directory.path()).unwrap();
    score(&mut client, 3);
    let mut found = Vec::new();
    file.slots(|slot| found.extend(slot.entries())).unwrap();
    let [(Series::NoRoute, cells)] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!(metrics::unscored(cells).next(), Some((Unscored::NoSnapshot, 3)));
}

#[test]
fn threads_and_processes_count_at_once_and_nothing_is_lost() {
    let mut site = Site::new();
    let directory = site.path().to_owned();
    const EACH: u64 = 20_000;
    let child = in_child(|| {
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..2)
                .map(|_| {
                    scope.spawn(|| {
                        let mut client = Client::open(&directory).unwrap();
                        score(&mut client, EACH);
                        client.metrics_error().is_none()
                    })
                })
                .collect();
            threads.into_iter().all(|thread| thread.join().unwrap())
        })
    });
    let mut last = 0;
    std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..2).map(|_| scope.spawn(|| score(&mut Client::open(&directory).unwrap(), EACH))).collect();
        while !threads.iter().all(|thread| thread.is_finished()) {
            let now = site.lookups();
            assert!(now >= last, "totals never fall: {last}, then {now}");
            last = now;
        }
    });
    assert_eq!(wait(child), 0);
    assert_eq!(site.lookups(), 4 * EACH);
}

#[test]
fn m4_a_killed_worker_leaves_its_counts_and_its_slot() {
    let mut site = Site::new();
    let mut expected = 0;
    for round in 1..=5 {
        let (mut from_child, to_parent) = std::io::pipe().unwrap();
        let directory = site.path().to_owned();
        let mut to_parent = Some(to_parent);
        let child = in_child(|| {
            let mut client = Client::open(&directory).unwrap();
            score(&mut client, 100);
            to_parent.take().unwrap().write_all(b"!").unwrap();
            loop {
                std::thread::sleep(std::time::Duration::from_secs(1));
            }
        });
        drop(to_parent);
        let mut byte = [0];
        from_child.read_exact(&mut byte).unwrap();
        // SAFETY:
        // - the process is our child and has not been waited for, so its id is still its own
        assert_eq!(unsafe { libc::kill(child, libc::SIGKILL) }, 0);
        wait(child);
        expected += 100;
        assert_eq!(site.lookups(), expected, "round {round}");
        assert_eq!(site.slots(), 1, "the slot of the dead one is used again");
    }
    let mut client = site.client();
    score(&mut client, 1);
    assert_eq!((site.lookups(), site.slots()), (expected + 1, 1));
}

#[test]
fn m6_a_child_counts_nothing_until_it_has_a_slot_of_its_own() {
    let mut site = Site::new();
    let mut client = site.client();
    score(&mut client, 10);
    let child = in_child(|| {
        score(&mut client, 1000);
        let before = client.metrics_error() == Some(MetricsError::Forked);
        let _ = client.maintain();
        score(&mut client, 7);
        // A grandchild, too.
        let grandchild = in_child(|| {
            score(&mut client, 1000);
            let _ = client.maintain();
            score(&mut client, 30);
            client.metrics_error().is_none()
        });
        before && wait(grandchild) == 0 && client.metrics_error().is_none()
    });
    score(&mut client, 200);
    assert_eq!(wait(child), 0);
    assert_eq!(site.lookups(), 10 + 7 + 30 + 200);
    assert_eq!(site.slots(), 3);
    // The parent's slot is still its own: what the child closed was its own copy.
    let mut other = site.client();
    score(&mut other, 1);
    score(&mut client, 1);
    assert_eq!(site.lookups(), 249);
}

#[test]
fn m6_a_child_does_not_keep_the_slot_of_a_dead_parent() {
    let mut site = Site::new();
    let (mut ended, until) = std::io::pipe().unwrap();
    let (ready, started) = std::io::pipe().unwrap();
    let directory = site.path().to_owned();
    let mut until = Some(until);
    let parent = in_child(|| {
        let mut client = Client::open(&directory).unwrap();
        score(&mut client, 10);
        // It never uses its handle, and lives until the test is over.
        in_child(|| {
            drop(until.take());
            (&started).write_all(&[1]).is_ok() && ended.read(&mut [0]).is_ok()
        });
        // A fork is whole once its handlers have run.
        let _ = (&ready).read(&mut [0]);
        let counts = client.metrics_error().is_none();
        // It ends as if killed, and releases nothing itself.
        std::mem::forget(client);
        counts
    });
    assert_eq!(wait(parent), 0);
    let mut client = site.client();
    score(&mut client, 1);
    assert_eq!((site.lookups(), site.slots()), (11, 1), "the slot of the dead parent is used again");
    drop(until);
}

#[test]
fn without_a_file_a_worker_works_and_counts_once_there_is_one() {
    let mut site = Site::new();
    let path = site.path().join(METRICS);
    std::fs::remove_file(&path).unwrap();
    let mut client = Client::open(site.path()).unwrap();
    assert_eq!(client.metrics_error(), Some(MetricsError::NoFile));
    score(&mut client, 5);
    client.maintain().unwrap();
    assert_eq!(client.metrics_error(), Some(MetricsError::NoFile));
    assert_eq!(site.lookups(), 0, "the daemon makes the file again when it looks");
    score(&mut client, 5);
    client.maintain().unwrap();
    assert_eq!(client.metrics_error(), None);
    score(&mut client, 5);
    assert_eq!(site.lookups(), 5);

    // Removed while it is in use: counts go to the old one until maintenance.
    std::fs::remove_file(&path).unwrap();
    score(&mut client, 5);
    assert_eq!(site.lookups(), 0);
    client.maintain().unwrap();
    score(&mut client, 6);
    assert_eq!(site.lookups(), 6);
}

#[test]
fn m8_an_unusable_file_is_replaced_and_never_truncated() {
    let mut site = Site::new();
    let path = site.path().join(METRICS);
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o660);
    let good = std::fs::read(&path).unwrap();
    let other_layout = [&good[..8], &[9, 0, 0, 0], &good[12..]].concat();
    let other_magic = [b"XXXXXXXX", &good[8..]].concat();
    let too_many = [&good[..12], &[255; 4], &good[16..]].concat();
    for (bad, expected) in [
        (&other_layout[..], "version 9"),
        (&other_magic, "another kind of file"),
        (&too_many, "its header says 4294967295 slots"),
        (&good[..100_000], "it has 100000 bytes"),
        (b"short", "another kind of file"),
        (b"", "another kind of file"),
    ] {
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, bad).unwrap();
        let mut client = Client::open(site.path()).unwrap();
        let why = client.metrics_error().unwrap().to_string();
        assert!(why.contains(expected), "{why}");
        score(&mut client, 1);
        let old = std::fs::File::open(&path).unwrap();
        let file = MetricsFile::open(site.path(), &PublishOptions::default()).unwrap();
        assert_eq!(old.metadata().unwrap().len(), bad.len() as u64, "{expected}: the old one stays as it is");
        client.maintain().unwrap();
        assert_eq!(client.metrics_error(), None, "{expected}");
        score(&mut client, 2);
        site.file = file;
        assert_eq!(site.lookups(), 2, "{expected}");
    }
    // A link is not followed, by nobody.
    std::fs::rename(&path, site.path().join("elsewhere")).unwrap();
    std::os::unix::fs::symlink("elsewhere", &path).unwrap();
    assert_eq!(Client::open(site.path()).unwrap().metrics_error(), Some(MetricsError::Stranger));
    assert_eq!(site.lookups(), 0);
    assert!(path.symlink_metadata().unwrap().is_file());
    // A good one is kept, by the next daemon too.
    let mut client = site.client();
    score(&mut client, 3);
    site.file = MetricsFile::open(site.path(), &PublishOptions::default()).unwrap();
    assert_eq!(site.lookups(), 3);
}

#[test]
fn m7_no_byte_in_the_file_does_more_than_count_wrongly() {
    let mut site = Site::new();
    let file = std::fs::OpenOptions::new().write(true).open(site.path().join(METRICS)).unwrap();
    let mut seed = 1_u64;
    for slot in 0..4_u64 {
        for at in (0..SLOT_BYTES as u64).step_by(8) {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            file.write_all_at(&seed.to_le_bytes(), (slot + 1) * SLOT_BYTES as u64 + at).unwrap();
        }
    }
    let mut clients: Vec<_> = (0..4).map(|_| site.client()).collect();
    clients.iter_mut().for_each(|client| score(client, 10));
    assert!(site.totals().contains_key(&Series::Other(Kind::Lookups)), "no room: every entry is somebody's");
    // What others change while it is in use.
    file.write_all_at(&vec![0xff; SLOT_BYTES], SLOT_BYTES as u64).unwrap();
    clients.iter_mut().for_each(|client| score(client, 10));
    site.totals();
}

#[test]
fn workers_beyond_the_last_slot_wait_for_one() {
    let mut site = Site::new();
    let path = site.path().join(METRICS);
    // The same file with two slots.
    let mut head = std::fs::read(&path).unwrap();
    head.truncate(3 * SLOT_BYTES);
    head[12..16].copy_from_slice(&2_u32.to_le_bytes());
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, head).unwrap();
    site.file = MetricsFile::open(site.path(), &PublishOptions::default()).unwrap();
    let (first, mut second) = (site.client(), site.client());
    let mut third = Client::open(site.path()).unwrap();
    assert_eq!(third.metrics_error(), Some(MetricsError::NoSlot { slots: 2 }));
    for _ in 0..5 {
        third.maintain().unwrap();
        assert_eq!(third.metrics_error(), Some(MetricsError::NoSlot { slots: 2 }));
    }
    score(&mut third, 10);
    score(&mut second, 10);
    drop(first);
    third.maintain().unwrap();
    assert_eq!(third.metrics_error(), None);
    score(&mut third, 10);
    assert_eq!(site.lookups(), 20);
}

/// What nothing but reading and counting does, as the kernel sees it.
#[test]
fn m1_counting_makes_no_system_call() {
    let mut site = Site::new();
    let directory = site.path().to_owned();
    let (mut from_test, mut to_child) = std::io::pipe().unwrap();
    let (mut from_child, mut to_test) = std::io::pipe().unwrap();
    let child = in_child(|| {
        let mut client = Client::open(&directory).unwrap();
        score(&mut client, 10);
        to_test.write_all(b"1").unwrap();
        from_test.read_exact(&mut [0]).unwrap();
        score(&mut client, 10);
        // From here on anything but read, write and exit kills.
        // SAFETY: no memory is passed.
        let mut good = unsafe { libc::prctl(libc::PR_SET_SECCOMP, 1) } == 0;
        for _ in 0..20 {
            score(&mut client, 1000);
            good &= to_test.write_all(b"2").is_ok() && from_test.read_exact(&mut [0]).is_ok();
        }
        // SAFETY: no memory is passed. `_exit` would be `exit_group`, which kills here.
        unsafe { libc::syscall(libc::SYS_exit, i64::from(!good)) };
        false
    });
    let mut byte = [0];
    for _ in 0..21 {
        from_child.read_exact(&mut byte).unwrap();
        site.publisher.heartbeat();
        to_child.write_all(b"!").unwrap();
    }
    assert_eq!(wait(child), 0);
    assert_eq!(site.lookups(), 20_020);
    assert_eq!(site.bins(1), [0, 20_020, 0, 0], "the inputs of every request were counted");
}

#[test]
fn names_of_the_publication_are_what_entries_are_found_by() {
    // Workers and daemon of two releases must agree, or the layout's version must change.
    let ids = [
        SeriesId::lookups("ip"),
        SeriesId::unscored("default"),
        SeriesId::scores("default", "old", "1"),
        SeriesId::shadow("default", "new", "1"),
    ];
    assert_eq!(
        ids.map(|id| format!("{id:?}")),
        [
            "SeriesId(4596665711405213985)",
            "SeriesId(1203019891439351386)",
            "SeriesId(11820243450798171891)",
            "SeriesId(2292392090772940884)"
        ]
    );
}

#[test]
fn d7_inputs_and_scores_of_active_models_are_counted_in_bins() {
    let mut site = Site::new();
    let mut client = site.client();
    let ip = client.names().attribute("ip").unwrap();
    for i in [5, 10, 11, 50, 51, 99] {
        let address = format!("192.0.2.{i}");
        let mut request = Request::new();
        request.set_attribute(ip, address.as_str().into());
        client.score(&request, "", NOW).outcome.unwrap();
        assert!(client.score(&request, "shop", NOW).outcome.is_err());
    }
    // Scores of `old` (88 and 12), then its input. `broken` is active on `shop` and gave no score; `new` is a shadow.
    assert_eq!(site.bins(0), [0, 4, 2, 0]);
    assert_eq!(site.bins(1), [2, 2, 2, 0]);
    assert_eq!((2..6).map(|row| site.bins(row).iter().sum::<u64>()).sum::<u64>(), 0);
    // Another slot is another worker; the same one goes on.
    drop(client);
    score(&mut site.client(), 1);
    assert_eq!(site.bins(1), [2, 3, 2, 0]);
    // Other models: it begins anew. Without any that tells its distribution nothing is counted, and all is scored.
    let with = |models: Vec<NamedModel>| {
        let route =
            NamedRoute { name: "default".into(), active: Some(models[0].name.clone()), shadows: vec![] };
        ModelSet { models, routes: vec![route] }
    };
    site.publisher.publish_models(&with(vec![model("new", "ip.x", 1.0, 1.0)])).unwrap();
    let mut client = site.client();
    score(&mut client, 3);
    assert_eq!(site.bins(1), [0, 3, 0, 0]);
    let mut bare = Model { dimensions: 1, scale: 1.0, ..Model::default() };
    bare.bias = vec![0.0];
    let bare = NamedModel { compiled: compile(&bare).unwrap(), ..model("bare", "ip.x", 0.0, 0.0) };
    site.publisher.publish_models(&with(vec![bare])).unwrap();
    let before = site.bins(1);
    score(&mut client, 3);
    assert_eq!(site.bins(1), before);
}

#[test]
fn d7_one_request_of_so_many_is_counted() {
    for (one_in, expected) in [(0, 0..=0), (4, 900..=1100)] {
        let mut site = Site::new();
        let options = PublishOptions { sample_one_in: one_in, ..PublishOptions::default() };
        let schema = site.publisher.schema().clone();
        drop(site.publisher);
        site.publisher = Publisher::open(site.directory.path(), &options, schema).unwrap();
        let models = vec![model("old", "ip.x", -2.0, 2.0)];
        let route = NamedRoute { name: "default".into(), active: Some("old".into()), shadows: vec![] };
        site.publisher.publish_models(&ModelSet { models, routes: vec![route] }).unwrap();
        score(&mut site.client(), 4000);
        let counted: u64 = site.bins(1).iter().sum();
        assert!(expected.contains(&counted), "{one_in}: {counted}");
    }
}

/// What a daemon does about once a second.
#[test]
fn a_removed_or_replaced_file_is_made_again() {
    let mut site = Site::new();
    let path = site.path().join(METRICS);
    assert!(!site.file.keep_in_place().unwrap());
    for damage in [
        (|path: &Path| std::fs::remove_file(path).unwrap()) as fn(&Path),
        |path| std::fs::rename(path, path.with_extension("away")).unwrap(),
        |path| {
            std::fs::remove_file(path).unwrap();
            std::fs::write(path, "other").unwrap();
        },
    ] {
        let mut client = site.client();
        damage(&path);
        assert!(site.file.keep_in_place().unwrap());
        assert!(!site.file.keep_in_place().unwrap());
        client.maintain().unwrap();
        assert_eq!(client.metrics_error(), None);
        score(&mut client, 3);
        assert_eq!(site.lookups(), 3);
    }
}

#[test]
fn an_existing_file_gets_the_mode_and_group_of_the_options() {
    let mut site = Site::new();
    let path = site.path().join(METRICS);
    let mut client = site.client();
    score(&mut client, 2);
    for mode in [0o600, 0o666, 0o660] {
        let options = PublishOptions { readers_mode: mode, ..PublishOptions::default() };
        site.file = MetricsFile::open(site.path(), &options).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, mode);
    }
    // SAFETY:
    // - the call has no preconditions
    if unsafe { libc::geteuid() } == 0 {
        let options = PublishOptions { group: Some(54_321), ..PublishOptions::default() };
        site.file = MetricsFile::open(site.path(), &options).unwrap();
        assert!(site.file.refused_permissions().is_none());
        assert_eq!(std::os::unix::fs::MetadataExt::gid(&std::fs::metadata(&path).unwrap()), 54_321);
    }
    assert_eq!(site.lookups(), 2, "it is the same file");
}
