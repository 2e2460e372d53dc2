//! Dimensions bound to a snapshot: from a request's attributes to rows.

use crate::attribute::{Canonical, TextRoom, Value};
use crate::frame::FrameError;
use crate::key::{KeySecret, SECRET_BYTES, hash_key};
use crate::request::{MAX_ATTRIBUTES, Names, Request};
use crate::schema::{
    ArchivedDimension, ArchivedSchema, AttributeKind, MAX_DIMENSIONS, MAX_FEATURES, MAX_KEY_PARTS,
    MAX_NAME_BYTES,
};
use crate::score::Status;
use crate::snapshot::SnapshotRef;
use crate::table::Layout;
use bliss_catboost::category_hash;

use super::fetch::{Buffers, Clock, Hot, Instructions, Task, fetch};

/// All dimensions of a snapshot.
#[derive(Debug)]
pub struct DimensionPlan {
    /// Schema and number of registered names that are bound.
    bound: Option<(u64, usize)>,
    pub(super) instructions: Instructions,
    secret: KeySecret,
    clock_skew_seconds: u32,
    /// What the schema says of the caller's attributes, by their places.
    attributes: [Option<AttributeKind>; MAX_ATTRIBUTES],
    dimensions: Vec<PlannedDimension>,
    /// What a lookup needs of each dimension, side by side.
    hot: Vec<Hot>,
    features: Vec<PlannedFeature>,
    /// As rows hold them.
    defaults: Vec<[u8; 4]>,
}

#[derive(Clone, Copy, Debug)]
struct PlannedDimension {
    name: Name,
    parts: [PlannedPart; MAX_KEY_PARTS],
    part_count: usize,
    max_age_seconds: u32,
    table_at: usize,
    layout: Layout,
    /// Place of its first feature in the vector of values.
    first: usize,
}

#[derive(Clone, Copy, Debug)]
struct PlannedPart {
    /// Where the request holds the attribute; `None` where the caller never registered it.
    attribute: Option<usize>,
    kind: AttributeKind,
    v4_prefix: Option<u8>,
    v6_prefix: Option<u8>,
}

#[derive(Clone, Copy, Debug)]
struct PlannedFeature {
    name: Name,
    is_category: bool,
}

/// A name copied out of the snapshot.
#[derive(Clone, Copy)]
pub(super) struct Name {
    bytes: [u8; MAX_NAME_BYTES],
    len: u8,
}

const _: () = assert!(MAX_NAME_BYTES <= 255);

impl Name {
    pub(super) fn new(text: &str) -> Option<Self> {
        let mut bytes = [0; MAX_NAME_BYTES];
        bytes.get_mut(..text.len())?.copy_from_slice(text.as_bytes());
        Some(Self { bytes, len: u8::try_from(text.len()).ok()? })
    }

    pub(super) fn as_str(&self) -> &str {
        // Copied whole from a `str`, so it always is one.
        self.bytes.get(..usize::from(self.len)).and_then(|b| core::str::from_utf8(b).ok()).unwrap_or_default()
    }
}

impl core::fmt::Debug for Name {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.as_str().fmt(f)
    }
}

impl DimensionPlan {
    pub(super) fn new() -> Self {
        Self {
            bound: None,
            instructions: Instructions::detect(),
            secret: KeySecret([0; SECRET_BYTES]),
            clock_skew_seconds: 0,
            attributes: [None; MAX_ATTRIBUTES],
            dimensions: Vec::with_capacity(MAX_DIMENSIONS),
            hot: Vec::with_capacity(MAX_DIMENSIONS),
            features: Vec::with_capacity(MAX_FEATURES),
            defaults: Vec::with_capacity(MAX_FEATURES),
        }
    }

    /// Binds a checked snapshot; its limits are those of the buffers, so nothing is allocated. Says whether places in
    /// the vector of values may have changed, so that models must be bound again.
    pub(super) fn bind(&mut self, snapshot: SnapshotRef<'_>, names: &Names) -> Result<bool, FrameError> {
        self.secret = snapshot.secret();
        let identity = Some((snapshot.schema_id(), names.registered()));
        if self.bound.take() == identity {
            for (index, dimension) in self.dimensions.iter_mut().enumerate() {
                (dimension.table_at, dimension.layout) = place(&snapshot, index)?;
            }
            self.heat();
            self.bound = identity;
            return Ok(false);
        }
        self.unbind();
        self.clock_skew_seconds = snapshot.schema().clock_skew_seconds.to_native();
        for (kind, name) in self.attributes.iter_mut().zip(names.attributes()) {
            *kind = snapshot.schema().attribute_kind(name);
        }
        for (index, dimension) in snapshot.schema().dimensions.iter().enumerate() {
            self.bind_dimension(&snapshot, index, dimension, names)?;
        }
        self.heat();
        self.bound = identity;
        Ok(true)
    }

    /// Sets down what lookups need; within the capacity, since there are no more than dimensions.
    fn heat(&mut self) {
        self.hot.clear();
        let hot = |d: &PlannedDimension| Hot::new(&d.layout, d.table_at, d.first, d.max_age_seconds);
        self.hot.extend(self.dimensions.iter().map(hot));
    }

    /// Forgets everything.
    pub(super) fn unbind(&mut self) {
        self.bound = None;
        self.attributes = [None; MAX_ATTRIBUTES];
        self.dimensions.clear();
        self.hot.clear();
        self.features.clear();
        self.defaults.clear();
    }

    fn bind_dimension(
        &mut self,
        snapshot: &SnapshotRef<'_>,
        index: usize,
        dimension: &ArchivedDimension,
        names: &Names,
    ) -> Result<(), FrameError> {
        let (table_at, layout) = place(snapshot, index)?;
        let nothing =
            PlannedPart { attribute: None, kind: AttributeKind::String, v4_prefix: None, v6_prefix: None };
        let mut planned = PlannedDimension {
            name: Name::new(&dimension.name).ok_or(FrameError::Metadata)?,
            parts: [nothing; MAX_KEY_PARTS],
            part_count: dimension.key.len(),
            max_age_seconds: dimension.max_age_seconds.to_native(),
            table_at,
            layout,
            first: self.features.len(),
        };
        for (to, part) in planned.parts.iter_mut().zip(dimension.key.iter()) {
            *to = bind_part(snapshot.schema(), part, names).ok_or(FrameError::Metadata)?;
        }
        for feature in dimension.features.iter() {
            let name = Name::new(&feature.name).ok_or(FrameError::Metadata)?;
            let is_category = feature.kind == crate::schema::ArchivedFeatureKind::Category;
            self.features.push(PlannedFeature { name, is_category });
            self.defaults.push(feature.default.to_native().to_le_bytes());
        }
        self.dimensions.push(planned);
        Ok(())
    }

    /// Number of dimensions.
    pub fn len(&self) -> usize {
        self.dimensions.len()
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
        Some(self.dimensions.get(index)?.name.as_str())
    }

    /// Dimension and name of the feature at `place` of the vector of values.
    pub fn feature_name(&self, place: usize) -> Option<(&str, &str)> {
        let dimension = self.dimensions.iter().rev().find(|d| d.first <= place)?;
        Some((dimension.name.as_str(), self.features.get(place)?.name.as_str()))
    }

    /// Dimension, place in the vector and type (whether it is a category) of the feature a model calls `name`.
    pub(super) fn find(&self, name: &str) -> Option<(usize, usize, bool)> {
        let (dimension_name, feature_name) = name.split_once('.')?;
        let index = self.dimensions.iter().position(|d| d.name.as_str() == dimension_name)?;
        let dimension = self.dimensions.get(index)?;
        let columns = self.features.get(dimension.first..)?.get(..dimension.layout.columns())?;
        let place = columns.iter().position(|f| f.name.as_str() == feature_name)?;
        Some((index, dimension.first + place, columns.get(place)?.is_category))
    }

    /// The kind of the caller's attribute at `index`, if the schema knows it.
    pub(super) fn attribute_kind(&self, index: usize) -> Option<AttributeKind> {
        *self.attributes.get(index)?
    }

    /// The category that the request's attribute at `index` is; `None` where it has none that fits its kind.
    pub(super) fn category(&self, index: usize, request: &Request<'_>) -> Option<f32> {
        let kind = self.attribute_kind(index)?;
        let canonical = Canonical::new(kind, request.attribute(index)?)?;
        Some(f32::from_bits(category_hash(canonical.text(kind, &mut TextRoom::default()))))
    }

    /// The key of dimension `index` for attribute values given in the order of its key; `None` where one does not fit.
    pub fn key(&self, index: usize, values: &[Value<'_>]) -> Option<u64> {
        let dimension = self.dimensions.get(index)?;
        if values.len() != dimension.part_count {
            return None;
        }
        self.hash(dimension, |i, _| values.get(i).copied())
    }

    #[inline]
    fn request_key(&self, dimension: &PlannedDimension, request: &Request<'_>) -> Option<u64> {
        self.hash(dimension, |_, part| request.attribute(part.attribute?))
    }

    #[inline]
    fn hash<'v>(
        &self,
        dimension: &PlannedDimension,
        value: impl Fn(usize, &PlannedPart) -> Option<Value<'v>>,
    ) -> Option<u64> {
        let mut canonical = [const { None }; MAX_KEY_PARTS];
        let parts = dimension.parts.iter().take(dimension.part_count);
        for (i, (to, part)) in canonical.iter_mut().zip(parts).enumerate() {
            let whole = Canonical::new(part.kind, value(i, part)?)?;
            *to = Some(whole.masked(part.v4_prefix, part.v6_prefix));
        }
        let parts = canonical.iter().flatten().map(Canonical::bytes);
        Some(hash_key(&self.secret, dimension.name.as_str(), parts))
    }

    /// Looks up the dimensions of `mask` (bit i is dimension i; those beyond bit 63 cannot be) and writes values and
    /// statuses; other dimensions are [`Status::Unused`] and keep their old values.
    pub(super) fn look_up(
        &self,
        snapshot: &[u8],
        request: &Request<'_>,
        now: u32,
        mask: u64,
        buffers: &mut Buffers,
    ) {
        let key = |index: usize| {
            if mask >> index & 1 == 0 {
                return Err(Status::Unused);
            }
            self.dimensions.get(index).and_then(|d| self.request_key(d, request)).ok_or(Status::Absent)
        };
        fetch(self.instructions, self.task(snapshot, now), key, buffers);
    }

    pub(super) fn look_up_keys(&self, snapshot: &[u8], keys: &[u64], now: u32, buffers: &mut Buffers) {
        let key = |index: usize| match keys.get(index) {
            // The key of empty slots.
            Some(0) => Err(Status::Missing),
            Some(key) => Ok(*key),
            None => Err(Status::Absent),
        };
        fetch(self.instructions, self.task(snapshot, now), key, buffers);
    }

    #[inline]
    fn task<'a>(&'a self, snapshot: &'a [u8], now: u32) -> Task<'a> {
        let clock = Clock { now, latest: now.saturating_add(self.clock_skew_seconds) };
        Task { hot: &self.hot, snapshot, clock, defaults: &self.defaults }
    }
}

fn place(snapshot: &SnapshotRef<'_>, index: usize) -> Result<(usize, Layout), FrameError> {
    let (at, layout) = snapshot.table_place(index)?;
    Ok((usize::try_from(at).map_err(|_| FrameError::Section { index })?, layout))
}

fn bind_part(
    schema: &ArchivedSchema,
    part: &crate::schema::ArchivedKeyPart,
    names: &Names,
) -> Option<PlannedPart> {
    Some(PlannedPart {
        attribute: names.attribute_index(&part.attribute),
        kind: schema.attribute_kind(&part.attribute)?,
        v4_prefix: part.v4_prefix.as_ref().copied(),
        v6_prefix: part.v6_prefix.as_ref().copied(),
    })
}
