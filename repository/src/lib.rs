//! What the tests of the repository itself share: its tracked files, and the promises of `docs/design.md`.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The repository's root folder.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Text files under version control (and new ones that are not ignored), by path from the root, with their contents.
///
/// In a source archive without `.git` it walks the folders instead.
///
/// # Panics
/// If a folder cannot be read.
pub fn files() -> Vec<(String, String)> {
    let root = root();
    let listed = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(&root)
        .output();
    let paths: Vec<String> = match listed {
        Ok(output) if output.status.success() && !output.stdout.is_empty() => {
            String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
        }
        _ => walk(&root),
    };
    let read = |path: String| Some((path.clone(), std::fs::read_to_string(root.join(&path)).ok()?));
    paths.into_iter().filter_map(read).collect()
}

fn walk(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(root.join(&folder)).unwrap() {
            let entry = entry.unwrap();
            let path = folder.join(entry.file_name());
            let name = entry.file_name();
            if entry.file_type().unwrap().is_file() {
                found.extend(path.to_str().map(str::to_owned));
            } else if entry.file_type().unwrap().is_dir() && name != "target" && name != ".git" {
                folders.push(path);
            }
        }
    }
    found
}

/// One line of a table of promises.
#[derive(Clone, Debug)]
pub struct Promise {
    /// Its number: `M2`.
    pub number: String,
    /// Files that keep it.
    pub kept_in: Vec<String>,
    /// Tests that show it.
    pub tests: Vec<String>,
    /// Whether it is marked as not kept yet.
    pub not_yet: bool,
}

/// The promises of a document: its table lines whose first column is a letter and a number.
///
/// # Panics
/// If such a line has not four columns, or its number is there twice.
pub fn promises(text: &str) -> Vec<Promise> {
    let mut found: Vec<Promise> = Vec::new();
    for line in text.lines() {
        let Some(columns) = line.strip_prefix("| ").and_then(|line| line.strip_suffix(" |")) else {
            continue;
        };
        let columns: Vec<_> = columns.split('|').map(str::trim).collect();
        let Some(number) = columns.first().filter(|text| is_number(text)) else { continue };
        assert_eq!(columns.len(), 4, "a promise has four columns: {line}");
        assert!(found.iter().all(|other| other.number != *number), "{number} is there twice");
        found.push(Promise {
            number: (*number).to_owned(),
            kept_in: quoted(columns[2]),
            tests: quoted(columns[3]),
            not_yet: columns[3] == "not yet",
        });
    }
    found
}

fn is_number(text: &str) -> bool {
    let digits = text.strip_prefix(|c: char| c.is_ascii_uppercase()).unwrap_or_default();
    !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())
}

fn quoted(text: &str) -> Vec<String> {
    text.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// The names of functions that a source file defines: after `fn`, in Lua and shell after `function`, in C after a type.
pub fn functions<'a>(path: &str, text: &'a str) -> Vec<&'a str> {
    let keywords: &[&str] = match path.rsplit('.').next() {
        Some("rs") => &["fn "],
        Some("lua" | "sh") => &["function "],
        Some("c" | "h" | "cpp") => &["void ", "int ", "bool "],
        _ => return Vec::new(),
    };
    let mut found = Vec::new();
    for keyword in keywords {
        for (at, _) in text.match_indices(keyword) {
            let before = text[..at].chars().next_back();
            let name = &text[at + keyword.len()..];
            let end = name.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(name.len());
            if before.is_none_or(|c| c.is_whitespace() || c == '(') && end > 0 {
                found.push(&name[..end]);
            }
        }
    }
    found
}

/// The promise that a test's name starts with: `M2` of `m2_guard_never_changes`.
pub fn promise_of(name: &str) -> Option<String> {
    let (prefix, rest) = name.split_once('_')?;
    let number = prefix.to_ascii_uppercase();
    (is_number(&number) && prefix != number && !rest.is_empty()).then_some(number)
}

/// Targets of a Markdown file's links, without those in code.
pub fn links(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut code = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            code = !code;
        }
        if code {
            continue;
        }
        // Every second part of a line lies between backticks; a link's text may, its target does not.
        for (at, _) in line.match_indices("](") {
            let target = &line[at + 2..];
            let in_code = line[..at].matches('`').count() % 2 == 1;
            if let (Some(end), false) = (target.find(')'), in_code) {
                found.push(&target[..end]);
            }
        }
    }
    found
}

/// The anchors of a Markdown file's headings, as GitHub makes them.
pub fn anchors(text: &str) -> Vec<String> {
    let mut code = false;
    let mut found = Vec::new();
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            code = !code;
        }
        if !code && line.starts_with('#') {
            let title = line.trim_start_matches('#').trim().to_lowercase();
            let kept = title.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
            found.push(kept.map(|c| if c == ' ' { '-' } else { c }).collect());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_promises_are_read() {
        let text =
            "| # | promise |\n| Z1 | is kept | `a.rs`, `b.rs` | `z1_x` |\n| Z2 | is not | | not yet |\n";
        let found = promises(text);
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].number.as_str(), found[0].kept_in.len()), ("Z1", 2));
        assert_eq!((found[0].tests.as_slice(), found[0].not_yet), (["z1_x".to_owned()].as_slice(), false));
        assert_eq!((found[1].kept_in.len(), found[1].not_yet), (0, true));
    }

    #[test]
    fn names_of_functions_and_their_promises_are_found() {
        let text = "fn z1_one() {}\n    async fn two(z: fn (u8)) {}\n// often z3_three()\n";
        assert_eq!(functions("a.rs", text), ["z1_one", "two"]);
        assert_eq!(functions("a.c", "static void z1_c(void)\n"), ["z1_c"]);
        assert_eq!(promise_of("z12_one").as_deref(), Some("Z12"));
        for other in ["z_one", "u32", "crc32_of", "Z1_x", "z1_", "zz1_x"] {
            assert_eq!(promise_of(other), None, "{other}");
        }
    }

    #[test]
    fn links_and_anchors_are_found() {
        let text = "# A `b`: c\nsee [x](y.md#z) and `[no](code)`\n```\n[no](block)\n# no\n```\n";
        assert_eq!(links(text), ["y.md#z"]);
        assert_eq!(anchors(text), ["a-b-c"]);
    }
}
