//! The reference distribution: from a model's file through the compiled model, and what is refused.

use bliss_catboost::distribution::{MAX_BORDERS, NAN_BIN};
use bliss_catboost::{ModelRef, compile, import};
use rkyv::util::AlignedVec;

const GOOD: &str = r#"{"version":1,"requests":9,"score":{"borders":[10.0,50],"shares":[0.2,0.3,0.5]},
    "inputs":[{"name":"b","borders":[1],"shares":[0.5,0.25],"missing":0.25},{"name":"unused","borders":[],"shares":[1]},
    {"name":"a","borders":[],"shares":[0],"missing":1}]}"#;

/// A model of two numbers, as CatBoost's JSON export, whose file says this of its distribution.
fn file(distribution: Option<&str>) -> Vec<u8> {
    let float = |index: u32, name: &str| {
        serde_json::json!({"feature_index": index, "flat_feature_index": index, "feature_id": name, "borders": [10.0],
            "has_nans": false, "nan_value_treatment": "AsIs"})
    };
    let split = |index: u32| serde_json::json!({"split_index": index, "border": 10.0});
    let mut model = serde_json::json!({
        "model_info": {"params": {"loss_function": {"type": "Logloss"}}},
        "features_info": {"float_features": [float(0, "a"), float(1, "b")]},
        "oblivious_trees": [{"leaf_values": [0.0, 1.0, 2.0, 3.0], "splits": [split(0), split(1)]}],
        "scale_and_bias": [1.0, [0.0]],
    });
    if let Some(text) = distribution {
        model["model_info"]["bliss.distribution"] = text.into();
    }
    serde_json::to_vec(&model).unwrap()
}

fn compiled(distribution: Option<&str>) -> AlignedVec<64> {
    compile(&import(&file(distribution)).unwrap()).unwrap()
}

#[test]
fn it_goes_through_the_compiled_model() {
    let bytes = compiled(Some(GOOD));
    let model = ModelRef::open(&bytes).unwrap();
    let rows = model.distribution();
    let told: Vec<_> = rows.iter().map(|row| (row.input(), row.borders().to_vec())).collect();
    assert_eq!(told, [(None, vec![10.0, 50.0]), (Some(1), vec![1.0]), (Some(0), vec![])]);
    assert_eq!(rows[0].shares()[..3], [0.2, 0.3, 0.5]);
    assert_eq!((rows[1].shares()[0], rows[1].shares()[NAN_BIN], rows[2].shares()[NAN_BIN]), (0.5, 0.25, 1.0));
    assert!(rows[1].padded_borders()[1..].iter().all(|border| *border == f32::INFINITY));
}

#[test]
fn a_model_without_one_is_as_before_and_so_is_one_of_another_version() {
    let without = compiled(None);
    assert!(ModelRef::open(&without).unwrap().distribution().is_empty());
    let newer = compiled(Some(r#"{"version":2,"anything":["else"]}"#));
    assert!(without.as_slice() == newer.as_slice());
}

#[test]
fn what_is_no_distribution_is_refused_by_name() {
    let borders = (0..=MAX_BORDERS).map(|n| n.to_string()).collect::<Vec<_>>().join(",");
    let many = format!("[{borders}]");
    let inputs =
        (0..129).map(|n| format!(r#"{{"name":"{n}","borders":[],"shares":[1]}}"#)).collect::<Vec<_>>();
    let inputs = format!(r#""inputs":[{}]"#, inputs.join(","));
    for (from, to) in [
        (GOOD, "no JSON"),
        (GOOD, "{}"),
        (GOOD, r#"{"version":1}"#),
        ("[10.0,50]", "[50,10.0]"),
        ("[10.0,50]", "[50,50]"),
        ("[10.0,50]", "[1e39,1e40]"),
        ("[10.0,50]", many.as_str()),
        ("[0.2,0.3,0.5]", "[0.2,0.3]"),
        ("[0.2,0.3,0.5]", "[0.2,0.3,0.6]"),
        ("[0.2,0.3,0.5]", "[-0.2,0.7,0.5]"),
        (r#""missing":0.25"#, r#""missing":0.5"#),
        (r#""name":"unused""#, r#""name":"b""#),
        (r#""inputs":["#, format!("{inputs},\"x\":[").as_str()),
    ] {
        let text = GOOD.replace(from, to);
        assert_ne!(text, GOOD);
        let error = import(&file(Some(&text))).unwrap_err().to_string();
        assert!(error.contains("bliss.distribution"), "{to}: {error}");
    }
    let error = import(&file(Some(&" ".repeat((1 << 20) + 1)))).unwrap_err().to_string();
    assert!(error.contains("1048576 bytes at most"), "{error}");
}

/// Whatever the bytes of the section are, the model is refused or tells rows that hold.
#[test]
fn every_byte_of_the_section_changed() {
    let bytes = compiled(Some(GOOD));
    let length = 3 * 128;
    let first = bytes.len() - length;
    let mut refused = 0;
    for at in first..bytes.len() {
        for change in [1_u8, 0x40, 0x80, 0xff] {
            let mut changed = bytes.clone();
            changed[at] ^= change;
            match ModelRef::open(&changed) {
                Err(_) => refused += 1,
                Ok(model) => {
                    for row in model.distribution() {
                        assert!(
                            row.input().is_none_or(|input| input < 2) && row.borders().len() <= MAX_BORDERS
                        );
                        assert!(row.shares().iter().all(|share| (0.0..=1.0).contains(share)));
                    }
                }
            }
        }
    }
    assert!(refused > length, "{refused}");
}
