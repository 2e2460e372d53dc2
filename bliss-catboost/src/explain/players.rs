//! Players: the sets of inputs that tests are attributed to.

use std::collections::BTreeMap;

use crate::layout::{Element, OneHot, Projection, SectionId};
use crate::reference::ModelRef;

/// What the tests of a model are attributed to, as CatBoost does: a number, or a category that is compared with a value, to
/// itself; a CTR to the categories of its combination together, whatever else the combination tests. What falls to a
/// player is shared equally by its inputs.
#[derive(Debug, Default)]
pub(super) struct Players {
    /// Inputs of each player, ascending.
    pub(super) inputs: Vec<Vec<u32>>,
    /// The player of each slot.
    of_slots: Vec<u32>,
}

impl Players {
    pub(super) fn of(model: &ModelRef<'_>) -> Self {
        let mut players = Self::default();
        let mut known = BTreeMap::new();
        for &input in model.section::<u32>(SectionId::Lanes) {
            players.push_slot(vec![input], &mut known);
        }
        for one_hot in model.section::<OneHot>(SectionId::OneHots) {
            players.push_slot(vec![one_hot.input], &mut known);
        }
        let elements = model.section::<Element>(SectionId::Elements);
        for projection in model.section::<Projection>(SectionId::Projections) {
            let own =
                elements.iter().skip(projection.first_element as usize).take(projection.elements as usize);
            let mut inputs: Vec<u32> = own.clone().filter(|e| e.threshold == 0).map(|e| e.at).collect();
            if inputs.is_empty() {
                // Not written by CatBoost: all inputs that it tests.
                inputs.extend(own.flat_map(|e| players.inputs_of(e.at)));
            }
            inputs.sort_unstable();
            inputs.dedup();
            players.of_slots.truncate(projection.first_slot as usize);
            players.of_slots.resize(projection.first_slot as usize, 0);
            for _ in 0..projection.slots {
                players.push_slot(inputs.clone(), &mut known);
            }
        }
        players
    }

    fn push_slot(&mut self, inputs: Vec<u32>, known: &mut BTreeMap<Vec<u32>, u32>) {
        let next = self.inputs.len() as u32;
        let player = *known.entry(inputs).or_insert_with_key(|inputs| {
            self.inputs.push(inputs.clone());
            next
        });
        self.of_slots.push(player);
    }

    fn inputs_of(&self, slot: u32) -> Vec<u32> {
        self.of_slot(slot).and_then(|player| self.inputs.get(player as usize)).cloned().unwrap_or_default()
    }

    /// The player of a slot.
    pub(super) fn of_slot(&self, slot: u32) -> Option<u32> {
        self.of_slots.get(slot as usize).copied()
    }
}
