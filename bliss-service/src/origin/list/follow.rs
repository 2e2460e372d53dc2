//! One list of an origin: read again and again, and judged against its last good version.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::{Place, Shared, Source, seconds_of};
use crate::lists::{Layer, ListDecoder};
use crate::origin::file::Watched;
use crate::origin::http::Asked;
use crate::origin::look::{Decode, Look};
use crate::origin::{Context, Outcome};
use crate::refusal::{Reason, Refusal};

impl Decode for ListDecoder {
    type Output = Layer;

    fn decode(&self, name: &str, input: impl std::io::BufRead) -> Result<Layer, Refusal> {
        ListDecoder::decode(self, name, input)
    }
}

/// What looks at the place of a list.
enum Looking {
    File(Watched<ListDecoder>),
    Server(Box<Asked<ListDecoder>>),
}

/// The last good version of a list.
struct Good {
    networks: u64,
    hash: u64,
}

/// Follows the list at index `list` until the daemon ends.
pub(in crate::origin) async fn run(
    list: usize,
    source: Source,
    context: Context,
    shared: Arc<Shared>,
) -> anyhow::Result<()> {
    let decoder = Arc::new(source.decoder.clone());
    let mut looking = match &source.place {
        Place::File(path) => Looking::File(Watched::new(path.clone(), decoder.timeout, decoder.clone())),
        Place::Server(server) => Looking::Server(Box::new(Asked::new((**server).clone(), decoder)?)),
    };
    let mut good: Option<Good> = None;
    let mut changed_at = Timestamp::now();
    loop {
        let look = async {
            match &mut looking {
                Looking::File(file) => file.look().await,
                Looking::Server(server) => server.look().await,
            }
        };
        let look = tokio::select! {
            () = context.stop.cancelled() => return Ok(()),
            look = look => look,
        };
        let now = Timestamp::now();
        let outcome = match look {
            Look::Unchanged { is_accepted } => {
                context.state.list_unchanged(context.index, list, is_accepted);
                if is_accepted {
                    shared.update(list, false, |slot| {
                        slot.confirmed_at = seconds_of(now);
                        slot.is_good = true;
                    });
                }
                Outcome::Unchanged
            }
            Look::Read(decoded, changed) => {
                match decoded.and_then(|layer| source.judge(layer, good.as_ref())) {
                    Ok(layer) => {
                        let hash = layer.hash();
                        let is_new = good.as_ref().is_none_or(|good| good.hash != hash);
                        if good.is_none() {
                            // A restart does not make an old list new.
                            changed_at = layer.made_at.or(changed).unwrap_or(now).min(now);
                        } else if is_new {
                            changed_at = now;
                        }
                        good = Some(Good { networks: layer.len(), hash });
                        context.state.list_accepted(context.index, list, layer.len());
                        shared.update(list, is_new, |slot| {
                            slot.confirmed_at = seconds_of(now);
                            slot.is_good = true;
                            if is_new {
                                slot.layer = Some(Arc::new(layer));
                            }
                        });
                        Outcome::Published
                    }
                    Err(refusal) => {
                        context.state.list_refused(context.index, list, &refusal);
                        shared.update(list, false, |slot| slot.is_good = false);
                        match refusal.reason {
                            Reason::Unavailable | Reason::Unpublished => Outcome::Failed,
                            _ => Outcome::Refused,
                        }
                    }
                }
            }
        };
        let age = Duration::try_from(now.duration_since(changed_at)).unwrap_or_default();
        context.state.list_age(
            context.index,
            list,
            changed_at,
            source.max_unchanged.filter(|most| age > *most),
        );
        let is_unchanged = matches!(outcome, Outcome::Unchanged);
        let wait = match &mut looking {
            Looking::File(_) if is_unchanged => None,
            Looking::File(file) => {
                file.settle(outcome);
                None
            }
            Looking::Server(server) => server.settle(outcome),
        };
        if !context.sleep(wait.unwrap_or(source.interval)).await {
            return Ok(());
        }
    }
}

impl Source {
    /// Refuses a version that lost too many of the networks of the last good one.
    fn judge(&self, layer: Layer, good: Option<&Good>) -> Result<Layer, Refusal> {
        let Some(good) = good else { return Ok(layer) };
        let least = good.networks as f64 * (1.0 - self.max_shrink);
        if layer.len() as f64 >= least {
            return Ok(layer);
        }
        let message = format!(
            "{} networks, {} before: it lost more than may be lost at once (max_shrink = {}); if it is meant to be so short, raise that \
             or restart the daemon",
            layer.len(),
            good.networks,
            self.max_shrink
        );
        Err(Refusal::new(Reason::Shrunk, message))
    }
}
