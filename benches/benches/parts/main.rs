//! Criterion benches of the parts, one group each; peers are in `compare`.
//!
//! `cargo bench -p benches -- --profile-time 10` leaves a `profile.pb` per benchmark below `target/criterion`.

mod profiler;

use std::hint::black_box;
use std::time::Duration;

use benches::machine;
use benches::peers::Lookup;
use benches::peers::bliss::{Bliss, all_rows, changed_rows, publisher};
use benches::peers::cloudflare::Cloudflare;
use benches::workload::{Distribution, Requests, Workload};
use bliss_catboost::{InstructionSet, ModelRef, Scratch, compile, import};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};

/// Rows of the tables: enough not to fit the second-level cache.
const KEYS: u64 = 1_000_000;

fn lookup(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("lookup");
    let workload = Workload::new(KEYS);
    let mut measure = |name: &str, peer: &mut dyn Lookup| {
        let mut requests = Requests::new(&workload, Distribution::Uniform, 1).expect("requests");
        let request = requests.next_request();
        assert!(peer.look_up(&request.keys));
        request.check(peer.values(), peer.present()).expect("a wrong answer");
        group.bench_function(name, |b| {
            b.iter_batched(
                || requests.next_request().keys,
                |keys| assert!(black_box(peer.look_up(&keys))),
                BatchSize::NumIterations(1000),
            );
        });
    };
    let directory = machine::directory().expect("directory");
    let bytes = publisher(directory.path()).and_then(|mut p| Ok(p.publish(all_rows(&workload))?.bytes));
    measure("bliss", &mut Bliss::open(directory.path(), bytes.expect("publish")).expect("open"));
    let directory = machine::directory().expect("directory");
    measure("mmap-sync 2.0.4", &mut Cloudflare::publish(directory.path(), &workload).expect("publish"));
}

fn publish(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("publish");
    group.sample_size(20).measurement_time(Duration::from_secs(3));
    let workload = Workload::new(KEYS);
    let directory = machine::directory().expect("directory");
    let mut publisher = publisher(directory.path()).expect("publisher");
    publisher.publish(all_rows(&workload)).expect("publish");
    let mut round = 0;
    for (name, count) in [("one row", 1), ("0.1 %", KEYS / 1000), ("1 %", KEYS / 100)] {
        group.throughput(Throughput::Elements(count));
        group.bench_function(name, |b| {
            b.iter_batched(
                || {
                    round += 1;
                    changed_rows(&workload, count, round)
                },
                |change| publisher.publish(change).expect("publish"),
                BatchSize::PerIteration,
            );
        });
    }
}

fn sync(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("sync");
    let directory = machine::directory().expect("directory");
    let prefix = directory.path().join("value");
    let mut writer = mmap_sync::Options::new(&prefix).open_writer().expect("writer");
    writer.write_bytes(&[7; 64]).expect("write");
    for (name, membarrier) in [("pin and unpin", true), ("pin and unpin, fence", false)] {
        let reader = mmap_sync::Options::new(&prefix).membarrier(membarrier).open_reader().expect("reader");
        group.bench_function(name, |b| b.iter(|| black_box(reader.pin().expect("pin").bytes().as_ptr())));
    }
    group.bench_function("write 64 bytes", |b| b.iter(|| writer.write_bytes(&[7; 64]).expect("write")));
}

fn score(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("score");
    let here = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let small = here.join("../bliss-catboost/testdata/models/scale_bias.cbm");
    let large = std::env::var_os("BLISS_TEST_DATA")
        .map(|folder| std::path::Path::new(&folder).join("models/bench_200x500.cbm"));
    let file = large.filter(|file| file.is_file()).unwrap_or(small);
    let file = std::fs::read(file).expect("a model");
    let compiled = compile(&import(&file).expect("import")).expect("compile");
    let opened = ModelRef::open(&compiled).expect("open");
    let binding: Vec<u32> = (0..opened.inputs().len() as u32).collect();
    let rows: Vec<Vec<f32>> = (0..1024_u32)
        .map(|row| {
            (0..binding.len() as u32).map(|i| ((row * 31 + i * 17) % 97) as f32 / 48.0 - 1.0).collect()
        })
        .collect();
    let mut scratch = Scratch::for_model(&opened);
    let mut out = vec![0.0; opened.output_dimensions()];
    for path in InstructionSet::ALL.into_iter().filter(|path| path.is_available()) {
        let opened = opened.with_instruction_set(path).expect("available");
        let mut row = rows.iter().cycle();
        group.bench_function(path.name(), |b| {
            b.iter(|| {
                let values = row.next().expect("endless");
                opened.raw(values, &binding, &mut scratch, &mut out).expect("evaluate");
                black_box(&out);
            });
        });
    }
}

criterion_group! {
    name = parts;
    config = Criterion::default().with_profiler(profiler::Pprof::default());
    targets = lookup, publish, sync, score
}
criterion_main!(parts);
