//! Dimensions bound to features: from a request's attributes to rows.

use crate::attribute::{Canonical, TextRoom, Value};
use crate::http::{HttpRequest, RequestValue, Rule, flag, is_of_site};
use crate::key::{KeyBuilder, KeySecret, SECRET_BYTES};
use crate::name::Name;
use crate::pass::{PassKey, address_of};
use crate::prefixes::{Address, PrefixLocator, PrefixRowsLayout};
use crate::publication::features::{DimensionRows, FeaturesRef};
use crate::publication::frame::FrameError;
use crate::request::{MAX_ATTRIBUTES, Names, Request};
use crate::schema::{
    ArchivedDimension, ArchivedFeatureKind, AttributeKind, MAX_DIMENSIONS, MAX_FEATURES, MAX_KEY_PARTS,
    MAX_SITE_HOSTS, OnStale,
};
use crate::score::Status;
use crate::table::{
    Buffers, Clock, Instructions, Layout, Locator, Lookup, LookupEntry, PrefixEntry, look_up,
};
use bliss_catboost::category_hash;

/// All dimensions of the features.
#[derive(Debug)]
pub struct BoundDimensions {
    /// Schema and number of registered names that are bound.
    bound: Option<(u64, usize)>,
    pub(super) instructions: Instructions,
    secret: KeySecret,
    /// Made of the secret.
    pass_key: PassKey,
    clock_skew_seconds: u32,
    max_heartbeat_age_seconds: u32,
    /// Dimensions that may not be used where their row is stale, as a mask.
    strict: u64,
    /// The types of the caller's attributes in the schema, and what their text counts as, by index.
    attributes: [Option<(AttributeKind, Rule)>; MAX_ATTRIBUTES],
    dimensions: Vec<BoundDimension>,
    site_hosts: Vec<Name>,
    /// What a lookup needs of each dimension, side by side.
    lookup_entries: Vec<LookupEntry>,
    /// The same of those that are matched by the longest prefix.
    prefix_entries: Vec<PrefixEntry>,
    features: Vec<BoundFeature>,
    /// As rows hold them.
    defaults: Vec<[u8; 4]>,
}

#[derive(Clone, Copy, Debug)]
struct BoundDimension {
    key: KeyBuilder,
    /// The request's attribute of each key part; `None` where the caller never registered it.
    attributes: [Option<u8>; MAX_KEY_PARTS],
    max_age_seconds: u32,
    on_stale: OnStale,
    place: Place,
    columns: usize,
    /// Index of its first feature in the vector of values.
    first: usize,
}

/// Where rows are, and how they are found there.
#[derive(Clone, Copy, Debug)]
enum Place {
    /// By key, in the table at this offset.
    Keys(usize, Layout),
    /// By the longest prefix.
    Prefixes(usize, PrefixRowsLayout),
}

#[derive(Clone, Copy, Debug)]
struct BoundFeature {
    name: Name,
    is_category: bool,
}

impl BoundDimensions {
    pub(super) fn new() -> Self {
        Self {
            bound: None,
            instructions: Instructions::detect(),
            secret: KeySecret([0; SECRET_BYTES]),
            pass_key: PassKey::of(&KeySecret([0; SECRET_BYTES])),
            clock_skew_seconds: 0,
            max_heartbeat_age_seconds: 0,
            strict: 0,
            attributes: [None; MAX_ATTRIBUTES],
            dimensions: Vec::with_capacity(MAX_DIMENSIONS),
            site_hosts: Vec::with_capacity(MAX_SITE_HOSTS),
            lookup_entries: Vec::with_capacity(MAX_DIMENSIONS),
            prefix_entries: Vec::with_capacity(MAX_DIMENSIONS),
            features: Vec::with_capacity(MAX_FEATURES),
            defaults: Vec::with_capacity(MAX_FEATURES),
        }
    }

    /// Binds checked features; its limits are those of the buffers, so nothing is allocated. Says whether indices in
    /// the vector of values may have changed, so that models must be bound again.
    pub(super) fn bind(&mut self, features: FeaturesRef<'_>, names: &Names) -> Result<bool, FrameError> {
        self.secret = features.secret();
        self.pass_key = PassKey::of(&self.secret);
        let identity = Some((features.schema_id(), names.registered()));
        if self.bound.take() == identity {
            for (index, dimension) in self.dimensions.iter_mut().enumerate() {
                dimension.place = place(&features, index)?;
            }
            self.fill_lookup_entries();
            self.bound = identity;
            return Ok(false);
        }
        self.unbind();
        self.clock_skew_seconds = features.schema().clock_skew_seconds.to_native();
        self.max_heartbeat_age_seconds = features.schema().max_heartbeat_age_seconds.to_native();
        for (kind, name) in self.attributes.iter_mut().zip(names.attributes()) {
            *kind = features.schema().attribute_kind(name).map(|kind| (kind, Rule::of(name)));
        }
        for host in features.schema().site_hosts.iter().take(MAX_SITE_HOSTS) {
            self.site_hosts.push(Name::new(host).ok_or(FrameError::Metadata)?);
        }
        for (index, dimension) in features.schema().dimensions.iter().enumerate() {
            self.bind_dimension(&features, index, dimension, names)?;
        }
        self.fill_lookup_entries();
        self.bound = identity;
        Ok(true)
    }

    /// Copies what lookups need; within the capacity, since there are no more than dimensions.
    fn fill_lookup_entries(&mut self) {
        self.lookup_entries.clear();
        self.prefix_entries.clear();
        for (dimension, bound) in self.dimensions.iter().enumerate() {
            let locator = match &bound.place {
                Place::Keys(offset, layout) => Locator::new(layout, *offset),
                Place::Prefixes(offset, layout) => {
                    let locator = PrefixLocator::new(layout, *offset);
                    self.prefix_entries.push(PrefixEntry { dimension, locator });
                    Locator::NONE
                }
            };
            let BoundDimension { first, columns, max_age_seconds, on_stale, .. } = *bound;
            self.lookup_entries.push(LookupEntry::new(locator, first, columns, max_age_seconds, on_stale));
        }
    }

    /// Forgets everything.
    pub(super) fn unbind(&mut self) {
        self.bound = None;
        self.max_heartbeat_age_seconds = 0;
        self.strict = 0;
        self.attributes = [None; MAX_ATTRIBUTES];
        self.dimensions.clear();
        self.site_hosts.clear();
        self.lookup_entries.clear();
        self.prefix_entries.clear();
        self.features.clear();
        self.defaults.clear();
    }

    fn bind_dimension(
        &mut self,
        features: &FeaturesRef<'_>,
        index: usize,
        dimension: &ArchivedDimension,
        names: &Names,
    ) -> Result<(), FrameError> {
        let mut bound = BoundDimension {
            key: KeyBuilder::of_archived(features.schema(), dimension).ok_or(FrameError::Metadata)?,
            attributes: [None; MAX_KEY_PARTS],
            max_age_seconds: dimension.max_age_seconds.to_native(),
            on_stale: dimension.on_stale.to_native(),
            place: place(features, index)?,
            columns: dimension.features.len(),
            first: self.features.len(),
        };
        for (to, part) in bound.attributes.iter_mut().zip(dimension.key.iter()) {
            *to = names.attribute_index(&part.attribute).and_then(|index| u8::try_from(index).ok());
        }
        for feature in dimension.features.iter() {
            let name = Name::new(&feature.name).ok_or(FrameError::Metadata)?;
            self.features
                .push(BoundFeature { name, is_category: feature.kind == ArchivedFeatureKind::Category });
            self.defaults.push(feature.default.to_native().to_le_bytes());
        }
        if bound.on_stale == OnStale::Unscored {
            // There are at most 64 dimensions.
            self.strict |= 1u64.checked_shl(u32::try_from(index).unwrap_or(u32::MAX)).unwrap_or(0);
        }
        self.dimensions.push(bound);
        Ok(())
    }

    /// The values of the mask `wanted` that `http` says by itself, on the site whose hosts are bound, at time `now`.
    #[inline]
    pub(super) fn request_values(
        &self,
        http: &HttpRequest<'_>,
        wanted: u32,
        now: u32,
    ) -> [f32; RequestValue::ALL.len()] {
        let hosts = self.site_hosts.iter().map(|host| host.as_str().as_bytes());
        let mut values = http.values(wanted, |host| is_of_site(hosts.clone(), host));
        let passed = RequestValue::ChallengePassed;
        if let (true, Some(place)) = (wanted & passed.bit() != 0, values.get_mut(passed.index())) {
            *place = self.passed(http, now).map_or(f32::NAN, flag);
        }
        values
    }

    /// Whether `http` brings a pass that holds at time `now`; `None` where that is not told, or no secret is bound to check it with.
    #[inline]
    pub(super) fn passed(&self, http: &HttpRequest<'_>, now: u32) -> Option<bool> {
        http.passed(|cookie| {
            self.bound?;
            let agent = http.user_agent.unwrap_or_default();
            Some(self.pass_key.holds(cookie, address_of(http.ip), agent, now))
        })
    }

    /// The key for passes; `None` where no secret is bound.
    pub(super) fn pass_key(&self) -> Option<&PassKey> {
        self.bound.map(|_| &self.pass_key)
    }

    /// The secret that keys are hashed with.
    pub(super) fn secret(&self) -> &KeySecret {
        &self.secret
    }

    /// What becomes of stale rows of dimension `index`.
    pub(super) fn on_stale(&self, index: usize) -> Option<OnStale> {
        self.dimensions.get(index).map(|dimension| dimension.on_stale)
    }

    /// Number of dimensions.
    pub fn len(&self) -> usize {
        self.dimensions.len()
    }

    /// How long the daemon may give no sign of life before requests are unscored, in seconds; 0: for ever.
    pub fn max_heartbeat_age_seconds(&self) -> u32 {
        self.max_heartbeat_age_seconds
    }

    /// Those dimensions, as a mask, whose row is stale by `statuses` and which may not be used then.
    #[inline]
    pub(super) fn refused_as_stale(&self, statuses: &[Status]) -> u64 {
        if self.strict == 0 {
            return 0;
        }
        let stale = |(index, status): (usize, &Status)| u64::from(*status == Status::Stale) << (index & 63);
        self.strict & statuses.iter().take(MAX_DIMENSIONS).enumerate().map(stale).sum::<u64>()
    }

    /// Whether there are no dimensions, for instance because nothing is bound.
    pub fn is_empty(&self) -> bool {
        self.dimensions.is_empty()
    }

    /// Number of features of all dimensions together.
    pub fn width(&self) -> usize {
        self.features.len()
    }

    /// The name of dimension `index`.
    pub fn name(&self, index: usize) -> Option<&str> {
        Some(self.dimensions.get(index)?.key.dimension())
    }

    /// Dimension and name of the feature at `index` in the vector of values.
    pub fn feature_name(&self, index: usize) -> Option<(&str, &str)> {
        let dimension = self.dimensions.iter().rev().find(|d| d.first <= index)?;
        Some((dimension.key.dimension(), self.features.get(index)?.name.as_str()))
    }

    /// The dimension of the feature at `index` in the vector of values, and whether that is a category.
    pub(super) fn feature(&self, index: usize) -> Option<(usize, bool)> {
        let is_category = self.features.get(index)?.is_category;
        Some((self.dimensions.iter().rposition(|d| d.first <= index)?, is_category))
    }

    /// Dimension, index in the vector and type (whether it is a category) of the feature a model calls `name`.
    pub(super) fn find(&self, name: &str) -> Option<(usize, usize, bool)> {
        let (dimension_name, feature_name) = name.split_once('.')?;
        let index = self.dimensions.iter().position(|d| d.key.dimension() == dimension_name)?;
        let dimension = self.dimensions.get(index)?;
        let columns = self.features.get(dimension.first..)?.get(..dimension.columns)?;
        let column = columns.iter().position(|f| f.name.as_str() == feature_name)?;
        Some((index, dimension.first + column, columns.get(column)?.is_category))
    }

    /// The kind of the caller's attribute at `index`, if the schema knows it.
    pub(super) fn attribute_kind(&self, index: usize) -> Option<AttributeKind> {
        self.attributes.get(index)?.map(|(kind, _)| kind)
    }

    /// The category that the request's attribute at `index` is; `None` where it has none that fits its kind.
    pub(super) fn category(&self, index: usize, request: &Request<'_>) -> Option<f32> {
        let (kind, rule) = (*self.attributes.get(index)?)?;
        let canonical = Canonical::by_rule(kind, rule, request.attribute(index)?)?;
        Some(f32::from_bits(category_hash(canonical.text(kind, &mut TextRoom::default()))))
    }

    /// The key of dimension `index` for attribute values given in the order of its key; `None` where one does not fit, or rows
    /// are matched by the longest prefix, which have no keys.
    pub fn key(&self, index: usize, values: &[Value<'_>]) -> Option<u64> {
        let dimension = self.dimensions.get(index)?;
        if values.len() != dimension.key.parts() || dimension.is_by_prefix() {
            return None;
        }
        dimension.key.key(&self.secret, |i| values.get(i).copied()).ok()
    }

    #[inline]
    fn request_key(&self, dimension: &BoundDimension, request: &Request<'_>) -> Option<u64> {
        let attribute = |part: usize| *dimension.attributes.get(part)?;
        dimension.key.key(&self.secret, |part| request.attribute(usize::from(attribute(part)?))).ok()
    }

    /// Looks up the dimensions of `mask` (bit i is dimension i; those beyond bit 63 cannot be) and writes values and
    /// statuses; other dimensions are [`Status::Unused`] and keep their old values.
    pub(super) fn look_up(
        &self,
        features: &[u8],
        request: &Request<'_>,
        now: u32,
        mask: u64,
        buffers: &mut Buffers,
    ) {
        let key = |index: usize| {
            if mask >> index & 1 == 0 {
                return Err(Status::Unused);
            }
            let dimension = self.dimensions.get(index).filter(|dimension| !dimension.is_by_prefix());
            dimension.and_then(|d| self.request_key(d, request)).ok_or(Status::Absent)
        };
        let address = |index: usize| {
            let dimension = self.dimensions.get(index).filter(|_| mask >> (index & 63) & 1 == 1)?;
            let attribute = (*dimension.attributes.first()?)?;
            let value = request.attribute(usize::from(attribute))?;
            Address::of_bytes(Canonical::new(AttributeKind::Ip, value)?.bytes())
        };
        look_up(self.instructions, self.lookup(features, now), key, address, buffers);
    }

    pub(super) fn look_up_keys(&self, features: &[u8], keys: &[u64], now: u32, buffers: &mut Buffers) {
        let is_by_prefix =
            |index: usize| self.dimensions.get(index).is_some_and(BoundDimension::is_by_prefix);
        let key = |index: usize| match keys.get(index).filter(|_| !is_by_prefix(index)) {
            // The key of empty slots.
            Some(0) => Err(Status::Missing),
            Some(key) => Ok(*key),
            None => Err(Status::Absent),
        };
        look_up(self.instructions, self.lookup(features, now), key, |_| None, buffers);
    }

    #[inline]
    fn lookup<'a>(&'a self, features: &'a [u8], now: u32) -> Lookup<'a> {
        let clock = Clock { now, latest: now.saturating_add(self.clock_skew_seconds) };
        let (entries, prefixes) = (&self.lookup_entries, &self.prefix_entries);
        Lookup { entries, prefixes, features, clock, defaults: &self.defaults }
    }
}

impl BoundDimension {
    #[inline]
    fn is_by_prefix(&self) -> bool {
        matches!(self.place, Place::Prefixes(..))
    }
}

fn place(features: &FeaturesRef<'_>, index: usize) -> Result<Place, FrameError> {
    let offset = usize::try_from(features.rows_offset(index)?).map_err(|_| FrameError::Section { index })?;
    Ok(match features.dimension(index)? {
        DimensionRows::Keys(table) => Place::Keys(offset, *table.layout()),
        DimensionRows::Prefixes(prefixes) => Place::Prefixes(offset, *prefixes.layout()),
    })
}
