use std::path::Path;
use std::sync::atomic::Ordering;

use crate::config::Config;
use crate::lists::tests::mmdb_file;
use crate::test_support::{Answer, Kept, Running, Server, answer};

/// Replaced by renaming: the clock of a file's fingerprint must not matter to a test.
fn replace(directory: &Path, name: &str, text: impl AsRef<[u8]>) {
    let new = directory.join("new");
    std::fs::write(&new, text).unwrap();
    std::fs::rename(new, directory.join(name)).unwrap();
}

/// `count` networks from `192.0.2.0` on.
fn networks(count: usize) -> String {
    (0..count).map(|at| format!("192.0.2.{at}\n")).collect()
}

/// An origin of two lists, the files `vpn.netset` and `tor.netset`.
fn two(options: &str) -> String {
    format!(
        "[[origin.list]]\nname = \"lists\"\nsource = [\n\
         {{ feature = \"vpn\", path = \"vpn.netset\", interval = \"20ms\"{options} }},\n\
         {{ feature = \"tor\", path = \"tor.netset\", interval = \"20ms\" }},\n]\n"
    )
}

async fn until_list(running: &Running, list: usize, state: &str) {
    let pointer = format!("/origins/0/lists/{list}/state");
    running.until(&format!("list {list}: {state}"), |r| r.status(&pointer) == state).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn l2_a_list_that_shrinks_to_nothing_is_refused_and_the_last_good_one_stays() {
    let dir = tempfile::tempdir().unwrap();
    replace(dir.path(), "vpn.netset", networks(10));
    replace(dir.path(), "tor.netset", "192.0.2.0/24\n");
    let running = Running::start(dir.path(), &two(", max_shrink = 0.3"), Kept::default());
    running.until("both lists", |r| r.status("/origins/0/state") == "accepted").await;
    assert_eq!(running.at("192.0.2.9"), Some(vec![1.0, 1.0]));
    assert_eq!(running.at("192.0.2.99"), Some(vec![0.0, 1.0]));

    for (bad, reason, message) in [
        (String::new(), "too_few_rows", "0 networks, expected at least 1 (min_rows)"),
        ("# moved to another place\n".to_owned(), "too_few_rows", "min_rows"),
        (networks(6), "shrunk", "6 networks, 10 before"),
        ("<html>".to_owned(), "bad_key", "line 1"),
    ] {
        let before = running.kept.publications();
        replace(dir.path(), "vpn.netset", bad);
        running.until_refused(0, reason, message).await;
        until_list(&running, 0, "refused").await;
        assert!(
            running.status("/origins/0/last_refusal/message").as_str().unwrap().starts_with("list `vpn`: ")
        );
        assert_eq!(running.status("/origins/0/state"), "refused");
        assert_eq!(running.status("/origins/0/lists/0/networks"), 10);
        assert_eq!(running.kept.publications(), before, "{reason}");
    }
    // The other list goes on.
    replace(dir.path(), "tor.netset", "192.0.2.0/24\n198.51.100.1\n");
    running.until("the other list", |r| r.at("198.51.100.1") == Some(vec![0.0, 1.0])).await;
    assert_eq!(running.at("192.0.2.9"), Some(vec![1.0, 1.0]), "the last good one");
    until_list(&running, 0, "refused").await;
    assert_eq!(running.status("/origins/0/state"), "refused");
    let metrics = running.state.metrics.encode().unwrap();
    for line in [
        "bliss_list_refused{origin=\"lists\",list=\"vpn\"} 1",
        "bliss_list_refused{origin=\"lists\",list=\"tor\"} 0",
        "bliss_list_networks{origin=\"lists\",list=\"vpn\"} 10",
        "bliss_origin_refused{origin=\"lists\"} 1",
        "bliss_origin_refusals_total{origin=\"lists\",reason=\"shrunk\"} ",
    ] {
        assert!(metrics.contains(line), "{line} in\n{metrics}");
    }
    std::fs::remove_file(dir.path().join("vpn.netset")).unwrap();
    running.until_refused(0, "unavailable", "No such file").await;
    replace(dir.path(), "vpn.netset", networks(7));
    running.until("a good one again", |r| r.status("/origins/0/state") == "accepted").await;
    running.until("its rows", |r| r.at("192.0.2.9") == Some(vec![0.0, 1.0])).await;
    assert!(running.state.metrics.encode().unwrap().contains("bliss_origin_refused{origin=\"lists\"} 0"));
}

#[tokio::test(flavor = "multi_thread")]
async fn l2_a_list_of_a_server_that_fails_leaves_the_last_good() {
    let dir = tempfile::tempdir().unwrap();
    let google =
        br#"{"creationTime":"x","prefixes":[{"ipv4Prefix":"192.0.2.0/24"},{"ipv6Prefix":"2001:db8::/32"}]}"#;
    let server = Server::start(answer("200 OK", "ETag: \"1\"\r\n", google)).await;
    let text = format!(
        "[[origin.list]]\nname = \"lists\"\nsource = [{{ feature = \"google\", interval = \"30ms\", \
         url = \"http://127.0.0.1:{}/googlebot.json?key=secret\" }}]\n",
        server.port
    );
    let running = Running::start(dir.path(), &text, Kept::default());
    running.until("the list", |r| r.status("/origins/0/state") == "accepted").await;
    assert_eq!(running.at("2001:db8::1"), Some(vec![1.0]));
    assert_eq!(running.at("::ffff:192.0.2.1"), Some(vec![1.0]));
    for (bad, reason, message) in [
        (answer("200 OK", "", b"{\"prefixes\":[]}"), "too_few_rows", "min_rows"),
        (answer("200 OK", "", b"<html>"), "undecodable", "not JSON"),
        (answer("500 Internal Server Error", "", b""), "unavailable", "found 500"),
        (
            Answer::Bytes(b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n{\"prefixes\":[".to_vec()),
            "unavailable",
            "broke off",
        ),
    ] {
        server.set(bad);
        running.until_refused(0, reason, message).await;
        assert!(!running.status("/origins/0/last_refusal").to_string().contains("secret"));
    }
    assert_eq!(running.kept.publications(), 1);
    server.set(answer("200 OK", "", google));
    running.until("the list again", |r| r.status("/origins/0/state") == "accepted").await;
    assert_eq!(running.kept.publications(), 1, "it is what it was");
    let asked = running.kept.publications();
    server.set(answer("200 OK", "", b"[\"198.51.100.0/24\", \"192.0.2.0/24\"]"));
    running.until("its change", |r| r.kept.publications() > asked).await;
    assert_eq!(running.at("198.51.100.9"), Some(vec![1.0]));
}

#[tokio::test(flavor = "multi_thread")]
async fn fields_of_databases_are_published() {
    let dir = tempfile::tempdir().unwrap();
    replace(dir.path(), "asn.mmdb", mmdb_file::example(28));
    let text = "[[dimension]]\nname = \"networks\"\nkey = [\"ip\"]\nmatch = \"longest_prefix\"\nmax_age = \"0s\"\n\
                features = [{ name = \"hosting\" }, { name = \"asn\" }, { name = \"country\", type = \"category\" }]\n\
                [[origin.list]]\nname = \"lists\"\ndimension = \"networks\"\nsource = [\n\
                { feature = \"hosting\", path = \"asn.mmdb\", interval = \"20ms\" },\n\
                { columns = { asn = \"autonomous_system_number\", country = \"country.iso_code\" }, path = \"asn.mmdb\" },\n]\n";
    let running = Running::start(dir.path(), text, Kept::default());
    running.until("the database", |r| r.status("/origins/0/state") == "accepted").await;
    let de = crate::category::category("DE");
    assert_eq!(running.at("192.0.2.1"), Some(vec![1.0, 64496.0, de]));
    assert_eq!(running.at("2001:db8::1").unwrap()[..2], [0.0, 64497.0]);
    assert_eq!(running.status("/origins/0/lists/1/name"), "asn,country");
    let made = running.status("/origins/0/lists/0/changed_at");
    assert!(made.as_str().unwrap().starts_with("2023-11-14T"), "when the file was made: {made}");
    replace(dir.path(), "asn.mmdb", &mmdb_file::example(28)[..900]);
    running.until_refused(0, "undecodable", "not a MaxMind DB file").await;
    assert_eq!(running.at("192.0.2.1").unwrap()[0], 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_no_longer_changes_is_told() {
    let dir = tempfile::tempdir().unwrap();
    replace(dir.path(), "vpn.netset", networks(3));
    replace(dir.path(), "tor.netset", networks(3));
    let running = Running::start(dir.path(), &two(", max_unchanged = \"1s\""), Kept::default());
    let alert = |r: &Running, list: usize| r.status(&format!("/origins/0/lists/{list}/alert"));
    running.until("an alert", |r| !alert(r, 0).is_null()).await;
    let message = alert(&running, 0)["message"].to_string();
    assert!(message.contains("for longer than 1s (max_unchanged)"), "{message}");
    assert!(alert(&running, 1).is_null());
    assert_eq!(running.status("/origins/0/state"), "accepted", "an alert, not a refusal");
    let told = |r: &Running| {
        r.state.metrics.encode().unwrap().contains("bliss_list_unchanged{origin=\"lists\",list=\"vpn\"} 1")
    };
    assert!(told(&running));
    // The same content anew is no change.
    replace(dir.path(), "vpn.netset", format!("{}# again\n", networks(3)));
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    assert!(told(&running));
    replace(dir.path(), "vpn.netset", networks(4));
    running.until("its end", |r| alert(r, 0).is_null() && !told(r)).await;
}

/// What a previous daemon published has all lists: it stays until each was read, while nothing stays where nothing was.
#[tokio::test(flavor = "multi_thread")]
async fn l2_a_restart_without_one_list_takes_nothing_away() {
    let dir = tempfile::tempdir().unwrap();
    replace(dir.path(), "vpn.netset", networks(3));
    let kept = Kept { before: vec![5], ..Kept::default() };
    let running = Running::start(dir.path(), &two(""), kept);
    until_list(&running, 0, "accepted").await;
    until_list(&running, 1, "refused").await;
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    assert_eq!(running.kept.publications(), 0);
    replace(dir.path(), "tor.netset", networks(1));
    running.until("both lists", |r| r.status("/origins/0/state") == "accepted").await;
    assert_eq!(running.at("192.0.2.0"), Some(vec![1.0, 1.0]));

    let first = tempfile::tempdir().unwrap();
    replace(first.path(), "vpn.netset", networks(3));
    let running = Running::start(first.path(), &two(""), Kept::default());
    running.until("the list that is there", |r| r.at("192.0.2.0") == Some(vec![1.0, 0.0])).await;
    assert_eq!(running.status("/origins/0/state"), "refused");
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_that_could_not_be_published_are_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    replace(dir.path(), "vpn.netset", networks(3));
    replace(dir.path(), "tor.netset", networks(3));
    let kept = Kept::default();
    kept.failing.store(true, Ordering::Relaxed);
    let running = Running::start(dir.path(), &two(""), kept);
    running.until_refused(0, "unpublished", "no room").await;
    running.kept.failing.store(false, Ordering::Relaxed);
    running.until("publication", |r| r.status("/origins/0/state") == "accepted").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_unchanged_lists_do_not_become_stale() {
    let dir = tempfile::tempdir().unwrap();
    replace(dir.path(), "vpn.netset", networks(3));
    replace(dir.path(), "tor.netset", networks(3));
    let declared = "[[dimension]]\nname = \"lists\"\nkey = [\"ip\"]\nmatch = \"longest_prefix\"\nmax_age = \"4s\"\n\
                    features = [{ name = \"vpn\" }, { name = \"tor\" }]\n";
    let running = Running::start(dir.path(), &format!("{declared}{}", two("")), Kept::default());
    running.until("a second publication", |r| r.kept.publications() >= 2).await;
}

#[test]
fn wrong_lists_are_told() {
    let parse = |text: &str| Config::parse("/etc/bliss/bliss.toml".as_ref(), text);
    let source = |source: &str| format!("[[origin.list]]\nname = \"lists\"\nsource = [{source}]\n");
    let vpn = "{ feature = \"vpn\", path = \"v.netset\" }";
    let config = parse(&source(vpn)).unwrap();
    let lists = &config.schema.dimensions[0];
    assert!(lists.is_by_prefix() && lists.max_age_seconds == 0 && lists.features[0].name == "vpn");
    let declared = |features: &str, rest: &str| {
        format!("[[dimension]]\nname = \"lists\"\nkey = [\"ip\"]\nfeatures = [{features}]\n{rest}")
    };
    let by_prefix = "match = \"longest_prefix\"\nmax_age = \"0s\"\n";
    for (text, message) in [
        (source(""), "`source` is empty"),
        (source("{ path = \"a\" }"), "neither `feature` nor `columns`"),
        (source("{ feature = \"a\" }"), "expected `path` or `url`"),
        (source("{ feature = \"a\", path = \"a\", url = \"http://a\" }"), "expected `path` or `url`"),
        (source(&format!("{vpn}, {vpn}")), "vpn"),
        (source("{ columns = { a = \"b\" }, path = \"a.mmdb\" }"), "declare them in a [[dimension]]"),
        (source("{ feature = \"a\", path = \"a.netset\", rules = \"r\" }"), "`rules` and `field`"),
        (source("{ feature = \"a\", path = \"a.mmdb\", rules = \"none.toml\" }"), "none.toml: No such file"),
        (source("{ feature = \"a\", path = \"a.netset\", members = [\"a\"] }"), "`members` is for json"),
        (source("{ feature = \"a\", path = \"a\", proxy = \"http://p\" }"), "are for a `url`"),
        (source("{ feature = \"a\", path = \"a\", max_shrink = 2 }"), "max_shrink: expected a share"),
        (source("{ feature = \"a\", path = \"a\", format = \"xml\" }"), "unknown variant `xml`"),
        (source("{ feature = \"a\", path = \"a.db\", field = \"name\" }"), "it has: country, asn, as_name"),
        (source("{ feature = \"a\", url = \"ftp://a\" }"), "expected http:// or https://"),
        (declared("{ name = \"vpn\" }", &source(vpn)), "match = \"longest_prefix\""),
        (
            declared("{ name = \"vpn\" }, { name = \"x\" }", &format!("{by_prefix}{}", source(vpn))),
            "no list fills feature `x`",
        ),
        (declared("{ name = \"x\" }", &format!("{by_prefix}{}", source(vpn))), "has no such feature"),
        (
            declared("{ name = \"vpn\", max = 0.5 }", &format!("{by_prefix}{}", source(vpn))),
            "is the number 1",
        ),
        (
            declared("{ name = \"vpn\", type = \"category\" }", &format!("{by_prefix}{}", source(vpn))),
            "is the number 1",
        ),
        (
            declared(
                "{ name = \"vpn\" }",
                &format!("match = \"longest_prefix\"\nmax_age = \"1m\"\n{}", source(vpn)),
            ),
            "at most half of it",
        ),
        (
            declared(
                "{ name = \"vpn\" }",
                &format!("{by_prefix}{}", source("{ columns = { vpn = \"x\" }, path = \"a.netset\" }")),
            ),
            "only mmdb and location have",
        ),
    ] {
        let error = parse(&text).map(drop).unwrap_err().to_string();
        assert!(error.contains(message), "{message}: {error}");
    }
}
