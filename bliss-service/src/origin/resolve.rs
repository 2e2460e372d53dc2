//! From an origin's options to the origin, checked against the schema and the other origins.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bliss_core::schema::{Dimension, Schema};
use toml::Spanned;

use super::{Origin, OriginKind};
use crate::config::source::{ConfigError, Source};
use crate::decode::RowFormat;

/// What origins are resolved with, and those that are resolved already.
pub(crate) struct Resolver<'a> {
    pub(crate) source: Source<'a>,
    schema: Schema,
    /// For each dimension, the origin that fills it.
    filled_by: Vec<Option<String>>,
    origins: Vec<Origin>,
}

impl<'a> Resolver<'a> {
    /// A resolver for origins that fill the dimensions of `schema`.
    pub(crate) fn new(source: Source<'a>, schema: Schema) -> Self {
        let filled_by = vec![None; schema.dimensions.len()];
        Self { source, schema, filled_by, origins: Vec::new() }
    }

    /// The schema, with the dimensions that origins added, and the origins.
    ///
    /// # Errors
    /// A dimension that no origin fills; `offsets` are where the declared ones are.
    pub(crate) fn finish(self, offsets: &[usize]) -> Result<(Schema, Vec<Origin>), ConfigError> {
        let declared = self.schema.dimensions.iter().zip(&self.filled_by).zip(offsets);
        for ((dimension, filled_by), offset) in declared {
            if filled_by.is_none() {
                let message = format!("dimension `{}`: no origin fills it; name it in one", dimension.name);
                return Err(self.source.at_offset(*offset, message));
            }
        }
        Ok((self.schema, self.origins))
    }

    /// The origins that are resolved already.
    pub(super) fn origins(&self) -> &[Origin] {
        &self.origins
    }

    pub(super) fn schema(&self) -> &Schema {
        &self.schema
    }

    /// Adds a dimension that needs no declaration, unless it is declared.
    pub(super) fn declare(&mut self, name: &Spanned<String>, built_in: Dimension) -> Result<(), ConfigError> {
        if self.schema.dimension_index(name.get_ref()).is_none() {
            self.schema.dimensions.push(built_in);
            self.filled_by.push(None);
            self.schema.validate().map_err(|error| self.source.at(name, error.to_string()))?;
        }
        Ok(())
    }

    /// Adds an origin: checks its name and claims its dimensions.
    pub(super) fn add(
        &mut self,
        name: &Spanned<String>,
        dimensions: &[Spanned<String>],
        kind: impl Into<OriginKind>,
    ) -> Result<&Origin, ConfigError> {
        let text = name.get_ref();
        self.source.check_name("origin", name)?;
        if self.origins.iter().any(|other| other.name == *text) {
            return Err(self.source.at(name, format!("origin `{text}` appears twice; rename one")));
        }
        if dimensions.is_empty() {
            return Err(self.error(name, "`dimensions` is empty; name at least one"));
        }
        let mut indices = Vec::new();
        for dimension in dimensions {
            let Some(index) = self.schema.dimension_index(dimension.get_ref()) else {
                let known: Vec<_> = self.schema.dimensions.iter().map(|known| known.name.as_str()).collect();
                let message = format!(
                    "origin `{text}`: no [[dimension]] is named `{}`; there are: {}",
                    dimension.get_ref(),
                    known.join(", ")
                );
                return Err(self.source.at(dimension, message));
            };
            if let Some(other) = &self.filled_by[index] {
                let message = format!(
                    "origin `{text}`: origin `{other}` already fills dimension `{}`; a dimension has one origin",
                    dimension.get_ref()
                );
                return Err(self.source.at(dimension, message));
            }
            self.filled_by[index] = Some(text.clone());
            indices.push(index);
        }
        self.origins.push(Origin { name: text.clone(), dimensions: indices, kind: kind.into() });
        Ok(&self.origins[self.origins.len() - 1])
    }

    /// An error of the origin `name`, on the line of its name.
    pub(super) fn error(&self, name: &Spanned<String>, message: impl std::fmt::Display) -> ConfigError {
        self.source.at(name, format!("origin `{}`: {message}", name.get_ref()))
    }

    /// Checks durations, each with the name of its option.
    pub(super) fn check_durations(
        &self,
        name: &Spanned<String>,
        durations: &[(&str, Duration)],
    ) -> Result<(), ConfigError> {
        let wrong = |wait: Duration| wait.is_zero() || wait > Duration::from_secs(7 * 86400);
        match durations.iter().find(|(_, duration)| wrong(*duration)) {
            None => Ok(()),
            Some((option, _)) => {
                Err(self.error(name, format!("{option}: expected more than 0 and at most 7days")))
            }
        }
    }

    /// Checks a share, from 0 to 1.
    pub(super) fn check_share(
        &self,
        name: &Spanned<String>,
        option: &str,
        share: f64,
    ) -> Result<(), ConfigError> {
        if (0.0..=1.0).contains(&share) {
            return Ok(());
        }
        Err(self.error(name, format!("{option}: expected a share from 0 to 1, found {share}")))
    }

    /// The format of rows: the given one, or the one that `path` ends in.
    pub(super) fn format(
        &self,
        name: &Spanned<String>,
        given: Option<RowFormat>,
        path: &str,
    ) -> Result<RowFormat, ConfigError> {
        let by_extension = || match Path::new(path).extension()?.to_str()? {
            "jsonl" | "ndjson" => Some(RowFormat::Jsonl),
            "csv" => Some(RowFormat::Csv),
            _ => None,
        };
        given.or_else(by_extension).ok_or_else(|| {
            let message = format!(
                "`{path}` does not end in .jsonl, .ndjson or .csv; set format = \"jsonl\" or \"csv\""
            );
            self.error(name, message)
        })
    }

    /// `path`, from the configuration's folder.
    pub(super) fn file(&self, path: PathBuf) -> PathBuf {
        self.source.file(path)
    }
}
