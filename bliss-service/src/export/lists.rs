//! Lists of networks that are named on a command line.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::Context as _;

use crate::config::Config;

/// `NAME=FILE`: a list of networks, as the feature NAME of the dimension `lists`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListFile {
    feature: String,
    path: PathBuf,
}

impl FromStr for ListFile {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((feature, path)) if !feature.is_empty() && !path.is_empty() => {
                Ok(Self { feature: feature.to_owned(), path: path.into() })
            }
            _ => Err(format!("expected NAME=FILE, such as hosting=location.db, found {text:?}")),
        }
    }
}

/// The configuration of a daemon whose only origin is these lists: what is read here and there is the same.
///
/// # Errors
/// A name is no feature's, or is there twice.
pub(super) fn config_of(lists: &[ListFile]) -> anyhow::Result<Config> {
    let text = |text: &str| toml::Value::String(text.to_owned());
    let source = |list: &ListFile| {
        let path = list.path.to_str().context("expected a path in UTF-8")?;
        let pairs = [("feature".to_owned(), text(&list.feature)), ("path".to_owned(), text(path))];
        anyhow::Ok(toml::Value::Table(pairs.into_iter().collect()))
    };
    let sources = lists.iter().map(source).collect::<anyhow::Result<Vec<_>>>()?;
    let sources = toml::Value::Array(sources);
    let written = format!("[[origin.list]]\nname = \"lists\"\nsource = {sources}\n");
    Config::parse(Path::new("--list"), &written).map_err(|error| anyhow::anyhow!("--list: {}", error.message))
}
