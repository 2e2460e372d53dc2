//! The module `resty.bliss` under LuaJIT, with libblissffi as it is installed.

use mlua::{Lua, Table};

#[path = "state/mod.rs"]
mod state;
#[path = "../../bliss-ffi/tests/support/mod.rs"]
mod support;

use state::{lua, run};
use support::{MANY_REQUESTS, Site, expected_score, library, wait_until};

/// Opens a handle `h` and registers names.
const OPEN: &str = r#"
    bliss = require "resty.bliss"
    h = assert(bliss.open(directory, { library = library, max_size_bytes = 2^24 }))
    IP, AGENT = h:register_attribute("ip"), h:register_attribute("user_agent")
    HEADERS, COUNTRY = h:register_number("header_count"), h:register_category("request.country")

    function score(address, headers, country, route)
        h:clear()
        h:set_text(IP, address)
        h:set_text(AGENT, nil)
        h:set_number(HEADERS, headers)
        h:set_category(COUNTRY, country)
        return h:score(route, now())
    end
"#;

/// A score and a reason, one of them nil.
type Scored = (Option<u8>, Option<String>);

/// The error that a chunk raises.
fn error(lua: &Lua, chunk: &str) -> String {
    match lua.load(chunk).set_name("=caller").exec() {
        Ok(()) => panic!("{chunk}: no error"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn f4_scores_come_as_soon_as_something_is_published() {
    let mut site = Site::empty();
    let lua = lua(site.path());
    run::<()>(&lua, OPEN);
    let score = |chunk: &str| run::<Scored>(&lua, chunk);
    assert_eq!(score("return score('192.0.2.70', 3, 'XX')"), (None, Some("no snapshot".into())));
    assert_eq!(run::<Option<String>>(&lua, "return h:model()"), None);
    assert_eq!(run::<(u32, u32)>(&lua, "return h:generations()"), (0, 0));
    assert!(run::<String>(&lua, "return h:last_error()").contains("nothing has been published yet"));
    site.publish_features();
    wait_until("features", || {
        score("return score('192.0.2.70', 3, 'XX')").1.as_deref() != Some("no snapshot")
    });
    assert_eq!(score("return score('192.0.2.70', 3, 'XX')"), (None, Some("no models".into())));
    site.publish_models("7");
    wait_until("models", || score("return score('192.0.2.70', 3, 'XX')").0.is_some());
    for (address, requests) in [("192.0.2.7", 7.0), ("192.0.2.70", 70.0), ("198.51.100.1", 0.0)] {
        for (headers, country) in [(3, "XX"), (12, "XX"), (12, "SE")] {
            for (route, bias) in [("nil", 0.0), ("'nowhere'", 0.0), ("'login'", 1.0)] {
                let chunk = format!("return score('{address}', {headers}, '{country}', {route})");
                let expected = expected_score(requests, headers as f32, country, bias);
                assert_eq!(score(&chunk), (Some(expected), None), "{chunk}");
            }
        }
    }
    assert_eq!(run::<(String, String)>(&lua, "return h:model()"), ("strict".into(), "7".into()));
    assert_eq!(run::<(u32, u32, u32, u32)>(&lua, "return h:counts()"), (0, 0, 1, 0));
    assert_eq!(run::<(u32, u32)>(&lua, "return h:generations()"), (1, 1));
    assert!(run::<f64>(&lua, "return h:probability()") > 0.0);
    // Each model is the shadow of the other.
    let shadow = expected_score(0.0, 12.0, "SE", 0.0);
    assert_eq!(run::<u32>(&lua, "return h:shadow_count()"), 1);
    assert_eq!(run::<Option<String>>(&lua, "return h:shadow_model()"), None, "not fetched yet");
    assert_eq!(score("return h:shadow_score(1)"), (Some(shadow), None));
    assert_eq!(run::<(String, String)>(&lua, "return h:shadow_model()"), ("demo".into(), "7".into()));
    assert!(run::<bool>(&lua, "return h:shadow_probability() < h:probability()"));
    for place in ["0", "2", "1e300"] {
        let chunk = format!("return h:shadow_score({place})");
        assert_eq!(score(&chunk), (None, Some("no such shadow".into())), "{place}");
    }
    assert_eq!(run::<Option<f64>>(&lua, "return h:shadow_probability()"), None);
    // Names follow the models.
    site.publish_models("8");
    score("return score('192.0.2.7', 3, 'XX')");
    assert_eq!(run::<(String, String)>(&lua, "return h:model()"), ("demo".into(), "8".into()));
    score("return score('192.0.2.7', 3, 'XX', 'login')");
    assert_eq!(run::<(String, String)>(&lua, "return h:model()"), ("strict".into(), "8".into()));
    assert!(run::<bool>(&lua, "return h:maintain()"));
    assert_eq!(
        run::<Option<String>>(&lua, "return h:metrics_error()"),
        None,
        "the file came with the features"
    );
}

#[test]
fn s10_there_are_no_scores_once_the_daemon_is_silent() {
    let mut site = Site::published();
    let lua = lua(site.path());
    run::<()>(&lua, OPEN);
    let score = || run::<Scored>(&lua, "return score('192.0.2.7', 3, 'XX')");
    assert!(score().0.is_some());
    site.fall_silent();
    let old = Some("old snapshot".to_owned());
    assert_eq!(score(), (None, old.clone()));
    assert!(run::<String>(&lua, "return h:last_error()").contains("is bliss-service running?"));
    assert_eq!(run::<(Option<u32>, Option<String>)>(&lua, "return h:lookup(now())"), (None, old));
    site.publisher().heartbeat();
    assert!(score().0.is_some());
}

#[test]
fn addresses_may_be_binary_and_values_may_be_missing() {
    let site = Site::published();
    let lua = lua(site.path());
    run::<()>(&lua, OPEN);
    let few = expected_score(7.0, f32::NAN, "", 0.0);
    let scored =
        run::<Scored>(&lua, r"h:clear(); h:set_binary(IP, '\192\0\2\7'); return h:score(nil, now())");
    assert_eq!(scored, (Some(few), None));
    assert_eq!(run::<(u32, u32, u32, u32)>(&lua, "return h:counts()"), (1, 0, 0, 0));
    let scored =
        run::<Scored>(&lua, "h:clear(); h:set_text(IP, '192.0.2.7, more', 9); return h:score(nil, now())");
    assert_eq!(scored, (Some(few), None));
    assert_eq!(run::<u32>(&lua, "return (h:counts())"), 1);
    let scored = run::<Scored>(&lua, "h:clear(); h:set_text(IP, nil); return h:score('', now())");
    assert_eq!(scored, (Some(few), None));
    assert_eq!(run::<(u32, u32, u32, u32)>(&lua, "return h:counts()"), (0, 0, 0, 1));
}

/// As `ngx.time()` does, and `time()` around a full second.
#[test]
fn rows_are_fresh_for_a_worker_whose_clock_lags() {
    let site = Site::published();
    let lua = lua(site.path());
    run::<()>(&lua, OPEN);
    run::<()>(&lua, "h:clear() h:set_text(IP, '192.0.2.7') h:score(nil, now() - 2)");
    assert_eq!(run::<(u32, u32, u32, u32)>(&lua, "return h:counts()"), (1, 0, 0, 0));
}

#[test]
fn values_are_held_until_they_were_read() {
    let site = Site::published();
    let lua = lua(site.path());
    run::<()>(&lua, OPEN);
    let expected = expected_score(MANY_REQUESTS + 20.0, 3.0, "XX", 0.0);
    let wrong: u32 = run(
        &lua,
        &format!(
            "local wrong = 0
            for i = 1, 2000 do
                h:clear()
                h:set_text(IP, '192.0.2.' .. (69 + i % 2))
                h:set_number(HEADERS, 3)
                h:set_category(COUNTRY, 'X' .. 'X')
                if i % 10 == 0 then collectgarbage() end
                local litter = ('litter'):rep(3) .. i
                if h:score(nil, now()) ~= {expected} then wrong = wrong + 1 end
            end
            return wrong"
        ),
    );
    assert_eq!(wrong, 0);
}

#[test]
fn features_are_looked_up_by_place() {
    let site = Site::published();
    let lua = lua(site.path());
    run::<()>(&lua, OPEN);
    run::<()>(
        &lua,
        "h:clear()
        h:set_text(IP, '192.0.2.60')
        assert(h:lookup(now()) == 3)
        assert(h:value(1) == 60 and h:value(2) == 1 and h:value(3) == 0)
        assert(h:value(0) == nil and h:value(4) == nil)
        assert(h:status(1) == 'fresh' and h:status(2) == 'absent' and h:status(3) == nil)
        h:set_text(AGENT, 'curl/8')
        h:lookup(now())
        assert(h:value(3) == 3 and h:status(2) == 'fresh')
        assert(table.concat(h:dimensions(), ' ') == 'ip user_agent')
        assert(table.concat(h:features(), ' ')
            == 'ip.requests_1m ip.unique_user_agents_5m user_agent.requests_1m')
        h:score(nil, now())
        local models = h:models()
        assert(#models == 2 and models[2].name == 'strict' and models[2].version == '1')
        assert(models[1].missing_input == nil)",
    );
}

#[test]
fn f5_runtime_failures_are_nil_and_a_reason() {
    let site = Site::published();
    let lua = lua(site.path());
    run::<()>(&lua, OPEN);
    let failed = |chunk: &str| {
        let (nothing, reason) = run::<(Option<bool>, String)>(&lua, chunk);
        assert_eq!(nothing, None, "{chunk}");
        reason
    };
    assert_eq!(failed("h:clear(); return h:set_text(IP, ('x'):rep(65537))"), "value too long");
    let reason = failed("return bliss.open(('x'):rep(5000))");
    assert!(reason.contains("length"), "{reason}");
    assert!(
        failed("return bliss.open(directory, { library = '/elsewhere' })").contains("loaded already, from")
    );
    assert!(failed("return bliss.open(directory, { max_size_bytes = 2^60 })").contains("max_size"));

    std::fs::write(site.path().join("models_state"), vec![7; 4096]).unwrap();
    let reason = failed("return bliss.open(directory)");
    assert!(reason.contains("models_state"), "{reason}");

    // A handle that registered nothing: the model's first input that is missing is named, and shadows lack it too.
    let other = Site::published();
    lua.globals().set("directory", other.path().to_str().unwrap()).unwrap();
    let missing = run::<(Option<u8>, String, String, String)>(
        &lua,
        "local other = assert(bliss.open(directory))
        local score, reason = other:score(nil, now())
        assert(select(2, other:shadow_score(1)) == 'missing input' and other:shadow_model() == 'strict')
        return score, reason, other:missing_input(), other:last_error()",
    );
    assert_eq!(
        (missing.0, missing.1.as_str(), missing.2.as_str()),
        (None, "missing input", "request.header_count")
    );
    assert!(missing.3.contains("model \"demo\" takes \"request.header_count\""), "{}", missing.3);
}

#[test]
fn f5_misuse_raises_errors_where_the_caller_stands() {
    let site = Site::published();
    let lua = lua(site.path());
    run::<()>(&lua, OPEN);
    for (chunk, expected) in [
        ("bliss.open()", "caller:1: expected the name of a directory, found a nil"),
        ("h:register_attribute()", "caller:1: expected a name, found a nil"),
        ("h:register_attribute('')", "caller:1: a name has 1 to 128 bytes"),
        ("h:register_category('header_count')", "caller:1: this input is registered with the other type"),
        ("h:set_text(IP, 7)", "caller:1: expected a string or nil, found a number"),
        ("h:set_text(IP, 'abc', 4)", "caller:1: expected a length of 0 to 3 bytes, found 4"),
        ("h:set_binary(IP, {})", "caller:1: expected a string or nil, found a table"),
        ("h:set_text(63, 'x')", "caller:1: no attribute has this id"),
        ("h:set_u64(IP, -1)", "caller:1: expected a whole number"),
        ("h:set_number(COUNTRY, 1)", "caller:1: no number has this id"),
        ("h:set_category(HEADERS, 'x')", "caller:1: no category has this id"),
        ("h:close() h:score(nil, now())", "caller:1: the handle is closed"),
        ("h:clear()", "caller:1: the handle is closed"),
    ] {
        let found = error(&lua, chunk);
        assert!(found.contains(expected), "{chunk}: {found}");
    }
    run::<()>(&lua, "h:close(); h = nil; collectgarbage(); collectgarbage()");
}

#[test]
fn f5_a_failed_load_lists_every_path_tried() {
    let site = Site::empty();
    let lua = lua(site.path());
    let path = |chunk| run::<(Option<bool>, String)>(&lua, chunk).1;
    let reason = path(
        // As on a machine on which it is nowhere, whatever the loader's own search path holds here.
        "package.cpath = '/opt/a/?.so;./?.so;/opt/b/lib?.so'
        local ffi = require('ffi')
        ffi_load, ffi.load = ffi.load, function(path)
            return ffi_load(path:find('/', 1, true) and path or '/nowhere/' .. path)
        end
        return require('resty.bliss').open(directory)",
    );
    for tried in [
        "/opt/a/libblissffi.so.0 (",
        "/opt/a/libblissffi.so (",
        "/opt/b/libblissffi.so.0 (",
        "\n    libblissffi.so.0 (",
    ] {
        assert!(reason.contains(tried), "{reason}");
    }
    let reason =
        path("return require('resty.bliss').open(directory, { library = '/nowhere/libblissffi.so' })");
    assert!(reason.contains("/nowhere/libblissffi.so (") && !reason.contains("/opt"), "{reason}");
    // A library that is another one.
    let reason = path(
        "require('ffi').load = ffi_load; package.loaded['resty.bliss'] = nil
        return require('resty.bliss').open(directory, { library = 'libc.so.6' })",
    );
    assert!(reason.contains("it is not libblissffi"), "{reason}");
    // What failed can be tried again.
    assert!(run::<bool>(&lua, "return require('resty.bliss').open(directory, { library = library }) ~= nil"));
    assert!(
        run::<String>(&lua, "return select(2, require('resty.bliss').library())").contains("libblissffi")
    );
}

#[test]
fn f5_the_library_is_found_along_cpath() {
    let site = Site::empty();
    let lua = lua(site.path());
    let installed = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(&library().shared, installed.path().join("libblissffi.so.0")).unwrap();
    let cpath = format!("/nowhere/?.so;{}/?.so", installed.path().display());
    lua.globals().get::<Table>("package").unwrap().set("cpath", cpath).unwrap();
    run::<()>(&lua, "assert(require('resty.bliss').open(directory))");
}

#[test]
fn f5_a_library_of_another_version_is_refused() {
    let site = Site::empty();
    let lua = lua(site.path());
    run::<()>(&lua, "require('resty.bliss.cdefs').ABI_VERSION = 99");
    let (nothing, reason) = run::<(Option<bool>, String)>(
        &lua,
        "return require('resty.bliss').open(directory, { library = library })",
    );
    assert_eq!(nothing, None);
    assert!(reason.contains("its binary interface has version 1, this module needs 99"), "{reason}");
}

/// What a worker does for a request.
const REQUESTS: &str = r#"
    -- Asked once: a function that gets hot before its loop does would be recorded to this call, which is not compiled.
    local time = now()
    local addresses = { "192.0.2.7", "192.0.2.70", "198.51.100.1", "no address" }
    function requests(n)
        local sum = 0
        for i = 1, n do
            h:clear()
            h:set_text(IP, addresses[i % 4 + 1])
            h:set_binary(AGENT, "curl/8")
            h:set_number(HEADERS, i % 10)
            h:set_category(COUNTRY, "XX")
            local score = h:score("login", time)
            local name, version = h:model()
            local fresh, stale, missing, absent = h:counts()
            sum = sum + (score or 0) + fresh + #name + #version + h:probability()
        end
        return sum
    end
    function shadows(n)
        local sum = 0
        for i = 1, n do
            h:clear()
            h:set_text(IP, addresses[i % 4 + 1])
            local score = h:score("login", time)
            if h:shadow_count() == 1 then
                local shadow, probability = h:shadow_score(1), h:shadow_probability()
                local name, version = h:shadow_model()
                sum = sum + score - shadow + probability + #name + #version
            end
        end
        return sum
    end
    local whole = {
        ip = "192.0.2.7", method = "GET", target = "/a/b?c=d", scheme = "https", host = "shop.example",
        user_agent = "Mozilla/5.0 (X11; Linux x86_64; rv:125.0) Gecko/20100101 Firefox/125.0", referrer = "",
        accept = "*/*", accept_language = "en", accept_encoding = "gzip",
    }
    function whole_requests(n)
        local sum = 0
        for i = 1, n do
            h:clear()
            h:http(whole)
            h:set_number(HEADERS, i % 10)
            sum = sum + (h:score("login", time) or 0)
        end
        return sum
    end
    -- As nginx's variables are, but that they are there already.
    ngx = { var = {
        binary_remote_addr = "\192\0\2\7", request_method = "GET", request_uri = "/a", scheme = "https", host = "shop.example",
        http_user_agent = "curl/8",
    } }
    function requests_of_nginx(n)
        local sum = 0
        for i = 1, n do
            h:clear()
            h:http()
            sum = sum + (h:score("login", time) or 0)
        end
        return sum
    end
    local why = {}
    function explanations(n)
        local sum = 0
        for i = 1, n do
            h:clear()
            h:set_text(IP, addresses[i % 4 + 1])
            h:set_number(HEADERS, i % 10)
            h:set_category(COUNTRY, "XX")
            sum = sum + h:explain("login", time, why, i % 2 == 0 and "demo" or nil).score
        end
        return sum
    end
"#;

#[test]
fn f5_the_hot_path_is_compiled() {
    let site = Site::published();
    let lua = lua(site.path());
    run::<()>(&lua, OPEN);
    run::<()>(&lua, "h:register_http()");
    run::<()>(&lua, REQUESTS);
    run::<()>(
        &lua,
        r#"
        local util = require "jit.util"
        -- Leaving a loop, an inner loop, a loop unrolled too often: recording began at a function that got hot before the
        -- loop around it did (which depends on addresses), and begins again there. Nothing in what was recorded is to blame.
        local elsewhere = { [8] = true, [9] = true, [10] = true }
        function record(run)
            jit.flush()
            local traces = 0
            -- The trace at the root of each trace.
            local roots = {}
            aborts, links = {}, {}
            local function event(what, trace, func, pc, code, reason)
                if what == "start" then
                    -- For a side trace, `code` is its parent.
                    roots[trace] = roots[code] or code or trace
                elseif what == "stop" then
                    traces = traces + 1
                elseif what == "abort" and not elsewhere[code] then
                    aborts[#aborts + 1] = util.funcinfo(func, pc).loc .. " " .. tostring(reason or code)
                end
            end
            jit.attach(event, "trace")
            run()
            jit.attach(event)
            for trace = 1, traces do
                local info = util.traceinfo(trace)
                local link = info and info.linktype or "gone"
                -- A side exit of a function that was compiled before the loop: where it is recorded it runs into the loop
                -- ("elsewhere"), and after some attempts it is left to the interpreter. The loop has a trace of its own.
                if link == "interpreter" and util.traceinfo(roots[trace]).linktype == "return" then
                    link = "return"
                end
                links[#links + 1] = link
            end
        end
        -- The first call of a C function finds its symbol, which is not compiled.
        requests(1)
        shadows(1)
        whole_requests(1)
        requests_of_nginx(1)
        record(function() requests(20000) end)
        "#,
    );
    let compiled = || {
        let aborts: Vec<String> = run(&lua, "return aborts");
        let links: Vec<String> = run(&lua, "return links");
        // The loop with all that it calls is one trace that ends where it began; side traces lead back to it. A function
        // may have been compiled before the loop was, to its return. A "stitch" would be a call that is not compiled.
        assert_eq!(aborts, Vec::<String>::new());
        assert!(links.iter().any(|link| link == "loop"), "{links:?}");
        assert!(links.iter().all(|link| ["loop", "root", "return"].contains(&link.as_str())), "{links:?}");
    };
    compiled();
    run::<()>(&lua, "record(function() shadows(20000) end)");
    compiled();
    run::<()>(&lua, "record(function() whole_requests(20000) end)");
    compiled();
    run::<()>(&lua, "record(function() requests_of_nginx(20000) end)");
    compiled();

    // That this would be seen: a loop that makes a closure is not compiled.
    run::<()>(&lua, "record(function() for i = 1, 2000 do local f = function() return i end; f() end end)");
    assert!(!run::<Vec<String>>(&lua, "return aborts").is_empty());
}

/// Bytes that many requests use. Traces take memory too, and where recording was aborted before it is tried again late:
/// rounds in which something was compiled are repeated.
const GROWN: &str = "
    local events
    local function event() events = events + 1 end
    jit.attach(event, 'trace')
    local grown
    for round = 1, 10 do
        events = 0
        collectgarbage(); collectgarbage('stop')
        local before = collectgarbage('count')
        requests(100000)
        shadows(100000)
        grown = collectgarbage('count') - before
        collectgarbage('restart')
        if events == 0 then
            jit.attach(event)
            return grown * 1024
        end
    end
    error('still compiling; ' .. grown * 1024 .. ' bytes')
";

/// The same of whole requests and explanations, in bytes: what the interpreter makes before it enters the compiled loop.
const GROWN_WHOLE: &str = "
    collectgarbage(); collectgarbage('stop')
    local before = collectgarbage('count')
    whole_requests(50000)
    requests_of_nginx(50000)
    explanations(2000)
    local grown = collectgarbage('count') - before
    collectgarbage('restart')
    return grown * 1024
";

#[test]
fn f1_no_memory_is_used_per_request() {
    let mut site = Site::published();
    let lua = lua(site.path());
    run::<()>(&lua, OPEN);
    run::<()>(&lua, "h:register_http(); h:register_explain()");
    run::<()>(&lua, REQUESTS);
    let warm = "requests(20000); shadows(20000); whole_requests(20000); requests_of_nginx(20000); explanations(2000)";
    run::<()>(&lua, warm);
    assert_eq!(run::<f64>(&lua, GROWN), 0.0, "bytes");
    // A new publication costs the names of its models and of their inputs, once.
    site.publish_models("a version that was not there before");
    run::<()>(&lua, warm);
    assert_eq!(run::<f64>(&lua, GROWN), 0.0, "bytes");
    // Rounds in which a trace was made take memory for that.
    let least = (0..5).map(|_| run::<f64>(&lua, GROWN_WHOLE)).fold(f64::INFINITY, f64::min);
    assert!(least < 2048.0, "{least} bytes for 102,000 requests");
}

#[test]
fn unscored_requests_use_no_memory_either() {
    let site = Site::empty();
    let lua = lua(site.path());
    run::<()>(&lua, OPEN);
    let grown: f64 = run(
        &lua,
        "local function requests(n)
            local unscored = 0
            for i = 1, n do
                h:clear()
                h:set_text(IP, '192.0.2.7')
                local score, reason = h:score(nil, 0)
                if reason == 'no snapshot' then unscored = unscored + 1 end
            end
            assert(unscored == n)
        end
        requests(10000)
        collectgarbage(); collectgarbage('stop')
        local before = collectgarbage('count')
        requests(50000)
        return (collectgarbage('count') - before) * 1024",
    );
    assert_eq!(grown, 0.0, "bytes");
}

/// D2: whole requests through Lua say what the test vectors say.
#[test]
fn d2_vectors_of_request_values_through_lua() {
    let mut site = Site::published();
    let lua = lua(site.path());
    run::<()>(&lua, OPEN);
    run::<bool>(&lua, "return h:register_http()");
    for line in include_str!("../../docs/http-vectors.jsonl").lines() {
        let vector: serde_json::Value = serde_json::from_str(line).unwrap();
        let texts = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
        let hosts: Vec<String> = vector["site_hosts"].as_array().unwrap().iter().map(texts).collect();
        site.publish_site_hosts(&hosts);
        let request = lua.create_table().unwrap();
        for (name, value) in vector["request"].as_object().unwrap() {
            request.set(name.as_str(), value.as_str().unwrap()).unwrap();
        }
        lua.globals().set("request", request).unwrap();
        run::<bool>(&lua, "assert(h:maintain()); h:clear(); return h:http(request)");
        for (name, expected) in vector["values"].as_object().unwrap() {
            let found: f64 = run(&lua, &format!("return h:request_value('{name}')"));
            let found = Some(found).filter(|value| !value.is_nan());
            assert_eq!(found, expected.as_f64(), "{}: {name}", vector["name"]);
        }
    }
}

/// What the model says is in `support`: 60 % of the training data had many requests, 30 % many headers, 10 % came from XX.
#[test]
fn d4_scores_are_explained() {
    let mut site = Site::published();
    let lua = lua(site.path());
    run::<()>(&lua, OPEN);
    let misuse = [
        ("h:explain(nil, now(), {})", "caller:1: explanations are not registered; call register_explain"),
        ("h:register_explain(); h:explain(nil, now())", "caller:1: expected a table to fill, found a nil"),
    ];
    for (chunk, expected) in misuse {
        let found = error(&lua, chunk);
        assert!(found.contains(expected), "{chunk}: {found}");
    }
    run::<()>(
        &lua,
        "why = {}; assert(score('192.0.2.60', 3, 'XX')); assert(h:explain(nil, now(), why) == why)",
    );
    assert_eq!(run::<u8>(&lua, "return why.score"), expected_score(60.0, 3.0, "XX", 0.0));
    assert_eq!(run::<(String, String)>(&lua, "return why.model, why.version"), ("demo".into(), "1".into()));
    assert!(run::<bool>(&lua, "return why.probability == h:probability() and why.answer == 3.5"));
    let near = |chunk: &str, expected: f64| {
        let found: f64 = run(&lua, &format!("return {chunk}"));
        assert!((found - expected).abs() < 1e-9, "{chunk}: {found} instead of {expected}");
    };
    near("why.expected", 0.7);
    let names = run::<(String, String, String)>(&lua, "return why[1].name, why[2].name, why[3].name");
    assert_eq!(
        names,
        ("ip.requests_1m".into(), "request.country".into(), "request.header_count".into()),
        "the largest contribution first"
    );
    near("why[1].contribution", 1.6);
    near("why[2].contribution", 0.9);
    near("why[3].contribution", 0.3);
    near(
        "why[1].points + why[2].points + why[3].points",
        run::<f64>(&lua, "return why.score - why.expected_score"),
    );
    let first = run::<(f64, String, bool)>(&lua, "return why[1].value, why[1].status, why[1].is_category");
    assert_eq!(first, (60.0, "fresh".into(), false));
    assert!(run::<bool>(
        &lua,
        "return why[2].is_category and why[2].category_hash > 0 and why[2].value ~= why[2].value"
    ));
    assert_eq!(run::<String>(&lua, "return why[2].status"), "unused");
    // The rows are used again; fewer are wanted; another model is asked; a row is missing.
    run::<()>(
        &lua,
        "first = why[1]; score('198.51.100.1', 9, 'SE'); assert(h:explain(nil, now(), why, 'strict', 2))",
    );
    assert!(run::<bool>(&lua, "return #why == 2 and why[1] == first and why.model == 'strict'"));
    assert_eq!(
        run::<(String, String)>(&lua, "return why[1].name, why[1].status"),
        ("ip.requests_1m".into(), "missing".into())
    );
    near("why[1].contribution", -2.4);
    // What cannot be explained says why, and what is to be done.
    let refused = |chunk: &str| run::<(Option<bool>, String)>(&lua, chunk);
    assert_eq!(refused("return h:explain(nil, now(), why, 'nobody')"), (None, "no such model".into()));
    site.publish_web_model("2");
    assert_eq!(refused("return h:explain(nil, now(), why)"), (None, "no leaf weights".into()));
    assert!(run::<String>(&lua, "return h:last_error()").contains("explain = true"));
    assert!(run::<Scored>(&lua, "return score('192.0.2.60', 3, 'XX')").0.is_some(), "it scores all the same");
    assert!(error(&lua, "h:close(); h:explain(nil, now(), why)").contains("caller:1: the handle is closed"));
}

#[test]
fn whole_requests_are_checked() {
    let site = Site::published();
    let lua = lua(site.path());
    run::<()>(&lua, OPEN);
    assert!(error(&lua, "h:http({})").contains("caller:1: whole requests are not registered"));
    run::<bool>(&lua, "return h:register_http()");
    assert!(
        error(&lua, "h:http({ method = 1 })").contains("expected a string or nil as method, found a number")
    );
    let long = "return h:http({ host = ('x'):rep(65537) })";
    assert_eq!(run::<Scored>(&lua, long), (None, Some("value too long".into())));
    assert!(error(&lua, "h:request_value('nope')").contains("no value of this name"));
    // Strings that nothing else holds stay for as long as they are read.
    let kept: f64 = run(
        &lua,
        "h:clear(); h:http({ target = '/' .. ('a/'):rep(40) .. '?q=1' }); collectgarbage(); collectgarbage()
        for i = 1, 1000 do local _ = ('b/'):rep(40) .. i end
        return h:request_value('path_depth')",
    );
    assert_eq!(kept, 41.0);
    // A call that fails changes nothing: the library still reads the request before, whose strings must not be collected.
    let kept: f64 = run(
        &lua,
        "pcall(h.http, h, { method = 'B' .. 'ET', target = '/' .. ('c/'):rep(50), sec_ch_ua_platform = 1 })
        h:http({ target = ('d/'):rep(50), sec_ch_ua_platform = ('x'):rep(65537) })
        collectgarbage(); collectgarbage()
        for i = 1, 1000 do local _ = ('e/'):rep(40) .. i end
        return h:request_value('path_depth') + h:request_value('query_length') / 10",
    );
    assert!((kept - 41.3).abs() < 1e-6, "{kept}");
}
