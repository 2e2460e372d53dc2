//! P5: decisions through Lua, and in nginx, are those of `docs/policy-vectors.jsonl`.

use bliss_store::PublishOptions;

#[path = "../../bliss-ffi/tests/support/policy.rs"]
mod policy;
#[path = "nginx/server.rs"]
mod server;
#[path = "state/mod.rs"]
mod state;
#[path = "../../bliss-ffi/tests/support/mod.rs"]
mod support;

use policy::{Case, Decided, Vector, vectors, vectors_of};
use server::{Nginx, can_run};
use state::{lua, run};
use support::{now, wait_until};

const OPEN: &str = r#"
    bliss = require "resty.bliss"
    h = assert(bliss.open(directory, { library = library, max_size_bytes = 2^24 }))
    h:register_http()

    function ask(request, route)
        h:clear()
        h:http(request)
        local action, rule, status, score, reason = h:decide(route, now())
        local simulated, would = h:simulated()
        local name, value = h:decision_header()
        return action, rule, status, name and name .. ": " .. value, simulated, would, h:exception(), score, reason
    end
"#;

type Asked = (
    String,
    String,
    u16,
    Option<String>,
    Option<String>,
    Option<String>,
    Option<String>,
    Option<u8>,
    Option<String>,
);

#[test]
fn p5_vectors_of_decisions_through_lua() {
    let directory = tempfile::tempdir().unwrap();
    let now = now();
    let mut publisher = policy::publisher(directory.path(), &PublishOptions::default(), now);
    let lua = lua(directory.path());
    run::<()>(&lua, OPEN);
    for (generation, vector) in vectors_of(&publisher, now).iter().enumerate() {
        policy::publish(&mut publisher, vector, now);
        for case in &vector.requests {
            let request = lua.create_table_from(case.request.iter().map(|(n, v)| (n.as_str(), v.as_str())));
            lua.globals().set("request", request.unwrap()).unwrap();
            lua.globals().set("route", case.route.as_str()).unwrap();
            let (action, rule, status, header, simulated, would, exception, score, reason): Asked =
                run(&lua, "return ask(request, route)");
            let simulated = simulated.zip(would);
            let found = Decided { action, rule, status, header, simulated, exception };
            assert_eq!(found, case.decision, "{}: {:?}", vector.name, case.request);
            assert_eq!((score.is_none(), reason.is_some()), (vector.unscored, vector.unscored));
        }
        let (name, found): (Option<String>, u64) = run(&lua, "return h:policy()");
        assert!(name.is_some());
        assert_eq!(found, generation as u64 + 1);
    }
}

#[test]
fn p4_without_a_policy_lua_allows_and_tells_the_reason() {
    let directory = tempfile::tempdir().unwrap();
    let lua = lua(directory.path());
    run::<()>(&lua, OPEN);
    let asked: Asked = run(&lua, "return ask({ ip = '192.0.2.1' })");
    assert_eq!((asked.0.as_str(), asked.1.as_str(), asked.2), ("allow", "unscored", 0));
    assert_eq!((asked.7, asked.8.as_deref()), (None, Some("no snapshot")));
    assert_eq!(run::<(Option<String>, String)>(&lua, "return h:policy()"), (None, "no policy".into()));
    assert_eq!(run::<usize>(&lua, "return #h:request_id()"), 32);
    assert_eq!(
        run::<String>(&lua, "h:clear() h:set_request_id('mine') h:decide('', 1) return h:request_id()"),
        "mine"
    );
    assert!(run::<bool>(
        &lua,
        "return not pcall(h.set_request_id, h, 'not one') and not h:set_request_id(('x'):rep(65))"
    ));
    // The handle stays usable by name, and says so, after it was closed.
    assert!(run::<bool>(&lua, "h:close() return h:exception() == nil and not pcall(h.decide, h, '', 1)"));
}

#[test]
fn p11_a_pass_goes_from_a_challenge_to_the_next_request_through_lua() {
    let directory = tempfile::tempdir().unwrap();
    let now = now();
    let lua = lua(directory.path());
    run::<()>(&lua, OPEN);
    run::<()>(
        &lua,
        "client = { ip = '192.0.2.1', user_agent = 'Mozilla/5.0', target = '/', pass = '' }
        function passed(at)
            h:clear()
            h:http(client)
            h:decide(nil, at)
            return h:passed()
        end",
    );
    assert_eq!(run::<Option<bool>>(&lua, "return h:passed()"), None, "nothing was decided");
    assert_eq!(run::<Option<bool>>(&lua, "return passed(now())"), Some(false));
    let found: (Option<String>, String) = run(&lua, "return h:pass(60, now())");
    assert_eq!(found, (None, "no snapshot".into()));
    let _publisher = policy::publisher(directory.path(), &PublishOptions::default(), now);
    // Files that were not there are looked for once a second.
    wait_until("the features", || run(&lua, "return h:pass(60, now()) ~= nil"));
    assert_eq!(run::<Option<bool>>(&lua, "return passed(now())"), Some(false));
    run::<()>(&lua, "at = now() client.pass = assert(h:pass(60, at))");
    assert!(run::<bool>(&lua, "return client.pass:find('^v1%.' .. at + 60 .. '%.%x+$') ~= nil"));
    for (chunk, expected) in [
        ("return passed(at)", Some(true)),
        ("return h:request_value('challenge_passed') == 1", Some(true)),
        ("return passed(at + 59)", Some(true)),
        ("return passed(at + 60)", Some(false)),
        ("client.ip = '192.0.2.2' return passed(at)", Some(false)),
        ("client.ip = '192.0.2.1' client.user_agent = 'curl' return passed(at)", Some(false)),
        ("client.pass = nil return passed(at)", None),
    ] {
        assert_eq!(run::<Option<bool>>(&lua, chunk), expected, "{chunk}");
    }
    assert!(run::<bool>(&lua, "return not pcall(h.pass, h, 0, at) and not pcall(h.pass, h, 2592001, at)"));
    assert!(run::<bool>(&lua, "client.ip = nil passed(at) return not pcall(h.pass, h, 60, at)"));
    assert!(run::<bool>(&lua, "h:close() return h:passed() == nil and not pcall(h.pass, h, 60, at)"));
}

#[test]
fn f1_decisions_use_no_memory_in_lua() {
    let directory = tempfile::tempdir().unwrap();
    let now = now();
    let mut publisher = policy::publisher(directory.path(), &PublishOptions::default(), now);
    let vector = vectors().into_iter().find(|vector| vector.name == "exceptions").unwrap();
    policy::publish(&mut publisher, &vector, now);
    let lua = lua(directory.path());
    run::<()>(&lua, OPEN);
    let grown: f64 = run(
        &lua,
        "local request = { target = '/a', method = 'GET', user_agent = 'Mozilla/5.0', host = 'shop.example' }
        local addresses, at = { '192.0.2.1', '192.0.2.70', '198.51.100.1' }, now()
        local function requests(n)
            local denied = 0
            for i = 1, n do
                h:clear()
                request.ip = addresses[i % 3 + 1]
                h:http(request)
                local action, rule, status, score = h:decide(nil, at)
                if action == 'block' then denied = denied + 1 end
                local simulated, would = h:simulated()
                local exception = h:exception()
            end
            assert(denied == n / 3)
        end
        requests(30000)
        local least = math.huge
        -- Rounds in which a trace was made take memory for that.
        for _ = 1, 5 do
            collectgarbage(); collectgarbage('stop')
            local before = collectgarbage('count')
            requests(30000)
            least = math.min(least, (collectgarbage('count') - before) * 1024)
        end
        return least",
    );
    assert!(grown < 2048.0, "{grown} bytes for 30,000 decisions");
}

/// As a browser sends it.
fn bytes(case: &Case) -> Vec<u8> {
    let field = |name: &str| case.request.get(name).map_or("", String::as_str);
    let cookie =
        case.request.get("pass").map_or(String::new(), |pass| format!("Cookie: bliss_pass={pass}\r\n"));
    format!(
        "{} {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: {}\r\nX-Client: {}\r\n{cookie}Content-Length: 0\r\nConnection: close\r\n\r\n",
        field("method"),
        field("target"),
        field("host"),
        field("user_agent"),
        field("ip"),
    )
    .into_bytes()
}

fn check_in_nginx(nginx: &Nginx, vector: &Vector) {
    for case in vector.requests.iter().filter(|case| case.route.is_empty()) {
        let context = format!("{}: {:?}", vector.name, case.request);
        let reply = nginx.send(&bytes(case)).unwrap();
        let expected = &case.decision;
        if reply.status == 400 {
            // A path that nginx itself refuses; to BLISS it is not known.
            assert!(
                ["%00", "%zz", "/../"].iter().any(|odd| case.request["target"].contains(odd)),
                "{context}"
            );
            continue;
        }
        assert_eq!(reply.header("x-bliss-action"), expected.action, "{context}: {}", nginx.error_log());
        let rule = expected.exception.as_ref().unwrap_or(&expected.rule);
        assert_eq!(reply.header("x-bliss-rule"), rule, "{context}");
        let simulated = expected.simulated.as_ref().map(|(rule, action)| format!("{rule}: {action}"));
        assert_eq!(reply.header("x-bliss-simulated"), simulated.unwrap_or_default(), "{context}");
        assert_eq!(reply.header("x-bliss-request-id").len(), 32, "{context}");
        let denied = match expected.action.as_str() {
            "block" => Some(expected.status),
            "challenge" => Some(403),
            _ => None,
        };
        match denied {
            Some(status) => assert_eq!(reply.status, status, "{context}"),
            None => assert!(matches!(reply.status, 200 | 404 | 405 | 429), "{context}: {}", reply.status),
        }
        if let Some((name, value)) = expected.header.as_deref().and_then(|header| header.split_once(": "))
            && denied.is_some()
        {
            assert_eq!(reply.header(&name.to_lowercase()), value, "{context}");
        }
        if expected.action == "challenge" {
            assert!(reply.body.contains("whether you are a program"), "{context}: {}", reply.body);
        }
    }
}

#[test]
fn p5_vectors_of_decisions_through_nginx() {
    if !can_run() {
        return;
    }
    let directory = support::Site::empty();
    let now = now();
    let mut publisher = policy::publisher(directory.path(), &PublishOptions::default(), now);
    let nginx = Nginx::start(directory.path(), "");
    wait_until("both workers", || nginx.ask("192.0.2.1").header("x-bot-status") == "no models");
    for vector in vectors_of(&publisher, now) {
        policy::publish(&mut publisher, &vector, now);
        check_in_nginx(&nginx, &vector);
    }
    assert_eq!(
        nginx.error_log().lines().filter(|line| line.contains("bliss:")).count(),
        0,
        "{}",
        nginx.error_log()
    );
}

#[test]
fn nginx_limits_and_logs_what_the_policy_says() {
    if !can_run() {
        return;
    }
    let directory = support::Site::empty();
    let now = now();
    let mut publisher = policy::publisher(directory.path(), &PublishOptions::default(), now);
    let vector = &vectors()[0];
    policy::publish(&mut publisher, vector, now);
    let nginx = Nginx::start(directory.path(), "");
    wait_until("a score", || nginx.ask("192.0.2.1").header("x-bot-status") == "scored");
    // One at once and five more; others are not counted with them.
    let answers: Vec<u16> = (0..12).map(|_| nginx.get("/", "192.0.2.201").unwrap().status).collect();
    assert_eq!(answers[..6], [200; 6], "{answers:?}");
    assert!(answers.contains(&429), "{answers:?}");
    assert_eq!(nginx.get("/", "192.0.2.1").unwrap().status, 200);
    let mut line = serde_json::Value::Null;
    wait_until("the log", || {
        let log = nginx.access_log();
        let lines = log.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        let found = lines.into_iter().find(|line| line["status"] == 429);
        found.is_some_and(|found| {
            line = found;
            true
        })
    });
    assert_eq!((&line["bliss_action"], &line["bliss_rule"]), (&"rate_limit_key".into(), &"flood".into()));
    assert_eq!(line["bliss_request_id"].as_str().unwrap().len(), 32);
}
