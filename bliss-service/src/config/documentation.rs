//! `docs/bliss.toml`, generated from the options' doc comments, defaults and examples.
//!
//! An example is the text of a section: what it leaves out has its default. Its options may be switched off by a leading
//! `#`; a section whose example lacks a required option is switched off as a whole. Further sections may follow after an
//! empty line.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Serialize, de::DeserializeOwned};

use super::options::{self, File};
use super::{decisions, drift, policy};

const OPTIONS: &str = include_str!("options.rs");
const WIDTH: usize = 113;

/// A section of the file.
pub(crate) struct Section {
    text: String,
    is_on: bool,
}

impl Section {
    /// The section `header` of the options `T`, the struct `name` in the text of a source file.
    pub(crate) fn new<T: Serialize + DeserializeOwned>(
        header: &str,
        source: &str,
        name: &str,
        example: &str,
    ) -> Self {
        let (first, further) = example.trim().split_once("\n\n").unwrap_or((example.trim(), ""));
        let is_on = toml::from_str::<T>(first).is_ok();
        let options: T =
            toml::from_str(&switched_on(first)).unwrap_or_else(|error| panic!("{header}: {error}"));
        let defaults = toml::Table::try_from(options).unwrap();
        let shown = values(first);
        let mark = if is_on { "" } else { "#" };
        let (doc, fields) = struct_docs(source, name);
        let mut text = format!("{}{mark}{header}\n", prose(&doc));
        for (option, doc) in fields {
            text += &prose(&doc);
            text += &match (shown.get(&option), defaults.get(&option)) {
                (Some(lines), _) => lines.clone(),
                (None, Some(default)) => format!("{mark}{option} = {default}\n"),
                (None, None) => panic!("{header}: {option} has no default; name it in the example"),
            };
        }
        if !further.is_empty() {
            text += &format!("\n{further}\n");
        }
        Self { text, is_on }
    }
}

/// The example with everything in it.
pub(crate) fn switched_on(text: &str) -> String {
    let example = |line: &str| {
        line.strip_prefix('#')
            .filter(|rest| rest.starts_with(|c: char| !c.is_whitespace()))
            .map(str::to_owned)
    };
    text.lines().map(|line| example(line).unwrap_or_else(|| line.to_owned()) + "\n").collect()
}

/// The lines of each option.
fn values(example: &str) -> BTreeMap<String, String> {
    let mut values = BTreeMap::new();
    let mut option = String::new();
    for line in example.lines() {
        let name = line.trim_start_matches('#').split_once(" = ").map_or("", |(name, _)| name);
        if !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_') {
            option = name.to_owned();
        }
        let lines: &mut String = values.entry(option.clone()).or_default();
        *lines += line;
        lines.push('\n');
    }
    values
}

/// A doc comment as a comment of TOML.
fn prose(doc: &str) -> String {
    doc.lines().map(|line| format!("# {line}").trim_end().to_owned() + "\n").collect()
}

/// The doc comment of the struct `name`, and the names and doc comments of its fields.
fn struct_docs(source: &str, name: &str) -> (String, Vec<(String, String)>) {
    let file = syn::parse_file(source).unwrap();
    let found = file.items.iter().find_map(|item| match item {
        syn::Item::Struct(item) if item.ident == name => Some(item),
        _ => None,
    });
    let item = found.unwrap_or_else(|| panic!("no struct {name}"));
    let field = |field: &syn::Field| {
        let mut name = field.ident.as_ref().unwrap().to_string();
        for attribute in field.attrs.iter().filter(|attribute| attribute.path().is_ident("serde")) {
            // Others than `rename` end the parse.
            let _ = attribute.parse_nested_meta(|meta| {
                if meta.path.is_ident("rename") {
                    name = meta.value()?.parse::<syn::LitStr>()?.value();
                }
                Ok(())
            });
        }
        (name, doc_comment(&field.attrs))
    };
    (doc_comment(&item.attrs), item.fields.iter().map(field).collect())
}

fn doc_comment(attributes: &[syn::Attribute]) -> String {
    let line = |attribute: &syn::Attribute| match &attribute.meta {
        syn::Meta::NameValue(syn::MetaNameValue {
            path,
            value: syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(text), .. }),
            ..
        }) if path.is_ident("doc") => Some(text.value().trim_start().to_owned()),
        _ => None,
    };
    attributes.iter().filter_map(line).collect::<Vec<_>>().join("\n")
}

/// The whole file.
fn page() -> String {
    let (doc, fields) = struct_docs(OPTIONS, "File");
    let mut text = prose(&doc);
    for (option, doc) in fields {
        text.push('\n');
        let sections = match option.as_str() {
            "directory" => {
                text += &format!("{}directory = \"{}\"\n", prose(&doc), options::directory().display());
                continue;
            }
            "publish" => vec![Section::new::<options::Publish>(
                "[publish]",
                OPTIONS,
                "Publish",
                options::PUBLISH_EXAMPLE,
            )],
            "checkpoint" => {
                vec![Section::new::<options::Checkpoint>("[checkpoint]", OPTIONS, "Checkpoint", "")]
            }
            "site" => vec![Section::new::<options::Site>("[site]", OPTIONS, "Site", "")],
            "admin" => vec![Section::new::<options::Admin>("[admin]", OPTIONS, "Admin", "")],
            "log" => vec![Section::new::<options::Log>("[log]", OPTIONS, "Log", "")],
            "decisions" => vec![Section::new::<decisions::Decisions>(
                "[decisions]",
                decisions::SOURCE,
                "Decisions",
                decisions::EXAMPLE,
            )],
            "drift" => vec![Section::new::<drift::Drift>("[drift]", drift::SOURCE, "Drift", drift::EXAMPLE)],
            "attribute" => vec![Section::new::<options::Attribute>(
                "[[attribute]]",
                OPTIONS,
                "Attribute",
                options::ATTRIBUTE_EXAMPLE,
            )],
            "dimension" => vec![Section::new::<options::Dimension>(
                "[[dimension]]",
                OPTIONS,
                "Dimension",
                options::DIMENSION_EXAMPLE,
            )],
            "origin" => crate::origin::sections(),
            "crawlers" => vec![Section::new::<crate::origin::CrawlerOptions>(
                "[crawlers]",
                crate::origin::CRAWLERS_SOURCE,
                "Options",
                crate::origin::CRAWLERS_EXAMPLE,
            )],
            "model" => {
                vec![Section::new::<options::Model>("[[model]]", OPTIONS, "Model", options::MODEL_EXAMPLE)]
            }
            "route" => {
                vec![Section::new::<options::Route>("[[route]]", OPTIONS, "Route", options::ROUTE_EXAMPLE)]
            }
            "policy" => vec![
                Section::new::<policy::Policy>(
                    "[[policy]]",
                    policy::SOURCE,
                    "Policy",
                    policy::POLICY_EXAMPLE,
                ),
                Section::new::<policy::Rule>(
                    policy::RULE_HEADER,
                    policy::SOURCE,
                    "Rule",
                    policy::RULE_EXAMPLE,
                ),
            ],
            "policy_gate" => {
                vec![Section::new::<policy::PolicyGate>("[policy_gate]", policy::SOURCE, "PolicyGate", "")]
            }
            "test" => {
                vec![Section::new::<policy::Test>("[[test]]", policy::SOURCE, "Test", policy::TEST_EXAMPLE)]
            }
            other => panic!("{other}: name its section here"),
        };
        if !doc.is_empty() {
            text += &format!("# {}\n{}\n", "-".repeat(WIDTH), prose(&doc));
        }
        let (on, off): (Vec<_>, Vec<_>) = sections.into_iter().partition(|section| section.is_on);
        let texts: Vec<_> = on.into_iter().chain(off).map(|section| section.text).collect();
        text += &texts.join("\n");
    }
    text
}

/// `docs/bliss.toml` is what the options say, and is itself a configuration.
#[test]
fn the_documented_configuration_is_generated() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/bliss.toml");
    let page = page();
    assert!(toml::from_str::<File>(&switched_on(&page)).is_ok());
    if std::env::var_os("BLISS_WRITE_DOCS").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    assert!(
        std::fs::read_to_string(&path).unwrap() == page,
        "docs/bliss.toml is not what the options' doc comments say; write it with \
         `BLISS_WRITE_DOCS=1 cargo test -p bliss-service documented`"
    );
}
