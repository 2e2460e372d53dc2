use std::fs;

use super::*;
use crate::publish::start_with;
use crate::test_support::Kept;

fn good() -> Vec<u8> {
    fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/../bliss-catboost/testdata/models/scale_bias.cbm"))
        .unwrap()
}

struct Running {
    dir: tempfile::TempDir,
    kept: Kept,
    state: Arc<State>,
    stop: CancellationToken,
}

impl Running {
    fn start(files: &[(&str, &[u8])]) -> Self {
        let without: Vec<_> = files.iter().map(|(name, bytes)| (*name, *bytes, "")).collect();
        Self::start_with(&without)
    }

    /// Each model with options of its own.
    fn start_with(files: &[(&str, &[u8], &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut text = "directory = \"d\"\n".to_owned();
        for (name, bytes, options) in files {
            fs::write(dir.path().join(format!("{name}.cbm")), bytes).unwrap();
            text +=
                &format!("[[model]]\nname = \"{name}\"\nversion = \"7\"\npath = \"{name}.cbm\"\n{options}\n");
        }
        let shadow =
            files.iter().skip(1).map(|(name, _, _)| format!("\"{name}\"")).collect::<Vec<_>>().join(", ");
        text += &format!("[[route]]\nname = \"default\"\nactive = \"{}\"\nshadow = [{shadow}]\n", files[0].0);
        let config = Arc::new(Config::parse(&dir.path().join("bliss.toml"), &text).unwrap());
        let state = Arc::new(State::new(&config));
        let kept = Kept::default();
        let (publisher, _) =
            start_with(kept.clone(), Duration::from_millis(100), None, state.clone()).unwrap();
        let stop = CancellationToken::new();
        tokio::spawn(run(config.clone(), watch::channel(config).1, state.clone(), publisher, stop.clone()));
        Self { dir, kept, state, stop }
    }

    fn replace(&self, name: &str, bytes: &[u8]) {
        let new = self.dir.path().join("new");
        fs::write(&new, bytes).unwrap();
        fs::rename(new, self.dir.path().join(format!("{name}.cbm"))).unwrap();
    }

    fn published(&self) -> usize {
        self.kept.models.lock().unwrap().len()
    }

    fn refusal(&self, model: usize) -> String {
        let status = serde_json::to_value(self.state.status()).unwrap();
        status["models"][model]["refusal"]["message"].as_str().unwrap_or_default().to_owned()
    }

    async fn until(&self, what: &str, done: impl Fn(&Self) -> bool) {
        for _ in 0..3000 {
            if done(self) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("gave up waiting for {what}: {:#?}", self.state.status());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn s1_a_broken_model_is_named_and_leaves_the_last_good() {
    let running = Running::start(&[("a", &good()), ("b", &good())]);
    running.until("the first publication", |r| r.published() == 1).await;
    let set = running.kept.models.lock().unwrap()[0].clone();
    let names: Vec<_> =
        set.models.iter().map(|m| (m.name.as_str(), m.version.as_str(), m.bot_class)).collect();
    assert_eq!(names, [("a", "7", 1), ("b", "7", 1)]);
    assert_eq!(set.routes[0].active.as_deref(), Some("a"));
    assert_eq!(set.routes[0].shadows, ["b"]);
    set.pack().unwrap();

    running.replace("b", &good()[..good().len() / 2]);
    running.until("the truncated one", |r| r.refusal(1).contains("truncated")).await;
    assert!(running.refusal(1).starts_with("model `b`, "), "{}", running.refusal(1));
    running.replace("b", b"no model");
    running.until("what is no model", |r| r.refusal(1).contains("expected a CatBoost model")).await;
    fs::remove_file(running.dir.path().join("b.cbm")).unwrap();
    running.until("what is not there", |r| r.refusal(1).contains("No such file")).await;
    assert_eq!(running.published(), 1, "what was published stays");
    let metrics = running.state.metrics.encode().unwrap();
    assert!(metrics.contains("bliss_model_refused{model=\"b\"} 1"), "{metrics}");

    running.replace("b", &good());
    running.until("the good one", |r| r.refusal(1).is_empty()).await;
    assert_eq!(running.published(), 1, "it is what is published already");
    let other = concat!(env!("CARGO_MANIFEST_DIR"), "/../bliss-catboost/testdata/models/depth1.cbm");
    running.replace("b", &fs::read(other).unwrap());
    running.until("another one", |r| r.published() == 2).await;
}

/// The class and the loss are in the file and in the configuration; the daemon refuses what they leave open, and says so.
#[tokio::test(flavor = "multi_thread")]
async fn s1_a_model_whose_class_of_bots_is_not_known_is_refused() {
    let golden = |name: &str| {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../bliss-catboost/testdata/losses");
        fs::read(format!("{folder}/{name}.cbm")).unwrap()
    };
    let running = Running::start(&[("a", &good())]);
    running.until("the first publication", |r| r.published() == 1).await;
    for (name, part) in [("text", "bot_class"), ("reversed", "bot_class"), ("rmse", "loss_function is RMSE")]
    {
        running.replace("a", &golden(name));
        running.until(name, |r| r.refusal(0).contains(part)).await;
    }
    assert_eq!(running.published(), 1, "what was published stays");

    let options = [
        ("a", &golden("text")[..], "bot_class = \"bot\""),
        ("b", &golden("rmse")[..], "answer = \"probability\""),
    ];
    let running = Running::start_with(&options);
    running.until("both", |r| r.published() == 1).await;
    let set = running.kept.models.lock().unwrap()[0].clone();
    let classes: Vec<_> = set.models.iter().map(|m| (m.name.as_str(), m.bot_class)).collect();
    assert_eq!(classes, [("a", 0), ("b", 1)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_published_while_one_of_several_never_was_good() {
    let running = Running::start(&[("a", &good()), ("b", b"CBM1")]);
    running.until("the refusal", |r| !r.refusal(1).is_empty()).await;
    assert_eq!(running.published(), 0);
    running.replace("b", &good());
    running.until("both", |r| r.published() == 1).await;
}

#[test]
fn text_features_are_named() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../bliss-catboost/testdata/models/unsupported_text.cbm");
    let error = prepare(&fs::read(path).unwrap(), &BotOptions::default(), true).unwrap_err().to_string();
    assert!(error.contains("text features"), "{error}");
}
