//! The agreement between readers and the writer, without files.
//!
//! Two things are shared: the **generation** `G` (written by the writer only, +1 per publication; its lowest bit
//! says which of the two copies is current), and per reader handle a **slot** with a few **cells** (written by the
//! reader only) and an **epoch** (written by the writer only). A cell is one of
//!
//! * free,
//! * `pending(s, e)`: its owner is about to read the generation, which is at least `s`,
//! * `committed(c)`: its owner reads generation `c` and nothing else.
//!
//! A pin is: `s = G`, cell = `pending(s, epoch)`, **barrier**, `c = G`, cell = `committed(c)`, **barrier**,
//! the epoch is unchanged. The writer, *before it overwrites* the copy of an old generation `o < G`, passes a
//! **heavy barrier** and then reads all cells ([`judge`], [`crate::scan`]).
//!
//! # Why a pinned generation is never overwritten
//!
//! Let a reader's second load return `c`. The copy of `c` is overwritten only after `G = c + 1` was stored and
//! the writer's heavy barrier after that. Either the reader's barrier came first, then the writer's reading of
//! the cell sees `pending(s, e)` with `s <= c`, or `committed(c)`, or what the reader put there later; or the
//! writer's barrier came first, and then the reader's second load would have seen `c + 1`. So `c` is seen as
//! pinned until its guard is dropped. `s <= c` because `G` never decreases and one thread reads it in order.
//!
//! # Calling an announcement off
//!
//! A reader that is stopped between its two loads may have read any generation from `s` on, and would pin one
//! more file per publication. So the writer may *revoke*: it raises the slot's epoch, passes its heavy barrier,
//! and reads the cell again. If the cell then still shows an announcement of the old epoch, the reader's
//! `committed` store is still to come, hence so is its check of the epoch after the second barrier, which will
//! see the new epoch: it returns nothing and begins again. If the cell shows `committed`, that counts. An
//! announcement of another epoch than the slot's therefore pins nothing. There is no ABA: the epoch moves only
//! when the writer sees an announcement of the current epoch, and a handle has at most one announcement at a
//! time. After [`MAX_REVOCATIONS`] in a row the reader gives up ([`CALLED_OFF`]), so that a pin takes a bounded number of
//! steps whatever the writer does. There is no announcement that the writer must obey: it would pin every generation to
//! come for as long as somebody leaves it there.
//!
//! # Orderings
//!
//! * `G`: the writer's store is `Release`; the reader's second load is `Relaxed` and followed by
//!   `fence(Acquire)` (an acquire load is not guaranteed to work on read-only memory, a relaxed one is). What
//!   the writer wrote into the copy happens before any byte is read. The first load needs nothing: an old value
//!   only pins more.
//! * Cells: every store of the reader is `Release`, the writer's loads are `Acquire`. Whatever value the writer
//!   sees in place of `committed(o)`, the reads behind it happened before it. `Relaxed` stores of later values
//!   would not be enough: since C++20 they are not in the release sequence of the store that freed the cell.
//! * Barriers: store → load of different locations, twice on each side (cell → `G` against `G` → cell, and
//!   cell → epoch against epoch → cell). Only sequentially consistent fences order those; acquire/release does
//!   not. With `membarrier` the reader's two fences become compiler fences, and the writer's call makes every
//!   running thread of the registered processes pass a full barrier, which falls either before or after each of
//!   the reader's barriers.
//! * Epoch: the writer's store and the reader's loads are `Relaxed`; only the barriers matter.

use crate::primitive::{AtomicU64, Ordering, fence};

/// The cell of a handle that pins nothing.
pub const FREE: u64 = 0;

/// Cells per slot: so many different generations may a handle hold guards on at the same time.
pub const CELLS: usize = 12;

/// After so many revoked announcements in a row a pin fails. Each takes a publication that falls between the two loads of a
/// reader which then does not run for as long as the writer looks.
pub const MAX_REVOCATIONS: u32 = if cfg!(loom) { 2 } else { 16 };

/// What [`pin`] returns after [`MAX_REVOCATIONS`]: no generation has this number.
pub const CALLED_OFF: u64 = u64::MAX - 1;

/// Generations above this are refused: a cell has three bits for other things.
pub const MAX_GENERATION: u64 = u64::MAX >> 3;

const COMMITTED: u64 = 1;
const PENDING: u64 = 2;
const KIND: u64 = 3;
const EPOCH_SHIFT: u32 = 2;
const GENERATION_SHIFT: u32 = 3;

/// The cell value that pins every generation from `generation` on, unless the slot's epoch moves.
#[inline(always)]
pub const fn pending(generation: u64, epoch: u64) -> u64 {
    (generation << GENERATION_SHIFT) | ((epoch & 1) << EPOCH_SHIFT) | PENDING
}

/// The cell value that pins one generation.
#[inline(always)]
pub const fn committed(generation: u64) -> u64 {
    (generation << GENERATION_SHIFT) | COMMITTED
}

/// What a cell means for one generation, from harmless to binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hold {
    /// The cell does not pin the generation.
    None,
    /// A reader is between its two loads; the announcement may be revoked.
    Pending,
    /// The generation is pinned.
    Held,
}

/// What the value of a cell, in a slot with this epoch, means for `generation`.
#[inline]
pub const fn judge(cell: u64, epoch: u64, generation: u64) -> Hold {
    let of = cell >> GENERATION_SHIFT;
    match cell & KIND {
        COMMITTED if of == generation => Hold::Held,
        PENDING if of <= generation && (cell >> EPOCH_SHIFT) & 1 == epoch & 1 => Hold::Pending,
        _ => Hold::None,
    }
}

/// The generation that a cell names, for display: `(generation, committed)`.
#[inline]
pub const fn shown(cell: u64) -> Option<(u64, bool)> {
    match cell & KIND {
        COMMITTED => Some((cell >> GENERATION_SHIFT, true)),
        PENDING => Some((cell >> GENERATION_SHIFT, false)),
        _ => None,
    }
}

/// Pins the current generation in `cell` and returns it; 0 if nothing was published, [`CALLED_OFF`] if the writer called
/// every announcement off. In both cases nothing is pinned, and the caller frees the cell.
///
/// `barrier` is `fence(SeqCst)`, or a compiler fence where the writer uses `membarrier`.
#[inline(always)]
pub fn pin(generation: &AtomicU64, cell: &AtomicU64, epoch: &AtomicU64, barrier: impl Fn()) -> u64 {
    let expected_epoch = epoch.load(Ordering::Relaxed);
    let first = generation.load(Ordering::Relaxed);
    let current = announce(pending(first, expected_epoch), generation, cell, &barrier);
    if epoch.load(Ordering::Relaxed) == expected_epoch {
        return current;
    }
    pin_again(generation, cell, epoch, &barrier)
}

/// The store of the announcement, the second load, and the store of the pin, with the barriers after both stores.
#[inline(always)]
fn announce(announcement: u64, generation: &AtomicU64, cell: &AtomicU64, barrier: &impl Fn()) -> u64 {
    cell.store(announcement, Ordering::Release);
    barrier();
    let current = generation.load(Ordering::Relaxed);
    fence(Ordering::Acquire);
    cell.store(committed(current), Ordering::Release);
    barrier();
    current
}

/// The announcement was called off.
#[cold]
fn pin_again(generation: &AtomicU64, cell: &AtomicU64, epoch: &AtomicU64, barrier: &impl Fn()) -> u64 {
    for _ in 1..MAX_REVOCATIONS {
        let expected_epoch = epoch.load(Ordering::Relaxed);
        let first = generation.load(Ordering::Relaxed);
        let current = announce(pending(first, expected_epoch), generation, cell, barrier);
        if epoch.load(Ordering::Relaxed) == expected_epoch {
            return current;
        }
    }
    CALLED_OFF
}

/// Ends a pin.
#[inline(always)]
pub fn release(cell: &AtomicU64) {
    cell.store(FREE, Ordering::Release);
}

/// Calls off the announcements of a slot. The caller passes the heavy barrier afterwards and judges the slot
/// again; only then do the old announcements pin nothing.
pub fn revoke(epoch: &AtomicU64) {
    epoch.store(epoch.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
}

/// What a reader found under the name of a copy.
pub enum Found<T> {
    /// The generation that was looked for.
    Here(T),
    /// Another one (0: one that is being written or retired), or no file.
    Other(Option<u64>),
}

/// Finds the copy of the generation that the caller has pinned, and if that is not there any more, of the one that is
/// current by then.
///
/// `find` looks for a generation, `again` pins what is current now in place of what was pinned. Under a generation
/// that is pinned and still current its file cannot have been replaced: if it is not there, the file is wrong.
/// After `attempts` rounds, or when `again` pins nothing (0 or [`CALLED_OFF`]), `Ok(None)`.
///
/// # Errors
///
/// What `find` returned, or what `wrong` makes of a generation and what was found in its place.
pub fn settle<T, E>(
    mut generation: u64,
    attempts: u32,
    mut find: impl FnMut(u64) -> Result<Found<T>, E>,
    mut again: impl FnMut() -> u64,
    wrong: impl FnOnce(u64, Option<u64>) -> E,
) -> Result<Option<(u64, T)>, E> {
    for _ in 0..attempts {
        if matches!(generation, 0 | CALLED_OFF) {
            break;
        }
        let found = match find(generation) {
            Ok(Found::Here(bytes)) => return Ok(Some((generation, bytes))),
            other => other,
        };
        let pinned = std::mem::replace(&mut generation, again());
        if generation == pinned {
            return Err(match found {
                Err(error) => error,
                Ok(Found::Other(found)) => wrong(pinned, found),
                Ok(Found::Here(_)) => wrong(pinned, Some(pinned)),
            });
        }
    }
    Ok(None)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn cells_pin_what_they_say() {
        assert_eq!(judge(FREE, 0, 0), Hold::None);
        assert_eq!(judge(committed(7), 0, 7), Hold::Held);
        assert_eq!(judge(committed(7), 0, 6), Hold::None);
        assert_eq!(judge(committed(7), 0, 8), Hold::None);
        assert_eq!(judge(pending(7, 0), 0, 7), Hold::Pending);
        assert_eq!(judge(pending(7, 0), 0, 9), Hold::Pending);
        assert_eq!(judge(pending(7, 0), 0, 6), Hold::None);
        assert_eq!(judge(pending(7, 0), 1, 7), Hold::None);
        assert_eq!(judge(pending(7, 3), 1, 7), Hold::Pending);
        // Of an older layout: a pin of all generations to come.
        assert_eq!(judge((7 << 3) | 3, 1, 9), Hold::None);
        assert_eq!(judge(u64::MAX, 1, 9), Hold::None);
    }

    #[test]
    fn m1_a_pin_whose_announcements_are_all_called_off_fails_in_a_bounded_number_of_steps() {
        let (generation, cell, epoch) = (AtomicU64::new(5), AtomicU64::new(0), AtomicU64::new(0));
        let barriers = std::cell::Cell::new(0);
        let revoking = || {
            barriers.set(barriers.get() + 1);
            revoke(&epoch);
        };
        assert_eq!(pin(&generation, &cell, &epoch, revoking), CALLED_OFF);
        assert_eq!(barriers.get(), 2 * MAX_REVOCATIONS);
        let called_off = settle(CALLED_OFF, 8, |_| Ok::<_, ()>(Found::Here(())), || 5, |_, _| ());
        assert_eq!(called_off, Ok(None));
        // All but the last one.
        barriers.set(0);
        let revoking = || {
            barriers.set(barriers.get() + 1);
            if barriers.get() < 2 * MAX_REVOCATIONS - 1 {
                revoke(&epoch);
            }
        };
        assert_eq!(pin(&generation, &cell, &epoch, revoking), 5);
        assert_eq!(cell.load(Ordering::Relaxed), committed(5));
    }

    #[test]
    fn the_zeroth_generation_is_no_generation() {
        let (generation, cell, epoch) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
        assert_eq!(pin(&generation, &cell, &epoch, || ()), 0);
        release(&cell);
        assert_eq!(cell.load(Ordering::Relaxed), FREE);
    }
}
