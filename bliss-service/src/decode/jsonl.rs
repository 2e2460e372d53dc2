//! Rows as JSON Lines.

use std::borrow::Cow;
use std::fmt;
use std::io::{BufRead, Read as _};
use std::marker::PhantomData;

use bliss_core::attribute::Value;
use serde::Deserialize;
use serde::de::{self, MapAccess, Visitor};

use super::{Builder, Cell, at_line, unreadable};
use crate::refusal::{Reason, Refusal};

/// A row, as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row<'a> {
    #[serde(borrow)]
    dimension: Option<Cow<'a, str>>,
    #[serde(borrow)]
    key: Pairs<'a, KeyValue<'a>>,
    updated_at: u32,
    #[serde(borrow, default)]
    features: Pairs<'a, FeatureValue<'a>>,
}

/// An object's members in their order, including those that appear twice.
struct Pairs<'a, T>(Vec<(Text<'a>, T)>);

impl<T> Default for Pairs<'_, T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

/// A string, borrowed where it has no escapes.
#[derive(PartialEq)]
struct Text<'a>(Cow<'a, str>);

enum KeyValue<'a> {
    Text(Text<'a>),
    Number(u64),
}

enum FeatureValue<'a> {
    Null,
    Number(f64),
    Text(Text<'a>),
}

pub(super) fn read(mut input: impl BufRead, builder: &mut Builder<'_>) -> Result<(), Refusal> {
    let limits = builder.decoder.limits;
    let mut buffer = Vec::new();
    let mut number = 0;
    loop {
        buffer.clear();
        number += 1;
        let most = limits.max_line_bytes.saturating_add(1);
        let read = input.by_ref().take(most).read_until(b'\n', &mut buffer);
        if read.map_err(|error| at_line(number)(unreadable(&error)))? == 0 {
            return Ok(());
        }
        if buffer.len() as u64 == most && !buffer.ends_with(b"\n") {
            return Err(at_line(number)(limits.long_line()));
        }
        let line = buffer.trim_ascii_end();
        if !line.is_empty() {
            self::line(line, builder).map_err(at_line(number))?;
        }
    }
}

fn line(line: &[u8], builder: &mut Builder<'_>) -> Result<(), Refusal> {
    let row: Row<'_> = serde_json::from_slice(line).map_err(|error| undecodable(line, &error))?;
    let target = builder.decoder.target(row.dimension.as_deref())?;
    builder.begin(target);
    for (name, value) in &row.features.0 {
        let cell = match value {
            FeatureValue::Null => None,
            FeatureValue::Number(number) => Some(Cell::Number(*number)),
            FeatureValue::Text(text) => Some(Cell::Text(&text.0)),
        };
        builder.feature(target, &name.0, cell.as_ref())?;
    }
    let keys = &builder.decoder.dimensions[target].keys;
    for (at, (name, _)) in row.key.0.iter().enumerate() {
        let again = row.key.0[..at].iter().any(|(other, _)| other == name);
        if again || !keys.attributes().any(|known| known == name.0) {
            let what = if again { "appears twice" } else { "is not part of the dimension's key" };
            return Err(Refusal::new(Reason::BadKey, format!("`key.{}` {what}", name.0)));
        }
    }
    builder.end(target, row.updated_at, |attribute| {
        let (_, value) = row.key.0.iter().find(|(name, _)| name.0 == attribute)?;
        Some(match value {
            KeyValue::Text(text) => Value::Text(text.0.as_bytes()),
            KeyValue::Number(number) => Value::U64(*number),
        })
    })
}

fn undecodable(line: &[u8], error: &serde_json::Error) -> Refusal {
    // The error's own position is within the line; "line 1" would mislead.
    let text = error.to_string();
    let text = text.split(" at line ").next().unwrap_or_default();
    let column = error.column();
    // Python and others write these for numbers that JSON lacks.
    let tokens: [&[u8]; 3] = [b"NaN", b"Infinity", b"-Infinity"];
    let near = (column.saturating_sub(3)..=column).filter_map(|at| line.get(at..));
    let no_number = near.into_iter().any(|rest| tokens.iter().any(|token| rest.starts_with(token)));
    if no_number || text.contains("number out of range") {
        return Refusal::new(Reason::NotFinite, format!("expected a finite number at column {column}"));
    }
    Refusal::new(Reason::Undecodable, format!("not a row in JSON: {text} at column {column}"))
}

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor;
        impl<'de> Visitor<'de> for TextVisitor {
            type Value = Text<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }
            fn visit_str<E>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(TextVisitor)
    }
}

impl<'de: 'a, 'a, T: Deserialize<'de>> Deserialize<'de> for Pairs<'a, T> {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PairsVisitor<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for PairsVisitor<T> {
            type Value = Pairs<'de, T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Pairs(pairs))
            }
        }
        deserializer.deserialize_map(PairsVisitor(PhantomData))
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for KeyValue<'a> {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct KeyVisitor;
        impl<'de> Visitor<'de> for KeyVisitor {
            type Value = KeyValue<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or an unsigned number")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(KeyValue::Text(Text(Cow::Borrowed(text))))
            }
            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(KeyValue::Text(Text(Cow::Owned(text.to_owned()))))
            }
            fn visit_u64<E>(self, number: u64) -> Result<Self::Value, E> {
                Ok(KeyValue::Number(number))
            }
        }
        deserializer.deserialize_any(KeyVisitor)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for FeatureValue<'a> {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct FeatureVisitor;
        impl<'de> Visitor<'de> for FeatureVisitor {
            type Value = FeatureValue<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number, a string or null")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(FeatureValue::Text(Text(Cow::Borrowed(text))))
            }
            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(FeatureValue::Text(Text(Cow::Owned(text.to_owned()))))
            }
            fn visit_u64<E>(self, number: u64) -> Result<Self::Value, E> {
                Ok(FeatureValue::Number(number as f64))
            }
            fn visit_i64<E>(self, number: i64) -> Result<Self::Value, E> {
                Ok(FeatureValue::Number(number as f64))
            }
            fn visit_f64<E>(self, number: f64) -> Result<Self::Value, E> {
                Ok(FeatureValue::Number(number))
            }
            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(FeatureValue::Null)
            }
        }
        deserializer.deserialize_any(FeatureVisitor)
    }
}
