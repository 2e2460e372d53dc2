//! MaxMind DB files: networks with fields, read whole and converted.
//!
//! The search tree is walked here: a file may lead its records in circles, or to one node by very many ways, and what walks it
//! must end. Fields are decoded by the crate `maxminddb`, once for each record.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bliss_core::prefixes::Prefix;
use maxminddb::{MaxMindDbError, PathElement, Reader};
use serde::Deserialize;
use serde::de::{self, Deserializer, Visitor};

use super::Fields;
use super::layer::{ENTRY_BYTES, LayerBuilder};
use crate::refusal::{Reason, Refusal};

/// Networks between two looks at the time.
const STRIDE: u64 = 1024;

/// Reads a file.
pub(super) fn read(bytes: &[u8], fields: &Fields, builder: &mut LayerBuilder<'_>) -> Result<(), Refusal> {
    let reader = Reader::from_source(bytes).map_err(|error| wrong(&error))?;
    let metadata = reader.metadata();
    let tree = Tree {
        bytes,
        nodes: metadata.node_count,
        record_bytes: match metadata.record_size {
            24 => 3,
            28 => 7,
            32 => 4,
            other => {
                let message = format!("expected records of 24, 28 or 32 bits, found {other}");
                return Err(Refusal::new(Reason::Undecodable, message));
            }
        },
        is_v6: metadata.ip_version == 6,
    };
    builder.made_at(metadata.build_epoch);
    let paths: Vec<Vec<PathElement<'_>>> = fields.paths().map(path).collect();
    // The row of each record, by where it is.
    let mut rows: HashMap<usize, u32> = HashMap::new();
    let mut networks = 0;
    tree.walk(&mut |network, address| {
        networks += 1;
        if networks % STRIDE == 0 {
            builder.look_at_time()?;
        }
        let found = reader.lookup(address).map_err(|error| wrong(&error))?;
        let Some(offset) = found.offset() else { return Ok(()) };
        let row = match rows.get(&offset) {
            Some(row) => *row,
            None => {
                builder.look_at_time()?;
                let scalars = paths.iter().map(|path| found.decode_path::<Scalar>(path));
                let scalars = scalars.collect::<Result<Vec<_>, _>>();
                let scalars = scalars.map_err(|error| at(network, &wrong(&error)))?;
                let row = builder.row(&fields.values(&scalars).map_err(|refusal| at(network, &refusal))?)?;
                builder.take(ENTRY_BYTES)?;
                rows.insert(offset, row);
                row
            }
        };
        builder.push(network, row)
    })
}

/// The elements of a path such as `country.iso_code` or `subdivisions.0.iso_code`.
fn path(text: &str) -> Vec<PathElement<'_>> {
    let element = |part| str::parse(part).map_or(PathElement::Key(part), PathElement::Index);
    text.split('.').map(element).collect()
}

fn wrong(error: &MaxMindDbError) -> Refusal {
    Refusal::new(Reason::Undecodable, format!("not a MaxMind DB file that can be read: {error}"))
}

fn at(network: Prefix, refusal: &Refusal) -> Refusal {
    Refusal::new(refusal.reason, format!("network {network}: {}", refusal.message))
}

/// The search tree of a file.
struct Tree<'a> {
    bytes: &'a [u8],
    nodes: u32,
    /// Bytes of a record; 7 stands for three and a half.
    record_bytes: usize,
    is_v6: bool,
}

/// A record that is to be looked at: its number, and which addresses it is for.
struct Step {
    record: u32,
    address: u128,
    bits: u8,
}

impl Tree<'_> {
    /// Calls `each` with every network that has a record, and an address in it.
    fn walk(&self, each: &mut impl FnMut(Prefix, IpAddr) -> Result<(), Refusal>) -> Result<(), Refusal> {
        let most = if self.is_v6 { 128 } else { 32 };
        let root_of_v4 = self.root_of_v4()?;
        let mut nodes = 0;
        let mut steps = vec![Step { record: 0, address: 0, bits: 0 }];
        while let Some(Step { record, address, bits }) = steps.pop() {
            if record >= self.nodes {
                // The number of nodes itself says that there is nothing.
                if record > self.nodes {
                    self.leaf(address, bits, each)?;
                }
                continue;
            }
            // Where IPv4 is shown a second time, as in ::ffff:0:0/96.
            let is_alias = self.is_v6 && bits > 0 && Some(record) == root_of_v4 && (bits, address) != (96, 0);
            if is_alias {
                continue;
            }
            nodes += 1;
            if nodes > self.nodes || bits >= most {
                let message = "its search tree is no tree: two records lead to one node";
                return Err(Refusal::new(Reason::Undecodable, message));
            }
            let [zero, one] = self.records(record)?;
            let side = 1_u128 << (127 - bits);
            steps.push(Step { record: one, address: address | side, bits: bits + 1 });
            steps.push(Step { record: zero, address, bits: bits + 1 });
        }
        Ok(())
    }

    /// The node below which IPv4 is in a file of IPv6, if it is one.
    fn root_of_v4(&self) -> Result<Option<u32>, Refusal> {
        let mut record = 0;
        for _ in 0..if self.is_v6 { 96 } else { 0 } {
            if record >= self.nodes {
                return Ok(None);
            }
            [record, _] = self.records(record)?;
        }
        Ok((record < self.nodes).then_some(record))
    }

    /// A network with a record: the first `bits` bits of `address`, which begins on the left.
    fn leaf(
        &self,
        address: u128,
        bits: u8,
        each: &mut impl FnMut(Prefix, IpAddr) -> Result<(), Refusal>,
    ) -> Result<(), Refusal> {
        let mut prefix = |address: IpAddr, bits| {
            let unlikely = |error| Refusal::new(Reason::BadKey, format!("{address}/{bits}: {error}"));
            each(Prefix::new(address, bits).map_err(unlikely)?, address)
        };
        if !self.is_v6 {
            return prefix(Ipv4Addr::from_bits(u32::try_from(address >> 96).unwrap_or(0)).into(), bits);
        }
        if bits >= 96 && address >> 32 == 0 {
            return prefix(Ipv4Addr::from_bits(u32::try_from(address).unwrap_or(0)).into(), bits - 96);
        }
        // It is around all of IPv4.
        if address == 0 {
            prefix(Ipv4Addr::UNSPECIFIED.into(), 0)?;
        }
        prefix(Ipv6Addr::from_bits(address).into(), bits)
    }

    /// The records of the node `node`.
    fn records(&self, node: u32) -> Result<[u32; 2], Refusal> {
        let bytes = if self.record_bytes == 7 { 7 } else { 2 * self.record_bytes };
        let from = (node as usize).saturating_mul(bytes);
        let outside = || Refusal::new(Reason::Undecodable, "its search tree is cut off");
        let held = self.bytes.get(from..).and_then(|rest| rest.get(..bytes)).ok_or_else(outside)?;
        let number = |bytes: &[u8]| bytes.iter().fold(0, |number, byte| number << 8 | u32::from(*byte));
        Ok(match *held {
            // The middle byte has the top four bits of both.
            [a, b, c, middle, d, e, f] => {
                let top = u32::from(middle);
                [(top >> 4) << 24 | number(&[a, b, c]), (top & 15) << 24 | number(&[d, e, f])]
            }
            _ => {
                let (zero, one) = held.split_at(bytes / 2);
                [number(zero), number(one)]
            }
        })
    }
}

/// A field as a file has it.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Scalar {
    Number(f64),
    Text(String),
}

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ScalarVisitor;
        impl Visitor<'_> for ScalarVisitor {
            type Value = Scalar;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number, a text or a boolean")
            }
            fn visit_bool<E>(self, value: bool) -> Result<Scalar, E> {
                Ok(Scalar::Number(f64::from(u8::from(value))))
            }
            fn visit_i64<E>(self, value: i64) -> Result<Scalar, E> {
                Ok(Scalar::Number(value as f64))
            }
            fn visit_u64<E>(self, value: u64) -> Result<Scalar, E> {
                Ok(Scalar::Number(value as f64))
            }
            fn visit_u128<E>(self, value: u128) -> Result<Scalar, E> {
                Ok(Scalar::Number(value as f64))
            }
            fn visit_f64<E>(self, value: f64) -> Result<Scalar, E> {
                Ok(Scalar::Number(value))
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Scalar, E> {
                Ok(Scalar::Text(text.to_owned()))
            }
        }
        deserializer.deserialize_any(ScalarVisitor)
    }
}
