//! From the bytes of an origin to rows, accepted or refused as a whole.

mod csv;
pub(crate) mod gzip;
mod jsonl;
pub(crate) mod limits;
pub(crate) mod room;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io::{BufRead, Read as _};
use std::path::Path;

use bliss_core::attribute::Value;
use bliss_core::build::{Change, DimensionChange, PrefixRows, Rows};
use bliss_core::key::KeySecret;
use bliss_core::prefixes::Prefix;
use bliss_core::schema::{Feature, FeatureKind, Schema};
use xxhash_rust::xxh3::Xxh3;

use crate::keys::DimensionKeys;
use crate::refusal::{Reason, Refusal};
use bliss_core::key::KeyError;
use limits::{Limited, prefix_row_bytes, row_bytes};
use room::Room;

pub use limits::Limits;

/// How rows are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(rename_all = "snake_case")]
pub enum RowFormat {
    /// One JSON object per line.
    Jsonl,
    /// Comma-separated values with a header.
    Csv,
}

/// Rows that were accepted.
#[derive(Clone, Debug, PartialEq)]
pub struct Accepted {
    /// Replaces each dimension of the origin.
    pub change: Change,
    /// Rows of it.
    pub rows: u64,
    /// Rows left out because another one of the snapshot has the same 64-bit key.
    pub key_collisions: u64,
    /// The newest `updated_at`, in seconds since the epoch; 0 without rows.
    pub newest_updated_at: u32,
    /// What each dimension of the origin was given.
    pub given: Vec<Given>,
}

/// What a snapshot gives one dimension, beside defaults.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Given {
    /// The dimension's index in the schema.
    pub dimension: usize,
    /// Its rows.
    pub rows: u64,
    /// Whether the dimension has features at all.
    pub has_features: bool,
    /// Values of features.
    pub values: u64,
    /// Those of them that are numbers.
    pub numbers: u64,
    /// Those of the numbers that are not 0.
    pub nonzero: u64,
}

/// Reads the snapshots of one origin.
pub struct Decoder {
    dimensions: Vec<Target>,
    limits: Limits,
    max_rows: u64,
    room: Option<Room>,
}

/// A dimension that the origin fills.
struct Target {
    index: usize,
    name: String,
    keys: DimensionKeys,
    /// Rows name networks, of which the longest counts.
    by_prefix: bool,
    features: Vec<Feature>,
    by_name: HashMap<String, usize>,
    defaults: Vec<f32>,
    row_bytes: u64,
}

impl Decoder {
    /// A decoder for the dimensions of the valid `schema` at the indices `dimensions`.
    pub fn new(schema: &Schema, dimensions: &[usize], secret: &KeySecret, limits: Limits) -> Self {
        let known = dimensions.iter().filter_map(|index| Some((*index, schema.dimensions.get(*index)?)));
        let target = |(index, dimension): (usize, &bliss_core::schema::Dimension)| Target {
            index,
            name: dimension.name.clone(),
            keys: DimensionKeys::new(secret, schema, dimension),
            features: dimension.features.clone(),
            by_name: dimension.features.iter().enumerate().map(|(at, f)| (f.name.clone(), at)).collect(),
            defaults: dimension.features.iter().map(|feature| feature.default).collect(),
            by_prefix: dimension.is_by_prefix(),
            row_bytes: match dimension.is_by_prefix() {
                true => prefix_row_bytes(dimension.features.len()),
                false => row_bytes(dimension.features.len()),
            },
        };
        let dimensions: Vec<_> = known.map(target).collect();
        let least = dimensions.iter().map(|target| target.row_bytes).min().unwrap_or_default();
        Self { dimensions, max_rows: limits.rows(least), limits, room: None }
    }

    /// The same, for rows that will be published in `directory`: it also refuses what there is no room for.
    pub fn for_directory(mut self, directory: &Path) -> Self {
        self.room = Some(Room::of(directory));
        self
    }

    /// Reads a whole snapshot; `name` is what errors call it.
    ///
    /// # Errors
    /// The first thing that is wrong with it, with its line.
    pub fn decode(&self, name: &str, format: RowFormat, input: impl BufRead) -> Result<Accepted, Refusal> {
        let mut builder = Builder::new(self);
        let limited = Limited::new(input, self.limits.max_bytes);
        let read = without_mark(limited).map_err(|error| unreadable(&error)).and_then(|input| match format {
            RowFormat::Jsonl => jsonl::read(input, &mut builder),
            RowFormat::Csv => csv::read(input, &mut builder),
        });
        read.and_then(|()| builder.check_rows()).and_then(|()| builder.finish()).map_err(named(name))
    }

    /// The dimension named `name`, or the only one.
    fn target(&self, name: Option<&str>) -> Result<usize, Refusal> {
        match (name, self.dimensions.as_slice()) {
            (None, [_]) => Ok(0),
            (None, _) => Err(Refusal::new(
                Reason::UnknownDimension,
                format!("no `dimension`, and the origin fills several: {}", self.names()),
            )),
            (Some(name), targets) => targets.iter().position(|target| target.name == name).ok_or_else(|| {
                let message =
                    format!("dimension `{name}` is not one of this origin's; it fills: {}", self.names());
                Refusal::new(Reason::UnknownDimension, message)
            }),
        }
    }

    fn names(&self) -> String {
        self.dimensions.iter().map(|target| target.name.as_str()).collect::<Vec<_>>().join(", ")
    }
}

/// A value as a row has it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Cell<'a> {
    Number(f64),
    Text(&'a str),
}

/// Rows that are being read.
struct Builder<'d> {
    decoder: &'d Decoder,
    tables: Vec<Table>,
    rows: u64,
    taken: Taken,
    key_collisions: u64,
    newest_updated_at: u32,
    /// The row being read, in the width of its dimension.
    values: Vec<f32>,
    given: Vec<bool>,
}

/// The memory that rows take.
struct Taken {
    bytes: u64,
    /// The bytes at which they are next compared with the room.
    next_look: u64,
}

impl Taken {
    /// Takes up the last of `rows` rows, one of `dimension`.
    fn add(&mut self, decoder: &Decoder, dimension: &Target, rows: u64) -> Result<(), Refusal> {
        self.bytes += dimension.row_bytes;
        if self.bytes > decoder.limits.max_decoded_bytes {
            return Err(decoder.limits.too_much(&dimension.name, dimension.row_bytes, rows));
        }
        if self.bytes >= self.next_look {
            self.next_look = self.bytes + room::STEP;
            decoder.room.as_ref().map_or(Ok(()), |room| room.check(self.bytes))?;
        }
        Ok(())
    }
}

#[derive(Default)]
struct Table {
    rows: Rows,
    given: Given,
    /// From key to a second hash of what made it, and the row's index; small, since there is one for each row.
    seen: HashMap<u64, (u32, u32)>,
    /// The row's index of each network, where rows name networks.
    networks: HashMap<Prefix, u32>,
}

impl Table {
    /// Takes up what row `row` is called another time.
    fn join(
        &mut self,
        row: u32,
        updated_at: u32,
        values: &[f32],
        what: impl Fn() -> String,
    ) -> Result<(), Refusal> {
        let row = row as usize;
        let same =
            self.rows.row(row).iter().zip(values).all(|(held, value)| held.to_bits() == value.to_bits());
        if !same {
            let message = format!("{} appears twice, with different values", what());
            return Err(Refusal::new(Reason::DuplicateKey, message));
        }
        self.rows.updated_at[row] = self.rows.updated_at[row].max(updated_at);
        Ok(())
    }

    /// What replaces the dimension.
    fn change(self, target: &Target) -> Result<DimensionChange, Refusal> {
        if !target.by_prefix {
            return Ok(DimensionChange::Replace(self.rows));
        }
        let mut prefixes = PrefixRows::new(target.features.len());
        let mut networks = self.networks.into_iter().map(|(network, row)| (network, row as usize));
        let pushed = networks.try_for_each(|(network, row)| {
            prefixes.push(network, self.rows.updated_at[row], self.rows.row(row))
        });
        let built = pushed.and_then(|()| prefixes.build());
        let refused = |error| Refusal::new(Reason::TooManyRows, format!("`{}`: {error}", target.name));
        built.map(DimensionChange::Prefixes).map_err(refused)
    }
}

impl<'d> Builder<'d> {
    fn new(decoder: &'d Decoder) -> Self {
        let table = |target: &Target| Table {
            rows: Rows::new(target.features.len()),
            given: Given {
                dimension: target.index,
                has_features: !target.features.is_empty(),
                ..Given::default()
            },
            seen: HashMap::new(),
            networks: HashMap::new(),
        };
        Self {
            decoder,
            tables: decoder.dimensions.iter().map(table).collect(),
            rows: 0,
            taken: Taken { bytes: 0, next_look: room::STEP },
            key_collisions: 0,
            newest_updated_at: 0,
            values: Vec::new(),
            given: Vec::new(),
        }
    }

    /// Begins a row of the target `target`: every feature has its default.
    fn begin(&mut self, target: usize) {
        let defaults = &self.decoder.dimensions[target].defaults;
        self.values.clone_from(defaults);
        self.given.clear();
        self.given.resize(defaults.len(), false);
    }

    /// Sets the feature `name` of the row.
    fn feature(&mut self, target: usize, name: &str, cell: Option<&Cell<'_>>) -> Result<(), Refusal> {
        let dimension = &self.decoder.dimensions[target];
        let Some(&at) = dimension.by_name.get(name) else {
            let message = format!("dimension `{}` has no feature `{name}`", dimension.name);
            return Err(Refusal::new(Reason::UnknownFeature, message));
        };
        if std::mem::replace(&mut self.given[at], true) {
            return Err(Refusal::new(Reason::DuplicateFeature, format!("feature `{name}` appears twice")));
        }
        let Some(cell) = cell else { return Ok(()) };
        let value = value(&dimension.features[at], cell)?;
        self.values[at] = value;
        let given = &mut self.tables[target].given;
        given.values += 1;
        if let Cell::Number(_) = cell {
            given.numbers += 1;
            given.nonzero += u64::from(value != 0.0);
        }
        Ok(())
    }

    /// Ends a row: `attribute` gives the value of an attribute of its key by name.
    fn end<'a>(
        &mut self,
        target: usize,
        updated_at: u32,
        attribute: impl Fn(&str) -> Option<Value<'a>>,
    ) -> Result<(), Refusal> {
        self.rows += 1;
        let (limits, max_rows) = (&self.decoder.limits, self.decoder.max_rows);
        if self.rows > max_rows {
            let message = match limits.max_rows {
                Some(_) => format!("more than {max_rows} rows (max_rows)"),
                None => format!(
                    "more than {max_rows} rows, as many as {} bytes have room for (max_decoded_bytes); if there are meant to \
                     be so many, raise it",
                    limits.max_decoded_bytes
                ),
            };
            return Err(Refusal::new(Reason::TooManyRows, message));
        }
        let dimension = &self.decoder.dimensions[target];
        if dimension.by_prefix {
            return self.end_network(target, updated_at, attribute);
        }
        let name_of = |at: usize| dimension.keys.attributes().nth(at).unwrap_or_default().to_owned();
        let mut check = Xxh3::with_seed(1);
        let key = dimension.keys.key_and_parts(
            |at| attribute(dimension.keys.attributes().nth(at)?),
            |bytes| {
                check.update(&(bytes.len() as u64).to_le_bytes());
                check.update(bytes);
            },
        );
        let key = key.map_err(|error| {
            let message = match error {
                KeyError::Absent(at) => {
                    format!("no `key.{}`, which a row of `{}` needs", name_of(at), dimension.name)
                }
                KeyError::Unfit(at) => {
                    let name = name_of(at);
                    format!(
                        "`key.{name}` does not fit the attribute's type, or is none, as `-` is of a header"
                    )
                }
            };
            Refusal::new(Reason::BadKey, message)
        })?;
        // Half of it is enough.
        let check = check.digest() as u32;
        let table = &mut self.tables[target];
        let index = table.rows.len() as u32;
        match table.seen.entry(key) {
            Entry::Vacant(vacant) => {
                self.taken.add(self.decoder, dimension, self.rows)?;
                vacant.insert((check, index));
                table.rows.push(key, updated_at, &self.values);
                self.newest_updated_at = self.newest_updated_at.max(updated_at);
            }
            Entry::Occupied(occupied) => {
                let (other_check, row) = *occupied.get();
                if other_check != check {
                    self.key_collisions += 1;
                    return Ok(());
                }
                table.join(row, updated_at, &self.values, || format!("a key of `{}`", dimension.name))?;
            }
        }
        Ok(())
    }

    /// Ends a row of a dimension whose rows name networks.
    fn end_network<'a>(
        &mut self,
        target: usize,
        updated_at: u32,
        attribute: impl Fn(&str) -> Option<Value<'a>>,
    ) -> Result<(), Refusal> {
        let dimension = &self.decoder.dimensions[target];
        let name = dimension.keys.attributes().next().unwrap_or_default();
        let bad = |message: String| Refusal::new(Reason::BadKey, message);
        let network = match attribute(name) {
            None => return Err(bad(format!("no `key.{name}`, which a row of `{}` needs", dimension.name))),
            Some(Value::Text(text)) => Prefix::parse(text).map_err(|error| {
                let shown: String = String::from_utf8_lossy(text).chars().take(60).collect();
                bad(format!("`key.{name}`: {error}; found {shown:?}"))
            })?,
            Some(Value::U64(number)) => {
                return Err(bad(format!("`key.{name}`: expected an address or a network, found {number}")));
            }
            Some(Value::Binary(_)) => return Err(bad(format!("`key.{name}`: expected text"))),
        };
        let table = &mut self.tables[target];
        let index = table.rows.len() as u32;
        match table.networks.entry(network) {
            Entry::Vacant(vacant) => {
                self.taken.add(self.decoder, dimension, self.rows)?;
                vacant.insert(index);
                // Networks have no keys.
                table.rows.push(0, updated_at, &self.values);
                self.newest_updated_at = self.newest_updated_at.max(updated_at);
            }
            Entry::Occupied(occupied) => {
                let row = *occupied.get();
                let what = || format!("the network {network} of `{}`", dimension.name);
                table.join(row, updated_at, &self.values, what)?;
            }
        }
        Ok(())
    }

    fn check_rows(&self) -> Result<(), Refusal> {
        let min_rows = self.decoder.limits.min_rows;
        if self.rows >= min_rows {
            return Ok(());
        }
        let message = format!("{} rows, expected at least {min_rows} (min_rows)", self.rows);
        Err(Refusal::new(Reason::TooFewRows, message))
    }

    fn finish(self) -> Result<Accepted, Refusal> {
        let rows = self.tables.iter().map(|table| table.rows.len() as u64).sum();
        let given = self.tables.iter().map(|table| Given { rows: table.rows.len() as u64, ..table.given });
        let given = given.collect();
        let indices = self.decoder.dimensions.iter().map(|target| target.index);
        let tables = self.tables.into_iter().zip(&self.decoder.dimensions);
        let changes = tables.map(|(table, target)| table.change(target));
        let dimensions = indices.zip(changes).map(|(index, change)| Ok((index, change?)));
        Ok(Accepted {
            change: Change { dimensions: dimensions.collect::<Result<_, Refusal>>()? },
            rows,
            key_collisions: self.key_collisions,
            newest_updated_at: self.newest_updated_at,
            given,
        })
    }
}

/// The value of `feature` that `cell` is.
pub(crate) fn value(feature: &Feature, cell: &Cell<'_>) -> Result<f32, Refusal> {
    let name = &feature.name;
    match (feature.kind, cell) {
        (FeatureKind::Category, Cell::Text(text)) => Ok(crate::category::category(text)),
        (FeatureKind::Category, Cell::Number(number)) => {
            let message = format!("feature `{name}` is a category: expected a string, found {number}");
            Err(Refusal::new(Reason::Undecodable, message))
        }
        (FeatureKind::F32, Cell::Text(text)) => {
            let shown: String = text.chars().take(40).collect();
            let message = format!("feature `{name}`: expected a number, found {shown:?}");
            Err(Refusal::new(Reason::Undecodable, message))
        }
        (FeatureKind::F32, Cell::Number(number)) => {
            let narrow = *number as f32;
            if !narrow.is_finite() {
                let message =
                    format!("feature `{name}`: expected a finite number that fits 32 bits, found {number}");
                return Err(Refusal::new(Reason::NotFinite, message));
            }
            if !feature.accepts(narrow) {
                let limit = |limit: Option<f32>| limit.map_or("any".to_owned(), |limit| limit.to_string());
                let (min, max) = (limit(feature.min), limit(feature.max));
                let message =
                    format!("feature `{name}`: {number} is out of its range (min {min}, max {max})");
                return Err(Refusal::new(Reason::OutOfRange, message));
            }
            Ok(narrow)
        }
    }
}

/// Adds what the snapshot is called to a refusal.
pub(crate) fn named(name: &str) -> impl Fn(Refusal) -> Refusal {
    move |refusal| {
        let between = if refusal.message.starts_with("line ") { ", " } else { ": " };
        let mut message = format!("{name}{between}{}", refusal.message);
        shorten(&mut message);
        Refusal { message, ..refusal }
    }
}

/// Cuts a message, which may have a name that an origin made up, to what a log can take.
fn shorten(message: &mut String) {
    const MOST: usize = 1000;
    if message.len() > MOST {
        message.truncate(message.floor_char_boundary(MOST));
        message.push('…');
    }
}

/// Adds the line to a refusal.
pub(crate) fn at_line(line: u64) -> impl Fn(Refusal) -> Refusal {
    move |refusal| Refusal { message: format!("line {line}: {}", refusal.message), ..refusal }
}

/// A failed read as a refusal.
pub(crate) fn unreadable(error: &std::io::Error) -> Refusal {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Refusal>()) {
        Some(refusal) => refusal.clone(),
        None => Refusal::new(Reason::Unavailable, format!("cannot be read: {error}")),
    }
}

/// The input without the byte order mark that some programs write at the start of UTF-8.
pub(crate) fn without_mark(mut input: impl BufRead) -> std::io::Result<impl BufRead> {
    let mut head = Vec::new();
    // The mark may come in several pieces.
    input.by_ref().take(3).read_to_end(&mut head)?;
    if head == "\u{feff}".as_bytes() {
        head.clear();
    }
    Ok(std::io::Cursor::new(head).chain(input))
}

#[cfg(test)]
mod tests;
