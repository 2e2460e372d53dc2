use super::*;
use crate::config::Config;
use crate::test_support::{DIMENSION, file_origin};
use std::path::Path;

fn state() -> State {
    let text = format!("directory = \"d\"\n{DIMENSION}{}", file_origin("f", "rows.jsonl", "ip"));
    State::new(&Config::parse(Path::new("/x/bliss.toml"), &text).unwrap())
}

fn given(rows: u64, values: u64, numbers: u64, nonzero: u64) -> Given {
    Given { dimension: 0, rows, has_features: true, values, numbers, nonzero }
}

fn good(rows: u64) -> Given {
    given(rows, rows, rows, rows)
}

/// Kinds of the warnings in `/status`, with how often, and their messages.
fn warnings(state: &State) -> Vec<(String, u64, String)> {
    let status = serde_json::to_value(state.status()).unwrap();
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    let warnings = status["origins"][0]["warnings"].as_array().unwrap().iter();
    warnings.map(|w| (text(&w["kind"]), w["times"].as_u64().unwrap(), text(&w["message"]))).collect()
}

#[test]
fn a_loss_of_rows_beyond_the_share_is_warned_of_with_old_and_new_numbers() {
    for (old, new, share, expected) in [
        (100, 50, 0.5, false),
        (100, 49, 0.5, true),
        (100, 0, 0.5, true),
        (100, 0, 1.0, false),
        (100, 99, 0.0, true),
        (100, 100, 0.0, false),
        (100, 1000, 0.0, false),
        (1, 0, 0.5, true),
        (0, 0, 0.0, false),
        (20_000_000, 1_999_999, 0.9, true),
        (20_000_000, 2_000_001, 0.9, false),
    ] {
        // Whether this daemon accepted the old rows, or a previous one published them.
        for by_previous in [false, true] {
            let state = state();
            if !by_previous {
                state.examine(0, &[good(old)], &[None], share);
            }
            state.examine(0, &[good(new)], &[Some(old)], share);
            let found = warnings(&state);
            assert_eq!(!found.is_empty(), expected, "{old} to {new}, {share}: {found:?}");
            for (kind, times, message) in found {
                assert_eq!((kind.as_str(), times), ("shrunk", 1));
                assert!(message.contains(&format!("{new} rows, {old} before")), "{message}");
            }
        }
    }
}

#[test]
fn a_warning_stays_until_the_rows_are_back() {
    let state = state();
    let examine = |rows: u64| state.examine(0, &[good(rows)], &[None], 0.5);
    let shown = || warnings(&state).into_iter().map(|(kind, times, _)| (kind, times)).collect::<Vec<_>>();
    examine(1000);
    assert_eq!(shown(), []);
    for times in 1..=3 {
        examine(400);
        assert_eq!(shown(), [("shrunk".to_owned(), times)]);
    }
    examine(100);
    assert_eq!(shown(), [("shrunk".to_owned(), 4)]);
    let text = state.metrics.encode().unwrap();
    assert!(text.contains("bliss_origin_warnings{origin=\"f\",kind=\"shrunk\"} 1"), "{text}");
    examine(600);
    assert_eq!(shown(), []);
    let text = state.metrics.encode().unwrap();
    assert!(text.contains("bliss_origin_warnings{origin=\"f\",kind=\"shrunk\"} 0"), "{text}");
}

#[test]
fn zeros_only_and_no_features_are_warned_of() {
    let state = state();
    let examine = |given: Given| state.examine(0, &[given], &[None], 0.5);
    examine(given(10, 30, 20, 15));
    assert!(warnings(&state).is_empty());
    examine(given(10, 30, 20, 0));
    let found = warnings(&state);
    assert_eq!((found.len(), found[0].0.as_str()), (1, "all_zero"));
    assert!(
        found[0].2.contains("all 20 numbers of 10 rows are 0; 15 of 20 numbers were not 0 before"),
        "{found:?}"
    );
    examine(given(9, 0, 0, 0));
    let found = warnings(&state);
    assert_eq!((found.len(), found[0].0.as_str()), (1, "no_features"));
    assert!(
        found[0].2.contains("none of the 9 rows has a value of any feature; 30 values in 10 rows before"),
        "{found:?}"
    );
    // Both at once.
    examine(given(2, 2, 2, 0));
    let kinds: Vec<_> = warnings(&state).into_iter().map(|(kind, ..)| kind).collect();
    assert_eq!(kinds, ["shrunk", "all_zero"]);
    examine(good(10));
    assert!(warnings(&state).is_empty());
    // Categories are no numbers, a dimension without features has none to give, and no rows are no values.
    for fine in
        [given(10, 10, 0, 0), Given { has_features: false, ..given(10, 0, 0, 0) }, given(10, 10, 10, 1)]
    {
        examine(fine);
        assert!(warnings(&state).is_empty(), "{fine:?}");
    }
}
