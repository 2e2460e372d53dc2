//! The text of a configuration file, and errors that say where in it something is wrong.

use std::fmt;
use std::path::{Path, PathBuf};

use toml::Spanned;

/// What is wrong with a configuration, and where.
#[derive(Debug)]
pub struct ConfigError {
    pub(crate) path: PathBuf,
    pub(crate) line: Option<usize>,
    pub(crate) message: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path.display())?;
        if let Some(line) = self.line {
            write!(f, ", line {line}")?;
        }
        write!(f, ": {}", self.message)
    }
}

impl std::error::Error for ConfigError {}

/// The file's name and text, for errors.
#[derive(Clone, Copy)]
pub(crate) struct Source<'a> {
    pub(crate) path: &'a Path,
    pub(crate) text: &'a str,
}

impl Source<'_> {
    /// An error of the TOML parser, with the option that it is about.
    pub(crate) fn toml(&self, error: &toml::de::Error) -> ConfigError {
        let start = error.span().map(|span| span.start);
        let mut message = error.message().to_owned();
        if let Some(option) = start.and_then(|start| self.option_before(start)) {
            message = format!("{option}: {message}");
        }
        ConfigError { path: self.path.to_owned(), line: start.map(|start| self.line(start)), message }
    }

    /// The option whose value begins at `offset`.
    fn option_before(&self, offset: usize) -> Option<&str> {
        let before = self.text.get(..offset)?.trim_end().strip_suffix('=')?.trim_end();
        let name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        let start = before.trim_end_matches(name).len();
        before.get(start..).filter(|option| !option.is_empty())
    }

    pub(crate) fn line(&self, offset: usize) -> usize {
        1 + self.text.as_bytes().iter().take(offset).filter(|byte| **byte == b'\n').count()
    }

    /// An error on the line of `value`.
    pub(crate) fn at<T>(&self, value: &Spanned<T>, message: impl Into<String>) -> ConfigError {
        self.at_offset(value.span().start, message)
    }

    pub(crate) fn at_offset(&self, offset: usize, message: impl Into<String>) -> ConfigError {
        ConfigError { path: self.path.to_owned(), line: Some(self.line(offset)), message: message.into() }
    }

    /// An error of the file as a whole.
    pub(crate) fn whole(&self, message: impl Into<String>) -> ConfigError {
        ConfigError { path: self.path.to_owned(), line: None, message: message.into() }
    }

    /// `path`, from the configuration's folder.
    pub(crate) fn file(&self, path: PathBuf) -> PathBuf {
        self.path.parent().unwrap_or(Path::new("")).join(path)
    }

    /// Checks a name of the file's author's choice.
    pub(crate) fn check_name(&self, what: &str, name: &Spanned<String>) -> Result<(), ConfigError> {
        let text = name.get_ref();
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
        if (1..=64).contains(&text.len()) && text.bytes().all(fits) {
            return Ok(());
        }
        Err(self.at(
            name,
            format!("{what} {text:?}: expected a name of 1 to 64 ASCII letters, digits, `_`, `-` or `.`"),
        ))
    }
}
