//! The example runs, and tells the two clients apart.

#[allow(dead_code)]
#[path = "../examples/score_request.rs"]
mod score_request;

#[test]
fn the_example_scores_both_clients() {
    // Raw values 3 and -2: probabilities of a bot 0.953 and 0.119.
    let expected = ["192.0.2.1: score 6, fresh", "198.51.100.7: score 87, missing"];
    assert_eq!(score_request::score_two_clients().unwrap(), expected);
}
