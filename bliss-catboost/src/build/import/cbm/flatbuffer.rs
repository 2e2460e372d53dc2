//! The tables of CatBoost's flatbuffers that are read, addressed by slot through the `flatbuffers` crate's
//! verifier: nothing is followed that was not verified before.

use flatbuffers::{
    Follow, ForwardsUOffset, InvalidFlatbuffer, SimpleToVerifyInSlice, Table, Vector, Verifiable, Verifier,
    VerifierOptions,
};

/// Declares a table: for each field its slot, and an accessor that gives `None` where the file has no value.
macro_rules! table {
    ($(#[$doc:meta])* $name:ident<$a:lifetime> { $($slot:literal $field:ident: $ty:ty,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy)]
        pub(super) struct $name<$a>(Table<$a>);

        impl<$a> Follow<$a> for $name<$a> {
            type Inner = $name<$a>;
            unsafe fn follow(buf: &$a [u8], loc: usize) -> Self::Inner {
                // SAFETY:
                // - `loc` is a verified table: `Follow` is reached only through `root`, which verifies first
                $name(unsafe { Table::new(buf, loc) })
            }
        }

        impl<$a> Verifiable for $name<$a> {
            fn run_verifier(v: &mut Verifier<'_, '_>, pos: usize) -> Result<(), InvalidFlatbuffer> {
                v.visit_table(pos)?
                    $(.visit_field::<$ty>(stringify!($field), 4 + 2 * $slot, false)?)*
                    .finish();
                Ok(())
            }
        }

        impl<$a> $name<$a> {
            $(
                pub(super) fn $field(&self) -> Option<<$ty as Follow<$a>>::Inner> {
                    // SAFETY:
                    // - the verifier visited this slot as this very type (one macro line declares both)
                    unsafe { self.0.get::<$ty>(4 + 2 * $slot, None) }
                }
            )*
        }
    };
}

/// Declares an inline struct of N bytes.
macro_rules! inline {
    ($(#[$doc:meta])* $name:ident, $size:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy)]
        #[repr(transparent)]
        pub(super) struct $name(pub(super) [u8; $size]);

        impl<'a> Follow<'a> for $name {
            type Inner = $name;
            unsafe fn follow(buf: &'a [u8], loc: usize) -> Self::Inner {
                let bytes = buf.get(loc..).and_then(|b| b.first_chunk::<$size>());
                $name(bytes.copied().unwrap_or([0; $size]))
            }
        }

        impl Verifiable for $name {
            fn run_verifier(v: &mut Verifier<'_, '_>, pos: usize) -> Result<(), InvalidFlatbuffer> {
                v.in_buffer::<Self>(pos)
            }
        }

        impl SimpleToVerifyInSlice for $name {}
    };
}

type Str<'a> = ForwardsUOffset<&'a str>;
type Tab<T> = ForwardsUOffset<T>;
type List<'a, T> = ForwardsUOffset<Vector<'a, T>>;
type Tables<'a, T> = ForwardsUOffset<Vector<'a, ForwardsUOffset<T>>>;

table! {
    /// The root.
    ModelCore<'a> {
        0 format_version: Str<'a>,
        1 trees: Tab<ModelTrees<'a>>,
        2 info: Tables<'a, KeyValue<'a>>,
        3 parts: List<'a, ForwardsUOffset<&'a str>>,
    }
}

table! {
    /// A line of the info map.
    KeyValue<'a> { 0 key: Str<'a>, 1 value: Str<'a>, }
}

table! {
    /// Trees, leaves, features, scale and bias.
    ModelTrees<'a> {
        0 dimensions: i32,
        1 splits: List<'a, i32>,
        2 sizes: List<'a, i32>,
        3 starts: List<'a, i32>,
        4 cats: Tables<'a, CatFeature<'a>>,
        5 floats: Tables<'a, FloatFeature<'a>>,
        6 one_hots: Tables<'a, OneHotFeature<'a>>,
        7 ctrs: Tables<'a, CtrFeature<'a>>,
        8 leaves: List<'a, f64>,
        9 weights: List<'a, f64>,
        10 steps: List<'a, StepNode>,
        11 node_leaves: List<'a, u32>,
        12 texts: Tables<'a, TextFeature<'a>>,
        13 estimated: List<'a, u32>,
        14 scale: f64,
        15 bias: f64,
        16 multi_bias: List<'a, f64>,
        18 embeddings: Tables<'a, EmbeddingFeature<'a>>,
    }
}

table! {
    /// A numeric feature and its borders.
    FloatFeature<'a> {
        0 has_nans: bool,
        1 index: i32,
        3 borders: List<'a, f32>,
        4 id: Str<'a>,
        5 nan_treatment: u8,
    }
}

table! {
    /// A categorical feature.
    CatFeature<'a> { 0 index: i32, 2 id: Str<'a>, }
}

table! {
    /// A text feature (refused where used).
    TextFeature<'a> { 1 flat_index: i32, 2 id: Str<'a>, 3 used: bool, }
}

table! {
    /// An embedding feature (refused where used).
    EmbeddingFeature<'a> { 1 flat_index: i32, 2 id: Str<'a>, 4 used: bool, }
}

table! {
    /// The values of a category that splits test for equality.
    OneHotFeature<'a> { 0 index: i32, 1 values: List<'a, i32>, }
}

table! {
    /// A CTR and its borders.
    CtrFeature<'a> { 0 ctr: Tab<ModelCtr<'a>>, 1 borders: List<'a, f32>, }
}

table! {
    /// How a CTR's value comes from its table.
    ModelCtr<'a> {
        0 base: Tab<CtrBase<'a>>,
        1 target_border: i32,
        2 prior_numerator: f32,
        3 prior_denominator: f32,
        4 shift: f32,
        5 scale: f32,
    }
}

table! {
    /// What a CTR counts.
    CtrBase<'a> { 0 projection: Tab<Projection<'a>>, 1 kind: i8, 2 classifier: i32, }
}

table! {
    /// The features that make a CTR's key.
    Projection<'a> { 0 cats: List<'a, i32>, 1 floats: List<'a, FloatSplit>, 2 one_hots: List<'a, OneHotSplit>, }
}

table! {
    /// The counts of a CTR.
    CtrTable<'a> {
        0 base: Tab<CtrBase<'a>>,
        1 index: List<'a, u8>,
        2 blob: List<'a, u8>,
        3 counter_denominator: i32,
        4 target_classes: i32,
    }
}

inline!(
    /// `{u16 LeftDiff, u16 RightDiff}`
    StepNode,
    4
);
inline!(
    /// `{i32 Index, f32 Border}`
    FloatSplit,
    8
);
inline!(
    /// `{i32 Index, i32 Value}`
    OneHotSplit,
    8
);

impl StepNode {
    pub(super) fn diffs(self) -> (u16, u16) {
        let [a, b, c, d] = self.0;
        (u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d]))
    }
}

impl FloatSplit {
    pub(super) fn parts(self) -> (i32, f32) {
        let [a, b, c, d, e, f, g, h] = self.0;
        (i32::from_le_bytes([a, b, c, d]), f32::from_le_bytes([e, f, g, h]))
    }
}

impl OneHotSplit {
    pub(super) fn parts(self) -> (i32, i32) {
        let [a, b, c, d, e, f, g, h] = self.0;
        (i32::from_le_bytes([a, b, c, d]), i32::from_le_bytes([e, f, g, h]))
    }
}

/// How many times the size of a buffer the tables in it may claim in all: CatBoost shares tables of feature
/// combinations, and no more than that; a file in which a million features share one vector is refused here.
const SHARING: usize = 16;

/// Verifies a buffer and gives its root.
pub(super) fn root<'a, T>(buf: &'a [u8]) -> Result<T::Inner, InvalidFlatbuffer>
where
    T: 'a + Follow<'a> + Verifiable,
{
    let options = VerifierOptions {
        max_apparent_size: buf.len().saturating_mul(SHARING).saturating_add(4096),
        max_tables: buf.len() / 4 + 16,
        ..VerifierOptions::default()
    };
    flatbuffers::root_with_opts::<T>(&options, buf)
}
