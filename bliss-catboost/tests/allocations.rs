//! Opening and evaluating never allocate. A binary of its own: it counts every allocation of the process.

use bliss_catboost::{
    BoundedExplainer, ExplainOptions, ExplainScratch, Explainer, InstructionSet, ModelRef, Scratch, compile,
    compile_explainable, import,
};

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

#[test]
fn opening_evaluating_and_explaining_never_allocate() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/models");
    let mut compiled = Vec::new();
    for name in ["float_nan_max", "multiclass", "onehot", "ctr", "ctr_counter"] {
        let file = std::fs::read(folder.join(format!("{name}.cbm"))).unwrap();
        compiled.push(compile(&import(&file).unwrap()).unwrap());
        compiled.push(compile_explainable(&import(&file).unwrap()).unwrap());
    }
    let shapes = std::fs::read(folder.with_file_name("small").join("small_lossguide_classes.cbm")).unwrap();
    compiled.push(compile_explainable(&import(&shapes).unwrap()).unwrap());

    let mut bounded = BoundedExplainer::new();

    let _profiler = dhat::Profiler::builder().testing().build();
    for bytes in &compiled {
        let before = dhat::HeapStats::get().total_blocks;
        let opened = ModelRef::open(bytes).unwrap();
        let (inputs, dimensions) = (opened.inputs().len(), opened.output_dimensions());
        assert_eq!(dhat::HeapStats::get().total_blocks, before, "open allocated");

        let binding: Vec<u32> = (0..inputs as u32).collect();
        let values = vec![0.25_f32; inputs];
        let mut out = vec![0.0; dimensions];
        let mut scratch = Scratch::for_model(&opened);
        let before = dhat::HeapStats::get().total_blocks;
        for path in InstructionSet::ALL.into_iter().filter(|p| p.is_available()) {
            // SAFETY:
            // - opened above
            let opened = unsafe { ModelRef::open_unchecked(bytes) }.with_instruction_set(path).unwrap();
            for _ in 0..100 {
                opened.raw(&values, &binding, &mut scratch, &mut out).unwrap();
                let _ = opened.class_probability(&out, 1);
            }
            assert!(opened.raw(&values, &[], &mut scratch, &mut out).is_err());
        }
        assert_eq!(dhat::HeapStats::get().total_blocks, before, "evaluating allocated");

        let mut shap = vec![0.0; dimensions * (inputs + 1)];
        let before = dhat::HeapStats::get().total_blocks;
        for _ in 0..10 {
            let explained = bounded.explain(&opened, &values, &binding, &mut scratch, &mut shap);
            assert_eq!(explained.is_ok(), opened.is_explainable());
            assert!(bounded.explain(&opened, &values, &[], &mut scratch, &mut shap).is_err());
        }
        assert_eq!(
            dhat::HeapStats::get().total_blocks,
            before,
            "explaining straight from the bytes allocated"
        );

        for table_bytes in [0, 4096, 1 << 24] {
            let options = ExplainOptions { table_bytes, ..ExplainOptions::default() };
            let Ok(explainer) = Explainer::new(opened, options) else { continue };
            let mut scratch = ExplainScratch::for_explainer(&explainer);
            let mut out = vec![0.0; explainer.outputs()];
            let before = dhat::HeapStats::get().total_blocks;
            for _ in 0..100 {
                explainer.explain(&values, &binding, &mut scratch, &mut out).unwrap();
            }
            assert!(explainer.explain(&values, &[], &mut scratch, &mut out).is_err());
            assert_eq!(dhat::HeapStats::get().total_blocks, before, "explaining allocated");
        }
    }
}
