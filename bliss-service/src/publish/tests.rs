use super::*;
use crate::config::Config;
use crate::test_support::Kept;
use bliss_core::build::DimensionChange;
use bliss_core::build::Rows;

fn start(kept: &Kept, interval: Duration) -> (PublishHandle, oneshot::Receiver<()>, Arc<State>) {
    let config = Config::parse(
        Path::new("/x/bliss.toml"),
        "directory = \"d\"\n[[origin.access_log]]\nname = \"log\"\npath = \"l\"\n",
    );
    let state = Arc::new(State::new(&config.unwrap()));
    let (handle, thread) = start_with(kept.clone(), interval, None, state.clone()).unwrap();
    (handle, thread, state)
}

fn change(dimension: usize) -> Change {
    Change { dimensions: vec![(dimension, DimensionChange::Replace(Rows::new(1)))] }
}

#[test]
fn what_comes_within_an_interval_is_published_together() {
    let kept = Kept::default();
    // One interval holds the whole test, so that only the first is published at once.
    let (handle, _thread, _) = start(&kept, Duration::from_secs(1_000_000_000));
    handle.send(change(0)).blocking_recv().unwrap().unwrap();
    let mut later = handle.send(change(1));
    assert!(later.try_recv().is_err(), "not before the next interval");
    assert_eq!(kept.publications(), 1);

    let kept = Kept::default();
    let (handle, _thread, _) = start(&kept, Duration::from_millis(200));
    handle.send(change(0)).blocking_recv().unwrap().unwrap();
    let answers = [handle.send(change(1)), handle.send(change(2)), handle.send(change(3))];
    for answer in answers {
        answer.blocking_recv().unwrap().unwrap();
    }
    // Two, unless the machine stood still between two sends.
    assert!((2..=4).contains(&kept.publications()));
    assert_eq!(kept.changes.lock().unwrap().iter().map(|c| c.dimensions.len()).sum::<usize>(), 4);
}

#[test]
fn s8_one_update_that_cannot_be_published_does_not_hold_up_the_others() {
    let kept = Kept { failing_dimension: Some(1), ..Kept::default() };
    let (handle, _thread, state) = start(&kept, Duration::from_millis(100));
    let mut good = 0;
    for _ in 0..4 {
        let answers = [handle.send(change(0)), handle.send(change(1)), handle.send(change(2))];
        let [first, bad, last] = answers.map(|answer| answer.blocking_recv().unwrap());
        assert_eq!(bad, Err("no room".into()));
        good += usize::from(first.is_ok() && last.is_ok());
    }
    assert!(good >= 2, "published alone once publishing together has failed");
    assert!(state.metrics.publication_failures.get() > 0);
}

#[test]
fn the_thread_ends_with_the_last_handle_and_answers_until_then() {
    let (handle, thread, _) = start(&Kept::default(), Duration::from_millis(100));
    let other = handle.clone();
    drop(handle);
    other.send(change(0)).blocking_recv().unwrap().unwrap();
    drop(other);
    assert!(thread.blocking_recv().is_err(), "nothing is sent, the sender is dropped");
}

#[test]
fn models_do_not_wait_for_the_interval() {
    let kept = Kept::default();
    let (handle, _thread, _) = start(&kept, Duration::from_secs(1_000_000_000));
    handle.send(change(0)).blocking_recv().unwrap().unwrap();
    let _waiting = handle.send(change(1));
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    assert_eq!(runtime.block_on(handle.publish_models(ModelSet::default())), Ok(1));
    assert_eq!(kept.models.lock().unwrap().len(), 1);
}
