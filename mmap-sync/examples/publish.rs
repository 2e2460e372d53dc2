//! Publishes versions of a value: `cargo run -p mmap-sync --example publish PREFIX VERSIONS`.
//!
//! `PREFIX` is a path such as `/dev/shm/limits`; its directory must exist. The files stay when the program ends.
//! Read them with the example `read`.

use mmap_sync::Options;

/// What is published. The example `read` has the same type.
#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
struct Limits {
    version: u64,
    rates: Vec<u64>,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [prefix, versions] = args.as_slice() else {
        return Err("usage: publish PREFIX VERSIONS".into());
    };
    // Takes the writer's lock; goes on from the last publication, if there is one.
    let mut writer = Options::new(prefix).open_writer()?;
    for version in 1..=versions.parse()? {
        // Readers see this version whole or the one before, never a mixture.
        let published = writer.write(&Limits { version, rates: vec![version; 1000] })?;
        println!("generation {} bytes {}", published.generation, published.bytes);
    }
    Ok(())
}
