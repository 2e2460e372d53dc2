use super::*;
use crate::decode::RowFormat;
use crate::origin::OriginKind;

const GOOD: &str = r#"
directory = "shm"

[[attribute]]
name = "tenant"
type = "hex"
bytes = 8

[[dimension]]
name = "reputation"
key = [{ attr = "ip", v4_prefix = 24 }, "tenant"]
max_age = "10m"
features = [
  { name = "score", default = 0.5, min = 0, max = 1.0 },
  { name = "kind", type = "category", default = "home" },
]

[[dimension]]
name = "asn"
key = ["asn"]
features = [{ name = "requests_1m" }]

[[origin.file]]
name = "reputation"
path = "rows.csv"
dimensions = ["reputation"]

[[origin.http]]
name = "asn"
url = "https://example.com/rows.jsonl?x=1"
headers = { Authorization = "Bearer x" }
dimensions = ["asn"]

[[origin.access_log]]
name = "log"
path = "/var/log/nginx/access.log"
dimensions = ["ip", "user_agent"]
fields = { ip = "real_ip" }

[[model]]
name = "m1"
version = "1"
path = "m1.cbm"
"#;

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(Path::new("/etc/bliss/bliss.toml"), text)
}

#[test]
fn a_good_configuration_is_resolved() {
    let config = parse(GOOD).unwrap();
    assert_eq!(config.directory, Path::new("/etc/bliss/shm"));
    assert_eq!(config.publish_interval, Duration::from_secs(1));
    assert!(config.listen.ip().is_loopback());
    let names: Vec<_> = config.schema.dimensions.iter().map(|d| d.name.as_str()).collect();
    assert_eq!(names, ["reputation", "asn", "ip", "user_agent"], "built-in ones need no declaration");
    assert_eq!(config.schema.dimensions[0].max_age_seconds, 600);
    let origins: Vec<_> = config.origins.iter().map(|o| (o.name.as_str(), o.dimensions.as_slice())).collect();
    assert_eq!(origins, [("reputation", &[0][..]), ("asn", &[1]), ("log", &[2, 3])]);
    match &config.origins[0].kind {
        OriginKind::File(file) => {
            assert_eq!(file.path, Path::new("/etc/bliss/rows.csv"));
            assert_eq!(file.format, RowFormat::Csv);
        }
        other => panic!("{other:?}"),
    }
    match &config.origins[1].kind {
        OriginKind::Http(http) => assert_eq!(http.format, RowFormat::Jsonl),
        other => panic!("{other:?}"),
    }
    assert_eq!(config.routes, [Route { name: "default".into(), active: "m1".into(), shadow: vec![] }]);
}

/// As it is, and with every example in it: prose begins with `# `, an example with `#` alone.
#[test]
fn the_documented_configuration_is_good() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/bliss.toml");
    let config = Config::read(&path).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!((config.origins.len(), config.schema.dimensions.len()), (1, 7));
    assert_eq!(config.publish.mode, 0o640);

    let text = std::fs::read_to_string(&path).unwrap();
    let config =
        Config::parse(&path, &documentation::switched_on(&text)).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!((config.origins.len(), config.schema.dimensions.len()), (5, 12));
    assert_eq!((config.models.len(), config.routes.len()), (2, 2));
}

/// Options that are left out are what the documented configuration says they are.
#[test]
fn documented_defaults_are_the_defaults() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/bliss.toml");
    let documented = Config::read(&path).unwrap();
    let text = "directory = \"/run/bliss\"\n[[origin.access_log]]\nname = \"traffic\"\n\
        path = \"/var/log/nginx/access.log\"\n";
    let default = Config::parse(&path, text).unwrap();
    let shown = |config: &Config| {
        // The parser's table has no order.
        let origin = match &config.origins[0].kind {
            OriginKind::AccessLog(o) => (o.paths.clone(), o.mode, o.aggregate, o.backlog_bytes, o.health),
            other => panic!("{other:?}"),
        };
        format!("{:?}", Config { origins: vec![], ..config.clone() }) + &format!("{origin:?}")
    };
    assert_eq!(shown(&documented), shown(&default));
}

#[test]
fn the_smallest_configuration_is_a_log() {
    let config = parse("directory = \"/d\"\n[[origin.access_log]]\nname = \"log\"\npath = \"/l\"\n").unwrap();
    assert_eq!(config.schema.dimensions.len(), 7);
}

/// Each change of [`GOOD`] must give an error with the line of the change and these words.
#[test]
fn bad_configurations_name_file_line_and_option() {
    let cases: &[(&str, &str, &[&str])] = &[
        ("directory = \"shm\"", "direktory = \"shm\"", &["direktory"]),
        ("max_age = \"10m\"", "max_aeg = \"10m\"", &["max_aeg"]),
        ("max_age = \"10m\"", "max_age = \"10 parsecs\"", &["max_age", "parsecs"]),
        ("max_age = \"10m\"", "max_age = 10", &["max_age"]),
        ("v4_prefix = 24", "v5_prefix = 24", &["v5_prefix"]),
        ("{ attr = \"ip\", v4_prefix = 24 }", "7", &["attribute's name"]),
        ("name = \"reputation\"\nkey", "name = \"asn\"\nkey", &["asn", "twice"]),
        ("name = \"asn\"\nkey = [\"asn\"]", "name = \"asn\"\nkey = [\"as\"]", &["\"asn\"", "\"as\""]),
        ("[{ name = \"requests_1m\" }]", "[]", &["asn", "no features"]),
        ("features = [{ name = \"requests_1m\" }]", "", &["missing field `features`"]),
        ("[{ name = \"requests_1m\" }]", "[{ name = \"a\" }, { name = \"a\" }]", &["\"a\"", "twice"]),
        ("default = 0.5", "default = nan", &["finite", "NaN"]),
        ("default = 0.5", "default = 1e39", &["finite"]),
        ("default = 0.5", "default = 2", &["score", "out of its range"]),
        ("default = 0.5", "default = \"x\"", &["score", "number"]),
        ("default = \"home\"", "default = 1", &["kind", "string"]),
        ("max = 1.0", "max = -1.0", &["score", "max"]),
        ("type = \"category\"", "type = \"text\"", &["text"]),
        (
            "directory = \"shm\"",
            "directory = \"shm\"\npublish.group = \"no such\"",
            &["publish.group", "no such"],
        ),
        ("directory = \"shm\"", "directory = \"shm\"\npublish.group = 1.5", &["group"]),
        ("directory = \"shm\"", "directory = \"shm\"\npublish.mode = \"rw\"", &["publish.mode", "rw"]),
        ("directory = \"shm\"", "directory = \"shm\"\npublish.readers_mode = \"0440\"", &["readers_mode"]),
        ("directory = \"shm\"", "directory = \"shm\"\nlog.level = \"a=b=c\"", &["log.level"]),
        ("bytes = 8", "bytes = 0", &["tenant"]),
        ("type = \"hex\"", "type = \"ip\"", &["tenant", "bytes"]),
        ("dimensions = [\"asn\"]", "dimensions = [\"as\"]", &["origin `asn`", "`as`"]),
        ("dimensions = [\"asn\"]", "dimensions = []", &["origin `asn`", "empty"]),
        ("dimensions = [\"asn\"]", "dimensions = [\"reputation\"]", &["`reputation`", "one origin"]),
        ("dimensions = [\"ip\", \"user_agent\"]", "dimensions = [\"ip\", \"ip\"]", &["`ip`", "already"]),
        ("name = \"log\"", "name = \"asn\"", &["origin `asn`", "twice"]),
        ("name = \"log\"", "name = \"a log\"", &["a log"]),
        ("path = \"rows.csv\"", "path = \"rows.txt\"", &["rows.txt", "format"]),
        ("path = \"rows.csv\"", "path = \"rows.csv\"\ninterval = \"0s\"", &["interval"]),
        ("path = \"rows.csv\"", "path = \"rows.csv\"\nmax_bytes = -1", &["max_bytes", "-1"]),
        ("https://example.com/rows.jsonl?x=1", "ftp://example.com/rows.jsonl", &["url", "http://"]),
        ("https://example.com/rows.jsonl?x=1", "no url", &["url"]),
        ("headers = {", "redirect_to = [\"http://b.example\"]\nheaders = {", &["redirect_to", "https://"]),
        ("headers = {", "redirect_to = [\"https://b.example/x\"]\nheaders = {", &["redirect_to", "port"]),
        ("headers = {", "redirect_to = [\"https://u@b.example\"]\nheaders = {", &["redirect_to", "port"]),
        ("headers = {", "redirect_to = \"any\"\nheaders = {", &["redirect_to"]),
        ("Authorization = \"Bearer x\"", "\"a b\" = \"x\"", &["a b"]),
        ("fields = { ip = \"real_ip\" }", "fields = { io = \"real_ip\" }", &["io"]),
        ("fields = { ip = \"real_ip\" }", "max_keys = 0", &["max_keys"]),
        ("fields = { ip = \"real_ip\" }", "lateness = \"2h\"", &["lateness"]),
        ("fields = { ip = \"real_ip\" }", "mode = \"tail\"", &["tail"]),
        ("fields = { ip = \"real_ip\" }", "max_unread_share = 1.5", &["max_unread_share", "0 to 1"]),
        ("fields = { ip = \"real_ip\" }", "max_unread_share = nan", &["max_unread_share", "0 to 1"]),
        ("fields = { ip = \"real_ip\" }", "quiet_after = 5", &["quiet_after"]),
        ("fields = { ip = \"real_ip\" }", "paths = [\"a.log\"]", &["origin `log`", "found both"]),
        ("path = \"/var/log/nginx/access.log\"", "", &["origin `log`", "found neither"]),
        ("path = \"/var/log/nginx/access.log\"", "paths = []", &["found neither"]),
        ("path = \"/var/log/nginx/access.log\"", "paths = [\"a[.log\"]", &["paths", "a[.log"]),
        (
            "path = \"/var/log/nginx/access.log\"",
            "paths = [\"*.log\"]\nmode = \"replay\"",
            &["replay", "`path`"],
        ),
        ("path = \"m1.cbm\"", "path = \"m1.cbm\"\nactive = true", &["active"]),
        ("path = \"m1.cbm\"", "path = \"m1.cbm\"\nbot_class = -1", &["bot_class", "name", "index"]),
        ("path = \"m1.cbm\"", "path = \"m1.cbm\"\nbot_class = true", &["bot_class", "name", "index"]),
        ("path = \"m1.cbm\"", "path = \"m1.cbm\"\nanswer = \"score\"", &["score", "probability", "log_odds"]),
        (
            "path = \"m1.cbm\"",
            "path = \"m1.cbm\"\n[[route]]\nname = \"r\"\nactive = \"m2\"",
            &["`r`", "`m2`"],
        ),
    ];
    for (from, to, expected) in cases {
        assert!(GOOD.contains(from), "{from}");
        let changed = GOOD.replacen(from, to, 1);
        let error = parse(&changed).err().unwrap_or_else(|| panic!("{to}: accepted")).to_string();
        assert!(error.starts_with("/etc/bliss/bliss.toml, line "), "{to}: {error}");
        for word in *expected {
            assert!(error.contains(word), "{to}: {error}");
        }
    }
}

#[test]
fn errors_name_the_right_line() {
    let line = |from: &str, to: &str| parse(&GOOD.replacen(from, to, 1)).unwrap_err().line.unwrap();
    assert_eq!(line("directory", "direktory"), 2);
    assert_eq!(line("default = 0.5", "default = nan"), 14);
    assert_eq!(line("dimensions = [\"asn\"]", "dimensions = [\"as\"]"), 32);
    assert_eq!(line("[{ name = \"requests_1m\" }]", "[]"), 19);
}

#[test]
fn several_models_need_a_route() {
    let two = format!("{GOOD}\n[[model]]\nname = \"m2\"\nversion = \"1\"\npath = \"m2.cbm\"\n");
    assert!(parse(&two).unwrap_err().to_string().contains("[[route]]"));
    let routed = format!("{two}\n[[route]]\nname = \"default\"\nactive = \"m2\"\nshadow = [\"m1\"]\n");
    assert_eq!(parse(&routed).unwrap().routes[0].shadow, ["m1"]);
}

#[test]
fn the_class_of_bots_is_a_name_or_an_index() {
    use bliss_catboost::{AnswerKind, BotClass, BotOptions};
    let bot = |options: &str| {
        let text = GOOD.replace("path = \"m1.cbm\"", &format!("path = \"m1.cbm\"\n{options}"));
        parse(&text).unwrap().models[0].bot.clone()
    };
    assert_eq!(bot(""), BotOptions::default());
    assert_eq!(bot("bot_class = 0").class, Some(BotClass::Index(0)));
    assert_eq!(bot("bot_class = \"0\"").class, Some(BotClass::Name("0".into())));
    assert_eq!(bot("answer = \"log_odds\"").answer, Some(AnswerKind::LogOdds));
    assert_eq!(bot("answer = \"probability\"").answer, Some(AnswerKind::Probability));
}

#[test]
fn a_dimension_without_an_origin_is_an_error() {
    let start = GOOD.find("[[origin.http]]").unwrap();
    let end = GOOD.find("[[origin.access_log]]").unwrap();
    let without = format!("{}{}", &GOOD[..start], &GOOD[end..]);
    let error = parse(&without).unwrap_err().to_string();
    assert!(error.contains("`asn`") && error.contains("no origin") && error.contains("line 19"), "{error}");
}

#[test]
fn a_log_cannot_fill_any_dimension() {
    let config = r#"
directory = "/d"
[[dimension]]
name = "ja3"
key = ["ja3"]
features = [{ name = "requests_1m" }]
[[origin.access_log]]
name = "log"
path = "/l"
dimensions = ["ja3"]
"#;
    let error = parse(config).unwrap_err().to_string();
    assert!(error.contains("line 8") && error.contains("`ja3`"), "{error}");
    let error = parse(&config.replace("\"ja3\"", "\"ip\"").replace("requests_1m", "bytes")).unwrap_err();
    assert!(error.to_string().contains("`bytes`"), "{error}");
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let error = Config::read(Path::new("/nonexistent/bliss.toml")).unwrap_err().to_string();
    assert!(error.contains("/nonexistent/bliss.toml"), "{error}");
}

#[test]
fn the_directory_has_one_default_and_a_byte_order_mark_is_no_part_of_the_file() {
    for text in ["", "\u{feff}", "\u{feff}publish.interval = \"2s\"\n", "\u{feff}[log]\nlevel = \"info\"\n"] {
        assert_eq!(parse(text).unwrap().directory, Path::new("/run/bliss"), "{text:?}");
    }
    let error = parse("\u{feff}directory = \"d\"\nunknown = 1\n").unwrap_err();
    assert_eq!(error.line, Some(2), "{error}");
    for share in ["-0.1", "1.1", "nan", "\"half\""] {
        let text = format!(
            "[[dimension]]\nname = \"d\"\nkey = [\"ip\"]\nfeatures = [{{ name = \"x\" }}]\n[[origin.file]]\nname = \"f\"\n\
             path = \"f.csv\"\ndimensions = [\"d\"]\nwarn_shrink = {share}\n"
        );
        let error = parse(&text).unwrap_err().to_string();
        assert!(error.contains("warn_shrink"), "{error}");
    }
}
