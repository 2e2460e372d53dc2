//! A request is scored, counted and blocked once, whatever internal redirects and subrequests it leads to.

use bliss_service::access_log::parse::Parser;

#[path = "nginx/server.rs"]
mod server;
#[path = "../../bliss-ffi/tests/support/mod.rs"]
mod support;

use server::{Nginx, Setup, can_run};
use support::{Site, wait_until, web_score};

fn published() -> Site {
    let mut site = Site::empty();
    site.publish_features();
    site.publish_web_model("1");
    site
}

/// Each kind of internal redirect and subrequest that nginx and its Lua module know. `ERRORS` is in each location with an
/// `error_page` of its own, which would hide that of the server.
const LOCATIONS: &str = r#"
    location / { index index.html; }
    location @named { rewrite ^ /index.html break; }
    location = /inner { internal; return 204; }
    location /try-file { try_files /nowhere /index.html; }
    location /try-named { try_files /nowhere @named; }
    location /missing { error_page 404 /404.html; ERRORS }
    location /missing-named { error_page 404 =200 @named; ERRORS }
    location /missing-as-200 { error_page 404 =200 /404.html; ERRORS }
    location /rewritten { rewrite ^ /index.html last; }
    location /rewritten-twice { rewrite ^ /rewritten last; }
    location /exec { content_by_lua_block { ngx.exec("/index.html") } }
    location /exec-named { content_by_lua_block { ngx.exec("@named") } }
    location /capture { content_by_lua_block { ngx.print(ngx.location.capture("/index.html").body) } }
    location /ssi { ssi on; default_type text/html;
        content_by_lua_block { ngx.print('<!--# include virtual="/index.html" -->') } }
    location /auth { auth_request /inner; try_files /index.html =404; }
    location /mirror { mirror /inner; try_files /index.html =404; }
    location /accel { proxy_pass http://backend; }
    location /early { error_page 404 /404.html; return 404; }
"#;

/// Path, status and page.
const KINDS: [(&str, u16, &str); 18] = [
    ("/", 200, "index.html"),
    ("/index.html", 200, "index.html"),
    ("/folder/", 200, "folder/index.html"),
    ("/try-file", 200, "index.html"),
    ("/try-named", 200, "index.html"),
    ("/missing", 404, "404.html"),
    ("/missing-named", 200, "index.html"),
    ("/missing-as-200", 200, "404.html"),
    ("/rewritten", 200, "index.html"),
    ("/rewritten-twice", 200, "index.html"),
    ("/exec", 200, "index.html"),
    ("/exec-named", 200, "index.html"),
    ("/capture", 200, "index.html"),
    ("/ssi", 200, "index.html"),
    ("/auth", 200, "index.html"),
    ("/mirror", 200, "index.html"),
    ("/accel", 200, "index.html"),
    // Answered before the request could be scored; its page is scored.
    ("/early", 404, "404.html"),
];

/// A server that sends whoever asks to a file of the one in front of it, and scores nobody.
fn backend(folder: &std::path::Path) -> String {
    format!(
        "upstream backend {{ server unix:{0}/backend; }}
        server {{ listen unix:{0}/backend; access_log off; access_by_lua_block {{ return }}
            location / {{ add_header X-Accel-Redirect /index.html; return 200; }} }}",
        folder.display()
    )
}

/// Whether the origin `access_log` takes the last line of the log for an answer of our own.
fn is_own_answer(nginx: &Nginx) -> bool {
    let log = nginx.access_log();
    Parser::default().parse(log.lines().last().unwrap().as_bytes()).unwrap().own_answer
}

/// The log's lines, once there are `count`.
fn lines(nginx: &Nginx, count: usize) -> Vec<serde_json::Value> {
    wait_until("the log", || nginx.access_log().lines().count() >= count);
    nginx.access_log().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn each_kind_of_redirect_is_one_score() {
    if !can_run() {
        return;
    }
    let site = published();
    let folder = tempfile::tempdir().unwrap();
    let http = backend(folder.path());
    let location = LOCATIONS.replace("ERRORS", "");
    let nginx = Setup { http: &http, location: Some(&location), ..Setup::new(site.path()) }.start();
    for (i, (path, status, page)) in KINDS.into_iter().enumerate() {
        let before = site.decisions();
        let reply = nginx.get(path, "192.0.2.70").unwrap();
        assert_eq!(reply.status, status, "{path}: {}", nginx.error_log());
        assert!(reply.body.contains(&format!("hello from {page}\n")), "{path}: {}", reply.body);
        assert_eq!(reply.score(), Some(web_score(70.0)), "{path}");
        assert_eq!(site.decisions() - before, 1, "{path}");
        let lines = lines(&nginx, i + 1);
        assert_eq!(lines.len(), i + 1, "{path}");
        let line = &lines[i];
        assert_eq!((&line["bot_action"], &line["bot_status"]), (&"allow".into(), &"scored".into()), "{path}");
        assert_eq!(line["bot_score"], web_score(70.0).to_string(), "{path}");
        assert_eq!(line["request_uri"], path);
        assert!(!is_own_answer(&nginx), "{path}");
    }
}

#[test]
fn who_is_blocked_gets_the_page_that_says_so() {
    if !can_run() {
        return;
    }
    let site = published();
    let folder = tempfile::tempdir().unwrap();
    let http = backend(folder.path());
    let location = LOCATIONS.replace("ERRORS", "error_page 403 /blocked.html;");
    // The page itself is of a route that blocks everybody.
    let server = "set $bot_route all; error_page 403 /blocked.html;";
    let nginx = Setup { http: &http, server, location: Some(&location), ..Setup::new(site.path()) }.start();
    for (i, (path, ..)) in KINDS.into_iter().enumerate() {
        let before = site.decisions();
        let reply = nginx.get(path, "192.0.2.70").unwrap();
        assert_eq!(reply.status, 403, "{path}: {}", nginx.error_log());
        // nginx shows a page of its own for an error in the page for another error.
        let page = if path == "/early" { "403 Forbidden" } else { "hello from blocked.html\n" };
        assert!(reply.body.contains(page), "{path}: {}", reply.body);
        assert_eq!(site.decisions() - before, 1, "{path}");
        let line = &lines(&nginx, i + 1)[i];
        assert_eq!((&line["bot_action"], &line["status"]), (&"block".into(), &403.into()), "{path}");
        assert_eq!(line["bot_score"], web_score(70.0).to_string(), "{path}");
        assert!(is_own_answer(&nginx), "{path}");
    }
}

#[test]
fn pages_for_the_blocked_may_be_anything() {
    if !can_run() {
        return;
    }
    let site = published();
    let server = r#"
        set $bot_route all;
        location /named { error_page 403 @blocked; }
        location @blocked { rewrite ^ /blocked.html break; }
        location /as-200 { error_page 403 =200 /blocked.html; }
        location /as-503 { error_page 403 =503 /blocked.html; }
        location /lua { error_page 403 /say; }
        location = /say { content_by_lua_block { ngx.say("hello from blocked.html") } }
        location /away { error_page 403 =302 http://elsewhere.example/; }
        location /own { return 418; }"#;
    let nginx = Nginx::start(site.path(), server);
    for (path, status) in
        [("/named", 403), ("/as-200", 200), ("/as-503", 503), ("/lua", 403), ("/away", 302), ("/own", 418)]
    {
        let before = site.decisions();
        let reply = nginx.get(path, "192.0.2.7").unwrap();
        assert_eq!(reply.status, status, "{path}: {}", nginx.error_log());
        let blocked = path != "/own";
        assert_eq!(site.decisions() - before, u64::from(blocked), "{path}");
        assert_eq!(reply.header("x-bot-action"), if blocked { "block" } else { "" }, "{path}");
        if blocked && path != "/away" {
            assert!(reply.body.contains("hello from blocked.html"), "{path}: {}", reply.body);
        }
    }
}

/// A server as it was written before bliss.conf: its `set` lines are run again at each internal redirect.
#[test]
fn servers_that_set_the_variables_are_scored_once_too() {
    if !can_run() {
        return;
    }
    let site = published();
    let server = r#"
        set $bot_score ""; set $bot_status ""; set $bot_model ""; set $bot_model_version "";
        set $bot_route "default";
        error_page 403 /blocked.html;
        location /x { set $bot_route all; }
        location = /blocked.html { set $bot_route all; }"#;
    let nginx =
        Setup { server, location: Some("location / { index index.html; }"), ..Setup::new(site.path()) }
            .start();
    for _ in 0..10 {
        assert_eq!(nginx.get("/", "192.0.2.70").unwrap().status, 200);
    }
    assert_eq!(site.decisions(), 10);
    let reply = nginx.get("/x", "192.0.2.70").unwrap();
    assert_eq!((reply.status, reply.body.contains("hello from blocked.html")), (403, true));
    assert_eq!(site.decisions(), 11);
    assert_eq!(lines(&nginx, 11)[10]["bot_action"], "block");
}

#[test]
fn requests_of_one_connection_are_scored_each() {
    if !can_run() {
        return;
    }
    let site = published();
    let location = Some("location / { index index.html; }");
    let nginx = Setup { location, ..Setup::new(site.path()) }.start();
    let one = "GET / HTTP/1.1\r\nHost: test\r\nX-Client: 192.0.2.7\r\n";
    let requests = format!("{one}\r\n{one}\r\n{one}Connection: close\r\n\r\n");
    let replies = nginx.send(requests.as_bytes()).unwrap();
    assert_eq!(replies.body.matches("X-Bot-Status: scored").count(), 2, "after the first: {}", replies.body);
    assert_eq!(site.decisions(), 3);
}

#[test]
fn mistakes_in_the_configuration_are_logged_at_the_start_and_block_nobody() {
    if !can_run() {
        return;
    }
    let site = published();
    let server = "location = /all { set $bot_route all; try_files /index.html =404; }";
    for (options, expected, scored) in [
        (
            r#"block_below = { all = "100" },"#,
            r#"block_below.all: expected a whole number from 0 to 100, found "100""#,
            true,
        ),
        ("block_below = { all = 1OO },", "malformed number", false),
        (
            "block_below = { all = 100, x = 50.5 },",
            "block_below.x: expected a whole number from 0 to 100, found 50.5",
            true,
        ),
        (
            "block_below = { all = 101 },",
            "block_below.all: expected a whole number from 0 to 100, found 101",
            true,
        ),
        ("block_below = { all = -1 },", "found -1", true),
        ("block_below = { all = 0/0 },", "found nan", true),
        ("block_below = { all = true },", "found true", true),
        (
            "block_below = 100,",
            "block_below: expected a table such as { default = 0, login = 20 }, found 100",
            true,
        ),
        ("block_below = { 100 },", "block_below: expected names of routes", true),
        (
            "block_bellow = { all = 100 },",
            r#"options: expected directory and block_below, found "block_bellow""#,
            true,
        ),
        ("directory = 7,", r#"directory: expected an absolute path such as "/run/bliss", found 7"#, false),
        ("directory = \"run/bliss\",", "found \"run/bliss\"", false),
    ] {
        let setup = Setup { options, server, ..Setup::new(site.path()) };
        let nginx = setup.start();
        let reply = nginx.get("/all", "192.0.2.70").unwrap();
        assert_eq!((reply.status, reply.score().is_some()), (200, scored), "{options}");
        let log = nginx.error_log();
        assert!(log.contains(expected), "{options}: {log}");
        if expected != "malformed number" {
            let what = if scored { "nobody is blocked until" } else { "no request is scored until" };
            assert!(log.contains(what), "{options}: {log}");
        }
    }
}

#[test]
fn a_route_without_a_threshold_is_logged_and_blocks_nobody() {
    if !can_run() {
        return;
    }
    let site = published();
    let server = "location = /x { set $bot_route al; try_files /index.html =404; }";
    let nginx = Nginx::start(site.path(), server);
    for _ in 0..20 {
        assert_eq!(nginx.get("/x", "192.0.2.70").unwrap().status, 200);
    }
    let log = nginx.error_log();
    let times = log.matches("no request of route `al` is blocked").count();
    assert!((1..=2).contains(&times), "once per worker: {log}");
}

#[test]
fn a_server_without_the_include_does_not_start_and_access_alone_blocks_nobody() {
    if !can_run() {
        return;
    }
    let site = published();
    let said = Setup { include: false, ..Setup::new(site.path()) }.refused();
    assert!(said.contains("bot_"), "names what is missing: {said}");

    // Only the module, from a server of somebody who wrote all else without it.
    let http = "lua_package_path 'LUA;;';";
    let server = "access_by_lua_block { require('bot_score').access() }";
    let nginx = Setup { include: false, plain: true, http, server, ..Setup::new(site.path()) }.start();
    for _ in 0..10 {
        assert_eq!(nginx.get("/", "192.0.2.70").unwrap().status, 200);
    }
    assert!(nginx.error_log().contains("include bliss.conf in the http block"), "{}", nginx.error_log());
}
