//! What a pin costs, alone and with a second reader; by hand, in release mode:
//! `cargo run --release -p mmap-sync --example pin_cost [threads]`

use std::hint::black_box;
use std::sync::Barrier;
use std::time::Duration;

use mmap_sync::{Options, Reader};

const PINS: u32 = 20_000_000;

/// Time that this thread has run for: other processes on the same cores do not count.
fn cpu_ns() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY:
    // - `time` is writable and of the type that the call fills in.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    time.tv_sec as f64 * 1e9 + time.tv_nsec as f64
}

fn measure(reader: &Reader) -> f64 {
    let mut best = f64::MAX;
    for _ in 0..5 {
        let start = cpu_ns();
        for _ in 0..PINS {
            black_box(reader.pin().map(|guard| guard.generation()).unwrap_or(0));
        }
        best = best.min((cpu_ns() - start) / f64::from(PINS));
    }
    best
}

fn main() -> Result<(), mmap_sync::Error> {
    let threads: usize = std::env::args().nth(1).and_then(|count| count.parse().ok()).unwrap_or(1);
    let prefix = std::path::Path::new("/dev/shm").join(format!("pin-cost-{}", std::process::id()));
    for membarrier in [true, false] {
        let options = Options::new(&prefix).membarrier(membarrier);
        let mut writer = options.open_writer()?;
        writer.write_bytes(&[1; 1000])?;
        let barrier = Barrier::new(threads);
        let costs: Vec<f64> = std::thread::scope(|scope| {
            let running: Vec<_> = (0..threads)
                .map(|_| {
                    scope.spawn(|| {
                        let reader = Options::new(&prefix).membarrier(membarrier).open_reader().ok();
                        barrier.wait();
                        reader.map_or(f64::NAN, |reader| measure(&reader))
                    })
                })
                .collect();
            // A sign of life, so that readers do not look at the path.
            while !running.iter().all(|thread| thread.is_finished()) {
                writer.heartbeat();
                std::thread::sleep(Duration::from_millis(500));
            }
            running.into_iter().map(|thread| thread.join().unwrap_or(f64::NAN)).collect()
        });
        println!("pin + unpin, {}: {costs:.2?} ns", if membarrier { "membarrier" } else { "fences" });
        drop(writer);
        for name in ["state", "data_0", "data_1", "readers", "lock"] {
            let mut path = prefix.clone().into_os_string();
            path.push(format!("_{name}"));
            let _ = std::fs::remove_file(path);
        }
    }
    Ok(())
}
