//! Rows as comma-separated values.

use std::io::Read;

use bliss_core::attribute::Value;
use bliss_core::schema::FeatureKind;

use super::limits::RowLimited;
use super::{Builder, Cell, Decoder, at_line, unreadable};
use crate::refusal::{Reason, Refusal};

/// What a column holds.
enum Column {
    Dimension,
    UpdatedAt,
    /// An attribute of the key, by name.
    Key(String),
    Feature(String),
}

pub(super) fn read(input: impl Read, builder: &mut Builder<'_>) -> Result<(), Refusal> {
    let (input, row_start) = RowLimited::new(input, builder.decoder.limits);
    let mut reader = csv::ReaderBuilder::new().has_headers(true).from_reader(input);
    let header = reader.headers().cloned().map_err(|error| wrong(&error, reader.position().line()))?;
    if header.is_empty() {
        return Ok(());
    }
    let columns = columns(builder.decoder, &header).map_err(at_line(1))?;
    let mut record = csv::StringRecord::new();
    loop {
        row_start.set(reader.position().byte());
        let read = reader.read_record(&mut record);
        if !read.map_err(|error| wrong(&error, reader.position().line()))? {
            return Ok(());
        }
        let line = record.position().map_or(0, csv::Position::line);
        row(&columns, &record, builder).map_err(at_line(line))?;
    }
}

fn columns(decoder: &Decoder, header: &csv::StringRecord) -> Result<Vec<Column>, Refusal> {
    let mut columns = Vec::new();
    for (at, name) in header.iter().enumerate() {
        let name = name.trim();
        let again = header.iter().take(at).any(|other| other.trim() == name);
        let column = match name {
            "dimension" => Column::Dimension,
            "updated_at" => Column::UpdatedAt,
            _ => match name.strip_prefix("key.") {
                Some(attribute) => Column::Key(attribute.to_owned()),
                None => Column::Feature(name.to_owned()),
            },
        };
        if again {
            let reason = match column {
                Column::Feature(_) => Reason::DuplicateFeature,
                _ => Reason::Undecodable,
            };
            return Err(Refusal::new(reason, format!("column `{name}` appears twice")));
        }
        match &column {
            Column::Key(attribute)
                if !decoder
                    .dimensions
                    .iter()
                    .any(|t| t.keys.attributes().any(|known| known == attribute)) =>
            {
                let message = format!("column `{name}` is not part of a key of: {}", decoder.names());
                return Err(Refusal::new(Reason::BadKey, message));
            }
            Column::Feature(feature)
                if !decoder.dimensions.iter().any(|target| target.by_name.contains_key(feature)) =>
            {
                let message = format!("column `{name}` is not a feature of: {}", decoder.names());
                return Err(Refusal::new(Reason::UnknownFeature, message));
            }
            _ => columns.push(column),
        }
    }
    if !columns.iter().any(|column| matches!(column, Column::UpdatedAt)) {
        return Err(Refusal::new(Reason::Undecodable, "no column `updated_at` (seconds since the epoch)"));
    }
    Ok(columns)
}

fn row(columns: &[Column], record: &csv::StringRecord, builder: &mut Builder<'_>) -> Result<(), Refusal> {
    let cells = || columns.iter().zip(record.iter());
    let dimension = cells().find_map(|(column, cell)| matches!(column, Column::Dimension).then_some(cell));
    let target = builder.decoder.target(dimension)?;
    builder.begin(target);
    let dimension = &builder.decoder.dimensions[target];
    let mut updated_at = 0;
    for (column, text) in cells() {
        match column {
            Column::Dimension => (),
            Column::UpdatedAt => {
                updated_at = text.trim().parse().map_err(|_| {
                    let message = format!("updated_at: expected seconds since the epoch, found {text:?}");
                    Refusal::new(Reason::Undecodable, message)
                })?;
            }
            Column::Key(attribute) => {
                if !text.is_empty() && !dimension.keys.attributes().any(|known| known == attribute) {
                    let message = format!("`key.{attribute}` is not part of the key of `{}`", dimension.name);
                    return Err(Refusal::new(Reason::BadKey, message));
                }
            }
            Column::Feature(_) if text.is_empty() => (),
            Column::Feature(feature) => {
                let kind = dimension.by_name.get(feature).map(|at| dimension.features[*at].kind);
                let number = || text.trim().parse().map_or(Cell::Text(text), Cell::Number);
                let cell = if kind == Some(FeatureKind::Category) { Cell::Text(text) } else { number() };
                builder.feature(target, feature, Some(&cell))?;
            }
        }
    }
    builder.end(target, updated_at, |attribute| {
        cells().find_map(|(column, cell)| match column {
            Column::Key(name) if name == attribute && !cell.is_empty() => Some(Value::Text(cell.as_bytes())),
            _ => None,
        })
    })
}

/// What is wrong, `line` being where the reader is.
fn wrong(error: &csv::Error, line: u64) -> Refusal {
    let line = error.position().map_or(line, csv::Position::line);
    let refusal = match error.kind() {
        csv::ErrorKind::Io(error) => unreadable(error),
        csv::ErrorKind::Utf8 { .. } => Refusal::new(Reason::Undecodable, "not UTF-8"),
        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => Refusal::new(
            Reason::Undecodable,
            format!("expected {expected_len} columns as in the header, found {len}"),
        ),
        _ => Refusal::new(Reason::Undecodable, error.to_string()),
    };
    at_line(line)(refusal)
}
