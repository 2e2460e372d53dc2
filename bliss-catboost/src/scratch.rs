//! Memory that an evaluation works in.

use super::layout::{BLOCK, FLAG_NON_SYMMETRIC, Group, LANES, SectionId, parts_of_mut, plain, slot_bytes};
use super::reference::ModelRef;

/// Cache lines that [`Scratch::bounded`] allocates for each of its three parts.
pub(super) const BOUNDED_LINES: usize = 4096;

/// One cache line.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Line([u8; 64]);

plain!(Line);

/// Memory that an evaluation works in, made when models are opened, so that evaluating never allocates. For one
/// thread at a time; serves any number of models, one after the other.
#[derive(Default)]
pub struct Scratch {
    lanes: Vec<Line>,
    slots: Vec<Line>,
    positions: Vec<Line>,
}

/// A model's parts of the scratch memory. No byte of the slots is ever
/// [`UNREACHABLE_THRESHOLD`](super::layout::UNREACHABLE_THRESHOLD), whichever model filled them. Kernels get the parts of
/// their job's model.
pub(super) struct Parts<'s> {
    /// The numbers of each group.
    pub(super) lanes: &'s mut [[f32; LANES]],
    /// `slot_bytes` bytes.
    pub(super) slots: &'s mut [u8],
    /// Positions of leaf values, 16 in a line.
    pub(super) positions: &'s mut Vec<Line>,
}

/// Cache lines that a model wants of each part.
struct Lines {
    lanes: usize,
    slots: usize,
    positions: usize,
}

impl Lines {
    fn of(model: &ModelRef<'_>) -> Self {
        let header = model.header();
        Self {
            lanes: model.section::<Group>(SectionId::Groups).len(),
            slots: slot_bytes(header.slots as usize) / 64,
            positions: if header.flags & FLAG_NON_SYMMETRIC == 0 {
                0
            } else {
                (header.trees as usize).div_ceil(BLOCK) * (BLOCK / LANES)
            },
        }
    }
}

impl Scratch {
    /// Memory for this model. Allocates.
    #[must_use]
    pub fn for_model(model: &ModelRef<'_>) -> Self {
        let mut scratch = Self::default();
        scratch.reserve(model);
        scratch
    }

    /// Memory for models of up to `BOUNDED_LINES` (4,096) cache lines per part: 65,536 trees, or as many inputs and borders
    /// as features can have. Allocates now, so that [`Self::reserve_within`] need not.
    #[must_use]
    pub fn bounded() -> Self {
        let part = || Vec::with_capacity(BOUNDED_LINES);
        Self { lanes: part(), slots: part(), positions: vec![Line([0; 64]); BOUNDED_LINES] }
    }

    /// Makes ready for this model without allocating; false where it needs more than was allocated.
    #[must_use]
    pub fn reserve_within(&mut self, model: &ModelRef<'_>) -> bool {
        let lines = Lines::of(model);
        let fits = lines.lanes <= self.lanes.capacity()
            && lines.slots <= self.slots.capacity()
            && lines.positions <= self.positions.capacity();
        if fits {
            self.reserve(model);
        }
        fits
    }

    /// Grows to what this model needs. Allocates where it has to; never shrinks.
    pub fn reserve(&mut self, model: &ModelRef<'_>) {
        let lines = Lines::of(model);
        for (part, lines) in [
            (&mut self.lanes, lines.lanes),
            (&mut self.slots, lines.slots),
            (&mut self.positions, lines.positions),
        ] {
            if part.len() < lines {
                part.resize(lines, Line([0; 64]));
            }
        }
    }

    /// Grows so that [`ModelRef::raw_many`] can add the sums of all these models beside each other. Allocates where
    /// it has to.
    pub fn reserve_for_many<'a>(&mut self, models: impl IntoIterator<Item = ModelRef<'a>>) {
        for model in models {
            self.reserve(&model);
            let lines = 2 * model.trees().div_ceil(BLOCK) * (BLOCK / LANES);
            if self.positions.len() < lines {
                self.positions.resize(lines, Line([0; 64]));
            }
        }
    }

    /// Positions that there is room for.
    pub(super) fn positions(&self) -> usize {
        self.positions.len() * LANES
    }

    /// Bytes that are held.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        (self.lanes.capacity() + self.slots.capacity() + self.positions.capacity()) * size_of::<Line>()
    }

    /// The parts, if they are large enough for this model.
    pub(super) fn parts(&mut self, model: &ModelRef<'_>) -> Option<Parts<'_>> {
        let lines = Lines::of(model);
        if self.positions.len() < lines.positions {
            return None;
        }
        Some(Parts {
            lanes: parts_of_mut(self.lanes.get_mut(..lines.lanes)?),
            slots: parts_of_mut(self.slots.get_mut(..lines.slots)?),
            positions: &mut self.positions,
        })
    }
}

impl std::fmt::Debug for Scratch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scratch").field("bytes", &self.size_bytes()).finish_non_exhaustive()
    }
}
