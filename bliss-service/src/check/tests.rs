use std::fs;

use serde_json::{Value, json};

use super::*;

/// A configuration of which nothing is to be said; `{shm}` is a directory in memory that is not there yet.
const GOOD: &str = r#"directory = "{shm}"
[publish]
mode = "0640"
[[origin.access_log]]
name = "traffic"
path = "access.log"
[[origin.file]]
name = "networks"
path = "rows.csv"
dimensions = ["network"]
[[dimension]]
name = "network"
key = ["ip"]
features = [{ name = "abuse" }, { name = "kind", type = "category" }]
[[model]]
name = "m"
version = "1"
path = "good.json"
[[route]]
name = "default"
active = "m"
"#;

/// A JSON export with a split on each input.
fn export(loss: &str, classes: &Value, answers: usize, numbers: &[&str], categories: &[&str]) -> Vec<u8> {
    let number =
        |(i, name): (usize, &&str)| json!({ "feature_index": i, "feature_id": name, "borders": [0.5] });
    let category =
        |(i, name): (usize, &&str)| json!({ "feature_index": i, "feature_id": name, "values": [7] });
    let leaves: Vec<f64> = (0..2 * answers).map(|leaf| leaf as f64).collect();
    let tree = |split| json!({ "leaf_values": leaves, "splits": [{ "split_index": split }] });
    let trees: Vec<_> = (0..numbers.len() + categories.len()).map(tree).collect();
    let model = json!({
        "model_info": {
            "params": { "loss_function": { "type": loss } },
            "class_params": { "class_names": classes },
        },
        "features_info": {
            "float_features": numbers.iter().enumerate().map(number).collect::<Vec<_>>(),
            "categorical_features": categories.iter().enumerate().map(category).collect::<Vec<_>>(),
        },
        "oblivious_trees": trees,
    });
    serde_json::to_vec(&model).unwrap()
}

/// A folder with what the configurations of these tests name.
struct Folder {
    here: tempfile::TempDir,
    shm: tempfile::TempDir,
}

impl Folder {
    fn new() -> Self {
        let folder =
            Self { here: tempfile::tempdir().unwrap(), shm: tempfile::tempdir_in("/dev/shm").unwrap() };
        let two = json!([0, 1]);
        let logloss = |numbers: &[&str], categories: &[&str]| export("Logloss", &two, 1, numbers, categories);
        let golden = |name: &str| {
            let losses = concat!(env!("CARGO_MANIFEST_DIR"), "/../bliss-catboost/testdata/losses/");
            fs::read(format!("{losses}{name}")).unwrap()
        };
        let files = [
            ("access.log", Vec::new()),
            ("rows.csv", Vec::new()),
            (
                "good.json",
                logloss(
                    &["ip.requests_session", "network.abuse"],
                    &["network.kind", "request.host", "request.asn"],
                ),
            ),
            ("dimension.json", logloss(&["ip.requests_session", "session.age"], &[])),
            ("feature.json", logloss(&["ip.request_1m"], &[])),
            ("window.json", logloss(&["ip.requests_5m"], &[])),
            ("nameless.json", logloss(&["", "ip.requests_session"], &[""])),
            ("kinds.json", logloss(&["network.kind"], &["network.abuse"])),
            ("program.json", logloss(&["request.header_count", "request.host"], &["request.hots"])),
            ("lines.json", logloss(&["ip.x\ny\u{1b}[2J"], &[])),
            ("many.json", logloss(&["a.a", "a.b", "a.c", "a.d", "a.e", "a.f", "a.g"], &[])),
            ("labels.json", export("MultiLogloss", &two, 2, &["ip.requests_session"], &[])),
            ("classes.json", export("MultiClass", &json!(["a", "b", "c"]), 3, &["ip.requests_session"], &[])),
            ("tags.json", export("MultiClass", &Value::Null, 65, &["ip.requests_session"], &[])),
            ("truth.json", export("Logloss", &json!([false, true]), 1, &["ip.requests_session"], &[])),
            ("poisson.json", export("Poisson", &Value::Null, 1, &["ip.requests_session"], &[])),
            ("cut.cbm", golden("text.cbm")[..2000].to_vec()),
            ("text.cbm", golden("text.cbm")),
            ("text.json", golden("text.json")),
            ("reversed.cbm", golden("reversed.cbm")),
            ("rmse.cbm", golden("rmse.cbm")),
            ("no_loss.cbm", golden("no_loss.cbm")),
        ];
        for (name, content) in files {
            fs::write(folder.here.path().join(name), content).unwrap();
        }
        folder
    }

    /// The findings on `text`, without the folder's name.
    fn check(&self, text: &str, host: Host) -> Vec<String> {
        let shm = self.shm.path().join("bliss");
        let text = text.replace("{shm}", shm.to_str().unwrap());
        let path = self.here.path().join("bliss.toml");
        let config = Config::parse(&path, &text).unwrap_or_else(|error| panic!("{error}\n{text}"));
        let findings = Check::new(&path, &text, &config, host).findings();
        let here = format!("{}/", self.here.path().display());
        assert!(!shm.exists(), "a check makes nothing");
        findings.iter().map(|finding| finding.to_string().replace(&here, "")).collect()
    }
}

fn root() -> Host {
    Host { user: 0, groups: vec![0], gives_any_group: true }
}

#[test]
fn a_good_configuration_has_no_findings() {
    assert_eq!(Folder::new().check(GOOD, root()), [""; 0]);
}

/// What is changed in [`GOOD`], and the findings: their beginning, and a part of their text.
#[test]
fn each_kind_of_finding_names_its_place_and_what_to_do() {
    type Row<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)]);
    let model = "path = \"good.json\"";
    let log = "path = \"access.log\"";
    let directory = "directory = \"{shm}\"";
    let table: &[Row<'_>] = &[
        (
            log,
            "path = \"other.log\"",
            &[("error: bliss.toml, line 6: origin `traffic`: path: ", "other.log is not there")],
        ),
        (
            log,
            "path = \"/dev/shm\"",
            &[("error: bliss.toml, line 6: origin `traffic`: path: ", "not a regular file")],
        ),
        (log, "path = \"rows.csv/access.log\"", &[("error: bliss.toml, line 6: ", "cannot be read")]),
        (
            "path = \"rows.csv\"",
            "path = \"none.csv\"",
            &[("error: bliss.toml, line 9: origin `networks`: path: ", "none.csv")],
        ),
        (directory, "directory = \"rows.csv\"", &[("error: bliss.toml, line 1: directory: ", "is a file")]),
        (
            directory,
            "directory = \"{shm}/a/b\"",
            &[("error: bliss.toml, line 1: directory: ", "make that folder")],
        ),
        (directory, "directory = \"rows.csv/d\"", &[("error: bliss.toml, line 1: directory: ", "rows.csv")]),
        (
            model,
            "path = \"none.cbm\"",
            &[("error: bliss.toml, line 18: model `m`: path: ", "none.cbm is not there")],
        ),
        (
            model,
            "path = \"rows.csv\"",
            &[("error: bliss.toml, line 18: model `m`, rows.csv: ", "expected a CatBoost model")],
        ),
        (model, "path = \"cut.cbm\"", &[("error: bliss.toml, line 18: model `m`, cut.cbm: ", "truncated")]),
        (
            model,
            "path = \"text.cbm\"",
            &[(
                "error: bliss.toml, line 18: model `m`, text.cbm: ",
                "\"bot\" (index 0), \"human\" (index 1)",
            )],
        ),
        (model, "path = \"text.json\"", &[("error: bliss.toml, line 18: ", "set `bot_class`")]),
        (
            model,
            "path = \"text.cbm\"\nbot_class = \"robot\"",
            &[("error: bliss.toml, line 19: model `m`, text.cbm: bot_class = \"robot\": ", "no such class")],
        ),
        (
            model,
            "path = \"reversed.cbm\"",
            &[("error: bliss.toml, line 18: ", "\"1\" (index 0), \"0\" (index 1)")],
        ),
        (
            model,
            "path = \"reversed.cbm\"\nbot_class = 1",
            &[("error: bliss.toml, line 19: ", "bot_class = \"1\" or bot_class = \"0\"")],
        ),
        (model, "path = \"truth.json\"", &[("error: bliss.toml, line 18: ", "\"true\" (index 1)")]),
        (model, "path = \"classes.json\"", &[("error: bliss.toml, line 18: ", "\"c\" (index 2)")]),
        (model, "path = \"classes.json\"\nbot_class = \"b\"", &[]),
        (
            model,
            "path = \"tags.json\"\nbot_class = 3",
            &[(
                "error: bliss.toml, line 18: model `m`, tags.json: ",
                "65 classes, which is more than a worker takes",
            )],
        ),
        (
            model,
            "path = \"labels.json\"",
            &[("warning: bliss.toml, line 18: model `m`: ", "set bot_class = 1")],
        ),
        (model, "path = \"labels.json\"\nbot_class = 1", &[]),
        (
            model,
            "path = \"rmse.cbm\"",
            &[("error: bliss.toml, line 18: model `m`, rmse.cbm: ", "loss_function is RMSE")],
        ),
        (model, "path = \"poisson.json\"", &[("error: bliss.toml, line 18: ", "loss_function is Poisson")]),
        (model, "path = \"poisson.json\"\nanswer = \"probability\"", &[]),
        (model, "path = \"no_loss.cbm\"", &[("error: bliss.toml, line 18: ", "names no loss_function")]),
        (
            model,
            "answer = \"probability\"\npath = \"good.json\"",
            &[("error: bliss.toml, line 18: ", "remove `answer`")],
        ),
        (
            model,
            "path = \"dimension.json\"",
            &[(
                "error: bliss.toml, line 18: model `m`: ",
                "`session.age` (no origin fills a dimension `session`)",
            )],
        ),
        (
            model,
            "path = \"feature.json\"",
            &[("error: bliss.toml, line 18: ", "dimension `ip` has no feature `request_1m`")],
        ),
        (
            model,
            "path = \"window.json\"",
            &[("error: bliss.toml, line 18: ", "an access log counts it with `windows = true`")],
        ),
        (
            model,
            "path = \"nameless.json\"",
            &[("error: bliss.toml, line 18: ", "`float_0` (not of the form")],
        ),
        (
            model,
            "path = \"kinds.json\"",
            &[(
                "error: bliss.toml, line 18: ",
                "(a category, the model takes a number), `network.abuse` (a number",
            )],
        ),
        (
            model,
            "path = \"program.json\"",
            &[(
                "warning: bliss.toml, line 18: ",
                "request.header_count, request.host, request.hots have a value only",
            )],
        ),
        (model, "path = \"lines.json\"", &[("error: bliss.toml, line 18: ", "`ip.x\u{fffd}y\u{fffd}[2J`")]),
        (model, "path = \"many.json\"", &[("error: bliss.toml, line 18: ", " and 2 more")]),
        // A log without all of its dimensions.
        (
            log,
            "path = \"access.log\"\ndimensions = [\"subnet\"]",
            &[(
                "error: bliss.toml, line 19: model `m`: ",
                "`ip.requests_session` (no origin fills a dimension `ip`)",
            )],
        ),
        (
            "name = \"default\"",
            "name = \"shop\"",
            &[("warning: bliss.toml: no [[route]] is named \"default\"", "")],
        ),
        (
            "[[route]]",
            "[[model]]\nname = \"shadow\"\nversion = \"1\"\npath = \"feature.json\"\n[[route]]\nshadow = [\"shadow\"]",
            &[("error: bliss.toml, line 22: model `shadow`: ", "`request_1m`")],
        ),
        (
            "[[route]]",
            "[[model]]\nname = \"spare\"\nversion = \"1\"\npath = \"good.json\"\n[[route]]",
            &[("warning: bliss.toml, line 20: model `spare`: ", "no [[route]] names it")],
        ),
    ];
    let folder = Folder::new();
    for (from, to, expected) in table {
        assert!(GOOD.contains(from), "{from}");
        let found = folder.check(&GOOD.replacen(from, to, 1), root());
        assert_eq!(found.len(), expected.len(), "{to}: {found:#?}");
        for (found, (begin, part)) in found.iter().zip(*expected) {
            assert!(found.starts_with(begin) && found.contains(part), "{to}: {begin} … {part}: {found}");
            assert!(!found.contains('\n'), "{found}");
        }
    }
}

#[test]
fn a_directory_on_a_disk_is_warned_of() {
    let folder = Folder::new();
    if !host::is_on_disk(folder.here.path()) {
        eprintln!("SKIPPED: a directory on a disk (temporary files are in memory here)");
        return;
    }
    for directory in ["d", "rows.csv/..", "."] {
        let found = folder.check(&GOOD.replace("{shm}", directory), root());
        let found = found.iter().find(|found| found.contains("tmpfs"));
        assert_eq!(found.is_some(), directory != "rows.csv/..", "{directory}: {found:?}");
        if let Some(found) = found {
            assert!(found.starts_with("warning: bliss.toml, line 1: directory: "), "{found}");
        }
    }
}

#[test]
fn a_group_must_be_the_users_own_unless_any_may_be_given() {
    let folder = Folder::new();
    let text = GOOD.replace("mode = \"0640\"", "group = 12345");
    let user = |groups: &[u32]| Host { user: 1000, groups: groups.to_vec(), gives_any_group: false };
    for (host, given) in [(root(), true), (user(&[7, 12345]), true), (user(&[7]), false), (user(&[]), false)]
    {
        let found = folder.check(&text, host);
        assert_eq!(found.is_empty(), given, "{found:?}");
        for found in found {
            assert!(found.starts_with("error: bliss.toml, line 3: publish.group: user id 1000 "), "{found}");
            assert!(found.contains("not a member of group 12345"), "{found}");
        }
    }
}

#[test]
fn a_configuration_that_does_nothing_is_told() {
    let folder = Folder::new();
    let found = folder.check("directory = \"{shm}\"\n", root());
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(
        found[0].starts_with("error: bliss.toml: there is no [[origin]] and no [[dimension]]"),
        "{found:?}"
    );
    let log = &GOOD[..GOOD.find("[[origin.file]]").unwrap()];
    assert!(folder.check(log, root()).is_empty(), "the model that comes with BLISS answers");
    let found = folder.check(&log.replace("[publish]\n", "[publish]\ndefault_model = false\n"), root());
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].starts_with("warning: bliss.toml: there is no [[model]]"), "{found:?}");
}
