//! From slots to sums: parts that every kernel shares.

use super::job::{Job, Oblivious};
use crate::layout::{BLOCK, Block, FLAG_WIDE_SLOTS, TRAVERSAL_TREES, parts_of_mut};
use crate::scratch::Parts;

/// Positions of the leaf values of up to `N` trees.
#[repr(C, align(64))]
pub(super) struct Positions<const N: usize>(pub(super) [u32; N]);

/// The sum of a model with one output dimension, and the trees that wait to be added to it. Each addition waits for
/// the one before; a kernel calls [`add`](Self::add) between other work, which fills the wait.
pub(super) struct Sum<'m> {
    pub(super) total: f64,
    leaves: &'m [f64],
    /// `waiting` positions of leaf values; whoever let the trees wait promised it.
    next: *mut u32,
    waiting: usize,
}

impl<'m> Sum<'m> {
    pub(super) fn new(job: &Job<'m>) -> Self {
        Self { total: 0.0, leaves: job.leaves(), next: std::ptr::null_mut(), waiting: 0 }
    }

    /// Adds N trees, or none where fewer wait.
    #[inline(always)]
    pub(super) fn add<const N: usize>(&mut self) {
        if self.waiting >= N {
            // SAFETY:
            // - N positions wait, each of a leaf value (the promise made to `wait` or `more`)
            // - `next` ends up at most one past the last position
            unsafe {
                for at in 0..N {
                    self.total += self.leaves.get_unchecked(*self.next.add(at) as usize);
                }
                self.next = self.next.add(N);
            }
            self.waiting -= N;
        }
    }

    /// Lets trees wait whose positions will be found from here on, [block by block](Self::room).
    pub(super) fn begin(job: &Job<'m>, positions: *mut u32) -> Self {
        Self { next: positions, ..Self::new(job) }
    }

    /// Where the positions of the next block go, after those that wait.
    ///
    /// # Safety
    ///
    /// - the sum [began](Self::begin) with room for this block, and all blocks before wait with 64 trees
    /// - nothing else reads or writes there until `more` or `finish` was called
    #[inline(always)]
    pub(super) unsafe fn room<'p>(&self) -> &'p mut [u32; BLOCK] {
        // SAFETY:
        // - the caller's promise; any bits are positions
        unsafe { &mut *self.next.add(self.waiting).cast::<[u32; BLOCK]>() }
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
    #[inline(always)]
    pub(super) fn finish(&mut self) {
        while self.waiting > 0 {
            self.add::<1>();
        }
    }

    /// Lets trees wait; none waits now.
    ///
    /// # Safety
    ///
    /// - the positions are those of leaf values of the job's model, and stay until `finish` was called
    #[inline(always)]
    pub(super) unsafe fn wait(&mut self, positions: &[u32]) {
        debug_assert_eq!(self.waiting, 0, "the trees before are added first");
        self.next = positions.as_ptr().cast_mut();
        self.waiting = positions.len();
    }
}

/// Two sums that a kernel continues between other work: up to A trees of the model before, and B of its own. They do
/// not wait for each other.
pub(super) struct InterleavedSums<'s, 'b, 'o, const A: usize, const B: usize> {
    pub(super) before: &'s mut Sum<'b>,
    pub(super) own: &'s mut Sum<'o>,
}

impl<const A: usize, const B: usize> InterleavedSums<'_, '_, '_, A, B> {
    /// Adds some trees.
    #[inline(always)]
    pub(super) fn add(&mut self) {
        self.before.add::<A>();
        self.own.add::<B>();
    }
}

/// Adds leaf values, in order.
///
/// # Safety
///
/// - each position is one that a kernel found for this job
#[inline(always)]
pub(super) unsafe fn add_leaves(job: &Job<'_>, positions: &[u32], out: &mut [f64]) {
    let (leaves, dimensions) = (job.leaves(), job.header().dimensions as usize);
    // SAFETY:
    // - every index that a tree's tests can make leads to one leaf value per dimension (`validate`)
    unsafe {
        if let [sum] = out {
            let mut total = *sum;
            for at in positions {
                total += leaves.get_unchecked(*at as usize);
            }
            *sum = total;
        } else {
            for at in positions {
                let values = leaves.get_unchecked(*at as usize..*at as usize + dimensions);
                for (sum, value) in out.iter_mut().zip(values) {
                    *sum += value;
                }
            }
        }
    }
}

/// The positions of a block's leaves, by ordinary instructions.
#[inline(always)]
pub(super) fn block_positions(
    job: &Job<'_>,
    trees: &Oblivious<'_>,
    slots: &[u8],
    (block, bases): (&Block, &[u32; BLOCK]),
    positions: &mut [u32; BLOCK],
) {
    let indexes = if job.header().flags & FLAG_WIDE_SLOTS == 0 {
        leaf_indexes::<{ 2 * BLOCK }>(trees, slots, block)
    } else {
        leaf_indexes::<{ 3 * BLOCK }>(trees, slots, block)
    };
    for ((position, index), base) in positions.iter_mut().zip(indexes).zip(bases) {
        *position = base.wrapping_add(index.wrapping_mul(job.header().dimensions));
    }
}

/// The indexes of a block's leaves within their trees. A level has `STRIDE` bytes.
#[inline(always)]
fn leaf_indexes<const STRIDE: usize>(trees: &Oblivious<'_>, slots: &[u8], block: &Block) -> [u32; BLOCK] {
    let mut indexes = [0_u32; BLOCK];
    for (level, (tests, _)) in trees.levels::<STRIDE>(block).enumerate() {
        let ([low, thresholds, high @ ..], _) = tests.as_chunks::<BLOCK>() else { continue };
        for (at, (index, (low, threshold))) in indexes.iter_mut().zip(low.iter().zip(thresholds)).enumerate()
        {
            let high = high.first().and_then(|high| high.get(at)).map_or(0, |high| usize::from(*high) << 8);
            // SAFETY:
            // - every test names a slot (`validate`), and these are the model's (`Parts`)
            let slot = unsafe { *slots.get_unchecked(usize::from(*low) | high) };
            *index |= u32::from(slot >= *threshold) << level;
        }
    }
    indexes
}

/// Adds all oblivious trees, by ordinary instructions.
#[inline(always)]
pub(super) fn add_blocks(job: &Job<'_>, slots: &[u8], out: &mut [f64]) {
    let trees = job.oblivious();
    let mut positions = Positions([0; BLOCK]);
    for (at, block) in trees.blocks().enumerate() {
        block_positions(job, &trees, slots, block, &mut positions.0);
        let positions = positions.0.get(..job.trees_from(at * BLOCK)).unwrap_or_default();
        // SAFETY:
        // - `block_positions` found them
        unsafe { add_leaves(job, positions, out) };
    }
}

/// Finds the positions of all oblivious trees, by ordinary instructions, and lets the trees wait in `own`.
///
/// # Safety
///
/// - `own` [began](Sum::begin) with room for all blocks
#[inline(always)]
pub(super) unsafe fn find_blocks(job: &Job<'_>, slots: &[u8], own: &mut Sum<'_>) {
    let trees = job.oblivious();
    for (at, block) in trees.blocks().enumerate() {
        // SAFETY:
        // - there is room for each block (the caller's promise)
        // - `block_positions` fills it before its trees wait
        unsafe {
            block_positions(job, &trees, slots, block, own.room());
            own.more(job.trees_from(at * BLOCK));
        }
    }
}

/// Walks non-symmetric trees, eight at a time, and adds their leaves in order. The slots are filled.
#[inline(always)]
pub(super) fn walk(job: &Job<'_>, parts: &mut Parts<'_>, out: &mut [f64]) {
    let trees = job.non_symmetric();
    let slots = &*parts.slots;
    let positions: &mut [u32] = parts_of_mut(parts.positions);
    for walk in trees.walks {
        let mut at = [0_usize; TRAVERSAL_TREES];
        // SAFETY:
        // - walks name trees, each of which has a root (`validate`)
        // - roots and children exist, there is a value per node, and nodes name slots (`validate`), none of which is ever
        //   UNREACHABLE_THRESHOLD (`Parts`)
        // - there is a position per tree (`Scratch::parts`)
        unsafe {
            for (at, tree) in at.iter_mut().zip(walk.trees) {
                *at = *trees.roots.get_unchecked(tree as usize) as usize;
            }
            for _ in 0..walk.steps {
                for at in &mut at {
                    let node = trees.nodes.get_unchecked(*at);
                    let right = *slots.get_unchecked(usize::from(node.slot)) >= node.threshold;
                    *at = node.base as usize + usize::from(right);
                }
            }
            for (at, tree) in at.iter().zip(walk.trees) {
                *positions.get_unchecked_mut(tree as usize) = *trees.values.get_unchecked(*at);
            }
        }
    }
    let dimensions = job.header().dimensions as usize;
    for at in positions.iter().take(job.header().trees as usize) {
        // A tree that no walk reaches left an old position here: that is corrupt, and must not lead outside.
        let values = job.leaves().get(*at as usize..*at as usize + dimensions).unwrap_or_default();
        for (sum, value) in out.iter_mut().zip(values) {
            *sum += value;
        }
    }
}
