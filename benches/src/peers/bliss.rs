//! BLISS: published by `bliss_store::Publisher`, read through `bliss_store::Client`.

use std::path::Path;

use anyhow::Context;
use bliss_core::build::Rows;
use bliss_core::build::{Change, DimensionChange};
use bliss_core::schema::{Dimension, Feature, KeyPart, Schema};
use bliss_core::score::Status;
use bliss_store::{Client, MetricsFile, PublishOptions, Publisher};

use super::Lookup;
use crate::workload::{DIMENSIONS, NOW, WIDTH, Workload, values};

/// The schema of the workload.
pub fn schema() -> Schema {
    let features = || (0..WIDTH).map(|i| Feature::number(&format!("f{i}"))).collect();
    let dimension = |i| Dimension {
        name: format!("d{i}"),
        key: vec![KeyPart::whole("user_agent")],
        max_age_seconds: 600,
        on_stale: Default::default(),
        features: features(),
    };
    // With a limit, as the daemon has it, so that what it costs is measured.
    Schema {
        dimensions: (0..DIMENSIONS).map(dimension).collect(),
        max_heartbeat_age_seconds: 3600,
        ..Schema::default()
    }
}

/// Opens a publisher for the workload, with the file in which readers count their lookups, as the daemon does.
///
/// # Errors
/// As [`Publisher::open`].
pub fn publisher(directory: &Path) -> anyhow::Result<Publisher> {
    let options = PublishOptions::default();
    let publisher = Publisher::open(directory, &options, schema())?;
    MetricsFile::open(directory, &options)?;
    Ok(publisher)
}

/// All rows, to be published in place of what is there.
pub fn all_rows(workload: &Workload) -> Change {
    let rows = |dimension| {
        let keys = workload.dimension(dimension);
        let mut rows = Rows::new(WIDTH);
        rows.keys.reserve_exact(keys.len());
        rows.updated_at.reserve_exact(keys.len());
        rows.values.reserve_exact(keys.len() * WIDTH);
        keys.for_each(|key| rows.push(key, NOW, &values(key, 0)));
        rows
    };
    Change { dimensions: (0..DIMENSIONS).map(|d| (d, DimensionChange::Replace(rows(d)))).collect() }
}

/// `count` rows with the values of version `round`.
pub fn changed_rows(workload: &Workload, count: u64, round: u64) -> Change {
    let mut rows = vec![Rows::new(WIDTH); DIMENSIONS];
    for (dimension, key) in workload.changed(count, round) {
        rows[dimension].push(key, NOW, &values(key, round as u32));
    }
    let patch = |rows| DimensionChange::Patch { upserts: rows, deletes: Vec::new() };
    let rows = rows.into_iter().enumerate().filter(|(_, rows)| !rows.is_empty());
    Change { dimensions: rows.map(|(dimension, rows)| (dimension, patch(rows))).collect() }
}

/// A client in this process.
#[derive(Debug)]
pub struct Bliss {
    client: Client,
    bytes: u64,
}

impl Bliss {
    /// Opens what is published in a directory, `bytes` long.
    ///
    /// # Errors
    /// As [`Client::open`].
    pub fn open(directory: &Path, bytes: u64) -> anyhow::Result<Self> {
        let mut client = Client::open(directory)?;
        client.look_up_keys(&[1; DIMENSIONS], NOW).map_err(|reason| anyhow::anyhow!("{reason}"))?;
        let width = client.scorer().dimensions().width();
        anyhow::ensure!(width == DIMENSIONS * WIDTH, "the snapshot has {width} features");
        client.features_generation().context("nothing published")?;
        anyhow::ensure!(client.metrics_error().is_none(), "it does not count: {:?}", client.metrics_error());
        Ok(Self { client, bytes })
    }
}

impl Lookup for Bliss {
    #[inline]
    fn look_up(&mut self, keys: &[u64; DIMENSIONS]) -> bool {
        self.client.look_up_keys(keys, NOW).is_ok()
    }

    fn values(&self) -> &[f32] {
        &self.client.scorer().last().0[..DIMENSIONS * WIDTH]
    }

    fn present(&self) -> u16 {
        let statuses = self.client.scorer().last().1.iter().enumerate();
        statuses.filter(|(_, s)| **s == Status::Fresh).map(|(d, _)| 1 << d).sum()
    }

    fn bytes(&self) -> u64 {
        self.bytes
    }
}
