//! What a replay changes: user agents and referrers, so that what robots did can be seen under the agent of a browser.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::Path;

use anyhow::Context as _;

use crate::access_log::parse::Record;
use crate::export::text::unescape;

/// For some lines of a log another user agent and referrer, or that they are left out.
#[derive(Debug, Default)]
pub struct Rewrite(HashMap<u64, Option<Changed>>);

#[derive(Debug)]
struct Changed {
    user_agent: Vec<u8>,
    referrer: Option<Vec<u8>>,
}

impl Rewrite {
    /// Reads a CSV file with the columns `line` and `user_agent`, and perhaps `referrer`, escaped as in training rows. A line whose
    /// user agent is empty is left out; one whose referrer is empty keeps its own.
    ///
    /// # Errors
    /// The file cannot be read, or a row of it.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        #[derive(serde::Deserialize)]
        struct Row {
            line: u64,
            user_agent: String,
            #[serde(default)]
            referrer: String,
        }
        let mut rewrites = HashMap::new();
        let mut file = csv::Reader::from_path(path).with_context(|| path.display().to_string())?;
        for row in file.deserialize() {
            let expected = || format!("{}: expected the columns line and user_agent", path.display());
            let row: Row = row.with_context(expected)?;
            let changed = Changed {
                user_agent: unescape(&row.user_agent),
                referrer: Some(unescape(&row.referrer)).filter(|referrer| !referrer.is_empty()),
            };
            rewrites.insert(row.line, Some(changed).filter(|changed| !changed.user_agent.is_empty()));
        }
        Ok(Self(rewrites))
    }

    /// Changes a record; false if it is left out.
    pub(super) fn apply<'r>(&'r self, line: u64, record: &mut Record<'r>) -> bool {
        match self.0.get(&line) {
            None => true,
            Some(None) => false,
            Some(Some(changed)) => {
                record.user_agent = Some(Cow::Borrowed(&changed.user_agent));
                record.told.user_agent = true;
                if let Some(referrer) = &changed.referrer {
                    record.referrer = Some(Cow::Borrowed(referrer));
                    record.told.referrer = true;
                }
                true
            }
        }
    }
}
