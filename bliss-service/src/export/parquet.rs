//! Training rows as Parquet.
//!
//! | columns | type |
//! |---|---|
//! | `time` | timestamp in milliseconds, UTC |
//! | `line` | 64-bit integer |
//! | `ip`, `DIMENSION.status` | string |
//! | `user_agent`, `method`, `path`, `query`, `host`, `referrer` | string, escaped as in CSV; null where there is no value |
//! | `response_status`, `own_answer` | 32-bit integer |
//! | `request.VALUE`, `DIMENSION.FEATURE` | 32-bit float; of a category its hash, a 32-bit integer without sign |
//!
//! Pages are not compressed: most values repeat, and a page holds those as numbers of a dictionary. So no library for
//! compression comes along.

use std::io::Write;
use std::sync::Arc;

use bliss_core::score::Status;
use parquet::basic::{LogicalType, Repetition, TimeUnit, Type as Physical};
use parquet::data_type::{ByteArray, ByteArrayType, DataType, FloatType, Int32Type, Int64Type};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::types::{Type, TypePtr};

use super::rows::{Columns, Row, Rows, TEXTS};
use super::text::escape;

/// Rows that are written together, column by column: some 30 MB of the built-in features.
const GROUP_ROWS: usize = 65_536;
/// Fewer where their texts are long.
const GROUP_TEXT_BYTES: usize = 32 << 20;

/// A Parquet file.
pub(super) struct Parquet<W: Write + Send> {
    out: SerializedFileWriter<W>,
    group: Group,
}

/// Rows that wait to be written.
#[derive(Default)]
struct Group {
    times: Vec<i64>,
    lines: Vec<i64>,
    ips: Vec<ByteArray>,
    /// Those of [`Row::texts`].
    texts: [Texts; TEXTS],
    text_bytes: usize,
    response_statuses: Vec<i32>,
    own_answers: Vec<i32>,
    /// For each dimension.
    statuses: Vec<Vec<Status>>,
    /// For each value of the request and each feature.
    inputs: Vec<Input>,
}

/// Texts, and for each row whether it has one.
#[derive(Default)]
struct Texts {
    values: Vec<ByteArray>,
    is_present: Vec<i16>,
}

enum Input {
    Numbers(Vec<f32>),
    Categories(Vec<i32>),
}

impl<W: Write + Send> Parquet<W> {
    pub(super) fn new(columns: &Columns, out: W) -> anyhow::Result<Self> {
        let writer = concat!("bliss ", env!("CARGO_PKG_VERSION")).to_owned();
        let properties = WriterProperties::builder().set_created_by(writer).build();
        let input = |is_category: &bool| {
            if *is_category { Input::Categories(Vec::new()) } else { Input::Numbers(Vec::new()) }
        };
        Ok(Self {
            out: SerializedFileWriter::new(out, schema(columns)?, Arc::new(properties))?,
            group: Group {
                statuses: columns.statuses.iter().map(|_| Vec::new()).collect(),
                inputs: columns.inputs.iter().map(|(_, is_category)| input(is_category)).collect(),
                ..Group::default()
            },
        })
    }

    fn write_group(&mut self) -> anyhow::Result<()> {
        if self.group.lines.is_empty() {
            return Ok(());
        }
        let mut out = self.out.next_row_group()?;
        self.group.write(&mut out)?;
        out.close()?;
        Ok(())
    }
}

impl<W: Write + Send> Rows for Parquet<W> {
    fn write(&mut self, row: &Row<'_>) -> anyhow::Result<()> {
        self.group.add(row);
        if self.group.lines.len() >= GROUP_ROWS || self.group.text_bytes >= GROUP_TEXT_BYTES {
            self.write_group()?;
        }
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> anyhow::Result<()> {
        self.write_group()?;
        self.out.close()?;
        Ok(())
    }
}

/// The columns' types, in their order.
fn schema(columns: &Columns) -> anyhow::Result<TypePtr> {
    let time = LogicalType::timestamp(true, TimeUnit::MILLIS);
    let mut fields = Vec::with_capacity(columns.len());
    let mut field = |name: &str, physical, logical, repetition| -> anyhow::Result<()> {
        let field = Type::primitive_type_builder(name, physical);
        fields.push(Arc::new(field.with_logical_type(logical).with_repetition(repetition).build()?));
        Ok(())
    };
    for name in Columns::REQUEST {
        let (physical, logical, repetition) = match name {
            "time" => (Physical::INT64, Some(time.clone()), Repetition::REQUIRED),
            "line" => (Physical::INT64, None, Repetition::REQUIRED),
            "ip" => (Physical::BYTE_ARRAY, Some(LogicalType::String), Repetition::REQUIRED),
            "response_status" | "own_answer" => (Physical::INT32, None, Repetition::REQUIRED),
            _ => (Physical::BYTE_ARRAY, Some(LogicalType::String), Repetition::OPTIONAL),
        };
        field(name, physical, logical, repetition)?;
    }
    for name in &columns.statuses {
        field(name, Physical::BYTE_ARRAY, Some(LogicalType::String), Repetition::REQUIRED)?;
    }
    for (name, is_category) in &columns.inputs {
        let (physical, logical) = if *is_category {
            (Physical::INT32, Some(LogicalType::integer(32, false)))
        } else {
            (Physical::FLOAT, None)
        };
        field(name, physical, logical, Repetition::REQUIRED)?;
    }
    Ok(Arc::new(Type::group_type_builder("rows").with_fields(fields).build()?))
}

impl Group {
    fn add(&mut self, row: &Row<'_>) {
        let record = row.record;
        self.times.push(i64::try_from(record.time_ms).unwrap_or(i64::MAX));
        self.lines.push(i64::try_from(row.line).unwrap_or(i64::MAX));
        self.ips.push(record.ip.to_string().into_bytes().into());
        for (texts, text) in self.texts.iter_mut().zip(row.texts()) {
            texts.is_present.push(i16::from(!text.is_empty()));
            if !text.is_empty() {
                let mut cell = String::new();
                escape(text, &mut cell);
                self.text_bytes += cell.len();
                texts.values.push(cell.into_bytes().into());
            }
        }
        self.response_statuses.push(i32::from(record.status));
        self.own_answers.push(i32::from(record.own_answer));
        for (statuses, status) in self.statuses.iter_mut().zip(row.statuses) {
            statuses.push(*status);
        }
        for (input, value) in self.inputs.iter_mut().zip(row.numbers()) {
            match input {
                Input::Numbers(numbers) => numbers.push(value),
                Input::Categories(hashes) => hashes.push(value.to_bits().cast_signed()),
            }
        }
    }

    /// Writes the columns in the schema's order, and empties them.
    fn write(&mut self, out: &mut SerializedRowGroupWriter<'_, impl Write + Send>) -> anyhow::Result<()> {
        column::<Int64Type>(out, &self.times, None)?;
        column::<Int64Type>(out, &self.lines, None)?;
        column::<ByteArrayType>(out, &self.ips, None)?;
        for texts in &mut self.texts {
            column::<ByteArrayType>(out, &texts.values, Some(&texts.is_present))?;
            *texts = Texts::default();
        }
        column::<Int32Type>(out, &self.response_statuses, None)?;
        column::<Int32Type>(out, &self.own_answers, None)?;
        for statuses in &mut self.statuses {
            let names: Vec<ByteArray> = statuses.drain(..).map(|status| status.as_str().into()).collect();
            column::<ByteArrayType>(out, &names, None)?;
        }
        for input in &mut self.inputs {
            match input {
                Input::Numbers(numbers) => {
                    column::<FloatType>(out, numbers, None)?;
                    numbers.clear();
                }
                Input::Categories(hashes) => {
                    column::<Int32Type>(out, hashes, None)?;
                    hashes.clear();
                }
            }
        }
        self.times.clear();
        self.lines.clear();
        self.ips.clear();
        self.response_statuses.clear();
        self.own_answers.clear();
        self.text_bytes = 0;
        Ok(())
    }
}

fn column<T: DataType>(
    out: &mut SerializedRowGroupWriter<'_, impl Write + Send>,
    values: &[T::T],
    is_present: Option<&[i16]>,
) -> anyhow::Result<()> {
    let Some(mut column) = out.next_column()? else {
        anyhow::bail!("the file has fewer columns than a row");
    };
    column.typed::<T>().write_batch(values, is_present, None)?;
    Ok(column.close()?)
}
