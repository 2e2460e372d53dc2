-- Decides in nginx with BLISS what is to be done with each request, and does it: by the policy of its route, and by the
-- threshold of its route where no rule of the policy holds. Sets the variables that bliss.conf names; see README.md
-- beside this file.

local bliss = require "resty.bliss"

local ipairs = ipairs
local ngx = ngx
local pairs = pairs
local pcall = pcall
local tostring = tostring
local type = type

local FORBIDDEN = ngx.HTTP_FORBIDDEN

local _M = {}

-- What `init` was given.
local directory
local block_below = {}

-- The worker's handle; nil until the directory could be opened; `why` is the reason.
local handle
local why = "not opened"

-- Scores as text, so that none is made per request.
local SCORES = {}
for score = 1, 99 do
    SCORES[score] = tostring(score)
end

local function shown(value)
    return type(value) == "string" and '"' .. value .. '"' or tostring(value)
end

local function expected(name, what, found)
    error(name .. ": expected " .. what .. ", found " .. shown(found), 0)
end

local function check(options)
    if type(options) ~= "table" then
        expected("options", "a table", options)
    end
    if type(options.directory) ~= "string" or options.directory:sub(1, 1) ~= "/" then
        expected("directory", 'an absolute path such as "/run/bliss"', options.directory)
    end
    directory = options.directory
    for name in pairs(options) do
        if name ~= "directory" and name ~= "block_below" then
            expected("options", "directory and block_below", name)
        end
    end
    local by_route = options.block_below
    if by_route == nil then
        return
    end
    if type(by_route) ~= "table" then
        expected("block_below", "a table such as { default = 0, login = 20 }", by_route)
    end
    for route, below in pairs(by_route) do
        if type(route) ~= "string" or route == "" then
            expected("block_below", "names of routes, as in { default = 0, login = 20 }", route)
        end
        -- Not a number as text: what comes out of a typo may look like one.
        if type(below) ~= "number" or below ~= math.floor(below) or below < 0 or below > 100 then
            expected("block_below." .. route, "a whole number from 0 to 100", below)
        end
    end
    block_below = by_route
end

local function open()
    local opened, reason = bliss.open(directory)
    if not opened then
        if reason ~= why then
            ngx.log(ngx.ERR, "bliss: ", reason)
            why = reason
        end
        return
    end
    opened:register_http()
    handle = opened
end

-- Between requests: what is new is mapped and bound here rather than in a request.
local function tick(premature)
    if premature then
        return
    end
    if handle and handle.broken then
        ngx.log(ngx.ERR, "bliss: ", handle:last_error())
        handle:close()
        handle = nil
    end
    if handle then
        handle:maintain()
    else
        open()
    end
end

-- For init_worker_by_lua.
--
--     directory      what bliss-service publishes to
--     block_below    optional: by route, the score below which a request is blocked: 0 (none) to 100 (all)
--
-- What is wrong is logged, and then nobody is blocked. Not in init_by_lua, whose errors keep nginx from starting, and
-- which `nginx -t` does not run.
function _M.init(options)
    local ok, wrong = pcall(check, options)
    if not ok then
        ngx.log(ngx.EMERG, "bliss: ", directory and "nobody is blocked" or "no request is scored",
            " until bot_score.init in bliss.conf is right: ", wrong)
        if not directory then
            return
        end
    end
    open()
    local started, reason = ngx.timer.every(1, tick)
    if not started then
        ngx.log(ngx.ERR, "bliss: no timer: ", reason)
    end
end

-- What is wrong with the configuration and seen only in a request, each once per worker.
local told = {}

local function tell_once(what, message)
    if not told[what] then
        told[what] = true
        ngx.log(ngx.ERR, "bliss: ", message)
    end
end

-- The whole request, as the access log has it, so that it finds the rows that requests like it made. Nothing in here
-- may yield.
local function ask(route)
    handle:clear()
    handle:http()
    return handle:decide(route, ngx.time())
end

-- The threshold of a route.
local function threshold(route)
    local below = block_below[route]
    if below then
        return below
    end
    if route ~= "default" and next(block_below) then
        tell_once("route", "no request of route `" .. route .. "` is blocked: block_below of bot_score.init does "
            .. "not name it. If none is to be, write 0. This is logged for the first such route")
    end
    return 0
end

-- The location of this server that challenges or limits, `set` as its $bliss_challenge or $bliss_limit; nil if there is
-- none.
local function location_of(name)
    if name ~= nil and name ~= "" then
        return name
    end
end

-- Does what an action asks for before the request goes on. Returns a status to answer with, or nil and the location to
-- go on in.
local function act(var, action, status)
    local name, value = handle:decision_header()
    if action == "tag" then
        if name then
            ngx.req.set_header(name, value)
        end
        return
    end
    if name then
        ngx.header[name] = value
    end
    if action == "block" then
        var.bot_action = "block"
        return status
    elseif action == "challenge" then
        var.bot_action = "challenge"
        local location = location_of(var.bliss_challenge)
        if location then
            return nil, location
        end
        return status
    elseif action == "rate_limit_key" then
        return nil, location_of(var.bliss_limit)
    end
end

-- What is to be done with the request: nothing, or a status to answer with, or nil and the location to go on in.
local function decide(var)
    local done = var.bot_action
    if done ~= "" then
        -- After an internal redirect (index, error_page, X-Accel-Redirect, ngx.exec) nginx runs the access phase again.
        -- The request has been scored and counted, and who was blocked gets the page that says so.
        if done == nil then
            tell_once("include", "no request is scored: there is no $bot_action; include bliss.conf in the http block")
        end
        return
    end
    var.bot_action, var.bliss_action, var.bliss_rule = "allow", "allow", "unscored"
    var.bliss_request_id = var.request_id
    if not handle then
        var.bot_status = "not open"
        return
    end
    local route = var.bot_route
    if route == nil or route == "" then
        route = "default"
    end
    local action, rule, status, found, reason = ask(route)
    if not action then
        var.bot_status = rule
        return
    end
    local passed = handle:passed()
    if passed ~= nil then
        var.bliss_passed = passed and "1" or "0"
    end
    if found then
        var.bot_score = SCORES[found]
        var.bot_status = "scored"
        var.bot_model, var.bot_model_version = handle:model()
        if rule == "default" and found < threshold(route) then
            action, rule, status = "block", "block_below", FORBIDDEN
        end
    else
        var.bot_status = reason
    end
    var.bliss_action, var.bliss_rule = action, handle:exception() or rule
    local simulated, would = handle:simulated()
    if simulated then
        var.bliss_simulated = simulated .. ": " .. would
    end
    if action ~= "allow" and action ~= "observe" then
        return act(var, action, status)
    end
end

local function set_status(var, status)
    var.bot_status = status
end

-- For access_by_lua. If anything fails, the request goes on.
function _M.access()
    local ok, status, location = pcall(decide, ngx.var)
    if not ok then
        ngx.log(ngx.ERR, "bliss: ", status)
        pcall(set_status, ngx.var, "error")
    elseif status then
        return ngx.exit(status)
    elseif location then
        return ngx.exec(location)
    end
end

-- Where to go on after a challenge: a path of this server, as `?to=` says. Another server, or what a browser may take
-- for one, is refused, so that nobody is sent elsewhere by a link to here.
local function target(to)
    if type(to) == "string" and #to <= 2048 and to:find("^/[!-~]*$") and not to:find("^/[/\\]") then
        return to
    end
    return "/"
end

local function pass(seconds, args)
    if not handle then
        return nil, "bliss is not open: " .. why
    end
    handle:clear()
    handle:http()
    local made, reason = handle:pass(seconds, ngx.time())
    if not made then
        return nil, reason
    end
    ngx.header["Set-Cookie"] = "bliss_pass=" .. made .. "; Path=/; HttpOnly; Secure; SameSite=Lax; Max-Age=" .. seconds
    return target(args.to)
end

-- For content_by_lua, in a location that only clients reach who passed a challenge: gives the client a pass for so many
-- seconds and sends it on to `?to=`. See README.md.
function _M.passed(seconds)
    local ok, to, reason = pcall(pass, seconds, ngx.req.get_uri_args())
    ngx.header["Cache-Control"] = "no-store"
    if not ok or not to then
        ngx.log(ngx.ERR, "bliss: no pass: ", ok and reason or to)
        return ngx.exit(ngx.HTTP_SERVICE_UNAVAILABLE)
    end
    return ngx.redirect(to, ngx.HTTP_SEE_OTHER)
end

-- What may be told about a request that is asked about: fields of bliss_http_t.
local FIELDS = {
    "ip", "method", "target", "scheme", "host", "user_agent", "referrer", "accept", "accept_language",
    "accept_encoding",
    "sec_fetch_site", "sec_fetch_mode", "sec_fetch_dest", "sec_ch_ua", "sec_ch_ua_mobile", "sec_ch_ua_platform",
}
-- Inputs that are shown.
local SHOWN = 20

local why_score = {}

local function answer(status, text)
    ngx.status = status
    ngx.header.content_type = "text/plain"
    ngx.print(text)
end

local function explain(args)
    if not handle then
        return ngx.HTTP_SERVICE_UNAVAILABLE, "bliss is not open: " .. why .. "\n"
    end
    local fields = {}
    for name, value in pairs(args) do
        if type(value) ~= "string" then
            return ngx.HTTP_BAD_REQUEST, name .. ": expected one value\n"
        end
    end
    for _, name in ipairs(FIELDS) do
        fields[name] = args[name]
    end
    if not fields.ip then
        return ngx.HTTP_BAD_REQUEST, "expected ?ip=ADDRESS, and what else is known of the request: "
            .. table.concat(FIELDS, ", ") .. "; route or model\n"
    end
    -- Takes memory only in workers that are asked.
    handle:register_explain()
    handle:clear()
    local found, reason = handle:http(fields)
    if not found then
        return ngx.HTTP_BAD_REQUEST, reason .. "\n"
    end
    found, reason = handle:explain(args.route, ngx.time(), why_score, args.model, SHOWN)
    if not found then
        return ngx.HTTP_NOT_FOUND, reason .. "\n" .. handle:last_error() .. "\n"
    end
    local lines = {
        ("score %d by %s/%s; %d where nothing is known\n"):format(
            found.score, found.model, found.version, found.expected_score),
        ("%8s %12s  %-8s %s"):format("points", "value", "row", "input"),
    }
    for _, row in ipairs(found) do
        local value = row.is_category and ("#%08x"):format(row.category_hash)
            or row.value ~= row.value and "not told" or ("%.6g"):format(row.value)
        local status = row.status == "unused" and "" or row.status
        lines[#lines + 1] = ("%+8.1f %12s  %-8s %s"):format(row.points, value, status, row.name)
    end
    return ngx.HTTP_OK, table.concat(lines, "\n") .. "\n"
end

-- For content_by_lua, in a server that only people of yours can reach: why an address has its score, as text. It takes
-- a millisecond or two in which the worker does nothing else. See README.md.
function _M.explain()
    local ok, status, text = pcall(explain, ngx.req.get_uri_args())
    if not ok then
        ngx.log(ngx.ERR, "bliss: ", status)
        status, text = ngx.HTTP_INTERNAL_SERVER_ERROR, tostring(status) .. "\n"
    end
    return answer(status, text)
end

return _M
