//! What a reader works out once per publication, so that each request only computes.
//!
//! A [`Scorer`] binds four things that come and go independently: the names a caller [registered](Names), the
//! published features, the published models, and the published policies. It holds copies of names, offsets and defaults, and no references, so
//! that it outlives the guards under which the bytes are pinned. All its memory is allocated when it is made;
//! binding writes within that.
//!
//! # Vector of values
//!
//! A lookup fills one `f32` vector: the features of all dimensions in the order of the schema, then, from
//! [`INPUTS_AT`] on, the numbers and categories of the request itself in the order of their registration, and from
//! [`ATTRIBUTES_AT`] on, as categories, those of its attributes that a model takes, and from [`HTTP_AT`] on the
//! [`RequestValue`]s. At its end, from [`OPTIONAL_AT`] on, is NaN for what not every site has. Models' inputs are bound to indices in this
//! vector. Categories are bit patterns of their hash.

mod decide;
mod dimensions;
mod evaluate;
mod explain;
mod models;
mod policies;
mod request_metrics;
mod sample;
mod source;

pub(crate) use decide::ClientBytes;
pub use decide::{Decision, NoPolicy};
pub use dimensions::BoundDimensions;
pub use explain::{Contribution, Explained, Explaining, InputValue, NotExplained};
pub use models::{BoundModel, BoundModels};
pub use policies::{BoundPolicies, BoundPolicy, MAX_UNBOUND_NAMES};
pub use request_metrics::RequestMetrics;

use crate::attribute::Value;
use crate::http::RequestValue;
use crate::pass::{NoPass, PassText, address_of};
use crate::policy::path::MAX_PATH_BYTES;
use crate::publication::features::FeaturesRef;
use crate::publication::frame::FrameError;
use crate::publication::models::{ModelsError, ModelsRef};
use crate::publication::policies::PoliciesRef;
use crate::request::{MAX_ATTRIBUTES, MAX_INPUTS, Names, Request};
use crate::schema::MAX_FEATURES;
use crate::score::{Answer, Counts, Shadow, Status, Unscored};
use crate::table::Buffers;
use decide::Decided;
use evaluate::Evaluator;
use source::Needs;

/// Where the request's own inputs begin in the vector of values.
pub const INPUTS_AT: usize = MAX_FEATURES;
/// Where the request's attributes as categories begin in the vector of values.
pub const ATTRIBUTES_AT: usize = INPUTS_AT + MAX_INPUTS;
/// Where the values that a whole request says by itself begin in the vector of values.
pub const HTTP_AT: usize = ATTRIBUTES_AT + MAX_ATTRIBUTES;
/// Inputs of models that not every site can fill. Where the features do not have one, it is NaN, as what a request does not tell,
/// and the model gives a score all the same; any other input that is not there leaves its model without one.
pub const OPTIONAL_INPUTS: [&str; 1] = ["lists.hosting"];
/// Where the [`OPTIONAL_INPUTS`] that the features do not have begin in the vector of values: NaN, always.
pub const OPTIONAL_AT: usize = HTTP_AT + RequestValue::ALL.len();
/// Length of the vector of values.
pub const VECTOR_LEN: usize = OPTIONAL_AT + OPTIONAL_INPUTS.len();

/// Bound names, features and models, and the memory to answer one request at a time. For one thread.
///
/// ```
/// # use bliss_core::build::{BuildJob, Change, DimensionChange, FeaturesBuilder, Rows};
/// # use bliss_core::key::{KeyBuilder, KeySecret, SECRET_BYTES};
/// # use bliss_core::schema::{Dimension, Feature, KeyPart, Schema};
/// use bliss_core::request::{Names, Request};
/// use bliss_core::score::Status;
/// use bliss_core::scorer::Scorer;
///
/// # fn published_features() -> rkyv::util::AlignedVec<64> {
/// #     let features = vec![Feature::number("requests_1m"), Feature::number("paths_1m")];
/// #     let key = vec![KeyPart::whole("ip")];
/// #     let dimension = Dimension { name: "ip".into(), key, max_age_seconds: 600, on_stale: Default::default(), features };
/// #     let schema = Schema { dimensions: vec![dimension], ..Schema::default() };
/// #     let secret = KeySecret([7; SECRET_BYTES]);
/// #     let keys = KeyBuilder::new(&schema, &schema.dimensions[0]).unwrap();
/// #     let mut rows = Rows::new(2);
/// #     rows.push(keys.key(&secret, |_| Some("192.0.2.1".into())).unwrap(), 1_000, &[900.0, 30.0]);
/// #     let change = Change { dimensions: vec![(0, DimensionChange::Replace(rows))] };
/// #     let builder = FeaturesBuilder::plan(&schema, &secret, None, &change).unwrap();
/// #     let mut bytes = rkyv::util::AlignedVec::new();
/// #     bytes.resize(builder.bytes() as usize, 0);
/// #     builder.write(&mut bytes, 1, |jobs| jobs.into_iter().map(BuildJob::run).sum()).unwrap();
/// #     bytes
/// # }
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// // Once: the names that requests will have.
/// let mut names = Names::default();
/// let ip = names.attribute("ip")?;
/// let mut scorer = Scorer::new();
///
/// // Once per publication: a schema with the dimension `ip`, and a row for 192.0.2.1, updated at 1,000.
/// let features = published_features();
/// scorer.bind_features(&features, &names)?;
///
/// // Once per request.
/// let mut request = Request::new();
/// request.set_attribute(ip, "192.0.2.1".into());
/// let (values, statuses) = scorer.look_up(&features, &request, 1_010);
/// assert_eq!((values, statuses), ([900.0, 30.0].as_slice(), [Status::Fresh].as_slice()));
///
/// request.set_attribute(ip, "198.51.100.7".into());
/// let (values, statuses) = scorer.look_up(&features, &request, 1_010);
/// assert_eq!((values, statuses), ([0.0, 0.0].as_slice(), [Status::Missing].as_slice()));
/// # Ok(())
/// # }
/// ```
///
/// With models bound too, [`Self::score`] gives a score: `examples/score_request.rs` goes all the way.
#[derive(Debug)]
pub struct Scorer {
    dimensions: BoundDimensions,
    models: BoundModels,
    policies: BoundPolicies,
    buffers: Buffers,
    evaluator: Evaluator,
    bindings: u64,
    last_route: Option<usize>,
    decided: Decided,
    /// For paths that have to be written anew.
    path: Box<[u8]>,
}

impl Default for Scorer {
    fn default() -> Self {
        Self::new()
    }
}

impl Scorer {
    /// Allocates all memory that binding and answering will need.
    pub fn new() -> Self {
        Self {
            dimensions: BoundDimensions::new(),
            models: BoundModels::new(),
            policies: BoundPolicies::new(),
            buffers: Buffers::new(VECTOR_LEN, OPTIONAL_AT),
            evaluator: Evaluator::new(),
            bindings: 0,
            last_route: None,
            decided: Decided::new(),
            path: vec![0; MAX_PATH_BYTES].into(),
        }
    }

    /// Binds published features: call it when a publication is first seen, or names were registered.
    ///
    /// Says whether models and policies must be bound again, which is so when schema or names have changed.
    ///
    /// # Errors
    /// Where the features are damaged; nothing is bound then, and models and policies must be bound again later.
    pub fn bind_features(&mut self, features: &[u8], names: &Names) -> Result<bool, FrameError> {
        self.forget();
        let bound = FeaturesRef::open(features).and_then(|s| self.dimensions.bind(s, names));
        match bound {
            Ok(false) => {}
            Ok(true) => {
                self.bindings += 1;
                self.models.unbind();
                self.policies.unbind();
            }
            Err(_) => {
                self.bindings += 1;
                self.dimensions.unbind();
                self.models.unbind();
                self.policies.unbind();
            }
        }
        // Policies may ask for them where there are no models.
        self.models.learn_inputs(names);
        bound
    }

    /// Binds models to the features and names bound last.
    ///
    /// # Errors
    /// Where the models are damaged; nothing is bound then.
    pub fn bind_models(&mut self, models: &[u8], names: &Names) -> Result<(), ModelsError> {
        self.bindings += 1;
        self.forget();
        self.models.unbind();
        self.models.bind(ModelsRef::open(models)?, &self.dimensions, names, &mut self.evaluator.scratch)
    }

    /// Binds policies to the features and names bound last, or to names alone where no features are bound.
    ///
    /// # Errors
    /// Where the policies are damaged; nothing is bound then.
    pub fn bind_policies(&mut self, policies: &[u8], names: &Names) -> Result<(), FrameError> {
        self.policies.unbind();
        self.policies.bind(PoliciesRef::open(policies)?, &self.dimensions, names)
    }

    /// The bound policies.
    pub fn policies(&self) -> &BoundPolicies {
        &self.policies
    }

    /// The bound dimensions.
    pub fn dimensions(&self) -> &BoundDimensions {
        &self.dimensions
    }

    /// The bound models.
    pub fn models(&self) -> &BoundModels {
        &self.models
    }

    /// Changes whenever other names are bound: of dimensions, routes or models.
    pub fn bindings(&self) -> u64 {
        self.bindings
    }

    /// The model that gives the score for `route`: its active one, or that of the default route.
    pub fn active_model(&self, route: &str) -> Option<&BoundModel> {
        self.models.models().get(self.models.route(route)?.1.active)
    }

    /// What `request`, if it was handed over whole, says by itself at time `now`, in the order of [`RequestValue::index`]: what
    /// models see.
    pub fn request_values(&self, request: &Request<'_>, now: u32) -> Option<[f32; RequestValue::ALL.len()]> {
        request.http().map(|http| self.dimensions.request_values(http, RequestValue::ALL_BITS, now))
    }

    /// A pass for the client at `ip` with this user agent, from `now` on, under the secret of the features bound last. Does not
    /// allocate.
    ///
    /// # Errors
    /// No features are bound; there is no address; or it is not for 1 to [`MAX_VALID_SECONDS`](crate::pass::MAX_VALID_SECONDS).
    pub fn pass(
        &self,
        ip: Option<Value<'_>>,
        user_agent: &[u8],
        valid_seconds: u32,
        now: u32,
    ) -> Result<PassText, NoPass> {
        let key = self.dimensions.pass_key().ok_or(Unscored::NoSnapshot)?;
        key.make(address_of(ip), user_agent, valid_seconds, now)
    }

    /// Looks up all dimensions of `request` in the features bound last. `now` is in seconds since the Unix epoch.
    ///
    /// The values are the features of all dimensions in the order of the schema, the statuses one per dimension.
    pub fn look_up(&mut self, features: &[u8], request: &Request<'_>, now: u32) -> (&[f32], &[Status]) {
        self.dimensions.look_up(features, request, now, u64::MAX, &mut self.buffers);
        self.looked_up()
    }

    /// Looks up by keys that the caller made itself, one per dimension in the order of the schema. Dimensions that are matched by
    /// the longest prefix have none, and are absent.
    pub fn look_up_keys(&mut self, features: &[u8], keys: &[u64], now: u32) -> (&[f32], &[Status]) {
        self.dimensions.look_up_keys(features, keys, now, &mut self.buffers);
        self.looked_up()
    }

    /// What the last call of [`Self::look_up`] or [`Self::look_up_keys`] gave.
    pub fn looked_up(&self) -> (&[f32], &[Status]) {
        (self.buffers.values.get(..self.dimensions.width()).unwrap_or_default(), self.last().1)
    }

    /// How old the row of dimension `index`, which the last call looked up at time `now`, was then, in seconds; 0 of one from later.
    /// `None` where there was none.
    pub fn row_age_seconds(&self, index: usize, now: u32) -> Option<u32> {
        let has_row = matches!(self.last().1.get(index)?, Status::Fresh | Status::Stale);
        let updated_at = self.buffers.updated_at.get(index).filter(|_| has_row)?;
        Some(now.saturating_sub(*updated_at))
    }

    /// Scores `request` with the active model of `route`, on the features and the models bound last, and evaluates the
    /// route's shadow models on the same values: [`Self::shadows`] tells what they say.
    ///
    /// Dimensions that no model of the route uses are not looked up.
    ///
    /// # Safety
    /// `models` are the bytes that [`Self::bind_models`] accepted last, unchanged. (A `features` other than the one
    /// bound last gives wrong values, nothing worse.)
    pub unsafe fn score(
        &mut self,
        features: &[u8],
        models: &[u8],
        request: &Request<'_>,
        route: &str,
        now: u32,
    ) -> Answer {
        // SAFETY:
        // - `models` are the bytes bound last, unchanged: this function's own contract
        unsafe { self.score_with(features, Ok(models), request, route, Needs::default(), now) }
    }

    /// Scores as [`Self::score`] does, where there are models, and looks up what else is needed, in any case.
    ///
    /// # Safety
    /// As [`Self::score`].
    #[inline]
    unsafe fn score_with(
        &mut self,
        features: &[u8],
        models: Result<&[u8], Unscored>,
        request: &Request<'_>,
        route: &str,
        mut needs: Needs,
        now: u32,
    ) -> Answer {
        let route =
            models.and_then(|models| Ok((models, self.models.route(route).ok_or(Unscored::NoActiveModel)?)));
        let (models, (index, route)) = match route {
            Ok(route) => route,
            Err(reason) => {
                self.forget();
                let (counts, _) = self.gather(features, request, needs, now);
                return Answer { outcome: Err(reason), counts };
            }
        };
        self.last_route = Some(index);
        needs |= route.needs;
        let (counts, refused) = self.gather(features, request, needs, now);
        // SAFETY:
        // - `models` are the bytes bound last, unchanged: this function's own contract
        let outcome =
            unsafe { self.evaluator.evaluate(&self.models, models, route, &self.buffers.values, refused) };
        Answer { outcome, counts }
    }

    /// Fills the vector of values with what models need; says how the dimensions answered, and which of them may not be used.
    #[inline]
    fn gather(&mut self, features: &[u8], request: &Request<'_>, needs: Needs, now: u32) -> (Counts, u64) {
        self.dimensions.look_up(features, request, now, needs.dimensions, &mut self.buffers);
        let statuses = self.last().1;
        let counts = Counts::of(statuses);
        let refused = self.dimensions.refused_as_stale(statuses);
        let (_, inputs) = self.buffers.values.split_at_mut_checked(INPUTS_AT).unwrap_or_default();
        self.models.fill_inputs(request, inputs);
        if needs.attributes != 0 {
            let attributes = inputs.get_mut(MAX_INPUTS..).unwrap_or_default();
            self.models.fill_attributes(needs.attributes, &self.dimensions, request, attributes);
        }
        if needs.request_values != 0 {
            let told =
                request.http().map(|http| self.dimensions.request_values(http, needs.request_values, now));
            let values = inputs.get_mut(HTTP_AT - INPUTS_AT..).unwrap_or_default();
            let told = told.unwrap_or([f32::NAN; RequestValue::ALL.len()]);
            values.iter_mut().zip(told).for_each(|(value, told)| *value = told);
        }
        (counts, refused)
    }

    /// What the shadow models said of the request that was scored last, in the order of the publication; nothing where
    /// its route has none or no active model. Of what they lack, [`BoundModel::missing_input`] tells.
    pub fn shadows(&self) -> &[Shadow] {
        self.evaluator.shadows()
    }

    /// Forgets the request that was scored last, with what the shadow models said: for one that is not scored.
    pub fn forget(&mut self) {
        self.last_route = None;
        self.evaluator.clear();
    }

    /// The route of the request that was scored last, as an index in those bound.
    fn last_route(&self) -> Option<usize> {
        self.last_route
    }

    /// The values that the last call looked up, and how each dimension answered.
    pub fn last(&self) -> (&[f32], &[Status]) {
        let statuses = self.buffers.statuses.get(..self.dimensions.len()).unwrap_or_default();
        (&self.buffers.values, statuses)
    }
}

#[cfg(test)]
mod tests;
