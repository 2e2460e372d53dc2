//! Lists of networks: files and documents of others, decoded, and laid over each other as the columns of one dimension.
//!
//! | module | what it does |
//! |---|---|
//! | `text`, `json`, `mmdb`, `location` | the formats |
//! | `names` | which autonomous systems are hosters, by their names |
//! | `layer` | what one list says, within limits |
//! | `overlay` | several lists as one table |

mod json;
mod layer;
mod location;
mod mmdb;
mod names;
mod overlay;
mod text;

use std::io::{BufRead, Read as _};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bliss_core::schema::Feature;

use crate::decode::limits::Limited;
use crate::decode::room::Room;
use crate::decode::{Cell, Limits, named, unreadable, value, without_mark};
use crate::refusal::{Reason, Refusal};
use layer::LayerBuilder;
use mmdb::Scalar;

pub use layer::Layer;
pub use names::NameRules;
pub use overlay::overlay;

/// How a list is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ListFormat {
    /// An address, a network or a range in a line, as in netset files; or what `ipset save` writes.
    Text,
    /// Ranges of crawlers or clouds, in JSON.
    Json,
    /// A MaxMind DB file.
    Mmdb,
    /// The database of Debian's `libloc-database`.
    Location,
}

impl ListFormat {
    /// The fields of a location database.
    pub const LOCATION_FIELDS: [&str; 3] = location::FIELDS;

    /// Whether networks have fields, rather than being in a list.
    pub fn has_fields(self) -> bool {
        matches!(self, Self::Mmdb | Self::Location)
    }
}

/// What becomes of a network with bits set beyond its length.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HostBits {
    /// The list is refused.
    #[default]
    Refuse,
    /// It is the network of that length.
    Mask,
}

/// A column that a list fills.
#[derive(Clone, Debug, PartialEq)]
pub struct Column {
    /// The feature's index in its dimension.
    pub index: usize,
    /// The feature.
    pub feature: Feature,
    /// The field that it is taken from, where the format has fields.
    pub field: String,
    /// It is 1 where these match the field, a name, and 0 where they do not.
    pub rules: Option<Arc<NameRules>>,
}

/// The columns that a list fills, each from a field.
#[derive(Clone, Debug)]
struct Fields(Vec<Column>);

impl Fields {
    fn paths(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|column| column.field.as_str())
    }

    /// The values of a row whose fields are these; a field that is not there has the default of its feature.
    fn values(&self, scalars: &[Option<Scalar>]) -> Result<Vec<f32>, Refusal> {
        let value = |(column, scalar): (&Column, &Option<Scalar>)| {
            let Column { feature, field, rules, .. } = column;
            let cell = match (scalar, rules) {
                (None, _) => return Ok(feature.default),
                (Some(Scalar::Text(name)), Some(rules)) => {
                    Cell::Number(f64::from(u8::from(rules.matches(name))))
                }
                (Some(Scalar::Number(number)), Some(_)) => {
                    let message = format!("field `{field}`: expected a name, found {number}");
                    return Err(Refusal::new(Reason::Undecodable, message));
                }
                (Some(Scalar::Number(number)), None) => Cell::Number(*number),
                (Some(Scalar::Text(text)), None) => Cell::Text(text),
            };
            value(feature, &cell)
        };
        self.0.iter().zip(scalars).map(value).collect()
    }
}

/// Reads the snapshots of one list.
#[derive(Clone, Debug)]
pub struct ListDecoder {
    /// How it is written.
    pub format: ListFormat,
    /// What it fills.
    pub columns: Vec<Column>,
    /// Members of a JSON document that hold networks.
    pub members: Vec<String>,
    /// What becomes of bits beyond a network's length.
    pub host_bits: HostBits,
    /// How large it may be.
    pub limits: Limits,
    /// How long decoding may take, once it was read.
    pub timeout: Duration,
    room: Option<Room>,
}

impl ListDecoder {
    /// A decoder without a limit of time, and without names for members.
    pub fn new(format: ListFormat, columns: Vec<Column>, limits: Limits) -> Self {
        Self {
            format,
            columns,
            limits,
            members: Vec::new(),
            host_bits: HostBits::Refuse,
            timeout: Duration::MAX,
            room: None,
        }
    }

    /// The same, for networks that will be published in `directory`: it also refuses what there is no room for.
    pub fn for_directory(mut self, directory: &Path) -> Self {
        self.room = Some(Room::of(directory));
        self
    }

    /// Reads a whole list; `name` is what errors call it.
    ///
    /// # Errors
    /// The first thing that is wrong with it, with its line where it has lines.
    pub fn decode(&self, name: &str, input: impl BufRead) -> Result<Layer, Refusal> {
        self.read(input).map_err(named(name))
    }

    fn read(&self, input: impl BufRead) -> Result<Layer, Refusal> {
        let columns = self.columns.iter().map(|column| column.index).collect();
        let until = Instant::now().checked_add(self.timeout);
        let mut builder = LayerBuilder::new(columns, self.limits, self.room.as_ref(), until);
        let mut limited = Limited::new(input, self.limits.max_bytes);
        if self.format.has_fields() {
            let mut bytes = Vec::new();
            limited.read_to_end(&mut bytes).map_err(|error| unreadable(&error))?;
            let fields = Fields(self.columns.clone());
            match self.format {
                ListFormat::Location => location::read(&bytes, &fields, &mut builder)?,
                _ => mmdb::read(&bytes, &fields, &mut builder)?,
            }
            return builder.finish();
        }
        let member = self.columns.iter().map(|column| value(&column.feature, &Cell::Number(1.0)));
        let member = builder.row(&member.collect::<Result<Vec<_>, _>>()?)?;
        let left_out: Vec<f32> = self.columns.iter().map(|column| column.feature.default).collect();
        let rows = text::Rows { member, left_out: builder.row(&left_out)? };
        let input = without_mark(limited).map_err(|error| unreadable(&error))?;
        match self.format {
            ListFormat::Json => json::read(input, rows.member, &self.members, self.host_bits, &mut builder)?,
            _ => text::read(input, &rows, self.host_bits, &mut builder)?,
        }
        builder.finish()
    }
}

#[cfg(test)]
pub(crate) mod tests;
