//! Why a request of an access log would have got its score.

use anyhow::Context as _;
use bliss_core::build::ModelSet;
use bliss_core::publication::models::DEFAULT_ROUTE;

use crate::access_log::parse::Record;
use crate::access_log::replay::{Replay, ReplayOptions};
use crate::export::walk::{Plan, Published, walk};
use crate::model_files::prepare;
use crate::why::{Judge, Part, Why, number};
use crate::{DEFAULT_MODEL, output};

use super::Options;

/// Inputs that are shown.
const SHOWN: usize = 12;

/// A request that was explained.
struct Found {
    line: u64,
    what: String,
    why: Why,
}

/// Explains a request.
///
/// # Errors
/// The log or the model cannot be read, the model has no leaf weights or no score for the request, or there is no such request.
pub(super) fn run(options: &Options) -> anyhow::Result<()> {
    let (bytes, name) = match &options.model {
        Some(path) => {
            let read = std::fs::read(path).with_context(|| format!("--model {}", path.display()))?;
            (read, path.display().to_string())
        }
        None => (DEFAULT_MODEL.to_vec(), "default, built in".to_owned()),
    };
    let in_model = || format!("model {name}");
    let prepared = prepare(&bytes, &(&options.bot).into(), true).with_context(in_model)?;
    anyhow::ensure!(
        prepared.is_explainable(),
        "model {name}: its file does not hold the weights of its leaves, which explanations need; save it with CatBoost's \
         save_model as it was trained"
    );
    let models = ModelSet::of_one(prepared.named("default", "1"));

    let plan = Plan::new(options.config.as_deref(), &options.list)?;
    let names = options.log.iter().map(|log| log.display().to_string()).collect::<Vec<_>>().join(" ");
    let replay_options =
        ReplayOptions { lateness_ms: plan.aggregate.lateness_ms, ..ReplayOptions::default() };
    let replay = Replay::open_all(&options.log, plan.parser.clone(), replay_options)
        .with_context(|| format!("--log {names}"))?;
    let mut judge = Judge::default();
    let mut found = None;
    walk(&plan, &replay, Published { models: Some(&models), policies: None }, |client, seen| {
        if options.is_meant(seen.line, seen.record) {
            let why = judge.explain(client, &seen.request, DEFAULT_ROUTE, seen.now).map_err(|error| {
                let error = anyhow::Error::from(error).context(format!("line {} is not explained", seen.line));
                match judge.missing_input(client) {
                    Some(input) => error.context(format!(
                        "the model's input {input} is no feature of the dimensions; name the configuration with --config"
                    )),
                    None => error,
                }
            })?;
            found = Some(Found { line: seen.line, what: what(seen.record), why });
        }
        judge.sample(client, &seen.request, seen.now);
        Ok(())
    })?;
    let found = found.with_context(|| match (options.line, options.ip) {
        (Some(line), _) => format!("--line {line}: no request of {names} has this number"),
        (None, Some(ip)) => format!("--ip {ip}: no request of {names} is from this client"),
        (None, None) => "no request is named".to_owned(),
    })?;
    output::print(format_args!("{}", describe(&judge, &found, &name)?))
}

fn what(record: &Record<'_>) -> String {
    let text = |bytes: &[u8]| -> String {
        let text = String::from_utf8_lossy(bytes.get(..200).unwrap_or(bytes)).into_owned();
        text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
    };
    let agent = record.user_agent.as_deref().map_or("(no user agent)".to_owned(), text);
    format!("{}  {} {}\n  {agent}", record.ip, text(&record.method), text(&record.path))
}

fn describe(judge: &Judge, found: &Found, name: &str) -> anyhow::Result<String> {
    use std::fmt::Write as _;
    let Why { explained, contributions } = &found.why;
    let (score, expected_score) = (explained.scored.score, explained.expected_score);
    let mut text = String::new();
    writeln!(text, "line {}: {}", found.line, found.what)?;
    writeln!(
        text,
        "\nscore {score} by model {name} (1 is certainly automated, 99 certainly human); of a request of which nothing is \
             known it is {expected_score}\n",
    )?;
    writeln!(text, "{:>8}  {:<44} {:>12}  {:>14}", "points", "input", "here", "people here")?;
    for Part { index, name, value, points, .. } in contributions.iter().take(SHOWN) {
        let typical = judge.typical(*index).map_or("?".to_owned(), number);
        writeln!(text, "{points:>+8.1}  {name:<44} {value:>12}  {typical:>14}")?;
    }
    let rest: f64 = contributions.iter().skip(SHOWN).map(|part| part.part).sum();
    let others = contributions.len().saturating_sub(SHOWN);
    writeln!(text, "{:>+8.1}  {others} others", explained.points(rest))?;
    if let Some(first) = contributions.first() {
        let typical = judge.typical(first.index).map_or("nothing else".to_owned(), number);
        writeln!(
            text,
            "\nMost of it: {} is {}, and {typical} is typical of those who look like people in this log; that {} the score by \
                 {:.0}. The points of all inputs add up to the way from {expected_score} to {score}.",
            first.name,
            first.value,
            if first.points < 0.0 { "lowers" } else { "raises" },
            first.points.abs(),
        )?;
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model_files::Prepared;
    use bliss_catboost::ir::Model;
    use bliss_catboost::{
        BotClass, BotOptions, ExplainOptions, ExplainScratch, Explainer, ModelRef, compile_explainable,
        import,
    };
    use bliss_store::Client;
    use std::fs;
    use std::path::PathBuf;

    fn options(dir: &std::path::Path) -> Options {
        let log = dir.join("log");
        crate::explain::tests::options(&["--log", log.to_str().unwrap(), "--line", "30"])
    }

    fn log(dir: &std::path::Path) -> PathBuf {
        let line = |i: usize| {
            let agent = ["curl/8", "Mozilla/5.0", "-"][i % 3];
            format!(
                "192.0.2.9 - - [17/May/2015:10:05:{i:02} +0000] \"GET /{i} HTTP/1.1\" 404 1 \"-\" \"{agent}\"\n"
            )
        };
        fs::write(dir.join("log"), (0..40).map(line).collect::<String>()).unwrap();
        dir.join("log")
    }

    /// Explains every request of a log; what is said of the last one.
    fn explain_all(log: &std::path::Path, prepared: Prepared, check: impl Fn(&Client, &Why)) -> String {
        let models = ModelSet::of_one(prepared.named("default", "1"));
        let mut judge = Judge::default();
        let plan = Plan::new(None, &[]).unwrap();
        let replay = Replay::open(log, plan.parser.clone(), ReplayOptions::default()).unwrap();
        let mut last = None;
        walk(&plan, &replay, Published { models: Some(&models), policies: None }, |client, seen| {
            let why = judge.explain(client, &seen.request, DEFAULT_ROUTE, seen.now)?;
            let sum: f64 = why.contributions.iter().map(|part| part.part).sum();
            let (explained, line) = (&why.explained, seen.line);
            assert!((explained.expected + sum - explained.answer).abs() < 1e-9, "line {line}");
            let scored = client.score(&seen.request, DEFAULT_ROUTE, seen.now).outcome.unwrap();
            assert_eq!(scored, explained.scored, "line {line}");
            check(client, &why);
            judge.sample(client, &seen.request, seen.now);
            last = Some(Found { line, what: what(seen.record), why });
            Ok(())
        })
        .unwrap();
        describe(&judge, &last.unwrap(), "m").unwrap()
    }

    #[test]
    fn d4_parts_of_the_answer_add_up_to_it() {
        let dir = tempfile::tempdir().unwrap();
        let log = log(dir.path());
        run(&options(dir.path())).unwrap();
        let prepared = prepare(DEFAULT_MODEL, &BotOptions::default(), true).unwrap();
        let text = explain_all(&log, prepared, |_, _| ());
        assert!(text.starts_with("line 40: 192.0.2.9  GET /39\n  curl/8\n\nscore "), "{text}");
        assert!(text.contains("request.no_referrer") && text.contains("the score by"), "{text}");
    }

    /// A model of `testdata` that takes its numbers and categories from a log.
    fn of_a_log(folder_and_name: &str) -> Model {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../bliss-catboost/testdata");
        let mut model = import(&fs::read(format!("{folder}/{folder_and_name}.cbm")).unwrap()).unwrap();
        let plan = Plan::new(None, &[]).unwrap();
        let dimension = &plan.schema.dimensions[0];
        let mut names =
            dimension.features.iter().map(|feature| format!("{}.{}", dimension.name, feature.name));
        for float in &mut model.floats {
            float.name = names.next().unwrap();
        }
        let mut attributes = ["user_agent", "path", "method", "host", "browser", "referrer"].iter();
        for cat in &mut model.cats {
            cat.name = format!("request.{}", attributes.next().unwrap());
        }
        model
    }

    /// Categories, CTRs and several classes: what `Explainer` says of the class of bots, which is what CatBoost says of it
    /// (`d4_every_model_is_explained_as_by_catboost`).
    #[test]
    fn d4_models_of_categories_and_of_several_classes_are_explained() {
        let dir = tempfile::tempdir().unwrap();
        let log = log(dir.path());
        for name in
            ["models/onehot", "models/ctr", "small/small_ctr_words", "models/multiclass", "shap/shap_classes"]
        {
            let model = of_a_log(name);
            for class in 0..model.dimensions.max(2) as u32 {
                let mut model = model.clone();
                let bot = BotOptions { class: Some(BotClass::Index(class)), answer: None };
                model.class_names.clear();
                let bot_class = model.select_bot(&bot).unwrap();
                let compiled = compile_explainable(&model).unwrap();
                let copy = compiled.clone();
                let opened = ModelRef::open(&copy).unwrap();
                let explainer = Explainer::new(opened, ExplainOptions::default()).unwrap();
                let (inputs, dimensions) = (opened.inputs().len(), opened.output_dimensions());
                let text = explain_all(&log, Prepared { model, bot_class, compiled }, |client, why| {
                    // The inputs of the request that was scored last, which is this one.
                    let values: Vec<f32> = client.inputs(0).map(|input| input.value).collect();
                    let binding: Vec<u32> = (0..inputs as u32).collect();
                    let mut shap = vec![0.0; explainer.outputs()];
                    let mut scratch = ExplainScratch::for_explainer(&explainer);
                    explainer.explain(&values, &binding, &mut scratch, &mut shap).unwrap();
                    let own = if dimensions == 1 { 0 } else { bot_class as usize };
                    let sign = if dimensions == 1 && bot_class == 0 { -1.0 } else { 1.0 };
                    let own = &shap[own * (inputs + 1)..][..=inputs];
                    assert_eq!(why.contributions.len(), inputs);
                    for part in &why.contributions {
                        assert_eq!(part.part, sign * own[part.index], "{name} {class} {}", part.name);
                    }
                    assert_eq!(why.explained.expected, sign * own[inputs]);
                });
                assert!(text.contains("score by") && !text.contains("NaN"), "{text}");
            }
        }
    }

    #[test]
    fn a_model_with_other_inputs_is_named() {
        let dir = tempfile::tempdir().unwrap();
        log(dir.path());
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../bliss-catboost/testdata/models");
        let foreign =
            Options { model: Some(format!("{folder}/scale_bias.cbm").into()), ..options(dir.path()) };
        let error = format!("{:#}", run(&foreign).unwrap_err());
        assert!(error.contains("the model's input ") && error.contains("--config"), "{error}");
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
