//! Making the index of rules.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use super::super::compiled::{Compare, Condition, Rule, Stage};
use super::*;

impl Index {
    /// The index of rules of which there are at most [`MAX_RULES`].
    pub(in crate::policy) fn of(rules: &[Rule]) -> Self {
        let mut sources: Vec<Numbers> =
            sources_of(rules).into_iter().map(|source| numbers_of(rules, source)).collect();
        let looked_at = |numbers: &Numbers| numbers.looking.iter().map(|word| word.count_ones()).sum::<u32>();
        sources.sort_by_key(|numbers| std::cmp::Reverse(looked_at(numbers)));
        Self {
            scores: scores_of(rules),
            methods: methods_of(rules),
            hosts: hosts_of(rules),
            paths: paths_of(rules),
            sources,
        }
    }
}

/// The rules for which `is_in` says so, by their place.
fn set<R>(rules: &[R], is_in: impl Fn(&R) -> bool) -> Bits {
    let mut bits = Bits::default();
    for (index, rule) in rules.iter().enumerate() {
        if let Some(word) = bits.get_mut(index / 64).filter(|_| is_in(rule)) {
            *word |= 1 << (index % 64);
        }
    }
    bits
}

/// Of each rule the clauses all of whose conditions are of one kind.
struct Clauses<'r>(Vec<Vec<&'r [Condition]>>);

impl<'r> Clauses<'r> {
    fn of(rules: &'r [Rule], is_of_kind: impl Fn(&Condition) -> bool) -> Self {
        let of_rule = |rule: &'r Rule| {
            rule.clauses.iter().map(Vec::as_slice).filter(|clause| clause.iter().all(&is_of_kind)).collect()
        };
        Self(rules.iter().map(of_rule).collect())
    }

    /// The rules that have some.
    fn looking(&self) -> Bits {
        set(&self.0, |clauses| !clauses.is_empty())
    }

    /// The rules all of whose clauses hold; those without one are among them.
    fn possible(&self, holds: impl Fn(&Condition) -> bool) -> Bits {
        set(&self.0, |clauses| clauses.iter().all(|clause| clause.iter().any(&holds)))
    }
}

fn scores_of(rules: &[Rule]) -> Vec<Bits> {
    let is_possible = |rule: &Rule, score: usize| {
        rule.stage != Stage::Band
            || (score > 0 && (usize::from(rule.lowest)..=usize::from(rule.highest)).contains(&score))
    };
    (0..SCORES).map(|score| set(rules, |rule| is_possible(rule, score))).collect()
}

fn methods_of(rules: &[Rule]) -> Texts {
    let clauses = Clauses::of(rules, |condition| matches!(condition, Condition::Method(_)));
    let is = |condition: &Condition, text: &str| matches!(condition, Condition::Method(m) if m == text);
    let texts: BTreeSet<&String> = conditions(rules)
        .filter_map(|condition| if let Condition::Method(text) = condition { Some(text) } else { None })
        .collect();
    Texts {
        looking: clauses.looking(),
        other: clauses.possible(|_| false),
        texts: texts
            .into_iter()
            .map(|text| (text.clone(), clauses.possible(|condition| is(condition, text))))
            .collect(),
    }
}

fn hosts_of(rules: &[Rule]) -> Numbers {
    let rank_of = |condition: &Condition| {
        if let Condition::Host(host) = condition { Some(host_rank(host.as_bytes())) } else { None }
    };
    let clauses = Clauses::of(rules, |condition| rank_of(condition).is_some());
    let keys: BTreeSet<u32> = conditions(rules).filter_map(rank_of).collect();
    let none = clauses.possible(|_| false);
    Numbers {
        source: u32::MAX,
        is_category: true,
        looking: clauses.looking(),
        missing: none,
        unbound: none,
        cells: cells(&keys, |key, order| {
            clauses.possible(|c| order.is_eq() && rank_of(c).is_some_and(|rank| Some(rank) == key))
        }),
        keys: keys.into_iter().collect(),
    }
}

fn paths_of(rules: &[Rule]) -> Paths {
    let clauses =
        Clauses::of(rules, |condition| matches!(condition, Condition::Path(_) | Condition::PathPrefix(_)));
    let texts: BTreeSet<&String> = conditions(rules)
        .filter_map(|condition| match condition {
            Condition::Path(text) | Condition::PathPrefix(text) => Some(text),
            _ => None,
        })
        .collect();
    // The conditions that hold for the path that is `text`, or that begins with it and goes on as no other one does.
    let holds = |condition: &Condition, text: &[u8], is_longer: bool| match condition {
        Condition::Path(path) => !is_longer && path.as_bytes() == text,
        Condition::PathPrefix(prefix) => text.starts_with(prefix.as_bytes()),
        _ => false,
    };
    let texts: Vec<&[u8]> = texts.into_iter().map(|text| text.as_bytes()).collect();
    let mut nodes: Vec<PathNode> = Vec::new();
    // The texts that go through each node, sorted, and how much of them they have in common before it and at it.
    let mut groups = vec![(texts.as_slice(), 0, 0)];
    while let Some(&(group, before, depth)) = groups.get(nodes.len()) {
        let text = group.first().and_then(|text| text.get(..depth)).unwrap_or_default();
        let first_child = groups.len();
        let shorter = group.iter().take_while(|text| text.len() == depth).count();
        let longer = group.get(shorter..).unwrap_or_default();
        for kind in longer.chunk_by(|a, b| a.get(depth) == b.get(depth)) {
            groups.push((kind, depth, common(kind)));
        }
        nodes.push(PathNode {
            text: text.get(before..).unwrap_or_default().to_vec(),
            // Nodes are no more than twice the conditions.
            children: (groups.len() - first_child) as u32,
            first_child: first_child as u32,
            equal: clauses.possible(|condition| holds(condition, text, false)),
            longer: clauses.possible(|condition| holds(condition, text, true)),
        });
    }
    Paths {
        looking: clauses.looking(),
        other: clauses.possible(|_| false),
        firsts: nodes.iter().map(|node| node.text.first().copied().unwrap_or(0)).collect(),
        nodes,
    }
}

/// How many bytes sorted texts have in common.
fn common(sorted: &[&[u8]]) -> usize {
    let (Some(first), Some(last)) = (sorted.first(), sorted.last()) else { return 0 };
    first.iter().zip(*last).take_while(|(a, b)| a == b).count()
}

/// The feature that a condition looks at.
fn source_of(condition: &Condition) -> Option<u32> {
    match condition {
        Condition::Number { source, .. }
        | Condition::Category { source, .. }
        | Condition::Missing { source } => Some(*source),
        Condition::Path(_)
        | Condition::PathPrefix(_)
        | Condition::Method(_)
        | Condition::Host(_)
        | Condition::NotPassed => None,
    }
}

fn sources_of(rules: &[Rule]) -> BTreeSet<u32> {
    conditions(rules).filter_map(source_of).collect()
}

fn numbers_of(rules: &[Rule], source: u32) -> Numbers {
    let clauses = Clauses::of(rules, |condition| source_of(condition) == Some(source));
    let key_of = |condition: &Condition| match condition {
        Condition::Number { value, .. } => Some(rank(*value)),
        Condition::Category { hash, .. } => Some(*hash),
        _ => None,
    };
    let own = || conditions(rules).filter(|condition| source_of(condition) == Some(source));
    let keys: BTreeSet<u32> = own().filter_map(key_of).collect();
    let holds = |condition: &Condition, key: Option<u32>, order: Ordering| {
        // Where the value is to the condition's number: `order` tells where it is to `key`, and no number is in between.
        let Some(limit) = key_of(condition) else { return false };
        let order = key.map_or(Ordering::Less, |key| key.cmp(&limit).then(order));
        match condition {
            Condition::Number { compare, .. } => match compare {
                Compare::Less => order.is_lt(),
                Compare::LessEqual => order.is_le(),
                Compare::Greater => order.is_gt(),
                Compare::GreaterEqual => order.is_ge(),
                Compare::Equal => order.is_eq(),
                Compare::NotEqual => order.is_ne(),
            },
            Condition::Category { is, .. } => order.is_eq() == *is,
            _ => false,
        }
    };
    Numbers {
        source,
        is_category: own().any(|condition| matches!(condition, Condition::Category { .. })),
        looking: clauses.looking(),
        missing: clauses.possible(|condition| matches!(condition, Condition::Missing { .. })),
        unbound: clauses.possible(|_| false),
        cells: cells(&keys, |key, order| clauses.possible(|c| holds(c, key, order))),
        keys: keys.into_iter().collect(),
    }
}

/// A set for below all keys, then for each key for what is equal and what is greater than it and less than the next.
fn cells(keys: &BTreeSet<u32>, possible: impl Fn(Option<u32>, Ordering) -> Bits) -> Vec<Bits> {
    let first = possible(None, Ordering::Less);
    let rest = keys
        .iter()
        .flat_map(|key| [possible(Some(*key), Ordering::Equal), possible(Some(*key), Ordering::Greater)]);
    std::iter::once(first).chain(rest).collect()
}

fn conditions(rules: &[Rule]) -> impl Iterator<Item = &Condition> {
    rules.iter().flat_map(|rule| rule.clauses.iter().flatten())
}
