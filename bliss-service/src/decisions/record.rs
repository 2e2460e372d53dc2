//! One decision.

use std::net::IpAddr;

use bliss_core::score::Status;
use bliss_core::scorer::Scorer;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// A request, what was done with it, and why.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    /// When the web server logged the request.
    pub time: Timestamp,
    /// By what the server names the request (`bliss_request_id`), if it logs it.
    pub request_id: Option<String>,
    /// The client's address.
    pub ip: IpAddr,
    /// The method; empty where the client sent no HTTP.
    pub method: String,
    /// The host asked for.
    pub host: Option<String>,
    /// The path without query, undecoded.
    pub path: String,
    /// The `User-Agent` header.
    pub user_agent: Option<String>,
    /// The status of the answer.
    pub status: u16,
    /// The route that the worker asked for.
    pub route: String,
    /// `allow`, `observe`, `tag`, `rate_limit_key`, `challenge` or `block`.
    pub action: String,
    /// The rule that said so.
    pub rule: Option<String>,
    /// What a rule on trial would have done.
    pub simulated: Option<Simulated>,
    /// The score that the worker had: 1 (certainly automated) to 99 (certainly human).
    pub score: Option<u8>,
    /// Why it had none.
    pub unscored: Option<String>,
    /// The model that gave it, and its version.
    pub model: Option<String>,
    /// See `model`.
    pub model_version: Option<String>,
    /// Where the score comes from, by what is published when the line is read, at most an interval later.
    pub explanation: Option<Explanation>,
    /// Why there is no explanation.
    pub not_explained: Option<String>,
}

/// A rule on trial that would have answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Simulated {
    /// Its name.
    pub rule: String,
    /// What it would have done; unknown where the log does not have it.
    pub action: Option<String>,
}

/// Where a score comes from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Explanation {
    /// The score when it was explained. The worker's may differ by what has happened since.
    pub score: u8,
    /// The score of a request of which nothing is known.
    pub expected_score: u8,
    /// Generation of the features.
    pub features_generation: Option<u64>,
    /// Generation of the models.
    pub models_generation: Option<u64>,
    /// The dimensions, in the order of the schema.
    pub dimensions: Vec<DimensionRow>,
    /// The inputs with the largest parts, the largest first.
    pub inputs: Vec<Input>,
}

/// What a dimension had of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DimensionRow {
    /// Its name.
    pub name: String,
    /// Whether it had a row: `fresh`, `stale`, `missing`, `absent` or `unused`.
    pub status: String,
    /// How old the row was, in seconds. Logs of before had pairs, without it.
    #[serde(default)]
    pub age_seconds: Option<u32>,
}

impl DimensionRow {
    /// The rows that the request which was looked up or scored last at time `now` had.
    pub fn of(scorer: &Scorer, now: u32) -> Vec<Self> {
        let (_, statuses) = scorer.looked_up();
        let row = |(index, status): (usize, &Status)| {
            Some(Self {
                name: scorer.dimensions().name(index)?.to_owned(),
                status: status.as_str().to_owned(),
                age_seconds: scorer.row_age_seconds(index, now),
            })
        };
        statuses.iter().enumerate().filter_map(row).collect()
    }

    /// All of them in a line.
    pub fn line(rows: &[Self]) -> String {
        rows.iter().map(Self::to_string).collect::<Vec<_>>().join(", ")
    }
}

impl std::fmt::Display for DimensionRow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { name, status, age_seconds } = self;
        write!(f, "{name} {status}")?;
        age_seconds.map_or(Ok(()), |age| write!(f, " ({age} s old)"))
    }
}

/// An input of the model and its part of the score.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Input {
    /// `dimension.feature` or `request.value`.
    pub name: String,
    /// Its value, as text; of a category its hash.
    pub value: String,
    /// What it adds to the score, in points.
    pub points: f64,
    /// The median among requests of the last time that look like people's, if it is known.
    pub typical: Option<f32>,
}

impl Decision {
    /// What would have changed the answer, in words, as far as it is known.
    pub fn what_would_change_it(&self) -> String {
        let mut text = String::new();
        if let Some(explanation) = &self.explanation {
            let lowering = explanation.inputs.iter().find(|input| input.points < 0.0);
            if let Some(Input { name, value, points, typical }) = lowering {
                let without = (f64::from(explanation.score) - points).clamp(1.0, 99.0);
                let typical = typical.map_or(String::new(), |typical| {
                    format!(" (typical is {})", crate::why::number(typical))
                });
                text += &format!(
                    "Without the part of {name}, which is {value}{typical}, the score would be about {without:.0}. "
                );
            }
        }
        match (self.action.as_str(), self.rule.as_deref()) {
            ("allow", _) => text += "It was let through.",
            (_, rule) => {
                let rule = rule.map_or("the rule".to_owned(), |rule| format!("rule {rule}"));
                text += &format!(
                    "To let this client through whatever {rule} says: blissctl allow {} --for 1d --reason \"...\"; to switch \
                     all enforcement off: blissctl off",
                    self.ip
                );
            }
        }
        text
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A decision of which `number` is the status and the second.
    pub(crate) fn decision(number: u16) -> Decision {
        Decision {
            time: Timestamp::from_second(1_700_000_000 + i64::from(number)).unwrap(),
            request_id: Some(format!("id-{number:04}")),
            ip: "192.0.2.7".parse().unwrap(),
            method: "GET".into(),
            host: Some("shop.example".into()),
            path: "/wp-login.php".into(),
            user_agent: Some("curl/8".into()),
            status: number,
            route: "default".into(),
            action: "block".into(),
            rule: Some("robots".into()),
            simulated: Some(Simulated { rule: "trial".into(), action: Some("challenge".into()) }),
            score: Some(4),
            unscored: None,
            model: Some("default".into()),
            model_version: Some("1".into()),
            explanation: Some(Explanation {
                score: 5,
                expected_score: 50,
                features_generation: Some(7),
                models_generation: Some(1),
                dimensions: vec![DimensionRow {
                    name: "ip".into(),
                    status: "fresh".into(),
                    age_seconds: Some(3),
                }],
                inputs: vec![
                    Input {
                        name: "ip.requests_1h".into(),
                        value: "900".into(),
                        points: -31.5,
                        typical: Some(3.0),
                    },
                    Input { name: "request.is_get".into(), value: "1".into(), points: 0.5, typical: None },
                ],
            }),
            not_explained: None,
        }
    }

    #[test]
    fn what_would_change_an_answer_is_said() {
        let text = decision(1).what_would_change_it();
        assert!(text.starts_with("Without the part of ip.requests_1h, which is 900 (typical is 3), the score would be about 36."), "{text}");
        assert!(text.contains("rule robots") && text.contains("blissctl allow 192.0.2.7"), "{text}");
        let allowed = Decision { action: "allow".into(), explanation: None, ..decision(1) };
        assert_eq!(allowed.what_would_change_it(), "It was let through.");
    }

    #[test]
    fn rows_of_dimensions_without_an_age_are_read() {
        let row = |text: &str| serde_json::from_str::<DimensionRow>(text).unwrap();
        assert_eq!(row(r#"{"name":"ip","status":"fresh"}"#).age_seconds, None);
        assert_eq!(
            row(r#"["ip","fresh"]"#),
            DimensionRow { age_seconds: None, ..row(r#"["ip","fresh",3]"#) }
        );
    }
}
