//! Compiled models and the routes that use them, as one publication.
//!
//! A [frame](crate::publication::frame) of kind 2. Its metadata is [`Metadata`]; each model's compiled bytes are a section.

use rkyv::{Archive, Deserialize, Serialize};

use crate::publication::frame::{self, FrameError, Kind, Section};
use bliss_catboost::{ModelError, ModelRef};

/// The most models in one publication.
pub const MAX_MODELS: usize = 64;
/// The most routes in one publication.
pub const MAX_ROUTES: usize = 256;
/// The most classes that a model may have, for a worker to score with it.
pub const MAX_CLASSES: usize = 64;
/// The route of requests that name none, or one that is not there.
pub const DEFAULT_ROUTE: &str = "default";

/// Of how many scored requests a worker counts the inputs of one, unless told otherwise.
pub const DEFAULT_SAMPLE_ONE_IN: u32 = 16;

/// What travels with the compiled models.
#[derive(Archive, Serialize, Deserialize, Clone, Debug)]
#[rkyv(derive(Debug))]
pub struct Metadata {
    /// The models, in the order in which routes count them.
    pub models: Vec<Entry>,
    /// The routes, the default one among them.
    pub routes: Vec<Route>,
    /// Of how many scored requests a worker counts the inputs of one; 0: of none.
    pub sample_one_in: u32,
}

/// One model of a publication.
#[derive(Archive, Serialize, Deserialize, Clone, Debug)]
#[rkyv(derive(Debug))]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// Its version, as the operator calls it.
    pub version: String,
    /// The class whose probability is that of a bot: 1 for the usual model that answers "is it a bot".
    pub bot_class: u32,
    /// Where its compiled bytes are.
    #[rkyv(attr(allow(missing_docs)))]
    pub section: Section,
}

/// Which models answer for a site or a group of sites.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[rkyv(derive(Debug))]
pub struct Route {
    /// Its name; [`DEFAULT_ROUTE`] for requests that name none.
    pub name: String,
    /// The model that gives the score, as an index in [`Metadata::models`].
    pub active: Option<u32>,
    /// Models that are evaluated beside it, as such indices.
    pub shadows: Vec<u32>,
}

/// A checked publication of models in borrowed bytes.
#[derive(Clone, Copy, Debug)]
pub struct ModelsRef<'a> {
    bytes: &'a [u8],
    metadata: &'a ArchivedMetadata,
}

impl<'a> ModelsRef<'a> {
    /// Checks the frame, the routes and every model, without allocating.
    ///
    /// # Errors
    /// Where anything is damaged, cut off, of another version, or beyond the limits of this module.
    pub fn open(bytes: &'a [u8]) -> Result<Self, ModelsError> {
        let models = Self { bytes, metadata: frame::open::<Metadata>(bytes, Kind::Models)? };
        let limit = |what, found: usize, limit: usize| {
            if found > limit { Err(FrameError::TooMany { what, found, limit }) } else { Ok(()) }
        };
        limit("models", models.metadata.models.len(), MAX_MODELS)?;
        limit("routes", models.metadata.routes.len(), MAX_ROUTES)?;
        for index in 0..models.metadata.models.len() {
            let model = ModelRef::open(models.compiled(index)?)
                .map_err(|error| ModelsError::Model { index, error })?;
            let classes = model.output_dimensions().max(2);
            let bot_class = models.metadata.models.get(index).map_or(0, |e| e.bot_class.to_native());
            if usize::try_from(bot_class).is_ok_and(|c| c >= classes) {
                return Err(ModelsError::BotClass { index, bot_class, classes });
            }
        }
        let known = |index: u32| usize::try_from(index).is_ok_and(|i| i < models.metadata.models.len());
        for route in models.metadata.routes.iter() {
            let active = route.active.as_ref().is_none_or(|index| known(index.to_native()));
            if !active || !route.shadows.iter().all(|index| known(index.to_native())) {
                return Err(FrameError::Metadata.into());
            }
        }
        Ok(models)
    }

    /// Names, versions, sections and routes.
    pub fn metadata(&self) -> &'a ArchivedMetadata {
        self.metadata
    }

    /// Model `index`.
    ///
    /// # Errors
    /// Where there is no such model.
    pub fn model(&self, index: usize) -> Result<ModelRef<'a>, FrameError> {
        let compiled = self.compiled(index)?;
        // SAFETY:
        // - `Self::open`, the only way to a `ModelsRef`, opened every model of these bytes, which are borrowed since
        Ok(unsafe { ModelRef::open_unchecked(compiled) })
    }

    /// The compiled bytes of model `index`.
    ///
    /// # Errors
    /// Where there is no such model or it lies outside of the frame.
    fn compiled(&self, index: usize) -> Result<&'a [u8], FrameError> {
        self.metadata.models.get(index).ok_or(FrameError::Section { index })?.section.of(self.bytes, index)
    }
}

/// Why a publication of models is refused.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ModelsError {
    /// The frame or its metadata.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// One of the models.
    #[error("model number {index}: {error}")]
    Model {
        /// Its index.
        index: usize,
        /// What is wrong with it.
        error: ModelError,
    },
    /// The class that means "bot" is none of the model's.
    #[error("model number {index}: class {bot_class} is to mean a bot, but the model has {classes} classes")]
    BotClass {
        /// The model's index.
        index: usize,
        /// The class.
        bot_class: u32,
        /// How many the model has.
        classes: usize,
    },
    /// A route names a model that is not there, or a name is there twice.
    #[error("{0}")]
    Names(String),
}
