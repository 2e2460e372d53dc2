//! Whether policies or models may take the place of those in force, by what they would have done in the last hours of the log.

use bliss_core::publication::models::DEFAULT_ROUTE;

use super::trial::{Side, try_out};
use super::{Gate, set_of};
use crate::refusal::{Reason, Refusal};

/// Compares both on the log of the candidate's origin, if its configuration asks for that and has policies. Takes as long as two
/// replays for each route that has a policy.
///
/// # Errors
/// It would hold up more clients than it may, what is exempt, or a verified crawler; or the log cannot be replayed.
pub(crate) fn gate(candidate: Side<'_>, against: Side<'_>) -> Result<(), Refusal> {
    let Gate { max_newly_blocked_share, hours } = candidate.config.gate;
    if hours == 0 || set_of(candidate.config).policies.is_empty() {
        return Ok(());
    }
    let routes = [candidate, against].into_iter().flat_map(|side| &side.config.policy_routes);
    let mut routes: Vec<_> = routes.map(|(route, _)| route.as_str()).chain([DEFAULT_ROUTE]).collect();
    routes.sort_unstable();
    routes.dedup();
    // A log does not tell routes: each of the policies is asked about all of it.
    for route in routes {
        let tried = try_out(candidate, Some(against), &[], hours, route).map_err(|error| {
            let message = format!(
                "policy_gate: the log cannot be replayed: {error:#}; set hours = 0 to publish without"
            );
            Refusal::new(Reason::Gate, message)
        })?;
        if let Some(why) = tried.refusal(max_newly_blocked_share) {
            let message = format!(
                "policy_gate: route `{route}`: {why}; see `blissctl policy test`, or set hours = 0 to publish all the same"
            );
            return Err(Refusal::new(Reason::Gate, message));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use bliss_catboost::{BotClass, BotOptions};
    use bliss_core::build::ModelSet;

    use super::*;
    use crate::DEFAULT_MODEL;
    use crate::config::Config;
    use crate::model_files::prepare;

    #[test]
    fn a_model_that_takes_people_for_robots_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = String::new();
        for second in 0..40 {
            let agent = "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0";
            let at = format!("01/Jan/2026:00:00:{second:02} +0000");
            let path = ["/", "/a.css", "/b.js", "/c.png"][second % 4];
            writeln!(
                log,
                "192.0.2.{} - - [{at}] \"GET {path} HTTP/1.1\" 200 9 \"http://shop.example/\" \"{agent}\"",
                second / 4
            )
            .unwrap();
            writeln!(log, "198.51.100.1 - - [{at}] \"GET /.env HTTP/1.1\" 404 9 \"-\" \"curl/8\"").unwrap();
        }
        std::fs::write(dir.path().join("access.log"), log).unwrap();
        let config = |gate: &str| {
            let text = format!(
                "[[origin.access_log]]\nname = \"l\"\npath = \"access.log\"\n[policy_gate]\n{gate}\n[[policy]]\nname = \"default\"\n\
                 band = [{{ name = \"low\", below = 50, action = \"block\" }}]\n"
            );
            Config::parse(&dir.path().join("bliss.toml"), &text).unwrap()
        };
        let of_class = |class| {
            let bot = BotOptions { class: Some(BotClass::Index(class)), ..BotOptions::default() };
            ModelSet::of_one(prepare(DEFAULT_MODEL, &bot, false).unwrap().named("m", "1"))
        };
        let (good, inverted) = (of_class(1), of_class(0));
        let gated = config("hours = 1");
        let side = |models| Side { config: &gated, models: Some(models) };
        gate(side(&good), side(&good)).unwrap();
        let refusal = gate(side(&inverted), side(&good)).unwrap_err();
        assert_eq!(refusal.reason, Reason::Gate);
        assert!(
            refusal.message.contains("clients") && refusal.message.contains("rule \"low\""),
            "{refusal:?}"
        );
        let open = config("hours = 0");
        gate(Side { config: &open, models: Some(&inverted) }, Side { config: &open, models: Some(&good) })
            .unwrap();
    }
}
