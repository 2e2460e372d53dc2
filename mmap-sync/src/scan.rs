//! Which generations are pinned, by readers that live: the writer's half of [`crate::protocol`].
//!
//! # Orderings
//!
//! See [`crate::protocol`]. Whatever a reader stored before the heavy barrier is seen after it. An announcement that
//! appears later comes from a reader whose second load of the generation follows the barrier; it returns the current
//! generation, never an old one, and is ignored.

use crate::primitive::{AtomicU64, Ordering};
use crate::protocol::{self, FREE, Hold};

/// Times that a pending pin is looked at again before it is called off. None under loom: there spinning lets
/// the reader go on, which hides what happens if it does not.
const SPINS: usize = if cfg!(loom) { 0 } else { 200 };

/// Looks at pending pins in one scan, however many there are: whoever may write the slots can fill all of them.
const MAX_LOOKS: usize = 20_000;

/// The slots, and what the writer can do to them.
pub trait Slots {
    /// The heavy barrier: what readers stored before it is seen after it, and the other way round.
    fn barrier(&self);

    /// How many slots there may be. Called after the barrier.
    fn slots(&self) -> u32;

    /// A slot that has an owner. `None`: free.
    fn occupied(&self, index: u32) -> Option<Occupied<'_>>;

    /// Clears the slot if its owner is dead, and says whether it was. Somebody else's slot must not be cleared, so
    /// this takes the owner's lock.
    fn clear_if_dead(&self, index: u32) -> bool;
}

/// A slot that has an owner.
#[derive(Clone, Copy, Debug)]
pub struct Occupied<'a> {
    /// Stored by the owner.
    pub cells: &'a [AtomicU64],
    /// Stored by the writer.
    pub epoch: &'a AtomicU64,
    /// The owner does not take part in the barrier: nothing is known of what it is about to store.
    pub unknown: bool,
}

/// Through what a generation is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// The slot of a reader.
    Slot(u32),
    /// The counters of readers without a slot.
    Counters,
}

/// A pending pin that was seen in a cell.
struct PendingPin {
    slot: u32,
    cell: usize,
    value: u64,
}

/// Says of each generation, all of them older than the current one, through what a living reader holds it.
pub fn held(slots: &impl Slots, generations: &[u64]) -> Vec<Option<Holder>> {
    let mut held = vec![None; generations.len()];
    if generations.is_empty() {
        return held;
    }
    slots.barrier();
    let mut pending = Vec::new();
    for index in 0..slots.slots() {
        if let Some(slot) = slots.occupied(index) {
            judge_slot(slots, index, slot, generations, &mut held, &mut pending);
        }
    }
    settle(slots, pending, generations, &mut held);
    held
}

fn judge_slot(
    slots: &impl Slots,
    index: u32,
    slot: Occupied<'_>,
    generations: &[u64],
    held: &mut [Option<Holder>],
    pending: &mut Vec<PendingPin>,
) {
    let epoch = slot.epoch.load(Ordering::Relaxed);
    let mut found = Vec::new();
    if slot.unknown {
        found.extend(0..generations.len());
    }
    for (number, cell) in slot.cells.iter().enumerate() {
        let value = cell.load(Ordering::Acquire);
        if value == FREE {
            continue;
        }
        let mut is_pending = false;
        for (at, generation) in generations.iter().enumerate() {
            match protocol::judge(value, epoch, *generation) {
                Hold::Held => found.push(at),
                Hold::Pending => is_pending = true,
                Hold::None => {}
            }
        }
        if is_pending {
            pending.push(PendingPin { slot: index, cell: number, value });
        }
    }
    // One holder is enough, and to ask whether it lives takes a system call.
    found.retain(|at| held.get(*at).is_some_and(Option::is_none));
    if !found.is_empty() && !slots.clear_if_dead(index) {
        for at in found {
            if let Some(held) = held.get_mut(at) {
                *held = Some(Holder::Slot(index));
            }
        }
    }
}

/// Waits a moment for readers that are between their two loads, and calls the announcements of the others off.
fn settle(
    slots: &impl Slots,
    mut pending: Vec<PendingPin>,
    generations: &[u64],
    held: &mut [Option<Holder>],
) {
    let value_of = |entry: &PendingPin| {
        let slot = slots.occupied(entry.slot)?;
        slot.cells.get(entry.cell).map(|cell| cell.load(Ordering::Acquire))
    };
    // A value other than the one seen: a pin of one generation, or something later, which pins nothing old.
    let mut has_moved = |entry: &PendingPin| {
        let value = value_of(entry).unwrap_or(FREE);
        if value == entry.value {
            return false;
        }
        if let Some((of, true)) = protocol::shown(value) {
            for (generation, held) in generations.iter().zip(held.iter_mut()) {
                if *generation == of {
                    *held = held.or(Some(Holder::Slot(entry.slot)));
                }
            }
        }
        true
    };
    for _ in 0..SPINS.min(MAX_LOOKS / pending.len().max(1)) {
        pending.retain(|entry| !has_moved(entry));
        if pending.is_empty() {
            return;
        }
        crate::primitive::spin_loop();
    }
    for entry in &pending {
        if let Some(slot) = slots.occupied(entry.slot) {
            protocol::revoke(slot.epoch);
        }
    }
    slots.barrier();
    for entry in &pending {
        has_moved(entry);
    }
}
