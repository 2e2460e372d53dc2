//! Reads what the example `publish` publishes: `cargo run -p mmap-sync --example read PREFIX VERSION`.
//!
//! Prints each version that it sees, and ends when it sees `VERSION` or a later one. May be started before the
//! publisher.

use std::time::Duration;

use mmap_sync::{Error, Options};

/// What is published. The example `publish` has the same type.
#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
struct Limits {
    version: u64,
    rates: Vec<u64>,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [prefix, last] = args.as_slice() else {
        return Err("usage: read PREFIX VERSION".into());
    };
    let last: u64 = last.parse()?;
    // One reader per thread. It may be opened before the files exist.
    let reader = Options::new(prefix).open_reader()?;
    loop {
        // Wait-free: no lock, and no system call while the writer lives.
        match reader.pin() {
            Ok(guard) => {
                // The bytes do not change as long as the guard lives. They are validated once per generation.
                let limits = guard.access::<Limits>()?;
                if guard.is_switched() {
                    let whole = limits.rates.iter().all(|rate| *rate == limits.version);
                    println!("generation {} version {} whole {whole}", guard.generation(), limits.version);
                }
                if limits.version >= last {
                    return Ok(());
                }
            }
            Err(Error::NotPublished) => {}
            Err(error) => return Err(error.into()),
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}
