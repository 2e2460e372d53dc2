//! Which files are logs: paths and globs, and the names that rotation gives to their predecessors.

use std::cmp::Reverse;
use std::io;
use std::path::{Path, PathBuf};

use glob::{MatchOptions, Pattern};

/// As a shell matches names.
const MATCHING: MatchOptions =
    MatchOptions { case_sensitive: true, require_literal_separator: true, require_literal_leading_dot: true };
/// Files that no web server writes to.
const COMPRESSED: [&str; 5] = ["gz", "bz2", "xz", "zst", "zip"];

/// One entry of [`LogPaths`].
#[derive(Clone, Debug)]
enum LogPath {
    /// A file that must exist.
    File(PathBuf),
    /// Any number of files, at least one.
    Glob(Pattern),
}

/// The files of an access log: one, or all that some patterns match.
#[derive(Clone, Debug)]
pub struct LogPaths(Vec<LogPath>);

/// What [`LogPaths`] are at some moment.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// The logs, and whether each must exist.
    pub(super) logs: Vec<(PathBuf, bool)>,
    /// Folders that cannot be read.
    pub(super) errors: Vec<(PathBuf, io::Error)>,
    /// Patterns that match nothing.
    pub(super) unmatched: Vec<String>,
}

impl LogPaths {
    /// One file, whatever characters its name has.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self(vec![LogPath::File(path.into())])
    }

    /// Files and globs (`*`, `?`, `[…]`, `**`) in `folder`, unless they begin with `/`.
    ///
    /// # Errors
    /// A pattern that is none, with the reason.
    pub fn globs(folder: &Path, patterns: &[String]) -> Result<Self, String> {
        let path = |pattern: &String| {
            if !pattern.contains(['*', '?', '[']) {
                return Ok(LogPath::File(folder.join(pattern)));
            }
            let folder = match folder.to_str() {
                _ if pattern.starts_with('/') => String::new(),
                Some("") => String::new(),
                Some(folder) => format!("{}/", Pattern::escape(folder.trim_end_matches('/'))),
                None => return Err(format!("{pattern:?}: the configuration's folder is not valid UTF-8")),
            };
            let parsed = Pattern::new(&format!("{folder}{pattern}"));
            parsed.map(LogPath::Glob).map_err(|error| format!("{pattern:?}: {error}"))
        };
        patterns.iter().map(path).collect::<Result<_, _>>().map(Self)
    }

    /// The first file, if it is the only one.
    pub fn only(&self) -> Option<&Path> {
        match self.0.as_slice() {
            [LogPath::File(path)] => Some(path),
            _ => None,
        }
    }

    /// The logs that there are now, or should be, and what keeps others from being found, in words.
    pub fn look(&self) -> (Vec<PathBuf>, Vec<String>) {
        let found = self.find(&|_| false, false);
        let errors = found.errors.into_iter().map(|(path, error)| format!("{}: {error}", path.display()));
        let unmatched =
            found.unmatched.into_iter().map(|pattern| format!("{pattern}: no file is named like this"));
        (found.logs.into_iter().map(|(path, _)| path).collect(), errors.chain(unmatched).collect())
    }

    pub(super) fn has_globs(&self) -> bool {
        self.0.iter().any(|path| matches!(path, LogPath::Glob(_)))
    }

    /// Looks for logs, of which some may be `known` from before; `with_rotated`: also for such of which only predecessors
    /// exist, as between the two steps of a rotation.
    pub(super) fn find(&self, known: &dyn Fn(&Path) -> bool, with_rotated: bool) -> Found {
        let mut found = Found::default();
        for path in &self.0 {
            match path {
                LogPath::File(path) => found.add(path.clone(), true),
                LogPath::Glob(pattern) => self.expand(pattern, known, with_rotated, &mut found),
            }
        }
        found
    }

    fn expand(
        &self,
        pattern: &Pattern,
        known: &dyn Fn(&Path) -> bool,
        with_rotated: bool,
        found: &mut Found,
    ) {
        let mut is_matched = false;
        for path in matches(pattern.as_str()) {
            match path {
                Ok(path) if self.is_rotated(&path, known) || path.is_dir() => {}
                Ok(path) => {
                    is_matched = true;
                    found.add(path, false);
                }
                Err(error) => {
                    is_matched = true;
                    found.errors.push((error.path().to_owned(), error.into()));
                }
            }
        }
        if !is_matched {
            found.unmatched.push(pattern.as_str().to_owned());
        }
        if with_rotated {
            for path in matches(&format!("{pattern}[.-]*")).flatten() {
                let bases = bases(&path).into_iter().filter(|base| pattern.matches_path_with(base, MATCHING));
                bases.for_each(|base| found.add(base, false));
            }
        }
    }

    /// Whether it is a predecessor of a log, or compressed: such a file is read as the past of its log or not at all.
    fn is_rotated(&self, path: &Path, known: &dyn Fn(&Path) -> bool) -> bool {
        let extension = path.extension().and_then(|extension| extension.to_str());
        let is_log = |base: &PathBuf| {
            self.0.iter().any(|path| match path {
                LogPath::File(path) => path == base,
                LogPath::Glob(pattern) => pattern.matches_path_with(base, MATCHING) && is_there(base, known),
            })
        };
        extension.is_some_and(|extension| COMPRESSED.contains(&extension)) || bases(path).iter().any(is_log)
    }
}

/// Whether a log has this name, although it may be gone for a moment. An address is a good name too, and `192.0.2` no log
/// that was rotated to `192.0.2.1`.
fn is_there(path: &Path, known: &dyn Fn(&Path) -> bool) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str());
    extension.is_some_and(|extension| extension.starts_with(|c: char| c.is_ascii_alphabetic()))
        || known(path)
        || path.exists()
}

impl Found {
    fn add(&mut self, path: PathBuf, is_named: bool) {
        match self.logs.iter_mut().find(|(known, _)| *known == path) {
            Some((_, known)) => *known |= is_named,
            None => self.logs.push((path, is_named)),
        }
    }
}

fn matches(pattern: &str) -> impl Iterator<Item = glob::GlobResult> {
    // It was parsed before.
    glob::glob_with(pattern, MATCHING).into_iter().flatten()
}

/// What rotation appended to a name: `.1`, `-20261126`, `.2026-11-26`, each perhaps with `.gz`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Suffix {
    number: u64,
    is_date: bool,
    is_gzip: bool,
}

impl Suffix {
    fn parse(text: &str) -> Option<Self> {
        let (text, is_gzip) = text.strip_suffix(".gz").map_or((text, false), |text| (text, true));
        let (separator, token) = text.split_at_checked(1)?;
        let digits: String = token.chars().filter(char::is_ascii_digit).collect();
        let is_token = |c: char| c.is_ascii_digit() || matches!(c, '-' | '_' | 'T');
        let fits = matches!(separator, "." | "-")
            && token.starts_with(|c: char| c.is_ascii_digit())
            && token.ends_with(|c: char| c.is_ascii_digit())
            && token.chars().all(is_token);
        let is_date = digits.len() >= 6;
        (fits && (is_date || separator == ".")).then_some(Self {
            number: digits.parse().ok()?,
            is_date,
            is_gzip,
        })
    }

    /// The newest first: numbers rise with age, dates fall.
    fn age(self) -> (bool, u64, Reverse<u64>) {
        if self.is_date { (true, 0, Reverse(self.number)) } else { (false, self.number, Reverse(0)) }
    }
}

/// Paths of which this one may be a predecessor by its name.
fn bases(path: &Path) -> Vec<PathBuf> {
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else { return Vec::new() };
    let splits = name.char_indices().filter(|(at, c)| *at > 0 && matches!(c, '.' | '-'));
    let bases = splits.filter_map(|(at, _)| {
        let (base, suffix) = name.split_at_checked(at)?;
        Suffix::parse(suffix).map(|_| path.with_file_name(base))
    });
    bases.collect()
}

/// A rotated file.
#[derive(Debug)]
pub(super) struct Predecessor {
    pub(super) path: PathBuf,
    pub(super) is_gzip: bool,
}

/// The rotated files of `log`, the newest first; of one that is just being compressed only the whole.
pub(super) fn predecessors(log: &Path) -> io::Result<Vec<Predecessor>> {
    let Some(base) = log.file_name().and_then(|name| name.to_str()) else { return Ok(Vec::new()) };
    let folder = match log.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let name = entry?.file_name();
        let suffix = name.to_str().and_then(|name| name.strip_prefix(base)).and_then(Suffix::parse);
        if let Some(suffix) = suffix {
            found.push((suffix, log.with_file_name(&name)));
        }
    }
    found.sort_by_key(|(suffix, _)| (suffix.age(), suffix.is_gzip));
    found.dedup_by_key(|(suffix, _)| suffix.age());
    Ok(found.into_iter().map(|(suffix, path)| Predecessor { path, is_gzip: suffix.is_gzip }).collect())
}

#[cfg(test)]
mod tests;
