//! Any bytes as a compiled model: an error, or a model that every path evaluates within its bytes.
#![no_main]

use bliss_core::model::{ModelRef, Path, Scratch};
use libfuzzer_sys::fuzz_target;
use rkyv::util::AlignedVec;

fuzz_target!(|bytes: &[u8]| {
    let mut aligned = AlignedVec::<64>::new();
    aligned.extend_from_slice(bytes);
    let Ok(opened) = ModelRef::open(&aligned) else { return };
    let inputs = opened.inputs().len();
    let binding: Vec<u32> = (0..inputs as u32).collect();
    let values: Vec<f32> = (0..inputs).map(|i| i as f32 - 2.5).collect();
    let mut scratch = Scratch::for_model(&opened);
    let mut out = vec![0.0; opened.output_dimensions()];
    for path in Path::ALL.into_iter().filter(|p| p.is_available()) {
        let opened = opened.with_path(path).expect("available");
        opened.raw(&values, &binding, &mut scratch, &mut out).expect("arguments fit");
    }
});
