//! One row, one tree: the exact Shapley values of the players on its paths.
//!
//! For a leaf with the value v, let each player on its path have the share z of the training data that goes along at all of
//! its tests, and o = 1 if the row goes along at all of them, else 0. The player i is due the integral over t from 0 to 1 of
//! `v (o_i - z_i)` times the product over the other players of `z (1 - t) + o t` ([`quadrature`](super::quadrature)). With P the
//! product over all players, that is `v P psi_i`, where `psi = (o - z) / (z (1 - t) + o t)`.
//!
//! P is computed from the root down, one factor per edge; the sums of `v P` from the leaves up. A player that tests twice
//! on a path changes its factor at the lower edge, and is due the difference of its two psi of all that lies below: the
//! sums telescope, and each edge is looked at once, whatever the depth.

use super::quadrature::Rule;
use super::trees::{Edge, NONE};

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

/// Memory of a walk: per edge a state; per edge and point the product and the sum.
#[derive(Default)]
pub(super) struct Walk {
    pub(super) states: Vec<State>,
    pub(super) products: Vec<f64>,
    pub(super) sums: Vec<f64>,
}

impl Walk {
    /// Grows to what a tree needs. Allocates where it has to.
    pub(super) fn reserve(&mut self, edges: usize, points: usize) {
        let grow = |part: &mut Vec<f64>| part.resize(part.len().max(edges * points), 0.0);
        grow(&mut self.products);
        grow(&mut self.sums);
        self.states.resize(self.states.len().max(edges), State::Dead);
    }

    /// Adds to `totals` (per player, `dimensions` values) what a tree's players are due. `holds` says whether the test of
    /// an edge holds. `None` where the memory is too small or an edge leads outside.
    pub(super) fn run(
        &mut self,
        edges: &[Edge],
        rule: &Rule,
        leaves: &[f64],
        dimensions: usize,
        holds: impl Fn(&Edge) -> bool,
        totals: &mut [f64],
    ) -> Option<()> {
        let n = rule.points.len();
        let states = self.states.get_mut(..edges.len())?;
        let products = self.products.get_mut(..edges.len() * n)?;
        let sums = self.sums.get_mut(..edges.len() * n)?;
        down(edges, rule, holds, states, products)?;
        for dimension in 0..dimensions {
            up(
                edges,
                rule,
                (leaves.get(dimension..)?, dimension),
                dimensions,
                (states, products),
                sums,
                totals,
            )?;
        }
        Some(())
    }
}

/// Fills the states and the products.
fn down(
    edges: &[Edge],
    rule: &Rule,
    holds: impl Fn(&Edge) -> bool,
    states: &mut [State],
    products: &mut [f64],
) -> Option<()> {
    let n = rule.points.len();
    *states.first_mut()? = State::On;
    products.get_mut(..n)?.fill(1.0);
    for (at, edge) in edges.iter().enumerate().skip(1) {
        let (above, here) = products.split_at_mut_checked(at * n)?;
        let above = above.get(edge.parent as usize * n..)?.get(..n)?;
        let here = here.get_mut(..n)?;
        let before = *states.get(edge.before as usize)?;
        let state = if edge.ignored || *states.get(edge.parent as usize)? == State::Dead {
            State::Dead
        } else if edge.implied {
            here.copy_from_slice(above);
            State::Off
        } else if before == State::On && holds(edge) == edge.right {
            State::On
        } else if edge.zero > 0.0 {
            State::Off
        } else {
            State::Dead
        };
        *states.get_mut(at)? = state;
        if state == State::Dead || edge.implied {
            continue;
        }
        let zero_before = edges.get(edge.before as usize)?.zero;
        for ((here, above), t) in here.iter_mut().zip(above).zip(&rule.points) {
            *here = above * factor(edge.zero, state, *t) / factor(zero_before, before, *t);
        }
    }
    Some(())
}

/// Adds up the leaves of one dimension, and what the players are due of them.
fn up(
    edges: &[Edge],
    rule: &Rule,
    (leaves, dimension): (&[f64], usize),
    dimensions: usize,
    (states, products): (&[State], &[f64]),
    sums: &mut [f64],
    totals: &mut [f64],
) -> Option<()> {
    let n = rule.points.len();
    sums.fill(0.0);
    for (at, edge) in edges.iter().enumerate().rev() {
        let state = *states.get(at)?;
        if state == State::Dead {
            continue;
        }
        let (above, here) = sums.split_at_mut_checked(at * n)?;
        let here = here.get_mut(..n)?;
        if edge.leaf != NONE {
            let value = *leaves.get(edge.leaf as usize)?;
            for (sum, product) in here.iter_mut().zip(products.get(at * n..)?) {
                *sum = value * product;
            }
        }
        if at == 0 {
            break;
        }
        if !edge.implied && *states.get(edge.before as usize)? == State::On {
            let zero_before = edges.get(edge.before as usize)?.zero;
            let mut due = 0.0;
            for ((sum, t), weight) in here.iter().zip(&rule.points).zip(&rule.weights) {
                due += weight * sum * (psi(edge.zero, state, *t) - psi(zero_before, State::On, *t));
            }
            *totals.get_mut(edge.player as usize * dimensions + dimension)? += due;
        }
        for (above, here) in above.get_mut(edge.parent as usize * n..)?.iter_mut().zip(&*here) {
            *above += here;
        }
    }
    Some(())
}

/// `z (1 - t) + o t`.
#[inline(always)]
fn factor(zero: f64, state: State, t: f64) -> f64 {
    if state == State::On { zero + (1.0 - zero) * t } else { zero * (1.0 - t) }
}

/// `(o - z) / (z (1 - t) + o t)`.
#[inline(always)]
fn psi(zero: f64, state: State, t: f64) -> f64 {
    if state == State::On { (1.0 - zero) / (zero + (1.0 - zero) * t) } else { -1.0 / (1.0 - t) }
}
