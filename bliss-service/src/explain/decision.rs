//! `blissctl explain REQUEST-ID`: what the log of decisions says of a request.

use std::fmt::Write as _;

use crate::decisions::{Decision, DimensionRow, Explanation, Input, Source, plain};
use crate::output;
use crate::why::number;

/// Explains the request of this id, by the log of decisions.
pub(super) fn run(id: &str, source: &Source) -> anyhow::Result<()> {
    let (mut found, mut decisions) = (None, 0_u64);
    source.each(|decision| {
        decisions += 1;
        if decision.request_id.as_deref() == Some(id) {
            found = Some(decision);
        }
    })?;
    let Some(decision) = found else {
        anyhow::bail!(
            "{id}: none of the {decisions} decisions in {} has this id. It holds requests that were not simply let through, as far as \
             decisions.max_per_second and decisions.max_bytes allow; `blissctl explain --log FILE --ip ADDRESS` explains any request of \
             an access log",
            source.path()?.display()
        )
    };
    output::print(format_args!("{}", describe(&decision)?))
}

/// A decision for people.
fn describe(decision: &Decision) -> Result<String, std::fmt::Error> {
    let mut text = String::new();
    let or_dash = |text: &Option<String>| text.as_deref().map_or("-".to_owned(), plain);
    let host = decision.host.as_deref().map_or(String::new(), plain);
    writeln!(
        text,
        "{:.0}  {}  {} {host}{}",
        decision.time,
        decision.ip,
        plain(&decision.method),
        plain(&decision.path)
    )?;
    writeln!(text, "  {}", decision.user_agent.as_deref().map_or("(no user agent)".to_owned(), plain))?;
    writeln!(
        text,
        "\n{} by rule {}, answered with {} (route {})",
        plain(&decision.action),
        or_dash(&decision.rule),
        decision.status,
        plain(&decision.route)
    )?;
    if let Some(simulated) = &decision.simulated {
        writeln!(
            text,
            "on trial: rule {} would have answered {}",
            plain(&simulated.rule),
            simulated.action.as_deref().map_or("otherwise".to_owned(), plain)
        )?;
    }
    match (decision.score, &decision.unscored) {
        (Some(score), _) => {
            let (model, version) = (or_dash(&decision.model), or_dash(&decision.model_version));
            writeln!(
                text,
                "score {score} by model {model}, version {version} (1 is certainly automated, 99 certainly human)"
            )?;
        }
        (None, Some(reason)) => writeln!(text, "no score: {}", plain(reason))?,
        (None, None) => writeln!(text, "the log has no score")?,
    }
    match (&decision.explanation, &decision.not_explained) {
        (Some(explanation), _) => explain(&mut text, explanation)?,
        (None, Some(reason)) => writeln!(text, "not explained: {}", plain(reason))?,
        (None, None) => {}
    }
    writeln!(text, "\n{}", decision.what_would_change_it())?;
    Ok(text)
}

fn explain(text: &mut String, explanation: &Explanation) -> std::fmt::Result {
    let Explanation { score, expected_score, features_generation, models_generation, dimensions, inputs } =
        explanation;
    let generation =
        |generation: &Option<u64>| generation.map_or("-".to_owned(), |generation| generation.to_string());
    writeln!(
        text,
        "explained by features {} and models {}: score {score}, and {expected_score} of a request of which nothing is known\n",
        generation(features_generation),
        generation(models_generation)
    )?;
    writeln!(text, "{:>8}  {:<44} {:>12}  {:>14}", "points", "input", "here", "people here")?;
    for Input { name, value, points, typical } in inputs {
        let typical = typical.map_or("?".to_owned(), number);
        writeln!(text, "{points:>+8.1}  {name:<44} {value:>12}  {typical:>14}")?;
    }
    writeln!(text, "\nrows: {}", DimensionRow::line(dimensions))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decisions::DecisionFile;
    use crate::decisions::tests::decision;

    #[test]
    fn a_decision_is_explained_by_its_id() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("decisions.jsonl");
        let mut file = DecisionFile::new(path.clone(), 1 << 20);
        (0..3).for_each(|number| file.append(&decision(number)).unwrap());
        let source = Source { file: Some(path), config: None };
        run("id-0001", &source).unwrap();
        let error = format!("{:#}", run("id-9", &source).unwrap_err());
        assert!(error.starts_with("id-9: none of the 3 decisions in "), "{error}");

        let text = describe(&decision(1)).unwrap();
        for part in [
            "192.0.2.7  GET shop.example/wp-login.php\n  curl/8\n",
            "block by rule robots, answered with 1 (route default)\non trial: rule trial would have answered challenge\n",
            "score 4 by model default, version 1",
            "explained by features 7 and models 1: score 5, and 50 of",
            "ip.requests_1h                                        900               3",
            "rows: ip fresh (3 s old)",
            "blissctl allow 192.0.2.7",
        ] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
    }
}
