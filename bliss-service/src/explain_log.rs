//! `blissctl explain`: why a request of a log would have got its score.
//!
//! The SHAP value of an input is its part of the answer: what the answer changes by, on average over all orders in which inputs become
//! known. They and the expected value add up to the model's answer.

use std::path::PathBuf;

use anyhow::Context as _;
use bliss_catboost::{ExplainOptions, ExplainScratch, Explainer, InputKind, ModelRef, compile_explainable};
use bliss_core::http::RequestValue;
use bliss_core::request::INPUT_PREFIX;
use bliss_core::score::bot_score;
use bliss_store::Client;

use crate::access_log::parse::Record;
use crate::access_log::replay::{Replay, ReplayOptions};
use crate::export::walk::{Plan, Seen, walk};
use crate::model_files::{Prepared, prepare};
use crate::model_tool::BotArgs;
use crate::{DEFAULT_MODEL, output};

/// Requests with a score from here on show what is typical of people.
const PEOPLE_FROM: u8 = 70;
/// So many of them are looked at.
const SAMPLE: usize = 4096;
/// Inputs that are shown.
const SHOWN: usize = 12;

/// Options of `blissctl explain`.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// The access log: combined format, or nginx's JSON, plain or gzipped; several files are read as one, the oldest first.
    #[arg(long, value_name = "FILE", required = true, num_args = 1..)]
    pub log: Vec<PathBuf>,
    /// The number of the request's line, as `blissctl score` writes it.
    #[arg(long, value_name = "NUMBER", required_unless_present = "ip")]
    pub line: Option<u64>,
    /// In place of a line: the latest request of this address.
    #[arg(long, value_name = "ADDRESS", conflicts_with = "line")]
    pub ip: Option<std::net::IpAddr>,
    /// With this user agent.
    #[arg(long, value_name = "TEXT", requires = "ip")]
    pub user_agent: Option<String>,
    /// The model, as CatBoost saves it; by default the one that comes with BLISS.
    #[arg(long, value_name = "FILE")]
    pub model: Option<PathBuf>,
    /// Take dimensions and options from the access log origin of this configuration; by default the built-in dimensions.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// How the model's answers are read.
    #[command(flatten)]
    pub bot: BotArgs,
}

impl Options {
    fn is_meant(&self, line: u64, record: &Record<'_>) -> bool {
        if let Some(wanted) = self.line {
            return line == wanted;
        }
        self.ip == Some(record.ip)
            && self
                .user_agent
                .as_ref()
                .is_none_or(|agent| record.user_agent.as_deref() == Some(agent.as_bytes()))
    }
}

/// What is to be explained.
struct Found {
    line: u64,
    what: String,
    inputs: Vec<f32>,
}

/// Explains a request.
///
/// # Errors
/// The log or the model cannot be read, the model has no leaf weights or takes categories, or there is no such request.
pub fn run(options: &Options) -> anyhow::Result<()> {
    let (bytes, name) = match &options.model {
        Some(path) => {
            let read = std::fs::read(path).with_context(|| format!("--model {}", path.display()))?;
            (read, path.display().to_string())
        }
        None => (DEFAULT_MODEL.to_vec(), "default, built in".to_owned()),
    };
    let in_model = || format!("model {name}");
    let prepared = prepare(&bytes, &(&options.bot).into()).with_context(in_model)?;
    let compiled = compile_explainable(&prepared.model).with_context(in_model)?;
    let model = ModelRef::open(&compiled).with_context(in_model)?;
    anyhow::ensure!(
        model.output_dimensions() == 1 && model.inputs().all(|input| input.kind == InputKind::Float),
        "model {name}: only models with two classes that take numbers alone can be explained from a log so far"
    );
    let mut judge = Judge::new(model, &prepared)?;

    let plan = Plan::new(options.config.as_deref())?;
    let names = options.log.iter().map(|log| log.display().to_string()).collect::<Vec<_>>().join(" ");
    let replay_options =
        ReplayOptions { lateness_ms: plan.aggregate.lateness_ms, ..ReplayOptions::default() };
    let replay = Replay::open_all(&options.log, plan.parser.clone(), replay_options)
        .with_context(|| format!("--log {names}"))?;
    let mut found = None;
    walk(&plan, &replay, None, |client, seen| {
        let inputs = judge.inputs(client, seen)?;
        if options.is_meant(seen.line, seen.record) {
            found = Some(Found { line: seen.line, what: what(seen.record), inputs: inputs.clone() });
        }
        judge.sample(inputs)
    })?;
    let found = found.with_context(|| match (options.line, options.ip) {
        (Some(line), _) => format!("--line {line}: no request of {names} has this number"),
        (None, Some(ip)) => format!("--ip {ip}: no request of {names} is from this client"),
        (None, None) => "no request is named".to_owned(),
    })?;
    output::print(format_args!("{}", judge.explain(&found, &name)?))
}

fn what(record: &Record<'_>) -> String {
    let text = |bytes: &[u8]| -> String {
        let text = String::from_utf8_lossy(bytes.get(..200).unwrap_or(bytes)).into_owned();
        text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
    };
    let agent = record.user_agent.as_deref().map_or("(no user agent)".to_owned(), text);
    format!("{}  {} {}\n  {agent}", record.ip, text(&record.method), text(&record.path))
}

/// A model, and what is typical of those whom it takes for people.
struct Judge<'m> {
    explainer: Explainer<'m>,
    bot_is_one: bool,
    scratch: bliss_catboost::Scratch,
    names: Vec<String>,
    binding: Vec<u32>,
    /// Where each input is: a value of the request itself, or a feature by its place; filled at the first request.
    sources: Vec<Source>,
    people: Vec<Vec<f32>>,
    seen_people: usize,
}

#[derive(Clone, Copy)]
enum Source {
    Request(usize),
    Feature(usize),
}

impl<'m> Judge<'m> {
    fn new(model: ModelRef<'m>, prepared: &Prepared) -> anyhow::Result<Self> {
        let names: Vec<_> = model.inputs().map(|input| input.name.to_owned()).collect();
        Ok(Self {
            explainer: Explainer::new(model, ExplainOptions::default())?,
            bot_is_one: prepared.bot_class == 1,
            scratch: bliss_catboost::Scratch::for_model(&model),
            binding: (0..u32::try_from(names.len())?).collect(),
            names,
            sources: Vec::new(),
            people: Vec::new(),
            seen_people: 0,
        })
    }

    /// The model's inputs for a request.
    fn inputs(&mut self, client: &mut Client, seen: &Seen<'_>) -> anyhow::Result<Vec<f32>> {
        let line = seen.line;
        let values = client
            .look_up(&seen.request, seen.now)
            .map_err(|reason| anyhow::anyhow!("line {line} cannot be looked up: {reason}"))?
            .0
            .to_vec();
        if self.sources.is_empty() {
            let dimensions = client.scorer().dimensions();
            for name in &self.names {
                let source = match name.strip_prefix(INPUT_PREFIX) {
                    Some(own) => RequestValue::of(own).map(|value| Source::Request(value.index())),
                    None => (0..values.len()).map(Source::Feature).find(|source| {
                        matches!(source, Source::Feature(at) if dimensions.feature_name(*at)
                            .is_some_and(|(dimension, feature)| name.split_once('.') == Some((dimension, feature))))
                    }),
                };
                self.sources.push(source.with_context(|| {
                    format!("the model's input {name} is no feature of the dimensions; name the configuration with --config")
                })?);
            }
        }
        let input = |source: &Source| match source {
            Source::Request(at) => seen.values.get(*at).copied(),
            Source::Feature(at) => values.get(*at).copied(),
        };
        Ok(self.sources.iter().map(|source| input(source).unwrap_or(f32::NAN)).collect())
    }

    /// The score of a raw answer: the log odds of class 1.
    fn score(&self, raw: f64) -> u8 {
        let one = 1.0 / (1.0 + (-raw).exp());
        bot_score(if self.bot_is_one { one } else { 1.0 - one }).unwrap_or(0)
    }

    /// What a part of the raw answer makes of the score: all parts together are the way from what is expected to the score.
    fn points(&self, raw: f64, expected: f64, part: f64) -> f64 {
        let way = f64::from(self.score(raw)) - f64::from(self.score(expected));
        let all = raw - expected;
        if all.abs() > 0.25 {
            return way * part / all;
        }
        // Parts that cancel each other out: by how much the score changes there.
        let one = 1.0 / (1.0 + (-raw).exp());
        let slope = 98.0 * one * (1.0 - one);
        if self.bot_is_one { -slope * part } else { slope * part }
    }

    fn raw(&mut self, inputs: &[f32]) -> anyhow::Result<f64> {
        let mut raw = [0.0];
        self.explainer.model().raw(inputs, &self.binding, &mut self.scratch, &mut raw)?;
        Ok(raw[0])
    }

    /// Keeps it if it is one of a person, as the model has it.
    fn sample(&mut self, inputs: Vec<f32>) -> anyhow::Result<()> {
        let raw = self.raw(&inputs)?;
        if self.score(raw) >= PEOPLE_FROM {
            self.seen_people += 1;
            if self.people.len() < SAMPLE {
                self.people.push(inputs);
            } else if let Some(slot) = self.people.get_mut(self.seen_people % SAMPLE) {
                *slot = inputs;
            }
        }
        Ok(())
    }

    fn typical(&self, input: usize) -> Option<f32> {
        let mut values: Vec<f32> = self.people.iter().filter_map(|row| row.get(input).copied()).collect();
        values.retain(|value| !value.is_nan());
        values.sort_by(f32::total_cmp);
        values.get(values.len() / 2).copied()
    }

    fn explain(&mut self, found: &Found, name: &str) -> anyhow::Result<String> {
        use std::fmt::Write as _;
        let raw = self.raw(&found.inputs)?;
        let mut scratch = ExplainScratch::for_explainer(&self.explainer);
        let mut shap = vec![0.0; self.explainer.outputs()];
        self.explainer.explain(&found.inputs, &self.binding, &mut scratch, &mut shap)?;
        let expected = shap.pop().unwrap_or_default();
        let mut order: Vec<usize> = (0..shap.len()).collect();
        order.sort_by(|a, b| shap[*b].abs().total_cmp(&shap[*a].abs()));

        let score = self.score(raw);
        let mut text = String::new();
        writeln!(text, "line {}: {}", found.line, found.what)?;
        writeln!(
            text,
            "\nscore {score} by model {name} (1 is certainly automated, 99 certainly human); of a request of which nothing is \
             known it is {}\n",
            self.score(expected)
        )?;
        writeln!(text, "{:>8}  {:<44} {:>12}  {:>14}", "points", "input", "here", "people here")?;
        let points = |part: f64| self.points(raw, expected, part);
        for at in order.iter().take(SHOWN).copied() {
            let typical = self.typical(at).map_or("?".to_owned(), shown);
            let (input, here) = (&self.names[at], shown(found.inputs[at]));
            writeln!(text, "{:>+8.1}  {input:<44} {here:>12}  {typical:>14}", points(shap[at]))?;
        }
        let rest: f64 = order.iter().skip(SHOWN).map(|at| shap[*at]).sum();
        writeln!(text, "{:>+8.1}  {} others", points(rest), order.len().saturating_sub(SHOWN))?;
        if let Some(first) = order.first().copied() {
            let lowers = (shap[first] > 0.0) == self.bot_is_one;
            let typical = self.typical(first).map_or("nothing else".to_owned(), shown);
            writeln!(
                text,
                "\nMost of it: {} is {}, and {typical} is typical of those who look like people in this log; that {} the score by \
                 {:.0}. The points of all inputs add up to the way from {} to {score}.",
                self.names[first],
                shown(found.inputs[first]),
                if lowers { "lowers" } else { "raises" },
                points(shap[first]).abs(),
                self.score(expected),
            )?;
        }
        Ok(text)
    }
}

fn shown(value: f32) -> String {
    if value.is_nan() {
        "not told".to_owned()
    } else {
        format!("{:.4}", value).trim_end_matches('0').trim_end_matches('.').to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn options(dir: &std::path::Path) -> Options {
        Options {
            log: vec![dir.join("log")],
            line: Some(30),
            ip: None,
            user_agent: None,
            model: None,
            config: None,
            bot: BotArgs::default(),
        }
    }

    #[test]
    fn d4_parts_of_the_answer_add_up_to_it() {
        let dir = tempfile::tempdir().unwrap();
        let line = |i: usize| {
            format!(
                "192.0.2.9 - - [17/May/2015:10:05:{i:02} +0000] \"GET /{i} HTTP/1.1\" 404 1 \"-\" \"curl/8\"\n"
            )
        };
        fs::write(dir.path().join("log"), (0..40).map(line).collect::<String>()).unwrap();
        run(&options(dir.path())).unwrap();

        let prepared = prepare(DEFAULT_MODEL, &(&BotArgs::default()).into()).unwrap();
        let compiled = compile_explainable(&prepared.model).unwrap();
        let mut judge = Judge::new(ModelRef::open(&compiled).unwrap(), &prepared).unwrap();
        let plan = Plan::new(None).unwrap();
        let replay =
            Replay::open(&dir.path().join("log"), plan.parser.clone(), ReplayOptions::default()).unwrap();
        let mut last = None;
        walk(&plan, &replay, None, |client, seen| {
            let inputs = judge.inputs(client, seen)?;
            let raw = judge.raw(&inputs)?;
            let mut shap = vec![0.0; judge.explainer.outputs()];
            let mut scratch = ExplainScratch::for_explainer(&judge.explainer);
            judge.explainer.explain(&inputs, &judge.binding, &mut scratch, &mut shap)?;
            assert!((shap.iter().sum::<f64>() - raw).abs() < 1e-9, "line {}", seen.line);
            last = Some(Found { line: seen.line, what: what(seen.record), inputs });
            Ok(())
        })
        .unwrap();
        let text = judge.explain(&last.unwrap(), "m").unwrap();
        assert!(text.starts_with("line 40: 192.0.2.9  GET /39\n  curl/8\n\nscore "), "{text}");
        assert!(text.contains("request.no_referrer") && text.contains("lowers the score"), "{text}");
    }

    #[test]
    fn a_request_that_is_not_there_is_named() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(
            dir.path().join("log"),
            "192.0.2.1 - - [17/May/2015:10:05:03 +0000] \"GET / HTTP/1.1\" 200 1 \"-\" \"a\"\n",
        )
        .unwrap();
        let error = |options: &Options| format!("{:#}", run(options).unwrap_err());
        assert!(error(&options(dir.path())).starts_with("--line 30: no request"));
        let of_client = |agent: Option<&str>| Options {
            line: None,
            ip: Some("192.0.2.1".parse().unwrap()),
            user_agent: agent.map(str::to_owned),
            ..options(dir.path())
        };
        run(&of_client(None)).unwrap();
        run(&of_client(Some("a"))).unwrap();
        assert!(error(&of_client(Some("b"))).starts_with("--ip 192.0.2.1: no request"));
    }
}
