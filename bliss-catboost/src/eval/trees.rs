//! From slots to sums: parts that every kernel shares.

use super::{Job, NonSymmetric, Oblivious};
use crate::layout::{BLOCK, Block, FLAG_WIDE_SLOTS, TRAVERSAL_TREES, level_bytes};

/// Positions of the leaf values of up to 64 trees.
#[repr(C, align(64))]
pub(super) struct Positions(pub(super) [u32; BLOCK]);

/// The sum of a model with one output dimension, and the trees that wait to be added to it. Each addition waits for
/// the one before; a kernel calls [`add`](Self::add) between other work, which fills the wait.
pub(super) struct Sum {
    pub(super) total: f64,
    leaves: *const f64,
    next: *const u32,
    waiting: usize,
}

impl Sum {
    pub(super) fn new(job: &Job<'_>) -> Self {
        Self { total: 0.0, leaves: job.leaves.as_ptr(), next: std::ptr::null(), waiting: 0 }
    }

    /// Adds N trees, or none where fewer wait.
    ///
    /// # Safety
    ///
    /// - what [`wait`](Self::wait) was given is still there
    #[inline(always)]
    pub(super) unsafe fn add<const N: usize>(&mut self) {
        if self.waiting >= N {
            for at in 0..N {
                // SAFETY:
                // - N positions wait, each of a leaf value (the promise made to `wait`)
                self.total += unsafe { *self.leaves.add(*self.next.add(at) as usize) };
            }
            // SAFETY:
            // - at most one past the last position
            self.next = unsafe { self.next.add(N) };
            self.waiting -= N;
        }
    }

    /// Lets trees wait whose positions will be found from here on, `count` of them [at a time](Self::more).
    pub(super) fn begin(job: &Job<'_>, positions: *const u32) -> Self {
        Self { next: positions, ..Self::new(job) }
    }

    /// Lets the next `count` trees wait too.
    ///
    /// # Safety
    ///
    /// - their positions follow those that wait, each of a leaf value of the job's model, until `finish` was called
    #[inline(always)]
    pub(super) unsafe fn more(&mut self, count: usize) {
        self.waiting += count;
    }

    /// Adds all trees that wait.
    ///
    /// # Safety
    ///
    /// - what [`wait`](Self::wait) was given is still there
    #[inline(always)]
    pub(super) unsafe fn finish(&mut self) {
        while self.waiting > 0 {
            // SAFETY:
            // - the caller's promise
            unsafe { self.add::<1>() };
        }
    }

    /// Lets `count` trees wait; none waits now.
    ///
    /// # Safety
    ///
    /// - there are `count` positions, each of a leaf value of the job's model, until `finish` was called
    #[inline(always)]
    pub(super) unsafe fn wait(&mut self, positions: *const u32, count: usize) {
        debug_assert_eq!(self.waiting, 0, "the trees before are added first");
        self.next = positions;
        self.waiting = count;
    }
}

/// Two sums that a kernel goes on with between other work: up to A trees of the model before, and B of its own. They do
/// not wait for each other.
pub(super) struct InterleavedSums<'s, const A: usize, const B: usize> {
    pub(super) before: &'s mut Sum,
    pub(super) own: &'s mut Sum,
}

impl<const A: usize, const B: usize> InterleavedSums<'_, A, B> {
    /// Adds some trees.
    ///
    /// # Safety
    ///
    /// - as for [`Sum::add`], of both
    #[inline(always)]
    pub(super) unsafe fn add(&mut self) {
        // SAFETY:
        // - the caller's promise
        unsafe {
            self.before.add::<A>();
            self.own.add::<B>();
        }
    }
}

/// Adds the leaf values of `count` trees, in order.
///
/// # Safety
///
/// - `count` is at most 64, and each position has `dimensions` leaf values behind it, which is what `out` has
#[inline(always)]
pub(super) unsafe fn add_leaves(job: &Job<'_>, positions: &[u32], out: &mut [f64]) {
    if let [sum] = out {
        let mut total = *sum;
        for at in positions {
            // SAFETY:
            // - the caller's promise
            total += unsafe { *job.leaves.get_unchecked(*at as usize) };
        }
        *sum = total;
    } else {
        for at in positions {
            for (k, sum) in out.iter_mut().enumerate() {
                // SAFETY:
                // - the caller's promise
                *sum += unsafe { *job.leaves.get_unchecked(*at as usize + k) };
            }
        }
    }
}

/// The positions of a block's leaves, by ordinary instructions.
///
/// # Safety
///
/// - the job is one that `ModelRef::raw` made, its slots are filled, and the block is of the same model
#[inline(always)]
pub(super) unsafe fn block_positions(
    job: &Job<'_>,
    trees: &Oblivious<'_>,
    block: &Block,
    bases: &[u32],
    positions: &mut Positions,
) {
    let stride = level_bytes(job.header.flags);
    let wide = job.header.flags & FLAG_WIDE_SLOTS != 0;
    let slots = job.parts.slots;
    let mut indexes = [0_u32; BLOCK];
    for level in 0..block.levels as usize {
        // SAFETY:
        // - the block's levels exist, each with `stride` bytes (`validate`); every test names a slot (`validate`)
        unsafe {
            let tests = trees.tests.as_ptr().add((block.first_level as usize + level) * stride);
            for (at, index) in indexes.iter_mut().enumerate() {
                let high = if wide { usize::from(*tests.add(2 * BLOCK + at)) << 8 } else { 0 };
                let slot = usize::from(*tests.add(at)) | high;
                let holds = *slots.add(slot) >= *tests.add(BLOCK + at);
                *index |= u32::from(holds) << level;
            }
        }
    }
    for ((position, index), base) in positions.0.iter_mut().zip(indexes).zip(bases) {
        *position = base.wrapping_add(index.wrapping_mul(job.header.dimensions));
    }
}

/// Number of trees in the block that starts at tree `first`.
#[inline(always)]
pub(super) fn trees_from(job: &Job<'_>, first: usize) -> usize {
    (job.header.trees as usize).saturating_sub(first).min(BLOCK)
}

/// Walks trees of any shape, eight at a time, and adds their leaves in order.
///
/// # Safety
///
/// - the job is one that `ModelRef::raw` made, its slots are filled, and the trees are of the same model
#[inline(always)]
pub(super) unsafe fn walk(job: &Job<'_>, trees: &NonSymmetric<'_>, out: &mut [f64]) {
    let slots = job.parts.slots;
    let positions = job.parts.positions;
    for walk in trees.walks {
        let mut at = [0_usize; TRAVERSAL_TREES];
        for (at, tree) in at.iter_mut().zip(walk.trees) {
            // SAFETY:
            // - walks name trees (`validate`)
            *at = unsafe { *trees.roots.get_unchecked(tree as usize) } as usize;
        }
        for _ in 0..walk.steps {
            for at in &mut at {
                // SAFETY:
                // - roots and children exist, and nodes name slots (`validate`); a slot is never UNREACHABLE_THRESHOLD
                unsafe {
                    let node = trees.nodes.get_unchecked(*at);
                    let right = *slots.add(usize::from(node.slot)) >= node.threshold;
                    *at = node.base as usize + usize::from(right);
                }
            }
        }
        for (at, tree) in at.iter().zip(walk.trees) {
            // SAFETY:
            // - there is a value per node, and the scratch memory has a position per tree (`validate`, `raw`)
            unsafe { *positions.add(tree as usize) = *trees.values.get_unchecked(*at) };
        }
    }
    let dimensions = job.header.dimensions as usize;
    for tree in 0..job.header.trees as usize {
        // SAFETY:
        // - the scratch memory has a position per tree (`raw`)
        let at = unsafe { *positions.add(tree) } as usize;
        // A tree that no walk reaches left an old position here: that is corrupt, and must not lead outside.
        let values = job.leaves.get(at..at + dimensions).unwrap_or_default();
        for (sum, value) in out.iter_mut().zip(values) {
            *sum += value;
        }
    }
}
