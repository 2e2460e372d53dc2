//! Lists of networks in training rows: what a reader looks up, and NaN where the site has none.

use super::*;
use crate::lists::tests::mmdb_file;
use crate::test_support::{Answer, Kept, Running, Server, answer};

const ADDRESSES: [&str; 5] = ["192.0.2.1", "192.0.2.200", "198.51.100.7", "203.0.113.9", "2001:db8::1"];

/// A folder with a log of these addresses and two lists: one by names of autonomous systems, one of lines.
fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("asn.mmdb"), mmdb_file::example(28)).unwrap();
    fs::write(dir.path().join("vpn.netset"), "198.51.100.0/24\n192.0.2.128/25\n").unwrap();
    let lines: String = ADDRESSES.iter().map(|ip| line(1, ip, "a")).collect();
    fs::write(dir.path().join("log"), lines).unwrap();
    dir
}

fn rows_of(dir: &Path, config: Option<&str>, lists: &[&str]) -> anyhow::Result<Vec<HashMap<String, String>>> {
    let out = dir.join("rows.csv");
    let config = config.map(|text| {
        fs::write(dir.join("bliss.toml"), text).unwrap();
        dir.join("bliss.toml")
    });
    run(&Options {
        log: vec![dir.join("log")],
        rewrite: None,
        out: out.clone(),
        config,
        list: lists.iter().map(|list| list.parse().unwrap()).collect(),
        interval_seconds: 1,
    })?;
    Ok(csv::Reader::from_path(out).unwrap().deserialize().map(Result::unwrap).collect())
}

fn column<'a>(rows: &'a [HashMap<String, String>], name: &str) -> Vec<&'a str> {
    rows.iter().map(|row| row[name].as_str()).collect()
}

/// What the daemon publishes of the same lists says the same of every address.
#[tokio::test(flavor = "multi_thread")]
async fn l3_rows_hold_of_a_list_what_a_reader_looks_up() {
    let dir = folder();
    let lists = "[[origin.list]]\nname = \"lists\"\nsource = [{ feature = \"hosting\", path = \"asn.mmdb\" }, \
                 { feature = \"vpn\", path = \"vpn.netset\" }]\n";
    let running = Running::start(dir.path(), lists, Kept::default());
    running.until("both lists", |r| r.status("/origins/0/state") == "accepted").await;
    let published: Vec<Vec<f32>> =
        ADDRESSES.iter().map(|ip| running.at(ip).unwrap_or(vec![0.0; 2])).collect();
    assert_eq!(published[0], [1.0, 0.0]);

    let (hosting, vpn) = (dir.path().join("asn.mmdb"), dir.path().join("vpn.netset"));
    let named = [format!("hosting={}", hosting.display()), format!("vpn={}", vpn.display())];
    let by_option = rows_of(dir.path(), None, &[&named[0], &named[1]]).unwrap();
    let log = "[[origin.access_log]]\nname = \"log\"\npath = \"unused\"\n";
    let by_config = rows_of(dir.path(), Some(&format!("{lists}{log}")), &[]).unwrap();
    // A configuration has no windows by default; all else is the same.
    for (a, b) in by_config.iter().zip(&by_option) {
        for (name, value) in a {
            assert_eq!(b.get(name), Some(value), "{name}");
        }
    }
    for (row, published) in by_option.iter().zip(&published) {
        let row = ["lists.hosting", "lists.vpn"].map(|name| row[name].parse::<f32>().unwrap());
        assert_eq!(row, published[..]);
    }
    assert_eq!(column(&by_option, "lists.hosting"), ["1", "1", "0", "0", "0"]);
    assert_eq!(column(&by_option, "lists.vpn"), ["0", "1", "1", "0", "0"]);
}

/// As to a worker; the other columns are as they were.
#[test]
fn l3_without_the_list_its_column_is_nan() {
    let dir = folder();
    let without = rows_of(dir.path(), None, &[]).unwrap();
    assert_eq!(column(&without, "lists.hosting"), ["NaN"; 5]);
    assert!(!without[0].contains_key("lists.status"));
    let other = format!("vpn={}", dir.path().join("vpn.netset").display());
    let with_another = rows_of(dir.path(), None, &[&other]).unwrap();
    assert_eq!(column(&with_another, "lists.hosting"), ["NaN"; 5]);
    let hosting = format!("hosting={}", dir.path().join("asn.mmdb").display());
    let with = rows_of(dir.path(), None, &[&hosting]).unwrap();
    for (a, b) in without.iter().zip(&with) {
        assert!(
            a.iter().filter(|(name, _)| !name.starts_with("lists.")).all(|(name, value)| b[name] == *value)
        );
    }
}

/// A list that cannot be read would train a model of addresses that are in no list.
#[test]
fn a_list_that_cannot_be_read_ends_the_export() {
    let dir = folder();
    let error = |config: Option<&str>, lists: &[&str]| {
        format!("{:#}", rows_of(dir.path(), config, lists).unwrap_err())
    };
    let said = error(None, &["hosting=/nonexistent/x.mmdb"]);
    assert!(
        said.contains("--list") && said.contains("list `hosting`: /nonexistent/x.mmdb: No such file"),
        "{said}"
    );
    let log = dir.path().join("log").display().to_string();
    let said = error(None, &[&format!("hosting={log}")]);
    assert!(said.contains("line 1"), "{said}");
    let vpn = dir.path().join("vpn.netset").display().to_string();
    let said = error(None, &[&format!("vpn={vpn}"), &format!("vpn={vpn}")]);
    assert!(said.starts_with("--list: ") && said.contains("vpn"), "{said}");
    let config = "[[origin.list]]\nname = \"lists\"\nsource = [{ feature = \"vpn\", path = \"vpn.netset\" }]\n\
                  [[origin.access_log]]\nname = \"log\"\npath = \"unused\"\n";
    let said = error(Some(config), &[&format!("tor={vpn}")]);
    assert!(said.contains("`lists` is there already") && said.contains("[[origin.list]]"), "{said}");
    for wrong in ["hosting", "=x", "hosting="] {
        assert!(wrong.parse::<ListFile>().unwrap_err().contains("NAME=FILE"), "{wrong}");
    }
}

/// It is fetched as the daemon would.
#[tokio::test(flavor = "multi_thread")]
async fn a_list_of_a_server_is_fetched_for_the_export() {
    let server = Server::start(answer("200 OK", "", b"203.0.113.0/24\n")).await;
    let config = format!(
        "[[origin.list]]\nname = \"lists\"\nsource = [{{ feature = \"tor\", url = \"http://127.0.0.1:{}/tor.netset\" }}]\n\
         [[origin.access_log]]\nname = \"log\"\npath = \"unused\"\n",
        server.port
    );
    let export = |config: String| {
        tokio::task::spawn_blocking(move || {
            let dir = folder();
            rows_of(dir.path(), Some(&config), &[])
        })
    };
    let rows = export(config.clone()).await.unwrap().unwrap();
    assert_eq!(column(&rows, "lists.tor"), ["0", "0", "0", "1", "0"]);
    server.set(Answer::Bytes(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n".to_vec()));
    let said = format!("{:#}", export(config).await.unwrap().unwrap_err());
    assert!(said.contains("list `tor`") && said.contains("503"), "{said}");
}
