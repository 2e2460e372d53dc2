//! What makes unchecked reads sound: every number of a compiled model that leads somewhere is checked once.

use rkyv::Archived;

use super::distribution::{self, DistributionRow};
use super::error::ModelError;
use super::layout::{
    ALIGN, BLOCK, Block, Element, FLAG_NON_SYMMETRIC, FLAG_WIDE_SLOTS, FLAGS, Group, Header, LANES, MAGIC,
    MAX_LEVELS, MAX_ROWS, MAX_SLOTS, MIN_SLOT_BYTES, Node, OneHot, Pages, Pod, Projection, Row, SECTIONS,
    SectionId, Traversal, UNREACHABLE_THRESHOLD, VERSION, elements, entry_bytes, level_bytes, slot_bytes,
};
use super::meta::Meta;

/// Checks a compiled model. What it guarantees, evaluation relies on:
///
/// - every section lies inside the bytes, at a multiple of 64, and has the length that the header implies
/// - lanes, one-hot tests and elements name inputs below `inputs`; tests, nodes and elements name slots below
///   `slots`; pages end inside the slots' memory
/// - groups have at most [`MAX_ROWS`] rows, which exist
/// - for each tree, every leaf index that its tests can make leads to `dimensions` leaf values; a slot is never
///   [`UNREACHABLE_THRESHOLD`], so a test against that adds nothing
/// - every node's children exist, every node's leaf value exists, and the steps of all walks together are fewer than
///   the nodes: no loop
pub(super) fn check(bytes: &[u8]) -> Result<(), ModelError> {
    let remainder = bytes.as_ptr().addr() % ALIGN;
    if remainder != 0 {
        return Err(ModelError::Misaligned { remainder });
    }
    if !bytes.starts_with(&MAGIC) {
        return Err(ModelError::Magic);
    }
    let Some([header]) = elements::<Header>(bytes, 0, 1) else {
        let (expected, found) = (size_of::<Header>() as u64, bytes.len() as u64);
        return Err(ModelError::Length { expected, found });
    };
    if header.version != VERSION {
        return Err(ModelError::Version { expected: VERSION, found: header.version });
    }
    if header.bytes != bytes.len() as u64 {
        return Err(ModelError::Length { expected: header.bytes, found: bytes.len() as u64 });
    }
    let model = Unchecked { bytes, header };
    model.check_header()?;
    model.check_inputs()?;
    model.check_projections()?;
    if header.flags & FLAG_NON_SYMMETRIC == 0 { model.check_oblivious() } else { model.check_non_symmetric() }
}

struct Unchecked<'a> {
    bytes: &'a [u8],
    header: &'a Header,
}

/// Fails for the first element that is out of range.
fn all<T>(section: &'static str, elements: &[T], fits: impl Fn(&T) -> bool) -> Result<(), ModelError> {
    match elements.iter().position(|e| !fits(e)) {
        None => Ok(()),
        Some(index) => Err(ModelError::Range { section, index }),
    }
}

impl<'a> Unchecked<'a> {
    /// The elements of a section, if it lies inside the model.
    fn section<T: Pod>(&self, at: SectionId, name: &'static str) -> Result<&'a [T], ModelError> {
        let section = self.header.sections.get(at as usize).copied().unwrap_or_default();
        let wrong = ModelError::Section { section: name, found: section.count };
        let offset = usize::try_from(section.offset).map_err(|_| wrong)?;
        let count = usize::try_from(section.count).map_err(|_| wrong)?;
        if offset % ALIGN != 0 || offset < size_of::<Header>() {
            return Err(wrong);
        }
        elements(self.bytes, offset, count).ok_or(wrong)
    }

    /// A section of exactly this many elements.
    fn exact<T: Pod>(
        &self,
        at: SectionId,
        name: &'static str,
        expected: usize,
    ) -> Result<&'a [T], ModelError> {
        let section = self.section(at, name)?;
        if section.len() == expected {
            return Ok(section);
        }
        Err(ModelError::Section { section: name, found: section.len() as u64 })
    }

    fn check_header(&self) -> Result<(), ModelError> {
        let h = self.header;
        let wrong = |field, found: u32| Err(ModelError::Header { field, found: u64::from(found) });
        if h.flags & !FLAGS != 0 {
            return wrong("flags", h.flags);
        }
        if h.float_inputs > h.inputs {
            return wrong("float_inputs", h.float_inputs);
        }
        if h.dimensions == 0 || h.dimensions > 1 << 16 {
            return wrong("dimensions", h.dimensions);
        }
        if h.slots as usize > MAX_SLOTS
            || (h.flags & FLAG_WIDE_SLOTS == 0 && h.slots as usize > MIN_SLOT_BYTES)
        {
            return wrong("slots", h.slots);
        }
        // The last section ends where the model ends.
        let mut end = size_of::<Header>();
        for section in h.sections {
            end = end.max(usize::try_from(section.offset).unwrap_or(usize::MAX));
        }
        if h.sections.len() != SECTIONS || end > self.bytes.len() {
            return Err(ModelError::Length { expected: end as u64, found: self.bytes.len() as u64 });
        }
        let meta = self.section::<u8>(SectionId::Meta, "names")?;
        let meta =
            rkyv::access::<Archived<Meta>, rkyv::rancor::Failure>(meta).map_err(|_| ModelError::Names)?;
        if meta.inputs.len() != h.inputs as usize {
            return wrong("inputs", h.inputs);
        }
        self.exact::<f64>(SectionId::Bias, "bias", h.dimensions as usize)?;
        // A model that cannot be explained has none; what they say, `Explainer::new` checks.
        if self.is_there(SectionId::Weights) {
            self.section::<u64>(SectionId::Weights, "weights")?;
        }
        if self.is_there(SectionId::Distribution) {
            let section = "distribution";
            let rows = self.section::<DistributionRow>(SectionId::Distribution, section)?;
            distribution::check(rows, h.float_inputs)
                .map_err(|index| ModelError::Range { section, index })?;
        }
        Ok(())
    }

    /// Whether an optional section is there.
    fn is_there(&self, at: SectionId) -> bool {
        self.header.sections.get(at as usize).is_some_and(|s| s.offset != 0 || s.count != 0)
    }

    fn check_inputs(&self) -> Result<(), ModelError> {
        let h = self.header;
        let groups = self.section::<Group>(SectionId::Groups, "groups")?;
        let lanes = self.exact::<u32>(SectionId::Lanes, "lanes", groups.len().saturating_mul(LANES))?;
        let rows = self.section::<Row>(SectionId::Borders, "borders")?;
        all("lanes", lanes, |input| *input < h.inputs)?;
        all("groups", groups, |g| {
            let end = u64::from(g.first_row) + u64::from(g.rows);
            usize::from(g.rows) <= MAX_ROWS && end <= rows.len() as u64
        })?;
        let one_hots = self.section::<OneHot>(SectionId::OneHots, "one_hots")?;
        all("one_hots", one_hots, |o| o.input < h.inputs)?;
        if lanes.len() + one_hots.len() > h.slots as usize {
            return Err(ModelError::Header { field: "slots", found: u64::from(h.slots) });
        }
        Ok(())
    }

    fn check_projections(&self) -> Result<(), ModelError> {
        let h = self.header;
        let projections = self.section::<Projection>(SectionId::Projections, "projections")?;
        let elements = self.section::<Element>(SectionId::Elements, "elements")?;
        let tables = self.section::<u8>(SectionId::Ctrs, "ctrs")?;
        all("elements", elements, |e| e.at < if e.threshold == 0 { h.inputs } else { h.slots })?;
        all("projections", projections, |p| {
            let elements_end = u64::from(p.first_element) + u64::from(p.elements);
            let slots_end = u64::from(p.first_slot) + u64::from(p.slots);
            let stride = entry_bytes(p.slots as usize) as u64;
            // The entries, and a row without a key.
            let bytes = p.entries.checked_mul(stride).and_then(|b| b.checked_add(stride - 8));
            let table_end = bytes.and_then(|b| b.checked_add(p.table));
            elements_end <= elements.len() as u64
                && slots_end <= u64::from(h.slots)
                && p.entries > 0
                && p.probes <= p.entries
                && table_end.is_some_and(|end| end <= tables.len() as u64)
        })
    }

    fn check_oblivious(&self) -> Result<(), ModelError> {
        let h = self.header;
        let trees = h.trees as usize;
        let blocks = self.exact::<Block>(SectionId::Blocks, "blocks", trees.div_ceil(BLOCK))?;
        let bases = self.exact::<u32>(SectionId::LeafBases, "leaf_bases", trees.next_multiple_of(BLOCK))?;
        let leaves = self.section::<f64>(SectionId::Leaves, "leaves")?;
        let pages = self.section::<Pages>(SectionId::Pages, "pages")?;
        let stride = level_bytes(h.flags);
        let tests = self.exact::<u8>(SectionId::Tests, "tests", pages.len().saturating_mul(stride))?;
        let last_128 = slot_bytes(h.slots as usize) / 128;
        all("pages", pages, |p| {
            let [first, last] = p.of_128;
            first <= last && usize::from(last) < last_128
        })?;
        for (index, (block, bases)) in blocks.iter().zip(bases.chunks_exact(BLOCK)).enumerate() {
            let outside = ModelError::Range { section: "blocks", index };
            let (first, levels) = (block.first_level as usize, block.levels as usize);
            if levels > MAX_LEVELS || first.checked_add(levels).is_none_or(|end| end > pages.len()) {
                return Err(outside);
            }
            let tests = tests.get(first * stride..).and_then(|t| t.get(..levels * stride)).ok_or(outside)?;
            // Per tree the largest leaf index: the bits of the levels whose test can be true.
            let mut largest = [0_u64; BLOCK];
            for (level, tests) in tests.chunks_exact(stride).enumerate() {
                let (low, rest) = tests.split_at_checked(BLOCK).ok_or(outside)?;
                let (thresholds, high) = rest.split_at_checked(BLOCK).ok_or(outside)?;
                for (at, (largest, (low, threshold))) in
                    largest.iter_mut().zip(low.iter().zip(thresholds)).enumerate()
                {
                    let slot = u32::from(*low) | u32::from(high.get(at).copied().unwrap_or(0)) << 8;
                    if slot as usize >= slot_bytes(h.slots as usize) {
                        return Err(outside);
                    }
                    if *threshold != UNREACHABLE_THRESHOLD {
                        *largest |= 1 << level;
                    }
                }
            }
            for (base, largest) in bases.iter().zip(largest) {
                let end = u64::from(*base) + (largest + 1) * u64::from(h.dimensions);
                if end > leaves.len() as u64 {
                    return Err(outside);
                }
            }
        }
        Ok(())
    }

    fn check_non_symmetric(&self) -> Result<(), ModelError> {
        let h = self.header;
        let trees = h.trees as usize;
        let nodes = self.section::<Node>(SectionId::Nodes, "nodes")?;
        let values = self.exact::<u32>(SectionId::NodeLeaves, "node_leaves", nodes.len())?;
        let leaves = self.section::<f64>(SectionId::Leaves, "leaves")?;
        let roots = self.exact::<u32>(SectionId::Roots, "roots", trees)?;
        let walks = self.section::<Traversal>(SectionId::Walks, "walks")?;
        let slots = slot_bytes(h.slots as usize);
        all("roots", roots, |root| (*root as usize) < nodes.len())?;
        // A node with the threshold UNREACHABLE_THRESHOLD continues at `base` alone.
        all("nodes", nodes, |n| {
            let furthest = u64::from(n.base) + u64::from(n.threshold != UNREACHABLE_THRESHOLD);
            usize::from(n.slot) < slots && furthest < nodes.len() as u64
        })?;
        if trees > 0 {
            all("node_leaves", values, |v| u64::from(*v) + u64::from(h.dimensions) <= leaves.len() as u64)?;
        }
        all("walks", walks, |w| w.trees.iter().all(|tree| *tree < h.trees))?;
        let steps: u64 = walks.iter().map(|w| u64::from(w.steps)).sum();
        if steps > nodes.len() as u64 {
            return Err(ModelError::Section { section: "walks", found: steps });
        }
        Ok(())
    }
}
