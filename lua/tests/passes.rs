//! P11: a challenge that was passed comes back, in the configuration of `examples/nginx` in a real nginx with two workers.

use bliss_service::access_log::parse::Parser;
use bliss_store::PublishOptions;

#[path = "../../bliss-ffi/tests/support/policy.rs"]
mod policy;
#[path = "nginx/server.rs"]
mod server;
#[path = "../../bliss-ffi/tests/support/mod.rs"]
mod support;

use bliss_core::pass::PassKey;
use bliss_core::prefixes::Address;
use policy::vectors;
use server::{Nginx, Reply, can_run};
use support::{now, wait_until};

/// Of 70 requests in a minute, whom the policy `passes` challenges.
const CLIENT: &str = "192.0.2.70";
const AGENT: &str = "Mozilla/5.0";

fn get(nginx: &Nginx, target: &str, client: &str, agent: &str, more: &str) -> Reply {
    let request = format!(
        "GET {target} HTTP/1.1\r\nHost: shop.example\r\nUser-Agent: {agent}\r\nX-Client: {client}\r\n{more}Connection: close\r\n\r\n"
    );
    nginx.send(request.as_bytes()).unwrap()
}

/// A verifier that believes who has its token.
const VERIFIER: &str = "upstream verifier { server unix:FOLDER/verifier; }
    server { listen unix:FOLDER/verifier; access_log off; access_by_lua_block { return }
        location / { if ($http_x_token = solved) { return 200; } return 401; } }";

#[test]
fn p11_who_passed_in_nginx_is_not_challenged_again() {
    if !can_run() {
        return;
    }
    let site = support::Site::empty();
    let now = now();
    let mut publisher = policy::publisher(site.path(), &PublishOptions::default(), now);
    let vector = vectors().into_iter().find(|vector| vector.name == "passes").unwrap();
    policy::publish(&mut publisher, &vector, now);
    let folder = tempfile::tempdir().unwrap();
    let http = VERIFIER.replace("FOLDER", folder.path().to_str().unwrap());
    let nginx = server::Setup {
        http: &http,
        verifier: Some("proxy_pass http://verifier;"),
        ..server::Setup::new(site.path())
    }
    .start();
    wait_until("a score", || nginx.ask("192.0.2.1").header("x-bot-status") == "scored");
    let with = |cookie: &str| format!("Cookie: a=b; bliss_pass={cookie}; c=d\r\n");

    // Challenged, and who solved nothing gets nothing.
    let asked = get(&nginx, "/", CLIENT, AGENT, "");
    assert_eq!((asked.status, asked.header("x-bliss-rule")), (403, "low"), "{}", nginx.error_log());
    assert!(asked.body.contains("whether you are a program"));
    for more in ["", "X-Token: guessed\r\n", "Cookie: bliss_pass=v1.1.a\r\n"] {
        let refused = get(&nginx, "/bliss-passed?to=/", CLIENT, AGENT, more);
        assert!(matches!(refused.status, 401 | 403), "{}", refused.status);
        assert_eq!(refused.header("set-cookie"), "");
    }
    assert_eq!(get(&nginx, "/bliss-verified", CLIENT, AGENT, "X-Token: solved\r\n").status, 404, "internal");

    // Passed: a cookie, and back to what was asked for.
    let passed = get(&nginx, "/bliss-passed?to=/folder/%3Fa=b", CLIENT, AGENT, "X-Token: solved\r\n");
    assert_eq!((passed.status, passed.header("cache-control")), (303, "no-store"), "{}", nginx.error_log());
    assert!(passed.header("location").ends_with("/folder/?a=b"), "{}", passed.header("location"));
    let (cookie, attributes) = passed.header("set-cookie").split_once("; ").unwrap();
    assert_eq!(attributes, "Path=/; HttpOnly; Secure; SameSite=Lax; Max-Age=604800");
    let pass = cookie.strip_prefix("bliss_pass=").unwrap();

    // Both workers allow, and log it.
    for number in 0..20 {
        let served = get(&nginx, &format!("/?served={number}"), CLIENT, AGENT, &with(pass));
        assert_eq!((served.status, served.header("x-bliss-rule")), (200, "lowest"));
        assert_eq!(served.header("x-bliss-passed"), "1");
    }

    let key = PassKey::of(publisher.secret());
    let address = Some(Address::V4(u32::from_be_bytes([192, 0, 2, 70])));
    let own = key.make(address, AGENT.as_bytes(), 60, now).unwrap();
    let run_out = key.make(address, AGENT.as_bytes(), 60, now - 61).unwrap();
    assert_eq!(get(&nginx, "/", CLIENT, AGENT, &with(own.as_str())).status, 200);
    let mut changed = pass.to_owned();
    changed.pop();
    for (what, client, agent, cookie) in [
        ("another address", "192.0.2.71", AGENT, pass),
        ("another agent", CLIENT, "curl/8", pass),
        ("run out", CLIENT, AGENT, run_out.as_str()),
        ("changed", CLIENT, AGENT, changed.as_str()),
        ("none", CLIENT, AGENT, ""),
    ] {
        let again = get(&nginx, "/", client, agent, &with(cookie));
        assert_eq!((again.status, again.header("x-bliss-rule")), (403, "low"), "{what}");
        assert_eq!(again.header("x-bliss-passed"), "0", "{what}");
    }
    // A rule that says so is for everybody.
    let login = get(&nginx, "/login", CLIENT, AGENT, &with(pass));
    assert_eq!((login.status, login.header("x-bliss-rule")), (403, "login"));

    // The log says it to the daemon.
    let mut lines = Vec::new();
    wait_until("the log", || {
        lines = nginx.access_log().lines().map(str::to_owned).collect();
        lines.iter().any(|line| line.contains("/login"))
    });
    let of = |target: &str| {
        let line = lines.iter().find(|line| line.contains(target)).unwrap();
        Parser::default().parse(line.as_bytes()).unwrap().told.passed
    };
    assert_eq!((of("/?served=19"), of("/login"), of("/bliss-passed")), (Some(true), Some(true), None));
    assert_eq!(nginx.error_log().lines().filter(|line| line.contains("bliss:")).count(), 0);
}

/// A link to here sends nobody to another server.
#[test]
fn who_passed_goes_on_to_this_server() {
    if !can_run() {
        return;
    }
    let site = support::Site::empty();
    let _publisher = policy::publisher(site.path(), &PublishOptions::default(), now());
    let nginx = server::Setup { verifier: Some("return 200;"), ..server::Setup::new(site.path()) }.start();
    let go = |to: &str| get(&nginx, &format!("/bliss-passed{to}"), CLIENT, AGENT, "");
    wait_until("the features", || go("").status == 303);
    for to in ["?to=/a/b", "?to=/a%3Fb=c%26d", "?to=/%25C3%25A4"] {
        let location = go(to).header("location").to_owned();
        let wanted = to.strip_prefix("?to=").unwrap();
        let wanted = wanted.replace("%3F", "?").replace("%26", "&").replace("%25", "%");
        assert!(location.ends_with(&wanted), "{to}: {location}");
    }
    for to in [
        "",
        "?to=",
        "?to=//evil.example",
        "?to=/%5Cevil.example",
        "?to=https://evil.example/",
        "?to=javascript:alert(1)",
        "?to=/%0d%0aSet-Cookie:%20a=b",
        "?to=/%09/evil.example",
        "?to",
        "?to=/a&to=/b",
    ] {
        let reply = go(to);
        let location = reply.header("location");
        assert_eq!(reply.status, 303, "{to}");
        assert!(
            location == "/" || location.matches('/').count() == 3 && location.ends_with('/'),
            "{to}: {location}"
        );
        assert!(!location.contains("evil"), "{to}: {location}");
    }
}

/// Until somebody puts a verifier there, nobody has passed.
#[test]
fn as_it_is_the_example_gives_no_passes() {
    if !can_run() {
        return;
    }
    let site = support::Site::empty();
    let _publisher = policy::publisher(site.path(), &PublishOptions::default(), now());
    let nginx = Nginx::start(site.path(), "");
    let refused = get(&nginx, "/bliss-passed?to=/", CLIENT, AGENT, "");
    assert_eq!((refused.status, refused.header("set-cookie")), (403, ""));
}
