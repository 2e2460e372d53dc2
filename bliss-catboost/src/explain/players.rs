//! Players: the sets of inputs that tests are attributed to.

use crate::layout::{Element, OneHot, Projection, SectionId};
use crate::reference::ModelRef;

/// What the tests of a model are attributed to, as CatBoost does: a number, or a category that is compared with a value, to
/// itself; a CTR to the categories of its combination together, whatever else the combination tests. What falls to a
/// player is shared equally by its inputs.
#[derive(Debug, Default)]
pub(super) struct Players {
    /// Inputs of all players, one after the other; each player's ascending.
    members: Vec<u32>,
    /// Where each player's inputs end.
    ends: Vec<u32>,
    /// The players in the order of their inputs, to find one by them.
    sorted: Vec<u32>,
    /// The player of each slot.
    of_slots: Vec<u32>,
}

/// What players may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Inputs of all players together.
    pub(super) members: usize,
    /// Players, and slots.
    pub(super) slots: usize,
}

impl Players {
    /// Memory within which [`fill`](Self::fill) does not allocate.
    pub(super) fn with_room(limits: Limits) -> Self {
        let room = Vec::with_capacity;
        Self {
            members: Vec::with_capacity(limits.members),
            ends: room(limits.slots),
            sorted: room(limits.slots),
            of_slots: room(limits.slots),
        }
    }

    /// Finds the players of a model. `None` where they are more than `limits` allow, or where its slots overlap.
    pub(super) fn fill(&mut self, model: &ModelRef<'_>, limits: Limits) -> Option<()> {
        for part in [&mut self.members, &mut self.ends, &mut self.sorted, &mut self.of_slots] {
            part.clear();
        }
        if model.header().slots as usize > limits.slots {
            return None;
        }
        for input in model.section::<u32>(SectionId::Lanes) {
            self.push_members(limits, [*input])?;
            self.push_slots(1, limits)?;
        }
        for one_hot in model.section::<OneHot>(SectionId::OneHots) {
            self.push_members(limits, [one_hot.input])?;
            self.push_slots(1, limits)?;
        }
        let elements = model.section::<Element>(SectionId::Elements);
        for projection in model.section::<Projection>(SectionId::Projections) {
            // Slots between them belong to nobody; no test asks for them.
            let (first, count) = (projection.first_slot as usize, projection.slots as usize);
            if first < self.of_slots.len() || first > limits.slots {
                return None;
            }
            self.of_slots.resize(first, 0);
            if count == 0 {
                continue;
            }
            let own = elements.get(projection.first_element as usize..)?;
            let own = own.get(..projection.elements as usize)?;
            let begin = self.members.len();
            let categories = own.iter().filter(|element| element.threshold == 0).map(|element| element.at);
            self.push_members(limits, categories)?;
            if self.members.len() == begin {
                // Not written by CatBoost: all inputs that it tests.
                for element in own {
                    let inputs = self.range(self.of_slot(element.at)?)?;
                    for at in inputs {
                        let input = *self.members.get(at)?;
                        self.push_members(limits, [input])?;
                    }
                }
            }
            self.push_slots(count, limits)?;
        }
        Some(())
    }

    fn push_members(&mut self, limits: Limits, inputs: impl IntoIterator<Item = u32>) -> Option<()> {
        for input in inputs {
            if self.members.len() >= limits.members {
                return None;
            }
            self.members.push(input);
        }
        Some(())
    }

    /// Makes the inputs behind the last player's a player, or finds the one that has the same, and gives it the next slots.
    fn push_slots(&mut self, slots: usize, limits: Limits) -> Option<()> {
        let begin = self.ends.last().map_or(0, |end| *end as usize);
        let own = self.members.get_mut(begin..)?;
        own.sort_unstable();
        // `Vec::dedup` for the end of one.
        let mut kept = 0;
        for at in 0..own.len() {
            let input = *own.get(at)?;
            if kept == 0 || *own.get(kept - 1)? != input {
                *own.get_mut(kept)? = input;
                kept += 1;
            }
        }
        self.members.truncate(begin + kept);
        let own = self.members.get(begin..)?;
        let found = self.sorted.binary_search_by(|player| self.inputs(*player).cmp(own));
        let player = match found {
            Ok(at) => {
                self.members.truncate(begin);
                *self.sorted.get(at)?
            }
            Err(at) => {
                let player = u32::try_from(self.ends.len()).ok()?;
                self.ends.push(u32::try_from(self.members.len()).ok()?);
                self.sorted.insert(at, player);
                player
            }
        };
        let end = self.of_slots.len().checked_add(slots)?;
        if end > limits.slots {
            return None;
        }
        self.of_slots.resize(end, player);
        Some(())
    }

    fn range(&self, player: u32) -> Option<std::ops::Range<usize>> {
        let player = player as usize;
        let end = *self.ends.get(player)? as usize;
        let begin =
            player.checked_sub(1).and_then(|before| self.ends.get(before)).map_or(0, |end| *end as usize);
        Some(begin..end)
    }

    /// The inputs of a player, ascending.
    fn inputs(&self, player: u32) -> &[u32] {
        self.range(player).and_then(|range| self.members.get(range)).unwrap_or_default()
    }

    /// The inputs of each player.
    pub(super) fn iter(&self) -> impl Iterator<Item = &[u32]> {
        (0..self.ends.len()).map(|player| u32::try_from(player).map_or(&[][..], |player| self.inputs(player)))
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// The player of a slot.
    pub(super) fn of_slot(&self, slot: u32) -> Option<u32> {
        self.of_slots.get(slot as usize).copied()
    }
}
