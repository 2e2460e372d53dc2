use crate::test_support::{Answer, DIMENSION, Kept, Running, SECRET, Server, answer, http_origin, rows};

#[tokio::test(flavor = "multi_thread")]
async fn s1_every_way_in_which_a_server_can_fail_leaves_the_last_good() {
    let body = rows(&[1.0, 2.0]);
    let server = Server::start(answer("200 OK", "", body.as_bytes())).await;
    let dir = tempfile::tempdir().unwrap();
    let options = "timeout = \"500ms\"\nmax_bytes = 10000\nheaders = { X-Token = \"t1\" }\n";
    let text = format!("{DIMENSION}{}", http_origin(server.port, "ip", options));
    let running = Running::start(dir.path(), &text, Kept::default());
    running.until("the first rows", |r| r.status("/origins/0/state") == "accepted").await;
    assert!(server.requests.lock().unwrap()[0].contains("x-token: t1"));

    let half = |head: &str| {
        let head = format!("HTTP/1.1 200 OK\r\n{head}\r\n");
        [head.as_bytes(), &body.as_bytes()[..body.len() / 2]].concat()
    };
    let sized = format!("Content-Length: {}\r\n", body.len());
    let chunked = "Transfer-Encoding: chunked\r\n\r\n40\r\n".to_owned();
    let gzip = format!("Content-Encoding: gzip\r\n{sized}");
    let large = "x".repeat(20_000);
    for (bad, reason, message) in [
        (answer("500 Oh", "", b"{}"), "unavailable", "found 500"),
        (answer("204 No Content", "", b""), "unavailable", "found 204"),
        (answer("304 Not Modified", "", b""), "unavailable", "found 304"),
        (Answer::Hang(vec![]), "unavailable", "no whole answer within 500ms"),
        (Answer::Hang(half(&sized)), "unavailable", "no whole answer within 500ms"),
        (Answer::Bytes(half(&sized)), "unavailable", "broke off"),
        (Answer::Bytes(half(&chunked)), "unavailable", "broke off"),
        (Answer::Bytes(half(&gzip)), "unavailable", "broke off"),
        (Answer::Bytes(b"SSH-2.0-x\r\n".to_vec()), "unavailable", "the request failed"),
        (Answer::Bytes(vec![]), "unavailable", "the request failed"),
        (answer("200 OK", "", &body.as_bytes()[..body.len() - 9]), "undecodable", "line 2"),
        (answer("200 OK", "", b"<html>"), "undecodable", "line 1"),
        (answer("200 OK", "", large.as_bytes()), "too_large", "max_bytes"),
        (answer("200 OK", "", b""), "too_few_rows", "min_rows"),
    ] {
        server.set(bad.clone());
        running.until_refused(0, reason, message).await;
        let refusal = running.status("/origins/0/last_refusal").to_string();
        assert!(!refusal.contains("secret"), "{refusal}");
        let before = running.kept.publications();
        let asked = server.requests();
        running.until("another try", |_| server.requests() > asked).await;
        assert_eq!(running.kept.publications(), before, "{bad:?}");
        assert_eq!(running.kept.last().0, 2);
    }
    server.set(answer("200 OK", "", rows(&[5.0]).as_bytes()));
    running.until("good rows again", |r| r.status("/origins/0/state") == "accepted").await;
    assert_eq!(running.kept.last(), (1, vec![5.0]));
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_there_is_unavailable() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let dir = tempfile::tempdir().unwrap();
    let text = format!("{DIMENSION}{}", http_origin(port, "ip", ""));
    let running = Running::start(dir.path(), &text, Kept::default());
    running.until_refused(0, "unavailable", "cannot connect: Connection refused").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn entity_tags_spare_the_body_and_keep_what_was_said_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(answer("200 OK", "ETag: \"one\"\r\n", rows(&[1.0]).as_bytes())).await;
    let text = format!("{DIMENSION}{}", http_origin(server.port, "ip", ""));
    let running = Running::start(dir.path(), &text, Kept::default());
    running.until("the first rows", |r| r.status("/origins/0/state") == "accepted").await;

    server.set(Answer::Bytes(b"HTTP/1.1 304 Not Modified\r\nConnection: close\r\n\r\n".to_vec()));
    let asked = server.requests();
    running.until("two more requests", |_| server.requests() > asked + 2).await;
    assert!(server.requests.lock().unwrap().last().unwrap().contains("if-none-match: \"one\""));
    assert_eq!(running.status("/origins/0/state"), "accepted");
    assert_eq!(running.kept.publications(), 1);

    // A body that is refused is fetched whole the next time, whatever tag a careless server gives to its bodies: the tag of
    // the good one, another, always the same. The first good one is accepted.
    let good =
        |tag: &str, value: f32| answer("200 OK", &format!("ETag: {tag}\r\n"), rows(&[value]).as_bytes());
    let bad = |tag: &str| answer("200 OK", &format!("ETag: {tag}\r\n"), b"{");
    for (value, refused, corrected) in
        [(2.0, "\"one\"", "\"one\""), (3.0, "\"two\"", "\"two\""), (4.0, "W/\"3\"", "\"4\"")]
    {
        server.set(bad(refused));
        running.until_refused(0, "undecodable", "line 1").await;
        running.until("a refusal", |r| r.status("/origins/0/state") == "refused").await;
        let asked = server.requests();
        running.until("another request", |_| server.requests() > asked + 1).await;
        assert!(!server.requests.lock().unwrap().last().unwrap().contains("if-none-match"));
        server.set(good(corrected, value));
        running.until("the correction", |r| r.status("/origins/0/state") == "accepted").await;
        assert_eq!(running.kept.last(), (1, vec![value]));
    }
    assert!(running.status("/origins/0/last_refusal/times").as_u64().unwrap() >= 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn gzip_is_understood_and_its_content_is_limited() {
    // `rows(&[4.0])`, compressed by another program.
    let compressed: &[u8] = include_bytes!("testdata/rows.jsonl.gz");
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(answer("200 OK", "Content-Encoding: gzip\r\n", compressed)).await;
    let text = format!("{DIMENSION}{}", http_origin(server.port, "ip", "max_bytes = 1000\n"));
    let running = Running::start(dir.path(), &text, Kept::default());
    running.until("rows", |r| r.status("/origins/0/state") == "accepted").await;
    assert_eq!(running.kept.last(), (1, vec![4.0]));
    assert!(server.requests.lock().unwrap()[0].contains("accept-encoding: gzip"));
    // 100,000 spaces in 130 bytes.
    server.set(answer("200 OK", "Content-Encoding: gzip\r\n", include_bytes!("testdata/bomb.gz")));
    running.until_refused(0, "too_large", "max_bytes").await;
}

/// What the server of the redirect sees, whichever way it differs from the configured one; and what the configured one does.
#[tokio::test(flavor = "multi_thread")]
async fn s15_a_redirect_carries_nothing_of_the_configuration_to_another_server() {
    let body = rows(&[3.0]);
    for status in ["301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent"] {
        // Another port; the same one under another name; the same server.
        for (host, is_other_server) in [("127.0.0.1", true), ("localhost", true), ("127.0.0.1", false)] {
            let target = Server::start(answer("200 OK", "", body.as_bytes())).await;
            let first = if is_other_server { Server::start(Answer::Bytes(vec![])).await } else { target };
            let second = if is_other_server {
                Some(Server::start(answer("200 OK", "", body.as_bytes())).await)
            } else {
                None
            };
            let port = second.as_ref().map_or(first.port, |second| second.port);
            let location = format!("Location: http://{host}:{port}/t.jsonl?token=secret&sig=signature\r\n");
            let (path, redirect) = ("/t.jsonl", answer(status, &location, b""));
            first.answer_by_path(path, answer("200 OK", "", body.as_bytes()));
            first.set(redirect);
            let dir = tempfile::tempdir().unwrap();
            let options = format!(
                "headers = {{ X-Api-Key = \"KEYSECRET\", Authorization = \"Bearer AUTHSECRET\" }}\n\
                 redirect_to = [\"http://{host}:{port}\"]\n"
            );
            let text = format!("{DIMENSION}{}", http_origin(first.port, "ip", &options));
            let running = Running::start(dir.path(), &text, Kept::default());
            running.until("rows", |r| r.status("/origins/0/state") == "accepted").await;
            let asked = first.requests.lock().unwrap().clone();
            assert!(asked[0].contains("keysecret") && asked[0].contains("token=secret"), "{}", asked[0]);
            let seen = match &second {
                Some(second) => second.requests.lock().unwrap()[0].clone(),
                None => asked[1].clone(),
            };
            assert!(seen.contains("get /t.jsonl?") && seen.contains("sig=signature"), "{seen}");
            assert!(!seen.contains("referer"), "{seen}");
            for secret in ["keysecret", "authsecret", "token"] {
                assert_eq!(seen.contains(secret), second.is_none(), "{status} to {host}: {seen}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn redirects_end_and_say_where_they_led() {
    let server = Server::start(Answer::Bytes(vec![])).await;
    let dir = tempfile::tempdir().unwrap();
    let other = Server::start(answer("403 Forbidden", "", b"")).await;
    let options = format!("redirect_to = [\"http://127.0.0.1:{}\"]\n", other.port);
    let text = format!("{DIMENSION}{}", http_origin(server.port, "ip", &options));
    let running = Running::start(dir.path(), &text, Kept::default());
    let to = |location: &str| answer("302 Found", &format!("Location: {location}\r\n"), b"");
    for (answer, message) in [
        (to("/again?token=secret"), "more than 10 redirects"),
        (to("file:///etc/passwd"), "from http to file: another scheme is never followed"),
        (to("http://[x"), "a redirect: invalid"),
        (to(&format!("http://127.0.0.1:{}/x?token=secret", other.port)), "set `url` to it"),
        (answer("302 Found", "", b""), "expected status 200, found 302"),
    ] {
        server.set(answer);
        running.until_refused(0, "unavailable", message).await;
        let refusal = running.status("/origins/0/last_refusal").to_string();
        assert!(!refusal.contains("secret"), "{refusal}");
    }
}

/// Several members in one answer, as a server that joins compressed parts sends it, in chunks of every size.
#[tokio::test(flavor = "multi_thread")]
async fn every_member_of_a_compressed_answer_counts_whatever_the_chunks() {
    use std::io::Write as _;
    let all = rows(&[1.0, 2.0, 3.0]);
    let gzip = |text: &str| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.finish().unwrap()
    };
    let mut members: Vec<u8> = all.lines().flat_map(|line| gzip(&format!("{line}\n"))).collect();
    let first = gzip(&format!("{}\n", all.lines().next().unwrap())).len();
    let chunked = |bytes: &[u8], size: usize| {
        let mut answer =
            b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n".to_vec();
        for chunk in bytes.chunks(size) {
            answer.extend(format!("{:x}\r\n", chunk.len()).into_bytes());
            answer.extend(chunk);
            answer.extend(b"\r\n");
        }
        answer.extend(b"0\r\n\r\n");
        Answer::Bytes(answer)
    };
    let server = Server::start(Answer::Bytes(vec![])).await;
    let dir = tempfile::tempdir().unwrap();
    let text = format!("{DIMENSION}{}", http_origin(server.port, "ip", ""));
    let running = Running::start(dir.path(), &text, Kept::default());
    for padding in [0, 1, 100] {
        members.extend(vec![0; padding]);
        for size in [1, 7, first - 1, first, first + 1, 2 * first, 100_000] {
            server.set(answer("500 Oh", "", b""));
            running.until_refused(0, "unavailable", "found 500").await;
            server.set(chunked(&members, size));
            running.until("rows", |r| r.status("/origins/0/state") == "accepted").await;
            assert_eq!(running.kept.last(), (3, vec![1.0, 2.0, 3.0]), "{padding} zeros, chunks of {size}");
        }
    }
    for size in [first, 100_000] {
        let mut broken = members.clone();
        // Its checksum: what comes before is read first.
        broken[2 * first - 6] ^= 0x55;
        server.set(chunked(&broken, size));
        running.until_refused(0, "unavailable", "member 2 is broken").await;
        server.set(answer("200 OK", "", all.as_bytes()));
        running.until("rows", |r| r.status("/origins/0/state") == "accepted").await;
    }
    server.set(answer("200 OK", "Content-Encoding: br\r\n", b"x"));
    running.until_refused(0, "undecodable", "found Content-Encoding `br`").await;
}

/// Whatever the redirect says, the other server hears nothing, and the good rows stay.
#[tokio::test(flavor = "multi_thread")]
async fn s15_a_redirect_leads_to_no_other_server_scheme_or_network() {
    let server = Server::start(answer("200 OK", "", rows(&[1.0]).as_bytes())).await;
    let other = Server::start(answer("200 OK", "", rows(&[9.0, 9.0]).as_bytes())).await;
    let dir = tempfile::tempdir().unwrap();
    let options =
        "redirect_to = [\"http://169.254.169.254\", \"http://10.0.0.1:81\", \"http://[fd00:ec2::254]\"]\n";
    let text = format!("{DIMENSION}{}", http_origin(server.port, "ip", options));
    let running = Running::start(dir.path(), &text, Kept::default());
    running.until("rows", |r| r.status("/origins/0/state") == "accepted").await;
    let (port, other_port) = (server.port, other.port);
    for (location, message) in [
        (format!("http://127.0.0.1:{other_port}/latest/meta-data/iam"), "to another server"),
        (format!("http://localhost:{port}/x"), "to another server"),
        (format!("http://[::ffff:127.0.0.1]:{other_port}/x"), "to another server"),
        (format!("https://127.0.0.1:{port}/x"), "from http to https: another scheme is never followed"),
        ("http://169.254.169.254/latest".to_owned(), "is the link-local address 169.254.169.254"),
        ("http://10.0.0.1:81/x".to_owned(), "is the private address 10.0.0.1; from a server at a loopback"),
        ("http://[fd00:ec2::254]/latest".to_owned(), "is the private address fd00:ec2::254"),
    ] {
        server.set(answer("302 Found", &format!("Location: {location}\r\n"), b""));
        running.until_refused(0, "unavailable", message).await;
    }
    assert_eq!((other.requests(), running.kept.publications()), (0, 1));
    assert_eq!(running.kept.last(), (1, vec![1.0]));
}

/// A name that is another address each time it is looked up: the redirect's connection goes to what was checked or nowhere.
#[tokio::test(flavor = "multi_thread")]
async fn s15_a_name_that_changes_its_address_is_not_followed_elsewhere() {
    use std::sync::{Arc, Mutex};
    let server = Server::start(answer("302 Found", "Location: /again\r\n", b"")).await;
    server.answer_by_path("/again", answer("200 OK", "", rows(&[1.0]).as_bytes()));
    for (addresses, expected) in [
        (["127.0.0.1", "127.0.0.1"], Ok(())),
        (["127.0.0.1", "169.254.169.254"], Err("is the link-local address 169.254.169.254")),
        (["127.0.0.1", "10.0.0.1"], Err("is the private address 10.0.0.1")),
        (["127.0.0.1", "::ffff:192.168.0.1"], Err("is the private address ::ffff:192.168.0.1")),
    ] {
        let text = http_origin(server.port, "ip", "").replace("127.0.0.1", "feed.example");
        let text = format!("directory = \"unused\"\n{DIMENSION}{text}");
        let config = crate::config::Config::parse("bliss.toml".as_ref(), &text).unwrap();
        let crate::origin::OriginKind::Http(http) = &config.origins[0].kind else { unreachable!() };
        let asked = Arc::new(Mutex::new(Vec::new()));
        let lookup: super::addresses::Lookup = Arc::new({
            let asked = asked.clone();
            move |name| {
                let mut asked = asked.lock().unwrap();
                let address = addresses[asked.len()];
                asked.push(name);
                Box::pin(async move { Ok(vec![(address.parse::<std::net::IpAddr>().unwrap(), 0).into()]) })
            }
        });
        let clients = super::server::Clients::new(&http.server, lookup).unwrap();
        let decoder = config.target(0, &SECRET).unwrap().rows(http.limits, http.format);
        let before = server.requests();
        let fetched = super::server::fetch(&clients, &http.server, &decoder, None).await;
        assert_eq!(*asked.lock().unwrap(), ["feed.example"; 2], "looked up once for each connection");
        match (fetched, expected) {
            (Ok(_), Ok(())) => assert_eq!(server.requests(), before + 2),
            (Err(refusal), Err(message)) => {
                assert!(refusal.message.contains(message), "{refusal}");
                assert_eq!(server.requests(), before + 1);
            }
            (other, _) => panic!("{addresses:?}: {:?}", other.err()),
        }
    }
}
