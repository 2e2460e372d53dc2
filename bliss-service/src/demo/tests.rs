use super::*;

#[test]
fn a_truncated_model_is_refused_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("cut.cbm");
    std::fs::write(&path, &MODEL[..MODEL.len() / 2]).unwrap();
    let error = format!("{:#}", demo_models(Some(&path), &BotArgs::default()).unwrap_err());
    assert!(error.contains("cut.cbm"), "{error}");
}
