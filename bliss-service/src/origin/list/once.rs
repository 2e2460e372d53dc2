//! Lists that are read once: for training, and for what is asked of an access log.

use std::io::BufReader;
use std::sync::Arc;

use anyhow::Context as _;
use bliss_core::build::BuiltPrefixes;
use bliss_core::schema::Dimension;

use super::{List, Place, Source};
use crate::fingerprint::open_regular;
use crate::lists::{Layer, overlay};
use crate::origin::http::Asked;
use crate::origin::look::Look;
use crate::output;

/// Which lists are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// All of them; one that cannot be read is an error.
    All,
    /// Those of files. What a list of a server or one that cannot be read would say is each feature's default, as it is to a worker
    /// before the first good version.
    Files,
}

impl List {
    /// Reads the lists as the daemon does after its start, and lays them over each other as the rows of `dimension`, dated so that they
    /// are of every time.
    ///
    /// # Errors
    /// A list that is wanted cannot be read, for the reason that the daemon would give.
    pub(crate) fn read_once(&self, dimension: &Dimension, wanted: Wanted) -> anyhow::Result<BuiltPrefixes> {
        let mut layers = Vec::new();
        for source in &self.sources {
            match (source.read_once(wanted), wanted) {
                (Ok(layer), _) => layers.extend(layer),
                (Err(error), Wanted::All) => {
                    return Err(error.context(format!("list `{}`", source.name)));
                }
                (Err(error), Wanted::Files) => {
                    output::note(format_args!("list `{}` is left out: {error:#}\n", source.name))
                }
            }
        }
        let defaults: Vec<f32> = dimension.features.iter().map(|feature| feature.default).collect();
        overlay(&layers.iter().collect::<Vec<_>>(), &defaults, 0)
            .context("lists cannot be laid over each other")
    }
}

impl Source {
    /// Reads the list; `None` where it is not wanted.
    fn read_once(&self, wanted: Wanted) -> anyhow::Result<Option<Layer>> {
        match (&self.place, wanted) {
            (Place::File(path), _) => {
                let name = path.display().to_string();
                let (file, _) = open_regular(path).with_context(|| name.clone())?;
                let decoded = self.decoder.decode(&name, BufReader::with_capacity(1 << 18, file));
                decoded.map(Some).map_err(|refusal| anyhow::anyhow!("{}", refusal.message))
            }
            (Place::Server(_), Wanted::Files) => Ok(None),
            (Place::Server(server), Wanted::All) => {
                let mut asked = Asked::new((**server).clone(), Arc::new(self.decoder.clone()))?;
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                match runtime.block_on(asked.look()) {
                    Look::Read(Ok(layer), _) => Ok(Some(layer)),
                    Look::Read(Err(refusal), _) => Err(anyhow::anyhow!("{}", refusal.message)),
                    Look::Unchanged { .. } => {
                        Err(anyhow::anyhow!("the server has nothing new, and it was not asked before"))
                    }
                }
            }
        }
    }
}
