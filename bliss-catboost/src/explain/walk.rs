//! One row, one tree: the exact Shapley values of the players on its paths.
//!
//! For a leaf with the value v, let each player on its path have the share z of the training data that goes along at all of
//! its tests, and o = 1 if the row goes along at all of them, else 0. The player i is due the integral over t from 0 to 1 of
//! `v (o_i - z_i)` times the product over the other players of `z (1 - t) + o t` ([`quadrature`](super::quadrature)). With P the
//! product over all players, that is `v P psi_i`, where `psi = (o - z) / (z (1 - t) + o t)`.
//!
//! P is computed from the root down, one factor per edge; the sums of `v P` from the leaves up. A player that tests twice
//! on a path changes its factor at the lower edge, and is due the difference of its two psi of all that lies below: the
//! sums telescope, and each edge is looked at once, whatever the depth. The points are taken four at a time.

use super::quadrature::Rule;
use super::trees::{Edge, NONE};

/// Points that are taken together.
pub(super) const WIDTH: usize = 4;

/// What is known of an edge in a walk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum State {
    /// The product is 0 from here on.
    #[default]
    Dead,
    /// The row goes another way at a test of the edge's player.
    Off,
    /// The row goes along at all tests of the edge's player down to here.
    On,
}

/// Memory of a walk: per edge a state, and up to [`WIDTH`] numbers of each kind, one for each point.
#[derive(Default)]
pub(super) struct Walk {
    states: Vec<State>,
    /// The product of all players' factors, times the point's weight.
    products: Vec<f64>,
    /// One divided by the factor of the edge's player.
    inverses: Vec<f64>,
    /// The leaves below, each times its product.
    sums: Vec<f64>,
}

/// A row to walk a tree with.
pub(super) struct Task<'t, F> {
    pub(super) edges: &'t [Edge],
    /// All leaf values of the model.
    pub(super) leaves: &'t [f64],
    pub(super) dimensions: usize,
    /// Whether the test of an edge holds.
    pub(super) holds: F,
}

impl Walk {
    /// Memory for trees of so many edges. Pages of it that no tree needs are not touched.
    pub(super) fn with_room(edges: usize) -> Self {
        let numbers = || vec![0.0; edges * WIDTH];
        Self { states: vec![State::Dead; edges], products: numbers(), inverses: numbers(), sums: numbers() }
    }

    /// Grows to what a tree needs. Allocates where it has to.
    pub(super) fn reserve(&mut self, edges: usize) {
        for part in [&mut self.products, &mut self.inverses, &mut self.sums] {
            part.resize(part.len().max(edges * WIDTH), 0.0);
        }
        self.states.resize(self.states.len().max(edges), State::Dead);
    }

    /// Adds to `totals` (per player a value for each dimension) what a tree's players are due. `None` where the memory is
    /// too small or an edge leads outside.
    pub(super) fn run(
        &mut self,
        task: &Task<'_, impl Fn(&Edge) -> bool>,
        rule: &Rule,
        totals: &mut [f64],
    ) -> Option<()> {
        for (points, weights) in rule.points.chunks(WIDTH).zip(rule.weights.chunks(WIDTH)) {
            match points.len() {
                1 => self.run_points::<1>(task, points, weights, totals)?,
                2 => self.run_points::<2>(task, points, weights, totals)?,
                3 => self.run_points::<3>(task, points, weights, totals)?,
                _ => self.run_points::<WIDTH>(task, points, weights, totals)?,
            }
        }
        Some(())
    }

    fn run_points<const N: usize>(
        &mut self,
        task: &Task<'_, impl Fn(&Edge) -> bool>,
        points: &[f64],
        weights: &[f64],
        totals: &mut [f64],
    ) -> Option<()> {
        let count = task.edges.len();
        let mut pass = Pass::<N> {
            points: *points.first_chunk()?,
            states: self.states.get_mut(..count)?,
            products: self.products.as_chunks_mut().0.get_mut(..count)?,
            inverses: self.inverses.as_chunks_mut().0.get_mut(..count)?,
            sums: self.sums.as_chunks_mut().0.get_mut(..count)?,
        };
        pass.down(task, *weights.first_chunk()?)?;
        for dimension in 0..task.dimensions {
            pass.up(task, dimension, totals)?;
        }
        Some(())
    }
}

/// The memory of a walk with N points.
struct Pass<'w, const N: usize> {
    points: [f64; N],
    states: &'w mut [State],
    products: &'w mut [[f64; N]],
    inverses: &'w mut [[f64; N]],
    sums: &'w mut [[f64; N]],
}

impl<const N: usize> Pass<'_, N> {
    /// Fills states, products and inverses.
    fn down(&mut self, task: &Task<'_, impl Fn(&Edge) -> bool>, weights: [f64; N]) -> Option<()> {
        *self.states.first_mut()? = State::On;
        *self.products.first_mut()? = weights;
        *self.inverses.first_mut()? = [1.0; N];
        let opposite = self.points.map(|t| 1.0 - t);
        let inverse_opposite = opposite.map(|t| 1.0 / t);
        for (at, edge) in task.edges.iter().enumerate().skip(1) {
            let before = *self.states.get(edge.before as usize)?;
            let state = if *self.states.get(edge.parent as usize)? == State::Dead {
                State::Dead
            } else if !edge.implied && before == State::On && (task.holds)(edge) == edge.right {
                State::On
            } else if edge.zero > 0.0 || edge.implied {
                State::Off
            } else {
                State::Dead
            };
            *self.states.get_mut(at)? = state;
            if state == State::Dead {
                continue;
            }
            let above = *self.products.get(edge.parent as usize)?;
            let (product, inverse) = (self.products.get_mut(at)?, self.inverses.get(edge.before as usize)?);
            if edge.implied {
                *product = above;
                continue;
            }
            let mut own = [0.0; N];
            let factors: [f64; N] = if state == State::On {
                let factors = self.points.map(|t| edge.zero + (1.0 - edge.zero) * t);
                own = factors.map(|factor| 1.0 / factor);
                factors
            } else {
                let inverse_zero = 1.0 / edge.zero;
                own.iter_mut().zip(inverse_opposite).for_each(|(own, t)| *own = inverse_zero * t);
                opposite.map(|t| edge.zero * t)
            };
            for (((product, above), factor), inverse) in
                product.iter_mut().zip(above).zip(factors).zip(inverse)
            {
                *product = above * factor * inverse;
            }
            *self.inverses.get_mut(at)? = own;
        }
        Some(())
    }

    /// Adds up the leaves of one dimension, and what the players are due of them.
    fn up(
        &mut self,
        task: &Task<'_, impl Fn(&Edge) -> bool>,
        dimension: usize,
        totals: &mut [f64],
    ) -> Option<()> {
        let off = self.points.map(|t| -1.0 / (1.0 - t));
        self.sums.fill([0.0; N]);
        for (at, edge) in task.edges.iter().enumerate().skip(1).rev() {
            let state = *self.states.get(at)?;
            if state == State::Dead {
                continue;
            }
            let sums = if edge.leaf == NONE {
                *self.sums.get(at)?
            } else {
                let value = *task.leaves.get((edge.leaf as usize).checked_add(dimension)?)?;
                self.products.get(at)?.map(|product| value * product)
            };
            if !edge.implied && *self.states.get(edge.before as usize)? == State::On {
                let psi = if state == State::On { self.psi(at, edge)? } else { off };
                let before = self.psi(edge.before as usize, task.edges.get(edge.before as usize)?)?;
                let mut due = 0.0;
                for ((sum, psi), before) in sums.iter().zip(psi).zip(before) {
                    due += sum * (psi - before);
                }
                *totals.get_mut(edge.player as usize * task.dimensions + dimension)? += due;
            }
            for (above, sum) in self.sums.get_mut(edge.parent as usize)?.iter_mut().zip(sums) {
                *above += sum;
            }
        }
        Some(())
    }

    /// `(o - z) / (z (1 - t) + o t)` of an edge that is on.
    #[inline(always)]
    fn psi(&self, at: usize, edge: &Edge) -> Option<[f64; N]> {
        Some(self.inverses.get(at)?.map(|inverse| (1.0 - edge.zero) * inverse))
    }
}
