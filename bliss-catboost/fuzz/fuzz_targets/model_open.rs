//! A compiled model with some of its bytes changed: an error, or a model that every path evaluates within its bytes, and that
//! is explained if its weights fit it.
//! The input's first byte chooses the model; then each four bytes are three of an offset and one that is written there.
#![no_main]

use std::sync::LazyLock;

use bliss_catboost::{
    BoundedExplainer, ExplainOptions, ExplainScratch, Explainer, InstructionSet, ModelRef, Scratch,
    compile_explainable, import,
};
use libfuzzer_sys::fuzz_target;
use rkyv::util::AlignedVec;

static COMPILED: LazyLock<Vec<AlignedVec<64>>> = LazyLock::new(|| {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata");
    let mut names: Vec<_> = ["models", "small"]
        .iter()
        .flat_map(|sub| std::fs::read_dir(folder.join(sub)).expect("testdata is there"))
        .map(|entry| entry.expect("readable").path())
        .filter(|path| path.extension().is_some_and(|e| e == "cbm"))
        .collect();
    names.sort();
    let models = names.iter().filter_map(|path| import(&std::fs::read(path).expect("readable")).ok());
    models.map(|model| compile_explainable(&model).expect("an imported model compiles")).collect()
});

fuzz_target!(|bytes: &[u8]| {
    let Some((first, edits)) = bytes.split_first() else { return };
    let original = &COMPILED[usize::from(*first) % COMPILED.len()];
    let mut changed = AlignedVec::<64>::new();
    changed.extend_from_slice(original);
    for [a, b, c, byte] in edits.as_chunks::<4>().0 {
        let at = u32::from_le_bytes([*a, *b, *c, 0]) as usize % changed.len();
        changed[at] = *byte;
    }
    let Ok(opened) = ModelRef::open(&changed) else { return };
    let inputs = opened.inputs().len();
    let binding: Vec<u32> = (0..inputs as u32).collect();
    let values: Vec<f32> = (0..inputs).map(|i| i as f32 - 2.5).collect();
    let mut scratch = Scratch::for_model(&opened);
    let mut out = vec![0.0; opened.output_dimensions()];
    for path in InstructionSet::ALL.into_iter().filter(|p| p.is_available()) {
        let opened = opened.with_instruction_set(path).expect("available");
        opened.raw(&values, &binding, &mut scratch, &mut out).expect("arguments fit");
        let _ = opened.class_probability(&out, 0);
        let _ = (opened.guid(), opened.class_names().count());
    }
    let mut shap = vec![0.0; (inputs + 1) * opened.output_dimensions()];
    let straight = BoundedExplainer::new().explain(&opened, &values, &binding, &mut scratch, &mut shap);
    assert_eq!(straight.is_ok(), Explainer::new(opened, ExplainOptions::default()).is_ok());
    for table_bytes in [0, 1 << 14] {
        let options = ExplainOptions { table_bytes, ..ExplainOptions::default() };
        let Ok(explainer) = Explainer::new(opened, options) else { return };
        let mut scratch = ExplainScratch::for_explainer(&explainer);
        let mut out = vec![0.0; explainer.outputs()];
        explainer.explain(&values, &binding, &mut scratch, &mut out).expect("arguments fit");
    }
});
