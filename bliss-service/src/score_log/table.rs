//! The files that scores are written to: CSV, and Parquet.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::Arc;

use parquet::basic::{LogicalType, Repetition, TimeUnit, Type as Physical};
use parquet::data_type::{ByteArray, ByteArrayType, DataType, DoubleType, Int32Type, Int64Type};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::types::Type;

use super::Line;

/// Rows that are written together.
const GROUP_ROWS: usize = 65_536;

/// Where scores go.
pub(super) enum Scores {
    Csv(Box<csv::Writer<Box<dyn Write>>>),
    Parquet(Box<(SerializedFileWriter<File>, Group)>),
}

impl Scores {
    pub(super) fn create(path: &Path) -> anyhow::Result<Self> {
        if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("parquet")) {
            let out = SerializedFileWriter::new(
                File::create(path)?,
                Arc::new(schema()?),
                Arc::new(WriterProperties::builder().build()),
            )?;
            return Ok(Self::Parquet(Box::new((out, Group::default()))));
        }
        let out: Box<dyn Write> = if path == Path::new("-") {
            Box::new(std::io::stdout().lock())
        } else {
            Box::new(File::create(path)?)
        };
        let mut out =
            csv::Writer::from_writer(Box::new(BufWriter::with_capacity(1 << 18, out)) as Box<dyn Write>);
        out.write_record(["line", "time", "ip", "score", "status", "probability"])?;
        Ok(Self::Csv(Box::new(out)))
    }

    pub(super) fn write(&mut self, scored: &Line<'_>) -> anyhow::Result<()> {
        match self {
            Self::Csv(out) => {
                let text = |number: Option<String>| number.unwrap_or_default();
                out.write_record([
                    scored.line.to_string(),
                    (scored.time_ms as f64 / 1000.0).to_string(),
                    scored.ip.to_owned(),
                    text(scored.score.map(|score| score.to_string())),
                    scored.status.to_owned(),
                    text(scored.probability.map(|probability| probability.to_string())),
                ])?;
            }
            Self::Parquet(parquet) => {
                let (out, group) = &mut **parquet;
                group.add(scored);
                if group.lines.len() >= GROUP_ROWS {
                    group.write(out)?;
                }
            }
        }
        Ok(())
    }

    pub(super) fn finish(self) -> anyhow::Result<()> {
        match self {
            Self::Csv(mut out) => out.flush()?,
            Self::Parquet(parquet) => {
                let (mut out, mut group) = *parquet;
                group.write(&mut out)?;
                out.close()?;
            }
        }
        Ok(())
    }
}

fn schema() -> anyhow::Result<Type> {
    let text = Some(LogicalType::String);
    let time = Some(LogicalType::timestamp(true, TimeUnit::MILLIS));
    let columns = [
        ("line", Physical::INT64, None, Repetition::REQUIRED),
        ("time", Physical::INT64, time, Repetition::REQUIRED),
        ("ip", Physical::BYTE_ARRAY, text.clone(), Repetition::REQUIRED),
        ("score", Physical::INT32, None, Repetition::OPTIONAL),
        ("status", Physical::BYTE_ARRAY, text, Repetition::REQUIRED),
        ("probability", Physical::DOUBLE, None, Repetition::OPTIONAL),
    ];
    let fields = columns.into_iter().map(|(name, physical, logical, repetition)| {
        let field = Type::primitive_type_builder(name, physical);
        Ok(Arc::new(field.with_logical_type(logical).with_repetition(repetition).build()?))
    });
    let fields = fields.collect::<anyhow::Result<_>>()?;
    Ok(Type::group_type_builder("scores").with_fields(fields).build()?)
}

/// Rows that wait to be written.
#[derive(Default)]
pub(super) struct Group {
    lines: Vec<i64>,
    times: Vec<i64>,
    ips: Vec<ByteArray>,
    scores: Vec<i32>,
    statuses: Vec<ByteArray>,
    probabilities: Vec<f64>,
    /// For each row whether it has a score.
    is_scored: Vec<i16>,
}

impl Group {
    fn add(&mut self, scored: &Line<'_>) {
        self.lines.push(i64::try_from(scored.line).unwrap_or(i64::MAX));
        self.times.push(i64::try_from(scored.time_ms).unwrap_or(i64::MAX));
        self.ips.push(scored.ip.into());
        self.scores.extend(scored.score.map(i32::from));
        self.statuses.push(scored.status.into());
        self.probabilities.extend(scored.probability);
        self.is_scored.push(i16::from(scored.score.is_some()));
    }

    fn write(&mut self, out: &mut SerializedFileWriter<File>) -> anyhow::Result<()> {
        let mut group = out.next_row_group()?;
        let scored = Some(self.is_scored.as_slice());
        column::<Int64Type>(&mut group, &self.lines, None)?;
        column::<Int64Type>(&mut group, &self.times, None)?;
        column::<ByteArrayType>(&mut group, &self.ips, None)?;
        column::<Int32Type>(&mut group, &self.scores, scored)?;
        column::<ByteArrayType>(&mut group, &self.statuses, None)?;
        column::<DoubleType>(&mut group, &self.probabilities, scored)?;
        group.close()?;
        *self = Self::default();
        Ok(())
    }
}

fn column<T: DataType>(
    group: &mut SerializedRowGroupWriter<'_, File>,
    values: &[T::T],
    is_present: Option<&[i16]>,
) -> anyhow::Result<()> {
    let Some(mut column) = group.next_column()? else {
        anyhow::bail!("the file has fewer columns than a row");
    };
    column.typed::<T>().write_batch(values, is_present, None)?;
    Ok(column.close()?)
}
