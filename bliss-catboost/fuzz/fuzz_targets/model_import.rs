//! Any file: an error, or a model that compiles, opens, and gives the same answer by every path. Start from
//! `testdata/models` and `testdata/small`:
//! `cargo +nightly fuzz run model_import fuzz/corpus/model_import testdata/models testdata/small -- -max_len=60000`
#![no_main]

use bliss_catboost::{BotOptions, ModelRef, InstructionSet, Scratch, compile, import};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(mut model) = import(bytes) else { return };
    let _ = model.select_bot(&BotOptions::default());
    let compiled = compile(&model).expect("an imported model compiles");
    let opened = ModelRef::open(&compiled).expect("a compiled model opens");
    let inputs = opened.inputs().len();
    let binding: Vec<u32> = (0..inputs as u32).collect();
    let values: Vec<f32> = (0..inputs).map(|i| if i % 7 == 3 { f32::NAN } else { i as f32 - 2.5 }).collect();
    let mut scratch = Scratch::for_model(&opened);
    let mut answers = Vec::new();
    for path in InstructionSet::ALL.into_iter().filter(|p| p.is_available()) {
        let mut out = vec![0.0; opened.output_dimensions()];
        let opened = opened.with_instruction_set(path).expect("available");
        opened.raw(&values, &binding, &mut scratch, &mut out).expect("arguments fit");
        answers.push(out.iter().map(|v| if v.is_nan() { u64::MAX } else { v.to_bits() }).collect::<Vec<_>>());
    }
    assert!(answers.windows(2).all(|w| w[0] == w[1]), "paths disagree");
});
