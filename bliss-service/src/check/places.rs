//! Where in a configuration's text an option is.

use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::config::source::{ConfigError, Source};

/// The text of a configuration, and its options.
pub(super) struct Places<'a> {
    source: Source<'a>,
    /// Without it, findings are about the whole file.
    options: Option<Spanned<DeTable<'a>>>,
}

impl<'a> Places<'a> {
    pub(super) fn new(path: &'a Path, text: &'a str) -> Self {
        Self { source: Source { path, text }, options: DeTable::parse(text).ok() }
    }

    /// A message about what is at `offset`, or about the whole file.
    pub(super) fn error(&self, offset: Option<usize>, message: impl Into<String>) -> ConfigError {
        match offset {
            Some(offset) => self.source.at_offset(offset, message),
            None => self.source.whole(message),
        }
    }

    /// Where the value of an option is that is written only once, such as `publish.group`.
    pub(super) fn option(&self, path: &[&str]) -> Option<usize> {
        let (last, tables) = path.split_last()?;
        Some(find(self.table(tables)?, last)?.span().start)
    }

    /// Where the value of `option` is in the entry `name` of a list such as `[[origin.file]]`.
    pub(super) fn entry(&self, list: &[&str], name: &str, option: &str) -> Option<usize> {
        let (last, tables) = list.split_last()?;
        let entries = find(self.table(tables)?, last)?.get_ref().as_array()?;
        let mut entries = entries.iter().filter_map(|entry| entry.get_ref().as_table());
        let named = |entry: &&DeTable<'_>| {
            find(entry, "name").and_then(|found| found.get_ref().as_str()) == Some(name)
        };
        Some(find(entries.find(named)?, option)?.span().start)
    }

    fn table(&self, path: &[&str]) -> Option<&DeTable<'a>> {
        let mut table = self.options.as_ref()?.get_ref();
        for key in path {
            table = find(table, key)?.get_ref().as_table()?;
        }
        Some(table)
    }
}

fn find<'t, 'a>(table: &'t DeTable<'a>, key: &str) -> Option<&'t Spanned<DeValue<'a>>> {
    table.iter().find(|(found, _)| found.get_ref() == key).map(|(_, value)| value)
}
