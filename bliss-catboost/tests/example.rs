//! The example of the README runs, and its answer is CatBoost's.

use std::io::Write as _;
use std::process::Command;

#[test]
fn the_example_prints_catboosts_answer() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/models");
    let bytes = std::fs::read(folder.join("depth1.x.f32")).unwrap();
    let numbers: Vec<f32> = bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
    let raw = std::fs::read(folder.join("depth1.raw.f64")).unwrap();
    let expected = f64::from_le_bytes(*raw.first_chunk().unwrap());

    // Cargo builds examples before it runs tests, beside the folder of this binary.
    let binary = std::env::current_exe().unwrap();
    let example = binary.parent().unwrap().with_file_name("examples").join("evaluate");
    if !example.exists() {
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED: {} (cargo test --test does not build it)",
            example.display()
        );
        return;
    }
    let model = folder.join("depth1.cbm");
    let inputs = Command::new(&example).arg(&model).output().unwrap();
    let inputs = String::from_utf8(inputs.stdout).unwrap();
    let row: Vec<String> = inputs
        .lines()
        .map(|line| {
            let name = line.split(' ').next().unwrap();
            let index: usize = name.strip_prefix("float_").unwrap().parse().unwrap();
            numbers[index].to_string()
        })
        .collect();
    let output = Command::new(&example).arg(&model).arg(row.join(",")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains(&format!("raw [{expected:?}]")), "{text} instead of {expected:?}");
    assert!(text.contains("probability of class 1"), "{text}");
}
