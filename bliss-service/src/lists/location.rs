//! The database of Debian's `libloc-database`, which `location update` keeps up to date: format 1 of `location.db`.
//!
//! ```text
//! offset 0    "LOCDBXX", then the version, 1
//! offset 8    u64 BE: when it was made; u32: vendor, description, licence (texts)
//! offset 28   u32 BE pairs of offset and bytes: systems, networks, tree, countries, texts
//! system      u32 BE: number, name (an offset in the texts, which end with 0)
//! network     country, 2 letters; 2 bytes of padding; u32 BE: number of its system; flags and padding, 4 bytes
//! node        u32 BE: nodes for 0 and 1 (0: none), network (2^32 - 1: none), over the 128 bits of an address
//! ```
//!
//! IPv4 lies in `::ffff:0:0/96`.

use std::collections::HashMap;
use std::net::Ipv6Addr;

use bliss_core::prefixes::Prefix;

use super::Fields;
use super::layer::{ENTRY_BYTES, LayerBuilder};
use super::mmdb::Scalar;
use crate::refusal::{Reason, Refusal};

/// What a network has: fields of a column.
pub(super) const FIELDS: [&str; 3] = ["country", "asn", "as_name"];

const MAGIC: &[u8] = b"LOCDBXX\x01";
const NONE: u32 = u32::MAX;

/// Reads a file.
pub(super) fn read(bytes: &[u8], fields: &Fields, builder: &mut LayerBuilder<'_>) -> Result<(), Refusal> {
    if !bytes.starts_with(MAGIC) {
        let message = "expected a location database of format 1, which begins with LOCDBXX and 1";
        return Err(Refusal::new(Reason::Undecodable, message));
    }
    let database = Database::open(bytes).ok_or_else(cut_off)?;
    builder.made_at(database.made_at);
    builder.take(ENTRY_BYTES * (database.systems.len() / 8) as u64)?;
    let names: HashMap<u32, u32> = database.systems().collect();
    // The row of each country and system; names are compared once for each.
    let mut rows: HashMap<(u32, u32), u32> = HashMap::new();
    let mut nodes = 0;
    let most = (database.tree.len() / 12) as u64;
    let mut steps = vec![(0_u32, 0_u128, 0_u8)];
    while let Some((node, address, length)) = steps.pop() {
        nodes += 1;
        if nodes > most {
            let message = "its tree is no tree: two nodes lead to one";
            return Err(Refusal::new(Reason::Undecodable, message));
        }
        if nodes % 1024 == 0 {
            builder.look_at_time()?;
        }
        let [zero, one, network] = words(database.tree, node).ok_or_else(cut_off)?;
        if network != NONE {
            let [country, asn, _] = words(database.networks, network).ok_or_else(cut_off)?;
            let row = match rows.get(&(country, asn)) {
                Some(row) => *row,
                None => {
                    let scalars = database.scalars(country, asn, &names, fields);
                    let row = builder.row(&fields.values(&scalars)?)?;
                    builder.take(ENTRY_BYTES)?;
                    rows.insert((country, asn), row);
                    row
                }
            };
            let prefix = Prefix::new(Ipv6Addr::from_bits(address).into(), length);
            let unlikely = |error| Refusal::new(Reason::BadKey, format!("{error}"));
            builder.push(prefix.map_err(unlikely)?, row)?;
        }
        for (next, side) in [(one, true), (zero, false)] {
            if next != 0 && length < 128 {
                let bit = if side { 1_u128 << (127 - length) } else { 0 };
                steps.push((next, address | bit, length + 1));
            }
        }
    }
    Ok(())
}

fn cut_off() -> Refusal {
    Refusal::new(Reason::Undecodable, "the location database is cut off or damaged")
}

/// Three big-endian words: entry `index` of `part`.
fn words(part: &[u8], index: u32) -> Option<[u32; 3]> {
    let held = part.get((index as usize).checked_mul(12)?..)?.first_chunk::<12>()?;
    let word = |at: usize| held.get(at..)?.first_chunk().copied().map(u32::from_be_bytes);
    Some([word(0)?, word(4)?, word(8)?])
}

struct Database<'a> {
    made_at: u64,
    systems: &'a [u8],
    networks: &'a [u8],
    tree: &'a [u8],
    texts: &'a [u8],
}

impl<'a> Database<'a> {
    fn open(bytes: &'a [u8]) -> Option<Self> {
        let word = |at: usize| bytes.get(at..)?.first_chunk().copied().map(u32::from_be_bytes);
        let part = |at: usize| {
            let (offset, length) = (word(at)? as usize, word(at + 4)? as usize);
            bytes.get(offset..)?.get(..length)
        };
        Some(Self {
            made_at: bytes.get(8..)?.first_chunk().copied().map(u64::from_be_bytes)?,
            systems: part(28)?,
            networks: part(36)?,
            tree: part(44)?,
            texts: part(60)?,
        })
    }

    /// Number of each system, and where its name is.
    fn systems(&self) -> impl Iterator<Item = (u32, u32)> + 'a {
        self.systems.chunks_exact(8).filter_map(|system| {
            let (number, name) = system.split_first_chunk()?;
            Some((u32::from_be_bytes(*number), u32::from_be_bytes(*name.first_chunk()?)))
        })
    }

    /// What the fields are for networks of a country and a system.
    fn scalars(
        &self,
        country: u32,
        asn: u32,
        names: &HashMap<u32, u32>,
        fields: &Fields,
    ) -> Vec<Option<Scalar>> {
        let scalar = |field: &str| match field {
            "country" => match country.to_be_bytes() {
                [0, ..] => None,
                [a, b, ..] => Some(Scalar::Text(String::from_utf8_lossy(&[a, b]).into_owned())),
            },
            "asn" => (asn != 0).then(|| Scalar::Number(asn.into())),
            _ => names.get(&asn).and_then(|name| self.text(*name)).map(Scalar::Text),
        };
        fields.paths().map(scalar).collect()
    }

    fn text(&self, offset: u32) -> Option<String> {
        let text = self.texts.get(offset as usize..)?;
        let end = text.iter().take(1024).position(|byte| *byte == 0)?;
        Some(String::from_utf8_lossy(text.split_at(end).0).into_owned())
    }
}
