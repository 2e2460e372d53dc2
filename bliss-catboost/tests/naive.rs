//! Random models and rows: every path against an evaluator of a few lines.

mod common;

use bliss_catboost::ir::{Model, Node, Trees};
use bliss_catboost::{EvalError, Evaluation, InstructionSet, ModelRef, Scratch, compile};
use common::random::{Random, Row, Shape, holds, model, row, scatter, shapes};
use proptest::prelude::*;

fn naive(model: &Model, row: &Row) -> Vec<f64> {
    let mut sums = vec![0.0; model.dimensions];
    let mut add = |values: &[f64]| sums.iter_mut().zip(values).for_each(|(sum, v)| *sum += v);
    match &model.trees {
        Trees::Oblivious(trees) => {
            for tree in trees {
                let bits =
                    tree.splits.iter().enumerate().map(|(d, s)| usize::from(holds(model, row, *s)) << d);
                add(&tree.leaves[bits.sum::<usize>() * model.dimensions..]);
            }
        }
        Trees::NonSymmetric(trees) => {
            for tree in trees {
                let mut at = 0;
                while let Node::Split { split, left, right } = tree.nodes[at] {
                    at = if holds(model, row, split) { right } else { left };
                }
                let Node::Leaf(first) = tree.nodes[at] else { unreachable!() };
                add(&tree.leaves[first..]);
            }
        }
    }
    for (sum, bias) in sums.iter_mut().zip(&model.bias) {
        *sum = match (model.trees.is_empty(), model.dimensions) {
            (true, _) => *bias,
            (false, 1) if *bias == 0.0 => *sum * model.scale, // keeps -0.0
            _ => model.scale * *sum + bias,
        };
    }
    sums
}

/// Evaluates random rows of a random model by every path and naively.
fn compare(shape: &Shape) -> Result<(), TestCaseError> {
    let model = model(shape);
    let compiled = compile(&model).unwrap();
    let opened = ModelRef::open(&compiled).unwrap();
    let mut scratch = Scratch::for_model(&opened);
    let mut random = Random(!shape.seed);
    for _ in 0..6 {
        let row = row(&model, &mut random);
        let expected: Vec<u64> = naive(&model, &row).iter().map(|v| v.to_bits()).collect();
        let (values, binding) = scatter(&model, &opened, &row, &mut random);
        for path in InstructionSet::ALL.into_iter().filter(|p| p.is_available()) {
            let mut out = vec![f64::NAN; shape.dimensions];
            let opened = opened.with_instruction_set(path).unwrap();
            opened.raw(&values, &binding, &mut scratch, &mut out).unwrap();
            let found: Vec<u64> = out.iter().map(|v| v.to_bits()).collect();
            prop_assert_eq!(&found, &expected, "{}", path);
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 160, ..ProptestConfig::default() })]

    #[test]
    fn every_path_is_bit_equal_to_the_naive_evaluator(shape in shapes()) {
        compare(&shape)?;
    }
}

#[test]
fn more_inputs_than_any_page_holds() {
    for (seed, any) in [(1, false), (2, false), (3, true)] {
        let shape = Shape {
            floats: 4000,
            borders: 4,
            cats: 3,
            ctrs: 4,
            trees: 800,
            depth: 8,
            dimensions: 1,
            any,
            scaled: true,
            seed,
        };
        let compiled = compile(&model(&shape)).unwrap();
        assert!(
            ModelRef::open(&compiled).unwrap().inputs().len() > 1024,
            "wide enough to leave the paged kernels"
        );
        compare(&shape).unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn several_models_together_answer_as_each_alone(shapes in prop::collection::vec(shapes(), 1..6), tight: bool) {
        // Each beside others that fill the same slots, or nearly the same.
        let variants = |shape: &Shape| {
            let first = model(shape);
            let mut retrained = first.clone();
            match &mut retrained.trees {
                Trees::Oblivious(trees) => trees.iter_mut().for_each(|tree| tree.leaves.reverse()),
                Trees::NonSymmetric(trees) => trees.iter_mut().for_each(|tree| tree.leaves.reverse()),
            }
            let mut moved = first.clone();
            if let Some(border) = moved.floats.iter_mut().find_map(|float| float.borders.first_mut()) {
                *border = border.next_down();
            }
            [first.clone(), first, retrained, moved]
        };
        let compiled: Vec<_> =
            shapes.iter().flat_map(variants).map(|model| compile(&model).unwrap()).collect();
        let mut random = Random(shapes.len() as u64);
        let values: Vec<f32> = (0..3000).map(|_| random.number()).collect();
        for path in InstructionSet::ALL.into_iter().filter(|p| p.is_available()) {
            let opened: Vec<_> =
                compiled.iter().map(|c| ModelRef::open(c).unwrap().with_instruction_set(path).unwrap()).collect();
            let mut scratch = Scratch::default();
            scratch.reserve_for_many(opened.iter().take(if tight { 2 } else { 10 }).copied());
            opened.iter().for_each(|model| scratch.reserve(model));
            let mut bindings: Vec<Vec<u32>> = Vec::new();
            for (i, opened) in opened.iter().enumerate() {
                let mut binding = || opened.inputs().map(|_| random.below(3000) as u32).collect::<Vec<_>>();
                let same = bindings.last().cloned().filter(|_| i % 4 != 0 && i % 11 != 7);
                bindings.push(same.unwrap_or_else(&mut binding));
            }
            let mut alone: Vec<Vec<f64>> = opened.iter().map(|m| vec![0.0; m.output_dimensions()]).collect();
            let mut many = alone.clone();
            for ((model, binding), out) in opened.iter().zip(&bindings).zip(&mut alone) {
                model.raw(&values, binding, &mut scratch, out).unwrap();
            }
            let mut tasks: Vec<Evaluation<'_, '_>> = (opened.iter().zip(&bindings).zip(&mut many))
                .map(|((model, binding), out)| Evaluation { model: *model, binding, out })
                .collect();
            ModelRef::raw_many(&mut tasks, &values, &mut scratch).unwrap();
            let bits = |all: &[Vec<f64>]| all.iter().flatten().map(|v| v.to_bits()).collect::<Vec<_>>();
            prop_assert_eq!(bits(&alone), bits(&many), "{}", path);
        }
    }
}

#[test]
fn wrong_arguments_are_errors() {
    let shape = Shape {
        floats: 5,
        borders: 10,
        cats: 0,
        ctrs: 0,
        trees: 20,
        depth: 4,
        dimensions: 2,
        any: false,
        scaled: false,
        seed: 1,
    };
    let compiled = compile(&model(&shape)).unwrap();
    let opened = ModelRef::open(&compiled).unwrap();
    assert_eq!(opened.inputs().len(), 5);
    let mut scratch = Scratch::for_model(&opened);
    let values = [0.0; 8];
    let mut out = [0.0; 2];
    let raw =
        |binding: &[u32], out: &mut [f64], scratch: &mut Scratch| opened.raw(&values, binding, scratch, out);
    assert_eq!(raw(&[0, 1, 2, 3, 7], &mut out, &mut scratch), Ok(()));
    assert_eq!(
        raw(&[0, 1, 2, 3, 8], &mut out, &mut scratch),
        Err(EvalError::BindingRange { values: 8, found: 8 })
    );
    assert_eq!(
        raw(&[0, 1, 2, 3], &mut out, &mut scratch),
        Err(EvalError::BindingLength { expected: 5, found: 4 })
    );
    let mut short = [0.0; 1];
    assert_eq!(
        raw(&[0; 5], &mut short, &mut scratch),
        Err(EvalError::OutputLength { expected: 2, found: 1 })
    );
    assert_eq!(raw(&[0; 5], &mut out, &mut Scratch::default()), Err(EvalError::Scratch));
}
