//! Metrics, in the text format of OpenMetrics, which Prometheus reads.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use bliss_store::HeldFiles;
use mmap_sync::Holding;

use crate::access_log::health::ProblemKind;
use crate::decisions::DecisionCounts;
use crate::drift::Drift;
use crate::worker_metrics::WorkerMetrics;

/// Label names and values.
pub type Labels<const N: usize> = [(&'static str, String); N];
/// A gauge that may hold a fraction.
pub type FloatGauge = Gauge<f64, AtomicU64>;

/// Everything that the daemon counts.
#[allow(missing_docs, reason = "the help texts of `Metrics::new` say what each is")]
pub struct Metrics {
    registry: Registry,
    pub fetches: Family<Labels<2>, Counter>,
    pub refusals: Family<Labels<2>, Counter>,
    pub origin_refused: Family<Labels<1>, Gauge>,
    pub origin_warnings: Family<Labels<2>, Gauge>,
    pub origin_rows: Family<Labels<1>, Gauge>,
    pub origin_accepted_timestamp: Family<Labels<1>, FloatGauge>,
    pub origin_newest_timestamp: Family<Labels<1>, FloatGauge>,
    pub list_networks: Family<Labels<2>, Gauge>,
    pub list_refused: Family<Labels<2>, Gauge>,
    pub list_unchanged: Family<Labels<2>, Gauge>,
    pub list_changed_timestamp: Family<Labels<2>, FloatGauge>,
    pub crawler_clients: Family<Labels<1>, Gauge>,
    pub crawler_verdicts: Family<Labels<2>, Counter>,
    pub crawler_questions: Counter,
    pub crawler_failures: Counter,
    pub crawler_dropped: Family<Labels<1>, Counter>,
    pub key_collisions: Family<Labels<1>, Counter>,
    pub log_lines: Family<Labels<1>, Counter>,
    pub log_malformed_lines: Family<Labels<1>, Counter>,
    pub log_late_lines: Family<Labels<1>, Counter>,
    pub log_early_lines: Family<Labels<1>, Counter>,
    pub log_dropped_keys: Family<Labels<1>, Counter>,
    pub log_keys: Family<Labels<1>, Gauge>,
    pub log_rotations: Family<Labels<1>, Counter>,
    pub log_truncations: Family<Labels<1>, Counter>,
    pub log_read_bytes: Family<Labels<1>, Counter>,
    pub log_files: Family<Labels<1>, Gauge>,
    pub log_problems: Family<Labels<2>, Gauge>,
    pub publications: Family<Labels<1>, Counter>,
    pub publication_failures: Counter,
    pub publication_seconds: Histogram,
    pub published_timestamp: FloatGauge,
    pub published_bytes: Gauge,
    pub fresh_files: Counter,
    pub held_files: Family<Labels<1>, Gauge>,
    pub held_bytes: Family<Labels<1>, Gauge>,
    pub holder_pid: Family<Labels<1>, Gauge>,
    pub files_made_again: Counter,
    pub generation: Gauge,
    pub models_generation: Gauge,
    pub policies_generation: Gauge,
    pub policy_refused: Gauge,
    pub policy_refusals: Counter,
    pub policy_off: Gauge,
    pub policy_exceptions: Gauge,
    pub dimension_rows: Family<Labels<1>, Gauge>,
    pub expired_rows: Family<Labels<1>, Counter>,
    pub model_refused: Family<Labels<1>, Gauge>,
    pub model_refusals: Family<Labels<1>, Counter>,
    pub decisions: DecisionCounts,
    pub workers: Arc<WorkerMetrics>,
    pub drift: Arc<Drift>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// All metrics, at zero.
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("bliss");
        let workers = Arc::new(WorkerMetrics::default());
        registry.register_collector(Box::new(workers.clone()));
        let drift = Arc::new(Drift::default());
        registry.register_collector(Box::new(drift.clone()));
        macro_rules! metric {
            ($name:literal, $help:literal) => {
                metric!($name, $help, Default::default())
            };
            ($name:literal, $help:literal, unit $unit:ident) => {{
                let metric = Default::default();
                registry.register_with_unit($name, $help, Unit::$unit, Clone::clone(&metric));
                metric
            }};
            ($name:literal, $help:literal, $new:expr) => {{
                let metric = $new;
                registry.register($name, $help, Clone::clone(&metric));
                metric
            }};
        }
        Self {
            fetches: metric!(
                "origin_fetches",
                "Fetches of an origin, by outcome: accepted, unchanged or refused"
            ),
            refusals: metric!("origin_refusals", "Refusals of an origin's data, by reason"),
            origin_refused: metric!("origin_refused", "1 while what the origin brings is refused"),
            origin_warnings: metric!(
                "origin_warnings",
                "Dimensions whose rows are accepted and suspicious, by kind: shrunk, all_zero or no_features"
            ),
            origin_rows: metric!("origin_rows", "Rows that were last accepted"),
            origin_accepted_timestamp: metric!(
                "origin_accepted_timestamp",
                "When something of the origin was last accepted",
                unit Seconds
            ),
            origin_newest_timestamp: metric!(
                "origin_newest_timestamp",
                "The newest updated_at that was last accepted",
                unit Seconds
            ),
            list_networks: metric!("list_networks", "Networks of the last good version of a list"),
            list_refused: metric!("list_refused", "1 while what is read of the list is refused"),
            list_unchanged: metric!(
                "list_unchanged",
                "1 while the list has not changed for longer than its max_unchanged"
            ),
            list_changed_timestamp: metric!(
                "list_changed_timestamp",
                "When the list changed last",
                unit Seconds
            ),
            crawler_clients: metric!(
                "crawler_clients",
                "Clients that say they are crawlers, by state: claimed, verified or fake"
            ),
            crawler_verdicts: metric!(
                "crawler_verdicts",
                "What came of verifying clients, by crawler: verified, fake, unknown (no answer) or untold (nothing to verify by)"
            ),
            crawler_questions: metric!("crawler_dns_questions", "Questions to DNS about crawlers"),
            crawler_failures: metric!(
                "crawler_dns_failures",
                "Questions to DNS about crawlers without an answer"
            ),
            crawler_dropped: metric!(
                "crawler_dropped",
                "Clients that were dropped for others (max_clients), and claims that there was no room for"
            ),
            key_collisions: metric!(
                "key_collisions",
                "Rows left out because another has the same 64-bit key"
            ),
            log_lines: metric!("access_log_lines", "Lines that count"),
            log_malformed_lines: metric!("access_log_malformed_lines", "Lines that cannot be read"),
            log_late_lines: metric!("access_log_late_lines", "Lines beyond the lateness, which do not count"),
            log_early_lines: metric!("access_log_early_lines", "Lines from the future, which do not count"),
            log_dropped_keys: metric!(
                "access_log_dropped_keys",
                "Keys dropped or not taken because of max_keys"
            ),
            log_keys: metric!("access_log_keys", "Keys held, over all dimensions of the log"),
            log_rotations: metric!(
                "access_log_rotations",
                "Times that another file appeared under the log's path"
            ),
            log_truncations: metric!(
                "access_log_truncations",
                "Times that the log was truncated or rewritten"
            ),
            log_read_bytes: metric!("access_log_read", "Bytes read of the log", unit Bytes),
            log_files: metric!("access_log_files", "Files of the log that are open"),
            log_problems: metric!(
                "access_log_problem",
                "1 while the log has this problem: missing, unreadable, undecodable, malformed, late, early or quiet"
            ),
            publications: metric!("publications", "Publications, by method"),
            publication_failures: metric!("publication_failures", "Publications that failed"),
            publication_seconds: {
                let histogram = Histogram::new(exponential_buckets(0.0001, 4.0, 10));
                registry.register_with_unit(
                    "publication",
                    "How long a publication took",
                    Unit::Seconds,
                    histogram.clone(),
                );
                histogram
            },
            published_timestamp: metric!("published_timestamp", "When features were last published", unit Seconds),
            published_bytes: metric!("published", "The size of the published features", unit Bytes),
            fresh_files: metric!(
                "fresh_files",
                "Publications to a fresh file, because readers held the old one"
            ),
            held_files: metric!(
                "held_files",
                "Files of older features or models that are kept because readers hold them"
            ),
            held_bytes: metric!("held", "The size of these files", unit Bytes),
            holder_pid: metric!(
                "holder_pid",
                "The process that holds the oldest of these files, as it sees itself; 0 if there is none or it is not known"
            ),
            files_made_again: metric!(
                "files_made_again",
                "Times that published files were removed or replaced by somebody, and were published again"
            ),
            generation: metric!("features_generation", "Generation of the published features"),
            models_generation: metric!("models_generation", "Generation of the published models"),
            dimension_rows: metric!("dimension_rows", "Published rows of a dimension"),
            expired_rows: metric!("expired_rows", "Rows removed or left out because of their age"),
            policies_generation: metric!("policies_generation", "Generation of the published policies"),
            policy_refused: metric!(
                "policy_refused",
                "1 while the policies of the configuration are refused"
            ),
            policy_refusals: metric!("policy_refusals", "Refusals of the policies of the configuration"),
            policy_off: metric!("policy_off", "1 while policies are switched off"),
            policy_exceptions: metric!("policy_exceptions", "Exceptions in force"),
            model_refused: metric!("model_refused", "1 while the file of the model is refused"),
            model_refusals: metric!("model_refusals", "Refusals of the file of the model"),
            decisions: DecisionCounts {
                written: metric!("decisions_written", "Decisions written to the log of decisions"),
                dropped: metric!(
                    "decisions_dropped",
                    "Decisions that are not in that log: beyond its limits, or it could not be written"
                ),
            },
            workers,
            drift,
            registry,
        }
    }

    /// Sets the problem of an origin's log.
    pub fn log_problem(&self, origin: &str, problem: Option<ProblemKind>) {
        for kind in ProblemKind::ALL {
            let labels = [("origin", origin.to_owned()), ("problem", kind.name().to_owned())];
            self.log_problems.get_or_create(&labels).set(i64::from(problem == Some(kind)));
        }
    }

    /// Sets what is kept for readers that hold it.
    pub fn held_files(&self, held: &[HeldFiles]) {
        for HeldFiles { publication, files, bytes, holder } in held {
            let labels = [("publication", (*publication).to_owned())];
            let pid = match holder {
                Some(Holding::Slot { pid, .. }) => i64::from(*pid),
                Some(Holding::Counters) | None => 0,
            };
            let gauge = |family: &Family<Labels<1>, Gauge>, value| {
                family.get_or_create(&labels).set(value);
            };
            gauge(&self.held_files, i64::try_from(*files).unwrap_or(i64::MAX));
            gauge(&self.held_bytes, i64::try_from(*bytes).unwrap_or(i64::MAX));
            gauge(&self.holder_pid, pid);
        }
    }

    /// The metrics as text.
    ///
    /// # Errors
    /// Never in practice; the formatter's own.
    pub fn encode(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

/// One label.
pub fn label(name: &'static str, value: &str) -> Labels<1> {
    [(name, value.to_owned())]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_carry_their_unit_and_kind() {
        let metrics = Metrics::new();
        metrics.refusals.get_or_create(&[("origin", "o".into()), ("reason", "not_finite".into())]).inc();
        metrics.log_read_bytes.get_or_create(&label("origin", "o")).inc_by(5);
        metrics.publication_seconds.observe(0.5);
        let text = metrics.encode().unwrap();
        for line in [
            "bliss_origin_refusals_total{origin=\"o\",reason=\"not_finite\"} 1",
            "bliss_access_log_read_bytes_total{origin=\"o\"} 5",
            "bliss_publication_seconds_count 1",
            "bliss_published_bytes 0",
            "# EOF",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
    }
}
