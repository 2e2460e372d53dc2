//! Hostile files: truncated, bit-flipped and spliced by the thousand. Each gives an error or a model that can be
//! compiled and evaluated; nothing panics, and all paths agree on the answer.

mod common;

use bliss_catboost::{
    BoundedExplainer, Convention, ExplainOptions, ExplainScratch, Explainer, InstructionSet, ModelError,
    ModelRef, Scratch, compile, compile_explainable, import,
};
use common::testdata;
use rkyv::util::AlignedVec;

/// A generator of random numbers with a fixed start (xorshift), so that a failure can be repeated.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % limit.max(1)
    }
}

/// All models that come with the crate: `.cbm` files and JSON exports.
fn files() -> Vec<(String, Vec<u8>)> {
    let mut files = Vec::new();
    for folder in [testdata(), testdata().with_file_name("small")] {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if name.ends_with(".cbm") || (name.ends_with(".json") && name != "manifest.json") {
                files.push((name, std::fs::read(path).unwrap()));
            }
        }
    }
    files.sort();
    assert!(files.len() > 10);
    files
}

/// Changes a file: cuts it, flips bits, overwrites a number, or copies a piece of another file into it.
fn damage(file: &[u8], other: &[u8], random: &mut Random) -> Vec<u8> {
    let mut file = file.to_vec();
    for _ in 0..=random.below(3) {
        if file.is_empty() {
            break;
        }
        match random.below(5) {
            0 => file.truncate(random.below(file.len())),
            1 => {
                let at = random.below(file.len());
                file[at] ^= 1 << random.below(8);
            }
            2 => {
                let at = random.below(file.len());
                let number =
                    [0, 1, 0x7fff_ffff, 0x8000_0000, u32::MAX, random.below(1 << 20) as u32][random.below(6)];
                for (byte, new) in file[at..].iter_mut().zip(number.to_le_bytes()) {
                    *byte = new;
                }
            }
            3 => {
                let from = random.below(other.len());
                let piece = &other[from..other.len().min(from + 1 + random.below(200))];
                let at = random.below(file.len());
                for (byte, new) in file[at..].iter_mut().zip(piece) {
                    *byte = *new;
                }
            }
            _ => {
                let (at, from) = (random.below(file.len()), random.below(other.len()));
                file.truncate(at);
                file.extend_from_slice(&other[from..]);
            }
        }
    }
    file
}

/// Evaluates a few rows by every path; they must agree.
fn evaluate(model: ModelRef<'_>, random: &mut Random) {
    let inputs = model.inputs().len();
    let binding: Vec<u32> = (0..inputs as u32).collect();
    let mut scratch = Scratch::for_model(&model);
    for _ in 0..2 {
        let values: Vec<f32> = (0..inputs)
            .map(|_| match random.below(6) {
                0 => f32::NAN,
                1 => f32::from_bits(random.below(1 << 32) as u32),
                _ => random.below(4000) as f32 / 1000.0 - 2.0,
            })
            .collect();
        let mut answers = Vec::new();
        for path in InstructionSet::ALL.into_iter().filter(|p| p.is_available()) {
            let mut out = vec![0.0; model.output_dimensions()];
            model.with_instruction_set(path).unwrap().raw(&values, &binding, &mut scratch, &mut out).unwrap();
            answers.push(
                out.iter().map(|v| if v.is_nan() { u64::MAX } else { v.to_bits() }).collect::<Vec<_>>(),
            );
        }
        assert!(answers.windows(2).all(|w| w[0] == w[1]), "paths disagree");
    }
}

#[test]
fn damaged_files_are_errors_or_models_never_panics() {
    let files = files();
    let (mut refused, mut accepted) = (0, 0);
    for (at, (name, file)) in files.iter().enumerate() {
        let mut random = Random(0x1234_5678_9abc_def1 + at as u64);
        for _ in 0..400 {
            let other = &files[random.below(files.len())].1;
            let damaged = damage(file, other, &mut random);
            match import(&damaged) {
                Err(error) => {
                    refused += 1;
                    assert!(!error.to_string().is_empty());
                }
                Ok(model) => {
                    accepted += 1;
                    let compiled = compile(&model).unwrap_or_else(|e| panic!("{name}: {e}"));
                    evaluate(ModelRef::open(&compiled).unwrap(), &mut random);
                    if let Ok(compiled) = compile_explainable(&model) {
                        assert!(explain(ModelRef::open(&compiled).unwrap()), "{name}");
                    }
                }
            }
        }
    }
    eprintln!("{refused} damaged files refused, {accepted} accepted");
    assert!(refused > 4000 && accepted > 100);
}

#[test]
fn every_truncation_of_a_file_is_an_error() {
    for (name, file) in files() {
        if name.ends_with(".cbm") {
            let step = (file.len() / 300).max(1);
            for len in (0..file.len()).step_by(step) {
                assert!(import(&file[..len]).is_err(), "{name} cut to {len} bytes");
            }
        }
    }
}

#[test]
fn damaged_compiled_models_are_errors_or_evaluate_within_their_bytes() {
    let mut opened = 0;
    for (at, (name, file)) in files().into_iter().enumerate() {
        let Ok(model) = import(&file) else { continue };
        let compiled = compile(&model).unwrap();
        let mut random = Random(0xfeed_5678_9abc_def1 + at as u64);
        for round in 0..300 {
            // The header's numbers and the sections' starts lead the furthest.
            let mut bytes = AlignedVec::<64>::new();
            bytes.extend_from_slice(&compiled);
            for _ in 0..=random.below(2) {
                let limit = if round % 2 == 0 { 1024.min(bytes.len()) } else { bytes.len() };
                let at = random.below(limit);
                bytes[at] = random.below(256) as u8;
            }
            if let Ok(model) = ModelRef::open(&bytes) {
                opened += 1;
                evaluate_alone(model, &mut random);
            }
        }
        for cut in [0, 1, 63, 64, 383, 384, compiled.len() / 2, compiled.len() - 1] {
            let mut bytes = AlignedVec::<64>::new();
            bytes.extend_from_slice(&compiled[..cut]);
            assert!(ModelRef::open(&bytes).is_err(), "{name} cut to {cut}");
        }
    }
    assert!(opened > 100);
}

/// Evaluates by every path; a damaged model may answer anything.
fn evaluate_alone(model: ModelRef<'_>, random: &mut Random) {
    let inputs = model.inputs().len();
    let binding: Vec<u32> = (0..inputs as u32).collect();
    let mut scratch = Scratch::for_model(&model);
    let values: Vec<f32> = (0..inputs).map(|_| random.below(4000) as f32 / 1000.0 - 2.0).collect();
    for path in InstructionSet::ALL.into_iter().filter(|p| p.is_available()) {
        let mut out = vec![0.0; model.output_dimensions()];
        model.with_instruction_set(path).unwrap().raw(&values, &binding, &mut scratch, &mut out).unwrap();
    }
}

/// Explains a row, by walks, by tables and straight from the bytes; false where the weights are refused.
fn explain(model: ModelRef<'_>) -> bool {
    thread_local! {
        static BOUNDED: std::cell::RefCell<BoundedExplainer> = Default::default();
    }
    let inputs = model.inputs().len();
    let binding: Vec<u32> = (0..inputs as u32).collect();
    let mut out = vec![0.0; (inputs + 1) * model.output_dimensions()];
    let straight = BOUNDED.with_borrow_mut(|bounded| {
        bounded.explain(&model, &vec![0.5; inputs], &binding, &mut Scratch::for_model(&model), &mut out)
    });
    assert_eq!(straight.is_ok(), Explainer::new(model, ExplainOptions::default()).is_ok());
    for (table_bytes, convention) in [(0, Convention::CatBoost), (1 << 14, Convention::Exact)] {
        let Ok(explainer) = Explainer::new(model, ExplainOptions { convention, table_bytes }) else {
            return false;
        };
        let mut out = vec![0.0; explainer.outputs()];
        let mut scratch = ExplainScratch::for_explainer(&explainer);
        explainer.explain(&vec![0.5; inputs], &binding, &mut scratch, &mut out).unwrap();
    }
    true
}

#[test]
fn damaged_weights_are_errors_or_explain() {
    let (mut refused, mut explained) = (0, 0);
    for (at, (name, file)) in files().into_iter().enumerate() {
        let Ok(model) = import(&file) else { continue };
        let plain = compile(&model).unwrap().len();
        let Ok(compiled) = compile_explainable(&model) else { continue };
        assert!(explain(ModelRef::open(&compiled).unwrap()), "{name}");
        let mut random = Random(0xabcd_5678_9abc_def1 + at as u64);
        for round in 0..200 {
            let mut bytes = AlignedVec::<64>::new();
            bytes.extend_from_slice(&compiled);
            for _ in 0..=random.below(2) {
                // The weights, the section's place, the trees.
                let at = match round % 3 {
                    0 => plain + random.below(compiled.len() - plain),
                    1 => random.below(384),
                    _ => random.below(compiled.len()),
                };
                bytes[at] = random.below(256) as u8;
            }
            if let Ok(model) = ModelRef::open(&bytes) {
                if explain(model) { explained += 1 } else { refused += 1 }
            }
        }
    }
    eprintln!("{refused} damaged models refused by the explainer, {explained} explained");
    assert!(refused > 100 && explained > 100);
}

#[test]
fn a_compiled_model_must_be_whole_aligned_and_of_this_version() {
    let file = std::fs::read(testdata().join("scale_bias.cbm")).unwrap();
    let compiled = compile(&import(&file).unwrap()).unwrap();
    let mut longer = AlignedVec::<64>::new();
    longer.extend_from_slice(&compiled);
    longer.extend_from_slice(&[0; 64]);
    assert!(matches!(ModelRef::open(&longer), Err(ModelError::Length { .. })));
    longer[..].copy_within(..compiled.len(), 32);
    assert!(matches!(ModelRef::open(&longer[32..]), Err(ModelError::Misaligned { remainder: 32 })));
    let mut other = AlignedVec::<64>::new();
    other.extend_from_slice(&compiled);
    other[8] = 99;
    assert!(matches!(ModelRef::open(&other), Err(ModelError::Version { found: 99, .. })));
    assert!(matches!(ModelRef::open(&[]), Err(ModelError::Misaligned { .. } | ModelError::Magic)));
}

#[test]
fn text_features_and_foreign_files_are_refused_by_name() {
    let text = std::fs::read(testdata().join("unsupported_text.cbm")).unwrap();
    let error = import(&text).unwrap_err().to_string();
    assert!(error.contains("text features"), "{error}");
    let error = import(b"PK\x03\x04").unwrap_err().to_string();
    assert!(error.contains("CBM1") && error.contains("PK"), "{error}");
    let error = import(b"").unwrap_err().to_string();
    assert!(error.contains("empty"), "{error}");
    assert!(
        import(b"{\"features_info\":{\"text_features\":[{}]}}").unwrap_err().to_string().contains("text")
    );
}
