//! The files that training rows are written to: CSV, and Parquet.

use std::io::{BufWriter, Write};

use bliss_core::http::{RequestValue, query};
use bliss_core::request::INPUT_PREFIX;
use bliss_core::schema::{FeatureKind, Schema};
use bliss_core::score::Status;
use bliss_core::scorer::OPTIONAL_INPUTS;

use super::text::escape;
use crate::access_log::parse::Record;

/// One request and what a worker would have read for it.
pub(super) struct Row<'a> {
    /// The number of its line in the log.
    pub(super) line: u64,
    pub(super) record: &'a Record<'a>,
    /// What the request says by itself, in the order of [`RequestValue::index`].
    pub(super) request_values: &'a [f32],
    /// The value of each feature, in the schema's order.
    pub(super) values: &'a [f32],
    /// The status of each dimension, in the schema's order.
    pub(super) statuses: &'a [Status],
}

impl Row<'_> {
    /// The values that clients choose; empty where there is none.
    pub(super) fn texts(&self) -> [&[u8]; TEXTS] {
        let Record { user_agent, method, path, target, host, referrer, .. } = self.record;
        let [user_agent, host, referrer] =
            [user_agent, host, referrer].map(|text| text.as_deref().unwrap_or_default());
        [user_agent, method, path, query(target), host, referrer]
    }

    /// The request's values, then the features, then NaN without end: what stands for inputs that the site does not have.
    pub(super) fn numbers(&self) -> impl Iterator<Item = f32> {
        self.request_values.iter().chain(self.values).copied().chain(std::iter::repeat(f32::NAN))
    }
}

/// How many columns hold text that clients choose.
pub(super) const TEXTS: usize = 6;

/// The columns of every row: the request's, each dimension's status, each value of the request itself, each feature, and those of
/// [`OPTIONAL_INPUTS`] that are no feature here, which are NaN to a worker too.
pub(super) struct Columns {
    /// `DIMENSION.status` of each dimension.
    pub(super) statuses: Vec<String>,
    /// `request.VALUE` and `DIMENSION.FEATURE`, as models name their inputs, and whether it is a category.
    pub(super) inputs: Vec<(String, bool)>,
}

impl Columns {
    /// What the log says of the request: no inputs of a model.
    pub(super) const REQUEST: [&str; 11] = [
        "time",
        "line",
        "ip",
        "user_agent",
        "method",
        "path",
        "query",
        "host",
        "referrer",
        "response_status",
        "own_answer",
    ];

    pub(super) fn new(schema: &Schema) -> Self {
        let dimensions = || schema.dimensions.iter();
        let features = dimensions().flat_map(|dimension| {
            dimension.features.iter().map(move |feature| {
                let name = format!("{}.{}", dimension.name, feature.name);
                (name, feature.kind == FeatureKind::Category)
            })
        });
        let optional = OPTIONAL_INPUTS.into_iter().filter(|name| schema.feature(name).is_none());
        let optional = optional.map(|name| (name.to_owned(), false));
        let of_request =
            RequestValue::ALL.into_iter().map(|value| (format!("{INPUT_PREFIX}{}", value.name()), false));
        Self {
            statuses: dimensions().map(|dimension| format!("{}.status", dimension.name)).collect(),
            inputs: of_request.chain(features).chain(optional).collect(),
        }
    }

    pub(super) fn len(&self) -> usize {
        Self::REQUEST.len() + self.statuses.len() + self.inputs.len()
    }
}

/// Where rows go.
pub(super) trait Rows {
    /// Adds a row.
    ///
    /// # Errors
    /// It cannot be written.
    fn write(&mut self, row: &Row<'_>) -> anyhow::Result<()>;

    /// Ends the file.
    ///
    /// # Errors
    /// It cannot be written.
    fn finish(self: Box<Self>) -> anyhow::Result<()>;
}

/// CSV in UTF-8, with one line for each row and one for the names.
pub(super) struct Csv<'a, W: Write> {
    columns: &'a Columns,
    out: csv::Writer<BufWriter<W>>,
    cell: String,
}

impl<'a, W: Write> Csv<'a, W> {
    pub(super) fn new(columns: &'a Columns, out: W) -> anyhow::Result<Self> {
        let mut out = csv::Writer::from_writer(BufWriter::with_capacity(1 << 18, out));
        let names = columns.statuses.iter().chain(columns.inputs.iter().map(|(name, _)| name));
        out.write_record(Columns::REQUEST.into_iter().chain(names.map(String::as_str)))?;
        Ok(Self { columns, out, cell: String::new() })
    }

    fn field(&mut self, what: std::fmt::Arguments<'_>) -> csv::Result<()> {
        use std::fmt::Write as _;
        self.cell.clear();
        // Writing to a string does not fail.
        let _ = self.cell.write_fmt(what);
        self.out.write_field(&self.cell)
    }
}

impl<W: Write> Rows for Csv<'_, W> {
    fn write(&mut self, row: &Row<'_>) -> anyhow::Result<()> {
        let record = row.record;
        self.field(format_args!("{}", record.time_ms as f64 / 1000.0))?;
        self.field(format_args!("{}", row.line))?;
        self.field(format_args!("{}", record.ip))?;
        for text in row.texts() {
            self.cell.clear();
            escape(text, &mut self.cell);
            self.out.write_field(&self.cell)?;
        }
        self.field(format_args!("{}", record.status))?;
        self.field(format_args!("{}", u8::from(record.own_answer)))?;
        for status in row.statuses {
            self.out.write_field(status.as_str())?;
        }
        for (value, (_, is_category)) in row.numbers().zip(&self.columns.inputs) {
            if *is_category {
                self.field(format_args!("{}", value.to_bits()))?;
            } else {
                self.field(format_args!("{value}"))?;
            }
        }
        self.out.write_record(None::<&[u8]>)?;
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> anyhow::Result<()> {
        self.out.flush()?;
        Ok(())
    }
}
