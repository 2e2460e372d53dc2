//! Models bound to dimensions and a request's inputs.

use super::dimensions::BoundDimensions;
use super::sample::CountedRow;
use super::source::{BoundSource, Needs};
use crate::metrics::drift::{MAX_ROWS, PlanId, Planner};
use crate::name::Name;
use crate::publication::models::{
    DEFAULT_ROUTE, MAX_CLASSES, MAX_MODELS, MAX_ROUTES, ModelsError, ModelsRef,
};
use crate::request::{Names, Request};
use crate::score::Unscored;
use bliss_catboost::{InputKind, ModelRef, Scratch, category_hash};

/// The most inputs that all models of a publication may have together.
pub(super) const MAX_BINDINGS: usize = 32_768;
/// The most trees that a model may have: what [`Scratch::bounded`] is for.
const MAX_TREES: usize = 65_536;

/// All models of a publication, and its routes.
#[derive(Debug)]
pub struct BoundModels {
    models: Vec<BoundModel>,
    routes: Vec<NamedBoundRoute>,
    /// For each input of each model its index in the vector of values.
    bindings: Vec<u32>,
    /// Inputs and scores that are counted, one model's after the other.
    counted: Vec<CountedRow>,
    plan: Option<PlanId>,
    sample_one_in: u32,
    /// Which inputs of the request are categories, and how many it has.
    categories: u64,
    inputs: usize,
    /// What a category is where the request does not say.
    no_category: f32,
}

/// One model.
#[derive(Clone, Copy, Debug)]
pub struct BoundModel {
    name: Name,
    version: Name,
    section: (usize, usize),
    bot_class: usize,
    classes: usize,
    bindings: (usize, usize),
    /// Rows of [`BoundModels::counted`].
    counted: (usize, usize),
    needs: Needs,
    /// The first input that has no source.
    missing: Option<Name>,
}

/// One route.
#[derive(Clone, Copy, Debug)]
struct NamedBoundRoute {
    name: Name,
    bound: BoundRoute,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct BoundRoute {
    pub(super) active: usize,
    /// Models that are evaluated beside it, as a mask of their indices.
    pub(super) shadows: u64,
    /// What its models need.
    pub(super) needs: Needs,
}

const _: () = assert!(MAX_MODELS <= 64, "masks of models have 64 bits");

impl BoundRoute {
    /// Its models: the active one, then the shadows in the order of the publication.
    pub(super) fn models(self) -> impl Iterator<Item = usize> {
        std::iter::once(self.active)
            .chain((0..MAX_MODELS).filter(move |index| self.shadows >> index & 1 == 1))
    }
}

/// A model that can be evaluated.
#[derive(Clone, Copy)]
pub(super) struct Ready<'m> {
    pub(super) model: ModelRef<'m>,
    pub(super) binding: &'m [u32],
    pub(super) classes: usize,
    pub(super) bot_class: usize,
}

impl BoundModel {
    /// Its name.
    pub fn name(&self) -> &str {
        self.name.as_str()
    }

    /// Its version, as the operator calls it.
    pub fn version(&self) -> &str {
        self.version.as_str()
    }

    /// The first input that neither the features nor the caller have, or only with the other type.
    pub fn missing_input(&self) -> Option<&str> {
        self.missing.as_ref().map(Name::as_str)
    }

    /// What it needs.
    pub(super) fn needs(&self) -> Needs {
        self.needs
    }
}

impl BoundModels {
    pub(super) fn new() -> Self {
        Self {
            models: Vec::with_capacity(MAX_MODELS),
            routes: Vec::with_capacity(MAX_ROUTES),
            bindings: Vec::with_capacity(MAX_BINDINGS),
            counted: Vec::with_capacity(MAX_ROWS),
            plan: None,
            sample_one_in: 0,
            categories: 0,
            inputs: 0,
            no_category: f32::from_bits(category_hash(b"")),
        }
    }

    /// Learns how many inputs requests have, and which of them are categories.
    pub(super) fn learn_inputs(&mut self, names: &Names) {
        self.categories = names.categories();
        self.inputs = names.inputs();
    }

    pub(super) fn unbind(&mut self) {
        self.models.clear();
        self.routes.clear();
        self.bindings.clear();
        self.counted.clear();
        self.plan = None;
    }

    /// Binds checked models; what would not fit the buffers is refused, so nothing is allocated.
    pub(super) fn bind(
        &mut self,
        models: ModelsRef<'_>,
        dimensions: &BoundDimensions,
        names: &Names,
        scratch: &mut Scratch,
    ) -> Result<(), ModelsError> {
        self.unbind();
        self.learn_inputs(names);
        let bound = self.bind_all(models, dimensions, names, scratch);
        if bound.is_err() {
            self.unbind();
        }
        bound
    }

    fn bind_all(
        &mut self,
        models: ModelsRef<'_>,
        dimensions: &BoundDimensions,
        names: &Names,
        scratch: &mut Scratch,
    ) -> Result<(), ModelsError> {
        use crate::publication::frame::FrameError;
        let damaged = ModelsError::Frame(FrameError::Metadata);
        for (index, entry) in models.metadata().models.iter().enumerate() {
            let model = models.model(index)?;
            let classes = model.output_dimensions();
            if classes > MAX_CLASSES {
                let too_many = FrameError::TooMany { what: "classes", found: classes, limit: MAX_CLASSES };
                return Err(too_many.into());
            }
            if !scratch.reserve_within(&model) {
                let (found, limit) = (model.trees(), MAX_TREES);
                return Err(FrameError::TooMany {
                    what: "trees, inputs or borders in a model",
                    found,
                    limit,
                }
                .into());
            }
            let found = self.bindings.len() + model.inputs().len();
            if found > MAX_BINDINGS {
                return Err(FrameError::TooMany { what: "inputs", found, limit: MAX_BINDINGS }.into());
            }
            let native = |n: u64| usize::try_from(n).map_err(|_| damaged.clone());
            let mut bound = BoundModel {
                name: Name::new(&entry.name).ok_or_else(|| damaged.clone())?,
                version: Name::new(&entry.version).ok_or_else(|| damaged.clone())?,
                section: (native(entry.section.offset.to_native())?, native(entry.section.len.to_native())?),
                bot_class: native(u64::from(entry.bot_class.to_native()))?,
                classes,
                bindings: (self.bindings.len(), model.inputs().len()),
                counted: (0, 0),
                needs: Needs::default(),
                missing: None,
            };
            for input in model.inputs() {
                let is_category = input.kind == InputKind::Category;
                match BoundSource::find_input(input.name, is_category, dimensions, names) {
                    Some(source) => {
                        bound.needs |= source.needs;
                        self.bindings.push(u32::try_from(source.at).unwrap_or(u32::MAX));
                    }
                    None => {
                        bound.missing = bound.missing.or(Some(Name::truncated(input.name)));
                        self.bindings.push(u32::MAX);
                    }
                }
            }
            self.models.push(bound);
        }
        for route in models.metadata().routes.iter() {
            let Some(active) = route.active.as_ref() else { continue };
            let active = usize::try_from(active.to_native()).unwrap_or(usize::MAX);
            if active >= self.models.len() {
                continue;
            }
            let name = Name::new(&route.name).ok_or_else(|| damaged.clone())?;
            let bit = |shadow: u32| 1_u64.checked_shl(shadow).unwrap_or(0);
            let shadows = route.shadows.iter().fold(0, |mask, shadow| mask | bit(shadow.to_native()));
            // The active model beside itself would say nothing new.
            let mut bound = BoundRoute { active, shadows: shadows & !(1 << active), needs: Needs::default() };
            for model in bound.models().filter_map(|index| self.models.get(index)) {
                bound.needs |= model.needs;
            }
            self.routes.push(NamedBoundRoute { name, bound });
        }
        self.sample_one_in = models.metadata().sample_one_in.to_native();
        self.plan_counts(models)
    }

    /// Plans which inputs and scores are counted, and where: those of models that are active on a route, as
    /// [`crate::metrics::drift`] says. It depends on nothing that this worker alone knows.
    fn plan_counts(&mut self, models: ModelsRef<'_>) -> Result<(), ModelsError> {
        let mut planner = Planner::default();
        for index in 0..self.models.len() {
            let rows = models.model(index)?.distribution();
            let active = self.routes.iter().any(|route| route.bound.active == index);
            let Some(model) = self.models.get_mut(index).filter(|_| active && !rows.is_empty()) else {
                continue;
            };
            model.counted = planner.add(model.name.as_str(), model.version.as_str(), rows);
            let (first, _) = model.bindings;
            let at = |input: Option<usize>| self.bindings.get(first + input?).copied();
            // Within the capacity: a plan has no more rows than that.
            let counted = rows.iter().take(model.counted.1);
            self.counted.extend(counted.map(|row| CountedRow::new(at(row.input()).unwrap_or(u32::MAX), row)));
        }
        self.plan = planner.finish();
        Ok(())
    }

    /// What is counted of inputs and scores; `None` if nothing is.
    pub fn plan(&self) -> Option<PlanId> {
        self.plan
    }

    /// Of how many scored requests one is counted; 0: none is.
    pub fn sample_one_in(&self) -> u32 {
        self.sample_one_in
    }

    /// The rows of a model, and the index of the first one in the plan.
    #[inline]
    pub(super) fn counted(&self, model: usize) -> (usize, &[CountedRow]) {
        let Some(model) = self.models.get(model) else { return (0, &[]) };
        let (first, count) = model.counted;
        (first, self.counted.get(first..).and_then(|rows| rows.get(..count)).unwrap_or_default())
    }

    /// The bound models, in the order of the publication.
    pub fn models(&self) -> &[BoundModel] {
        &self.models
    }

    /// For each input of model `index` its index in the vector of values; beyond it where the input is missing.
    pub(super) fn binding(&self, index: usize) -> &[u32] {
        let range =
            self.models.get(index).and_then(|m| Some(m.bindings.0..m.bindings.0.checked_add(m.bindings.1)?));
        range.and_then(|range| self.bindings.get(range)).unwrap_or_default()
    }

    /// The routes that have an active model, with their names.
    pub(super) fn routes(&self) -> impl Iterator<Item = (&str, BoundRoute)> {
        self.routes.iter().map(|route| (route.name.as_str(), route.bound))
    }

    /// The route `name` or the default one, if it has an active model, and its index in [`Self::routes`].
    pub(super) fn route(&self, name: &str) -> Option<(usize, BoundRoute)> {
        let find = |name: &str| {
            let index = self.routes.iter().position(|route| route.name.as_str() == name)?;
            Some((index, self.routes.get(index)?.bound))
        };
        find(name).or_else(|| find(DEFAULT_ROUTE))
    }

    /// Writes the request's own inputs.
    #[inline]
    pub(super) fn fill_inputs(&self, request: &Request<'_>, inputs: &mut [f32]) {
        let absent = |i: usize| if self.categories >> i & 1 == 1 { self.no_category } else { f32::NAN };
        request.copy_inputs(inputs.get_mut(..self.inputs).unwrap_or_default(), absent);
    }

    /// Writes the attributes of `mask` as categories to the vector of values, from [`ATTRIBUTES_AT`] on. Others keep what
    /// they were; no model reads them.
    #[inline]
    pub(super) fn fill_attributes(
        &self,
        mask: u64,
        dimensions: &BoundDimensions,
        request: &Request<'_>,
        attributes: &mut [f32],
    ) {
        let mut left = mask;
        while left != 0 {
            let index = left.trailing_zeros() as usize;
            left &= left - 1;
            if let Some(value) = attributes.get_mut(index) {
                *value = dimensions.category(index, request).unwrap_or(self.no_category);
            }
        }
    }

    /// Model `index` of `models`, if it can be evaluated and uses no dimension of the mask `refused`.
    ///
    /// # Safety
    /// `models` are the bytes that were [bound](Self::bind) last, unchanged.
    pub(super) unsafe fn prepare<'m>(
        &'m self,
        models: &'m [u8],
        index: usize,
        refused: u64,
    ) -> Result<Ready<'m>, Unscored> {
        let model = self.models.get(index).ok_or(Unscored::NoActiveModel)?;
        if model.missing.is_some() {
            return Err(Unscored::MissingInput);
        }
        if model.needs.dimensions & refused != 0 {
            return Err(Unscored::StaleDimension);
        }
        let (at, len) = model.section;
        let compiled = models.get(at..).and_then(|rest| rest.get(..len)).ok_or(Unscored::BadModels)?;
        let (first, count) = model.bindings;
        let binding =
            self.bindings.get(first..).and_then(|rest| rest.get(..count)).ok_or(Unscored::BadModels)?;
        // SAFETY:
        // - `ModelsRef::open` opened these very bytes as a model before they were bound
        // - by this function's contract they have not changed since
        let opened = unsafe { ModelRef::open_unchecked(compiled) };
        Ok(Ready { model: opened, binding, classes: model.classes, bot_class: model.bot_class })
    }
}
