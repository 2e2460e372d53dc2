//! Packing models and routes into a publication.

use super::frame::{Packer, write_header};
use crate::publication::frame::{Kind, Section};
use crate::publication::models::{DEFAULT_SAMPLE_ONE_IN, Entry, Metadata, ModelsError, ModelsRef, Route};

/// Models and routes to publish.
#[derive(Clone, Debug, Default)]
pub struct ModelSet {
    /// The models.
    pub models: Vec<NamedModel>,
    /// The routes.
    pub routes: Vec<NamedRoute>,
}

/// A compiled model and what it is called.
#[derive(Clone, Debug)]
pub struct NamedModel {
    /// Its name.
    pub name: String,
    /// Its version, as the operator calls it.
    pub version: String,
    /// The class whose probability is that of a bot.
    pub bot_class: u32,
    /// What [`bliss_catboost::compile`] made.
    pub compiled: rkyv::util::AlignedVec<64>,
}

/// A route with its models by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NamedRoute {
    /// Its name; [`DEFAULT_ROUTE`](crate::publication::models::DEFAULT_ROUTE) for requests that name none.
    pub name: String,
    /// The model that gives the score.
    pub active: Option<String>,
    /// Models that are evaluated beside it.
    pub shadows: Vec<String>,
}

impl ModelSet {
    /// One model for every route.
    #[must_use]
    pub fn of_one(model: NamedModel) -> Self {
        let active = Some(model.name.clone());
        let default = crate::publication::models::DEFAULT_ROUTE;
        let routes = vec![NamedRoute { name: default.into(), active, shadows: Vec::new() }];
        Self { models: vec![model], routes }
    }

    /// The publication's bytes, checked as a reader will check them.
    ///
    /// # Errors
    /// Where a name is there twice or unknown, there are too many, or a model is damaged.
    pub fn pack(&self) -> Result<rkyv::util::AlignedVec<64>, ModelsError> {
        self.pack_sampled(DEFAULT_SAMPLE_ONE_IN)
    }

    /// The same; workers count the inputs of one in `sample_one_in` scored requests, or of none if it is 0.
    ///
    /// # Errors
    /// As [`Self::pack`].
    pub fn pack_sampled(&self, sample_one_in: u32) -> Result<rkyv::util::AlignedVec<64>, ModelsError> {
        let names = |text: String| ModelsError::Names(text);
        let index_of = |name: &String| {
            let found = self.models.iter().position(|m| m.name == *name);
            found
                .and_then(|i| u32::try_from(i).ok())
                .ok_or_else(|| names(format!("there is no model {name:?}")))
        };
        unique("model", self.models.iter().map(|m| &m.name))?;
        unique("route", self.routes.iter().map(|r| &r.name))?;
        let mut routes = Vec::with_capacity(self.routes.len());
        for route in &self.routes {
            let at_route = |e: ModelsError| names(format!("route {:?}: {e}", route.name));
            let shadows = route.shadows.iter().map(index_of).collect::<Result<_, _>>().map_err(at_route)?;
            let active = route.active.as_ref().map(index_of).transpose().map_err(at_route)?;
            routes.push(Route { name: route.name.clone(), active, shadows });
        }
        let mut packer = Packer::new();
        let entry = |m: &NamedModel, section| Entry {
            name: m.name.clone(),
            version: m.version.clone(),
            bot_class: m.bot_class,
            section,
        };
        let archive = |sections: &[Section]| {
            let models = self.models.iter().zip(sections).map(|(m, s)| entry(m, *s)).collect();
            rkyv::to_bytes::<rkyv::rancor::Error>(&Metadata { models, routes: routes.clone(), sample_one_in })
                .map_err(|e| names(format!("metadata cannot be serialised: {e}")))
        };
        // The archive's size does not depend on where the sections lie.
        let nowhere = vec![Section { offset: 0, len: 0 }; self.models.len()];
        let metadata_at = packer.append(archive(&nowhere)?.len());
        let sections: Vec<_> = self.models.iter().map(|m| packer.append(m.compiled.len())).collect();
        let metadata = archive(&sections)?;
        let compiled = self.models.iter().map(|m| m.compiled.as_slice());
        let parts = sections.iter().zip(compiled).chain([(&metadata_at, metadata.as_slice())]);
        let mut bytes = packer.fill(parts)?;
        write_header(&mut bytes, Kind::Models, metadata_at)?;
        ModelsRef::open(&bytes)?;
        Ok(bytes)
    }
}

pub(super) fn unique<'a>(
    what: &str,
    names: impl Iterator<Item = &'a String> + Clone,
) -> Result<(), ModelsError> {
    for (i, name) in names.clone().enumerate() {
        if name.is_empty() || name.len() > crate::schema::MAX_NAME_BYTES {
            let limit = crate::schema::MAX_NAME_BYTES;
            return Err(ModelsError::Names(format!("{what} {name:?}: a name has 1 to {limit} bytes")));
        }
        if names.clone().take(i).any(|earlier| earlier == name) {
            return Err(ModelsError::Names(format!("{what} {name:?} is there twice; remove one")));
        }
    }
    Ok(())
}
