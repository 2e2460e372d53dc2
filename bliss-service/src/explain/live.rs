//! How a request that came now would be answered, by what the daemon publishes.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::Context as _;
use bliss_core::attribute::Value;
use bliss_core::http::HttpRequest;
use bliss_core::policy::compiled::Action;
use bliss_core::publication::models::DEFAULT_ROUTE;
use bliss_core::request::Request;
use bliss_core::score::Status;
use bliss_core::scorer::{Decision, Scorer};
use bliss_store::Client;

use super::Options;
use crate::checkpoint::now_ms;
use crate::config::Config;
use crate::decisions::{DimensionRow, Source, plain};
use crate::output;
use crate::why::{Judge, Part, Why, number};

/// Inputs that are shown.
const SHOWN: usize = 5;

/// Explains how the request would be answered now.
pub(super) fn run(options: &Options, decisions: &Source) -> anyhow::Result<()> {
    let directory = match (&options.directory, &options.config) {
        (Some(directory), _) => directory.clone(),
        (None, Some(config)) => Config::read(config)?.directory,
        (None, None) => PathBuf::from("/run/bliss"),
    };
    let shown = directory.display();
    let mut client = Client::open(&directory).with_context(|| {
        format!("{shown}: what the daemon publishes cannot be read; name the folder with --directory, and run as a user who may read it")
    })?;
    let http = client.names().http()?;
    let Some(ip) = options.ip else { anyhow::bail!("no address is named; give --ip") };
    let bytes: &[u8] = match &ip.to_canonical() {
        IpAddr::V4(ip) => &ip.octets(),
        IpAddr::V6(ip) => &ip.octets(),
    };
    let mut request = Request::new();
    let told = |text: &Option<String>| text.clone().map(String::into_bytes);
    let (agent, host, referrer) = (told(&options.user_agent), told(&options.host), told(&options.referrer));
    request.set_http(
        &http,
        HttpRequest {
            ip: Some(Value::Binary(bytes)),
            method: Some(options.method.as_bytes()),
            target: Some(options.path.as_bytes()),
            host: host.as_deref(),
            user_agent: agent.as_deref(),
            referrer: referrer.as_deref(),
            ..HttpRequest::default()
        },
    );
    // Maps what is published; errors are the decision's to tell.
    let _ = client.maintain();
    let now = u32::try_from(now_ms() / 1000).unwrap_or(u32::MAX);
    let text = describe(&mut client, &request, &options.route, now, &typical(decisions))?;
    let agent = options.user_agent.as_deref().map_or("(no user agent is named)".to_owned(), plain);
    let host = options.host.as_deref().map_or(String::new(), plain);
    output::print(format_args!(
        "{ip}  {} {host}{}  now\n  {agent}\n\n{text}",
        plain(&options.method),
        plain(&options.path)
    ))
}

/// What is typical of inputs among people, as the latest decisions have it; nothing where they cannot be read.
fn typical(decisions: &Source) -> HashMap<String, f32> {
    let mut typical = HashMap::new();
    let _ = decisions.each(|decision| {
        let inputs = decision.explanation.into_iter().flat_map(|explanation| explanation.inputs);
        typical.extend(inputs.filter_map(|input| Some((input.name, input.typical?))));
    });
    typical
}

fn describe(
    client: &mut Client,
    request: &Request<'_>,
    route: &str,
    now: u32,
    typical: &HashMap<String, f32>,
) -> anyhow::Result<String> {
    let mut text = String::new();
    let decision = client.decide(request, route, now);
    let (action, ip_answers) = (decision.action, decision.exception.is_some());
    let outcome = decision.answer.outcome;
    write_decision(&mut text, &decision)?;
    if decision.no_policy.is_some()
        && let Some(error) = client.last_error()
    {
        writeln!(text, "  {error}")?;
    }
    let route = if route.is_empty() { DEFAULT_ROUTE } else { route };
    let mut judge = Judge::default();
    let mut points = None;
    match outcome {
        Ok(scored) => {
            let model = client.scorer().models().models().get(scored.model);
            let model = model.map_or(String::new(), |model| {
                format!(" by model {}, version {}", model.name(), model.version())
            });
            writeln!(text, "score {}{model} (1 is certainly automated, 99 certainly human)", scored.score)?;
        }
        Err(reason) => {
            writeln!(text, "no score: {reason}")?;
            if let Some(error) = client.last_error() {
                writeln!(text, "  {error}")?;
            }
        }
    }
    match judge.explain(client, request, route, now) {
        Ok(Why { explained, contributions }) => {
            writeln!(
                text,
                "of a request of which nothing is known the score is {}\n",
                explained.expected_score
            )?;
            writeln!(text, "{:>8}  {:<44} {:>12}  {:>14}", "points", "input", "here", "people here")?;
            for Part { name, value, points, .. } in contributions.iter().take(SHOWN) {
                let typical = typical.get(name).map_or("?".to_owned(), |typical| number(*typical));
                writeln!(text, "{points:>+8.1}  {name:<44} {value:>12}  {typical:>14}")?;
            }
            points = contributions
                .into_iter()
                .find(|part| part.points < 0.0)
                .map(|part| (f64::from(explained.scored.score) - part.points, part));
        }
        Err(_) if outcome.is_err() => {}
        Err(error) => writeln!(text, "not explained: {error}")?,
    }
    // All dimensions: those that a policy or nothing at all refers to too. What is wrong with features was said above.
    let _ = client.look_up(request, now);
    write_rows(&mut text, client.scorer(), now)?;
    let (features, models) = (client.features_generation(), client.models_generation());
    let generation =
        |generation: Option<u64>| generation.map_or("none".to_owned(), |generation| generation.to_string());
    writeln!(text, "published: features {}, models {}", generation(features), generation(models))?;
    if action != Action::Allow {
        writeln!(text)?;
        if let Some((without, part)) = points {
            let without = without.clamp(1.0, 99.0);
            writeln!(
                text,
                "without the part of {}, which is {}, the score would be about {without:.0}",
                part.name, part.value
            )?;
        }
        let how = if ip_answers {
            "blissctl exceptions shows the exception that answers"
        } else {
            "blissctl allow ADDRESS --for 1d lets a client through"
        };
        writeln!(text, "{how}; blissctl off switches all enforcement off")?;
    }
    Ok(text)
}

fn write_decision(text: &mut String, decision: &Decision<'_>) -> std::fmt::Result {
    write!(text, "{} by rule {}", name(decision.action), plain(decision.rule))?;
    if let Some(exception) = decision.exception {
        write!(text, " ({})", plain(exception))?;
    }
    if !decision.policy.is_empty() {
        write!(text, " of policy {}", plain(decision.policy))?;
    }
    if decision.status > 0 {
        write!(text, ", to be answered with {}", decision.status)?;
    }
    writeln!(text)?;
    if let Some((rule, action)) = decision.simulated {
        writeln!(text, "on trial: rule {} would have answered {}", plain(rule), name(action))?;
    }
    if let Some(reason) = decision.no_policy {
        writeln!(text, "no policy was asked: {reason}")?;
    }
    Ok(())
}

fn name(action: Action) -> &'static str {
    match action {
        Action::Allow => "allow",
        Action::Observe => "observe",
        Action::Tag => "tag",
        Action::RateLimitKey => "rate_limit_key",
        Action::Challenge => "challenge",
        Action::Block => "block",
    }
}

/// Whether dimensions had rows and how old they were, and what lists and the crawlers' dimension say.
fn write_rows(text: &mut String, scorer: &Scorer, now: u32) -> std::fmt::Result {
    let (values, statuses) = scorer.looked_up();
    let dimensions = scorer.dimensions();
    writeln!(text, "\nrows: {}", DimensionRow::line(&DimensionRow::of(scorer, now)))?;
    let has_row = |name: &str| {
        let index = (0..dimensions.len()).find(|index| dimensions.name(*index) == Some(name));
        index
            .and_then(|index| statuses.get(index))
            .is_some_and(|status| matches!(status, Status::Fresh | Status::Stale))
    };
    let named = |at: usize| {
        let (dimension, feature) = dimensions.feature_name(at)?;
        Some((dimension, feature, *values.get(at)?))
    };
    let state = (0..values.len())
        .filter_map(named)
        .find(|(dimension, feature, _)| (*dimension, *feature) == ("crawler", "state"));
    if let Some((dimension, _, state)) = state.filter(|(dimension, ..)| has_row(dimension)) {
        let state = ["none", "claimed", "verified", "fake"].get(state as usize).unwrap_or(&"unknown");
        writeln!(text, "{dimension}: {state}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explain::tests::options;
    use crate::export::walk::Plan;
    use crate::model_files::prepare;
    use bliss_catboost::BotOptions;
    use bliss_core::build::{Change, Exception, ModelSet, PolicySet, Subject};
    use bliss_core::policy::exceptions::ExceptionKind;
    use bliss_core::policy::source::{Policy, Rule};
    use bliss_core::prefixes::Prefix;
    use bliss_store::{PublishOptions, Publisher};

    /// What is said of a request to `/`, by an address and `curl/8`.
    fn said(directory: &std::path::Path, ip: [u8; 4]) -> String {
        let mut client = Client::open(directory).unwrap();
        let http = client.names().http().unwrap();
        let mut request = Request::new();
        let known = HttpRequest {
            ip: Some(Value::Binary(&ip)),
            method: Some(b"GET"),
            target: Some(b"/"),
            referrer: Some(b""),
            user_agent: Some(b"curl/8"),
            ..HttpRequest::default()
        };
        request.set_http(&http, known);
        let now = (now_ms() / 1000) as u32;
        let typical = HashMap::from([("request.claims_browser".to_owned(), 1.0)]);
        describe(&mut client, &request, "", now, &typical).unwrap()
    }

    #[test]
    fn the_answer_now_is_told_with_its_reason() {
        let dir = tempfile::tempdir().unwrap();
        let text = said(dir.path(), [192, 0, 2, 7]);
        assert!(text.starts_with("allow by rule unscored\nno policy was asked: no policy\n"), "{text}");
        assert!(text.contains("no score: no snapshot\n"), "{text}");

        let plan = Plan::new(None, &[]).unwrap();
        let mut publisher = Publisher::open(dir.path(), &PublishOptions::default(), plan.schema).unwrap();
        publisher.publish(Change::default()).unwrap();
        let prepared = prepare(crate::DEFAULT_MODEL, &BotOptions::default(), true).unwrap();
        publisher.publish_models(&ModelSet::of_one(prepared.named("default", "1"))).unwrap();
        let band = |name: &str, simulate| Rule {
            name: name.into(),
            below: Some(99),
            action: Some(Action::Block),
            simulate,
            ..Rule::default()
        };
        let policy = Policy {
            name: "default".into(),
            band: vec![band("trial", true), band("robots", false)],
            ..Policy::default()
        };
        publisher
            .publish_policies(&PolicySet {
                policies: vec![policy],
                routes: vec![("default".into(), "default".into())],
                exceptions: vec![Exception {
                    kind: ExceptionKind::Deny,
                    subject: Subject::Prefix(Prefix::parse(b"192.0.2.8").unwrap()),
                    until: u32::MAX,
                    name: "scanner".into(),
                    status: None,
                    header: None,
                }],
                ..PolicySet::default()
            })
            .unwrap();
        publisher.heartbeat();
        let text = said(dir.path(), [192, 0, 2, 7]);
        for part in [
            "block by rule robots of policy default, to be answered with 403\n",
            "on trial: rule trial would have answered block\n",
            "by model default, version 1",
            "of a request of which nothing is known the score is",
            "request.claims_browser",
            "rows: ip missing",
            "the score would be about",
            "blissctl allow ADDRESS",
        ] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
        let typical = text.lines().find(|line| line.contains("request.claims_browser")).unwrap();
        assert!(
            typical.split_whitespace().eq([
                typical.split_whitespace().next().unwrap(),
                "request.claims_browser",
                "0",
                "1"
            ]),
            "{typical}"
        );
        let text = said(dir.path(), [192, 0, 2, 8]);
        assert!(
            text.starts_with(
                "block by rule exception (scanner) of policy default, to be answered with 403\n"
            ),
            "{text}"
        );
        assert!(text.contains("blissctl exceptions"), "{text}");
    }

    #[test]
    fn a_folder_with_nothing_in_it_is_explained() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().to_str().unwrap();
        let none = Source { file: Some(dir.path().join("none")), config: None };
        run(&options(&["--ip", "192.0.2.7", "--directory", folder]), &none).unwrap();
    }
}
