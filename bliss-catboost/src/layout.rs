//! The bytes of a compiled model: a header, then sections that each start at a multiple of 64.
//!
//! All numbers are little-endian. `docs/models.md` describes every section; a change of any of them raises
//! [`VERSION`].

#[cfg(target_endian = "big")]
compile_error!("compiled models are little-endian and read in place");

/// What a compiled model starts with.
pub(crate) const MAGIC: [u8; 8] = *b"BLISSMDL";

/// Version of the layout.
pub(crate) const VERSION: u32 = 1;

/// Alignment of a model and of each of its sections.
pub(crate) const ALIGN: usize = 64;

/// Numbers that are quantised together.
pub(crate) const LANES: usize = 16;

/// Trees whose leaf indexes are computed together.
pub(crate) const BLOCK: usize = 64;

/// Non-symmetric trees that are walked together.
pub(crate) const TRAVERSAL_TREES: usize = 8;

/// Borders that one slot counts at most, so that a threshold of [`UNREACHABLE_THRESHOLD`] is never reached.
pub(crate) const MAX_ROWS: usize = 254;

/// A threshold that no slot reaches.
pub(crate) const UNREACHABLE_THRESHOLD: u8 = 255;

/// Levels of an oblivious tree at most.
pub(crate) const MAX_LEVELS: usize = 16;

/// Bytes of slots that are always there, so that a kernel may load them whole.
pub(crate) const MIN_SLOT_BYTES: usize = 256;

/// Bytes of slots at most: a slot's number has 16 bits.
pub(crate) const MAX_SLOTS: usize = 1 << 16;

/// The trees are non-symmetric: sections NODES and on are used, BLOCKS and on are empty.
pub(crate) const FLAG_NON_SYMMETRIC: u32 = 1;
/// A slot's number has two bytes in TESTS.
pub(crate) const FLAG_WIDE_SLOTS: u32 = 2;
/// Each output dimension is a class or label for itself: probabilities do not add up to 1.
pub(crate) const FLAG_EACH_SIGMOID: u32 = 4;
/// Raw values are probabilities. Readers that do not know this bit refuse the model.
pub(crate) const FLAG_PROBABILITIES: u32 = 8;
/// The bits that have a meaning.
pub(crate) const FLAGS: u32 = FLAG_NON_SYMMETRIC | FLAG_WIDE_SLOTS | FLAG_EACH_SIGMOID | FLAG_PROBABILITIES;

/// Marks types of which every bit pattern is valid, without padding.
///
/// # Safety
///
/// - the type is `Copy`, has no padding, no pointers and no invalid bit pattern
pub(crate) unsafe trait Pod: Copy + 'static {}

macro_rules! plain {
    ($($ty:ty),*) => { $(
        // SAFETY:
        // - numbers, vectors of numbers, and `repr(C)` structs of numbers without padding (sizes asserted below)
        unsafe impl $crate::layout::Pod for $ty {}
    )* };
}
pub(crate) use plain;
plain!(
    u8, u32, u64, f32, f64, Header, Group, Row, OneHot, Projection, Element, Block, Pages, Node, Traversal
);

// SAFETY:
// - an array has no padding between or after its elements
unsafe impl<T: Pod, const N: usize> Pod for [T; N] {}

/// `count` elements from `offset` on, if they lie inside of `bytes` and are aligned.
pub(crate) fn elements<T: Pod>(bytes: &[u8], offset: usize, count: usize) -> Option<&[T]> {
    let part = bytes.get(offset..)?.get(..count.checked_mul(size_of::<T>())?)?;
    if !part.as_ptr().cast::<T>().is_aligned() {
        return None;
    }
    // SAFETY:
    // - the length is that of `count` elements, and they are aligned (both checked above)
    // - any bits are a `Pod`
    Some(unsafe { std::slice::from_raw_parts(part.as_ptr().cast::<T>(), count) })
}

/// The bytes of elements.
#[cfg(feature = "build")]
pub(crate) fn bytes_of<T: Pod>(elements: &[T]) -> &[u8] {
    // SAFETY:
    // - the length is that of the elements, whose bytes are all initialised: a `Pod` has no padding
    // - a byte has no alignment
    unsafe { std::slice::from_raw_parts(elements.as_ptr().cast::<u8>(), size_of_val(elements)) }
}

/// Elements seen as their parts, for instance a line as 16 numbers.
pub(crate) fn parts_of_mut<T: Pod, U: Pod>(elements: &mut [T]) -> &mut [U] {
    const { assert!(align_of::<T>() >= align_of::<U>() && size_of::<T>().is_multiple_of(size_of::<U>())) };
    // SAFETY:
    // - as many parts as the elements hold, and aligned as they are (asserted above)
    // - any bits are a `T` and a `U`
    unsafe {
        let count = size_of_val(elements) / size_of::<U>();
        std::slice::from_raw_parts_mut(elements.as_mut_ptr().cast::<U>(), count)
    }
}

/// The range of a section.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(crate) struct Section {
    /// Bytes from the start of the model, a multiple of 64.
    pub(crate) offset: u64,
    /// Elements (not bytes).
    pub(crate) count: u64,
}

/// The sections, in the order in which they follow the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub(crate) enum SectionId {
    /// [`Meta`](super::meta::Meta), archived by rkyv.
    Meta,
    /// Per lane the input it takes.
    Lanes,
    /// [`Group`]s of 16 lanes.
    Groups,
    /// [`Row`]s of 16 borders.
    Borders,
    /// [`OneHot`] tests.
    OneHots,
    /// [`Projection`]s: keys of CTRs.
    Projections,
    /// [`Element`]s of the projections.
    Elements,
    /// Hash tables of the projections.
    Ctrs,
    /// [`Block`]s of 64 oblivious trees.
    Blocks,
    /// [`Pages`] of each level.
    Pages,
    /// Slots and thresholds of each level.
    Tests,
    /// Per tree the position of its first leaf value.
    LeafBases,
    /// Leaf values.
    Leaves,
    /// [`Node`]s of non-symmetric trees.
    Nodes,
    /// Per node the position of its leaf value.
    NodeLeaves,
    /// Per tree its root.
    Roots,
    /// [`Traversal`]s: trees that are walked together.
    Walks,
    /// Bias per dimension.
    Bias,
    /// What explanations need, or zeros in the header where the model has none: u64. Per oblivious tree a word with the test of
    /// each level of CatBoost's, from the root on, four bits each; then the weight of each leaf, the bits of an f64. Leaves
    /// in the order of LEAVES.
    Weights,
    /// [`DistributionRow`](crate::DistributionRow)s, that of scores first, or zeros in the header where the model has none.
    Distribution,
}

/// Number of sections.
pub(crate) const SECTIONS: usize = 20;

/// The start of a compiled model.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(crate) struct Header {
    pub(crate) magic: [u8; 8],
    pub(crate) version: u32,
    pub(crate) flags: u32,
    /// Bytes of the model, header included.
    pub(crate) bytes: u64,
    /// The sum is multiplied by this.
    pub(crate) scale: f64,
    /// Inputs in all.
    pub(crate) inputs: u32,
    /// How many of them, from the first on, are numbers.
    pub(crate) float_inputs: u32,
    /// Values per row.
    pub(crate) dimensions: u32,
    /// Trees.
    pub(crate) trees: u32,
    /// Slots in use.
    pub(crate) slots: u32,
    /// Depth of the deepest tree.
    pub(crate) depth: u32,
    /// A hash of everything that slots are filled by: the same for models whose slots are equal on every row. 0: not known.
    pub(crate) slots_id: u64,
    pub(crate) sections: [Section; SECTIONS],
}

/// 16 lanes and their borders.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(crate) struct Group {
    /// First row of borders.
    pub(crate) first_row: u32,
    /// Rows of borders, at most [`MAX_ROWS`].
    pub(crate) rows: u16,
    /// Lanes whose NaN is plus infinity.
    pub(crate) nan_largest: u16,
}

/// A border per lane; lanes with fewer borders are filled up with plus infinity.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(crate) struct Row(pub(crate) [f32; LANES]);

/// A category compared with a value; its slot is 1 where they are equal.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(crate) struct OneHot {
    pub(crate) input: u32,
    pub(crate) value: u32,
}

/// A combination of features and the table that it is looked up in.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(crate) struct Projection {
    /// First of its elements, and how many.
    pub(crate) first_element: u32,
    pub(crate) elements: u32,
    /// First of the slots that a row of its table fills, and how many.
    pub(crate) first_slot: u32,
    pub(crate) slots: u32,
    /// Byte in CTRS where its table starts.
    pub(crate) table: u64,
    /// Entries of the table; an entry is a key (u64) and then a row of slots, padded to a multiple of 8.
    pub(crate) entries: u64,
    /// Entries that a lookup visits at most before the row of an unknown key holds, which follows the entries.
    pub(crate) probes: u64,
}

/// One feature of a combination.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(crate) struct Element {
    /// 0: the category of input `at`; else whether slot `at` reaches this threshold.
    pub(crate) threshold: u32,
    pub(crate) at: u32,
}

/// 64 oblivious trees.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(crate) struct Block {
    /// First of its levels in TESTS and PAGES, and how many.
    pub(crate) first_level: u32,
    pub(crate) levels: u32,
}

/// Which pages of slots the tests of a level touch.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(crate) struct Pages {
    /// First and last page of 128 slots.
    pub(crate) of_128: [u16; 2],
}

/// A node of a non-symmetric tree: continues at `base`, or at `base + 1` where the slot reaches the threshold. A leaf
/// continues at itself.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(crate) struct Node {
    pub(crate) base: u32,
    pub(crate) slot: u16,
    pub(crate) threshold: u8,
    /// 1 for a leaf that a `.cbm` file keeps in its parent, in models with WEIGHTS; scores do not need it.
    pub(crate) implied: u8,
}

/// Trees that are walked together, and for how many steps.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(crate) struct Traversal {
    pub(crate) trees: [u32; TRAVERSAL_TREES],
    pub(crate) steps: u32,
    pub(crate) reserved: u32,
}

const _: () = {
    assert!(size_of::<Header>() == 384);
    // No padding, which would publish whatever was in memory there.
    assert!(
        core::mem::offset_of!(Header, sections) + size_of::<[Section; SECTIONS]>() == size_of::<Header>()
    );
    assert!(size_of::<Group>() == 8);
    assert!(size_of::<Row>() == 64);
    assert!(size_of::<OneHot>() == 8);
    assert!(size_of::<Projection>() == 40);
    assert!(size_of::<Element>() == 8);
    assert!(size_of::<Block>() == 8);
    assert!(size_of::<Pages>() == 4);
    assert!(size_of::<Node>() == 8);
    assert!(size_of::<Traversal>() == 40);
};

/// Bytes of one level in TESTS: 64 slots (low bytes), 64 thresholds, and 64 high bytes where slots are wide.
pub(crate) const fn level_bytes(flags: u32) -> usize {
    if flags & FLAG_WIDE_SLOTS == 0 { 2 * BLOCK } else { 3 * BLOCK }
}

/// Bytes of an entry of a CTR table whose rows fill `slots` slots.
pub(crate) const fn entry_bytes(slots: usize) -> usize {
    8 + slots.next_multiple_of(8)
}

/// Bytes that the slots take in scratch memory.
pub(crate) const fn slot_bytes(slots: usize) -> usize {
    let bytes = slots.next_multiple_of(128);
    if bytes < MIN_SLOT_BYTES { MIN_SLOT_BYTES } else { bytes }
}

/// Where the search for a key starts in a table of `entries`.
pub(crate) fn first_probe(key: u64, entries: u64) -> u64 {
    // The high half of a product is below the number of entries; the low half cannot overflow into it.
    let mixed = (key ^ (key >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    ((u128::from(mixed) * u128::from(entries)) >> 64) as u64
}
