//! What one list says of networks.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Instant;

use bliss_core::prefixes::{Address, Prefix};
use jiff::Timestamp;
use xxhash_rust::xxh3::Xxh3;

use crate::decode::Limits;
use crate::decode::room::{self, Room};
use crate::refusal::{Reason, Refusal};

/// Bytes that a network of IPv4 takes while a list is decoded: twelve, thrice while the array of them grows.
const V4_BYTES: u64 = 36;
/// The same of IPv6.
const V6_BYTES: u64 = 96;
/// Bytes beside the values of a row.
const ROW_BYTES: u64 = 96;
/// Bytes of an entry in what a format remembers while it is read.
pub(super) const ENTRY_BYTES: u64 = 32;

/// A network with the number of its row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Network<A> {
    pub(super) address: A,
    pub(super) bits: u8,
    pub(super) row: u32,
}

/// The networks of a list, each once and in order, and what they have: of an address the longest counts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Layer {
    /// Columns of the dimension that rows give, by their index.
    pub(super) columns: Vec<usize>,
    pub(super) v4: Vec<Network<u32>>,
    pub(super) v6: Vec<Network<u128>>,
    rows: Vec<f32>,
    /// When the list was made, as it says.
    pub made_at: Option<Timestamp>,
}

impl Layer {
    /// Number of networks.
    pub fn len(&self) -> u64 {
        (self.v4.len() + self.v6.len()) as u64
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The columns and values of a row.
    pub(super) fn row(&self, row: u32) -> impl Iterator<Item = (usize, f32)> {
        let from = row as usize * self.columns.len();
        self.columns.iter().copied().zip(self.rows.iter().skip(from).copied())
    }

    /// Of the longest network that `address` is in, the values of its row; `None` if it is in none.
    pub fn values(&self, address: IpAddr) -> Option<impl Iterator<Item = f32>> {
        let row = match address.to_canonical() {
            IpAddr::V4(v4) => {
                let masked =
                    |bits: u8| v4.to_bits() & u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
                longest(&self.v4, (0..=32).map(|bits| (masked(bits), bits)))
            }
            IpAddr::V6(v6) => {
                let masked =
                    |bits: u8| v6.to_bits() & u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
                longest(&self.v6, (0..=128).map(|bits| (masked(bits), bits)))
            }
        };
        row.map(|row| self.row(row).map(|(_, value)| value))
    }

    /// A hash of what it says, whenever it was made.
    pub fn hash(&self) -> u64 {
        let mut hash = Xxh3::new();
        for network in &self.v4 {
            hash.update(&network.address.to_le_bytes());
            self.hash_row(&mut hash, network.bits, network.row);
        }
        for network in &self.v6 {
            hash.update(&network.address.to_le_bytes());
            self.hash_row(&mut hash, network.bits, network.row);
        }
        hash.digest()
    }

    fn hash_row(&self, hash: &mut Xxh3, bits: u8, row: u32) {
        hash.update(&[bits]);
        self.row(row).for_each(|(_, value)| hash.update(&value.to_le_bytes()));
    }
}

/// The row of the last of `wanted` that is among `networks`, which are in order.
fn longest<A: Copy + Ord>(
    networks: &[Network<A>],
    wanted: impl DoubleEndedIterator<Item = (A, u8)>,
) -> Option<u32> {
    let found =
        |wanted| networks.binary_search_by_key(&wanted, |network| (network.address, network.bits)).ok();
    wanted.rev().find_map(found).and_then(|at| networks.get(at)).map(|network| network.row)
}

/// A layer that is being read, within limits.
pub(super) struct LayerBuilder<'a> {
    layer: Layer,
    /// The number of each row, by the bits of its values.
    numbers: HashMap<Vec<u32>, u32>,
    pub(super) limits: Limits,
    room: Option<&'a Room>,
    bytes: u64,
    networks: u64,
    next_look: u64,
    /// When it must be done.
    until: Option<Instant>,
}

impl<'a> LayerBuilder<'a> {
    pub(super) fn new(
        columns: Vec<usize>,
        limits: Limits,
        room: Option<&'a Room>,
        until: Option<Instant>,
    ) -> Self {
        Self {
            layer: Layer { columns, ..Layer::default() },
            numbers: HashMap::new(),
            limits,
            room,
            bytes: 0,
            networks: 0,
            next_look: room::STEP,
            until,
        }
    }

    /// The number of the row with these values, one for each column.
    pub(super) fn row(&mut self, values: &[f32]) -> Result<u32, Refusal> {
        let bits: Vec<u32> = values.iter().map(|value| value.to_bits()).collect();
        if let Some(number) = self.numbers.get(&bits) {
            return Ok(*number);
        }
        let number = u32::try_from(self.numbers.len()).unwrap_or(u32::MAX);
        self.take(ROW_BYTES + 16 * bits.len() as u64)?;
        self.numbers.insert(bits, number);
        self.layer.rows.extend(values);
        Ok(number)
    }

    pub(super) fn push(&mut self, prefix: Prefix, row: u32) -> Result<(), Refusal> {
        self.networks += 1;
        let most = self.limits.max_rows.unwrap_or(u64::MAX);
        if self.networks > most {
            return Err(Refusal::new(Reason::TooManyRows, format!("more than {most} networks (max_rows)")));
        }
        let bits = prefix.bits();
        match prefix.address() {
            Address::V4(address) => {
                self.take(V4_BYTES)?;
                self.layer.v4.push(Network { address, bits, row });
            }
            Address::V6(address) => {
                self.take(V6_BYTES)?;
                self.layer.v6.push(Network { address, bits, row });
            }
        }
        Ok(())
    }

    /// Refuses to go on after the time limit. Called once in a while by what reads without waiting for input.
    pub(super) fn look_at_time(&self) -> Result<(), Refusal> {
        match self.until {
            Some(until) if Instant::now() > until => {
                Err(Refusal::unavailable("reading it took too long (timeout)"))
            }
            _ => Ok(()),
        }
    }

    /// Takes up `bytes` of memory.
    pub(super) fn take(&mut self, bytes: u64) -> Result<(), Refusal> {
        self.bytes += bytes;
        let most = self.limits.max_decoded_bytes;
        if self.bytes > most {
            let message = format!(
                "the networks so far, {}, take more than {most} bytes of memory (max_decoded_bytes); if there are meant to be so \
                 many, raise it",
                self.networks
            );
            return Err(Refusal::new(Reason::TooLarge, message));
        }
        if self.bytes >= self.next_look {
            self.next_look = self.bytes + room::STEP;
            self.look_at_time()?;
            self.room.map_or(Ok(()), |room| room.check(self.bytes))?;
        }
        Ok(())
    }

    pub(super) fn made_at(&mut self, seconds: u64) {
        self.layer.made_at = i64::try_from(seconds).ok().and_then(|s| Timestamp::from_second(s).ok());
    }

    /// The layer, if its networks agree and are enough.
    pub(super) fn finish(mut self) -> Result<Layer, Refusal> {
        unique(&mut self.layer.v4, |address, bits| {
            Prefix::new(std::net::Ipv4Addr::from_bits(address).into(), bits)
        })?;
        unique(&mut self.layer.v6, |address, bits| {
            Prefix::new(std::net::Ipv6Addr::from_bits(address).into(), bits)
        })?;
        let (networks, least) = (self.layer.len(), self.limits.min_rows);
        if networks < least {
            let message = format!("{networks} networks, expected at least {least} (min_rows)");
            return Err(Refusal::new(Reason::TooFewRows, message));
        }
        Ok(self.layer)
    }
}

/// Sorts networks and takes out those that are there twice.
fn unique<A: Copy + Ord, E>(
    networks: &mut Vec<Network<A>>,
    prefix: impl Fn(A, u8) -> Result<Prefix, E>,
) -> Result<(), Refusal> {
    networks.sort_unstable_by_key(|network| (network.address, network.bits));
    let same = |a: &Network<A>, b: &Network<A>| (a.address, a.bits) == (b.address, b.bits);
    let differ = networks.windows(2).find_map(|pair| match pair {
        [a, b] if same(a, b) && a.row != b.row => Some(*a),
        _ => None,
    });
    if let Some(network) = differ {
        let shown = prefix(network.address, network.bits).map_or_else(|_| String::new(), |p| p.to_string());
        let message = format!("the network {shown} appears twice, with different values");
        return Err(Refusal::new(Reason::DuplicateKey, message));
    }
    networks.dedup_by(|a, b| same(a, b));
    networks.shrink_to_fit();
    Ok(())
}
