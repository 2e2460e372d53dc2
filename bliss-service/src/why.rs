//! Why a request has its score: what each input contributed, beside what is typical of people.

use bliss_core::publication::models::DEFAULT_ROUTE;
use bliss_core::request::Request;
use bliss_core::scorer::{Contribution, Explained, Explaining, InputValue, NotExplained};
use bliss_store::Client;

/// Requests with a score from here on show what is typical of people.
const PEOPLE_FROM: u8 = 70;
/// So many of them are looked at.
const SAMPLE: usize = 4096;

/// A score that was explained.
pub(crate) struct Why {
    pub(crate) explained: Explained,
    /// The largest first.
    pub(crate) contributions: Vec<Part>,
}

/// What an input contributed.
pub(crate) struct Part {
    /// The input's number in the model.
    pub(crate) index: usize,
    pub(crate) name: String,
    pub(crate) value: String,
    pub(crate) part: f64,
    pub(crate) points: f64,
}

impl Part {
    fn of(contribution: &Contribution<'_>) -> Self {
        let Contribution { index, input, part, points } = *contribution;
        let index = usize::try_from(index).unwrap_or(usize::MAX);
        Self { index, name: format!("{}.{}", input.group, input.name), value: shown(&input), part, points }
    }
}

/// Explains requests, and knows what is typical of those whom the model takes for people.
#[derive(Default)]
pub(crate) struct Judge {
    /// Made for the first request that is explained.
    explaining: Option<Explaining>,
    /// Per person the values of the model's inputs.
    people: Vec<Vec<f32>>,
    seen_people: usize,
}

impl Judge {
    /// Explains the request's score by the active model of `route`.
    pub(crate) fn explain(
        &mut self,
        client: &mut Client,
        request: &Request<'_>,
        route: &str,
        now: u32,
    ) -> Result<Why, NotExplained> {
        let explaining = self.explaining.get_or_insert_default();
        let explained = client.explain(explaining, request, route, None, now)?;
        let contributions = client.contributions(explaining, &explained);
        let contributions = contributions.map(|contribution| Part::of(&contribution)).collect();
        Ok(Why { explained, contributions })
    }

    /// The first input that the model takes and the log's dimensions do not have.
    pub(crate) fn missing_input(&self, client: &Client) -> Option<String> {
        client.scorer().active_model(DEFAULT_ROUTE)?.missing_input().map(str::to_owned)
    }

    /// Keeps it if it is one of a person, as the model has it.
    pub(crate) fn sample(&mut self, client: &mut Client, request: &Request<'_>, now: u32) {
        let Ok(scored) = client.score(request, DEFAULT_ROUTE, now).outcome else { return };
        if scored.score < PEOPLE_FROM {
            return;
        }
        let inputs = || {
            client.inputs(scored.model).map(|input| if input.is_category { f32::NAN } else { input.value })
        };
        self.seen_people += 1;
        if self.people.len() < SAMPLE {
            self.people.push(inputs().collect());
        } else if let Some(slot) = self.people.get_mut(self.seen_people % SAMPLE) {
            *slot = inputs().collect();
        }
    }

    /// The median of an input among people; `None` for a category, or where nobody tells it.
    pub(crate) fn typical(&self, input: usize) -> Option<f32> {
        let mut values: Vec<f32> = self.people.iter().filter_map(|row| row.get(input).copied()).collect();
        values.retain(|value| !value.is_nan());
        values.sort_by(f32::total_cmp);
        values.get(values.len() / 2).copied()
    }
}

/// The value of an input; of a category nothing but its hash is known.
fn shown(input: &InputValue<'_>) -> String {
    if input.is_category { format!("#{:08x}", input.value.to_bits()) } else { number(input.value) }
}

pub(crate) fn number(value: f32) -> String {
    if value.is_nan() {
        "not told".to_owned()
    } else {
        format!("{value:.4}").trim_end_matches('0').trim_end_matches('.').to_owned()
    }
}
