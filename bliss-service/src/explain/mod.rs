//! `blissctl explain`: why a request was answered as it was, is answered now, or would have been.
//!
//! The SHAP value of an input is its part of the answer: what the answer changes by, on average over all orders in which inputs become
//! known. They and the expected value add up to the model's answer.

mod decision;
mod live;
mod replay;

use std::net::IpAddr;
use std::path::PathBuf;

use crate::access_log::parse::Record;
use crate::decisions::Source;
use crate::export::lists::ListFile;
use crate::model_tool::BotArgs;

/// Options of `blissctl explain`: a request that was decided, by its id; a request that is made up, by what is published now; or with
/// `--log` one of an access log.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// A request of the log of decisions, by the id that the web server gave it (`bliss_request_id`).
    #[arg(value_name = "REQUEST-ID", conflicts_with_all = ["log", "line", "ip", "model"])]
    pub request_id: Option<String>,
    /// The log of decisions; by default that of the configuration, or decisions.jsonl in /var/lib/bliss.
    #[arg(long, value_name = "FILE", conflicts_with = "log")]
    pub decisions: Option<PathBuf>,
    /// A request of this address that came now; with --log the latest one of it in the log.
    #[arg(long, value_name = "ADDRESS", conflicts_with = "line", required_unless_present_any = ["request_id", "line"])]
    pub ip: Option<IpAddr>,
    /// With this user agent.
    #[arg(long, value_name = "TEXT", requires = "ip")]
    pub user_agent: Option<String>,
    /// To this path, with or without query.
    #[arg(long, value_name = "TARGET", requires = "ip", conflicts_with = "log", default_value = "/")]
    pub path: String,
    /// By this method.
    #[arg(long, value_name = "METHOD", requires = "ip", conflicts_with = "log", default_value = "GET")]
    pub method: String,
    /// Of this host.
    #[arg(long, value_name = "HOST", requires = "ip", conflicts_with = "log")]
    pub host: Option<String>,
    /// With this `Referer`; without it that is not told.
    #[arg(long, value_name = "URL", requires = "ip", conflicts_with = "log")]
    pub referrer: Option<String>,
    /// On this route.
    #[arg(long, value_name = "NAME", requires = "ip", conflicts_with = "log", default_value = "")]
    pub route: String,
    /// What the daemon publishes to; by default that of the configuration, or /run/bliss.
    #[arg(long, value_name = "FOLDER", requires = "ip", conflicts_with = "log")]
    pub directory: Option<PathBuf>,
    /// An access log in the combined format or nginx's JSON, plain or gzipped; several files are read as one, the oldest first.
    #[arg(long, value_name = "FILE", num_args = 1..)]
    pub log: Vec<PathBuf>,
    /// Of the log the request on this line, as `blissctl score` numbers them.
    #[arg(long, value_name = "NUMBER", requires = "log")]
    pub line: Option<u64>,
    /// For --log: the model, as CatBoost saves it; by default the one that comes with BLISS.
    #[arg(long, value_name = "FILE", requires = "log")]
    pub model: Option<PathBuf>,
    /// The daemon's configuration. With --log, dimensions and options are those of its access log origin and its lists; without it, the
    /// built-in ones.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// With --log: a list of networks as the feature `lists.NAME`, as for `blissctl features`.
    #[arg(long, value_name = "NAME=FILE", requires = "log")]
    pub list: Vec<ListFile>,
    /// How the answers of --model are read.
    #[command(flatten)]
    pub bot: BotArgs,
}

impl Options {
    /// Whether a request of the log is the one that is asked for.
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

/// Explains a request.
///
/// # Errors
/// There is no such request, or what explains it cannot be read; the text says which and what to do.
pub fn run(options: &Options) -> anyhow::Result<()> {
    let decisions = Source { file: options.decisions.clone(), config: options.config.clone() };
    if let Some(id) = &options.request_id {
        return decision::run(id, &decisions);
    }
    if options.log.is_empty() { live::run(options, &decisions) } else { replay::run(options) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    /// As a person types them.
    pub(super) fn options(arguments: &[&str]) -> Options {
        Line::try_parse_from([&["explain"], arguments].concat()).unwrap().options
    }

    #[test]
    fn a_request_is_named_in_one_way() {
        let is_right = |arguments: &[&str]| Line::try_parse_from([&["explain"], arguments].concat()).is_ok();
        for right in [
            &["5f1e"][..],
            &["5f1e", "--config", "bliss.toml"],
            &["5f1e", "--decisions", "decisions.jsonl"],
            &["--ip", "192.0.2.7"],
            &["--ip", "192.0.2.7", "--user-agent", "x", "--path", "/login", "--directory", "shm"],
            &["--log", "access.log", "--ip", "192.0.2.7"],
            &["--log", "access.log", "--line", "7", "--model", "m.cbm"],
        ] {
            assert!(is_right(right), "{right:?}");
        }
        for wrong in [
            &[][..],
            &["5f1e", "--ip", "192.0.2.7"],
            &["5f1e", "--log", "access.log"],
            &["--line", "7"],
            &["--log", "access.log"],
            &["--log", "access.log", "--ip", "192.0.2.7", "--path", "/"],
            &["--ip", "192.0.2.7", "--model", "m.cbm"],
            &["--ip", "nobody"],
            &["--user-agent", "x"],
        ] {
            assert!(!is_right(wrong), "{wrong:?}");
        }
    }
}
