-- Features, bot scores and decisions of BLISS inside nginx's workers, through libblissffi and LuaJIT's FFI.
--
--     local bliss = require "resty.bliss"
--     local handle = assert(bliss.open("/run/bliss"))    -- once per worker
--     local IP = handle:register_attribute("ip")                  -- once per handle
--
--     handle:clear()                                     -- for each request, without yielding in between
--     handle:set_binary(IP, ngx.var.binary_remote_addr)
--     local score, reason = handle:score("default", ngx.time())
--     local action, rule, status = handle:decide("default", ngx.time())     -- that, or this
--
-- Functions return nil and a reason for failures at run time, and raise an error where they are
-- called wrongly. What is called per request makes no strings, tables or closures, and is compiled by the JIT.
-- See docs/lua.md.

local ffi = require "ffi"
local cdefs = require "resty.bliss.cdefs"

local ffi_new = ffi.new
local ffi_cast = ffi.cast
local ffi_gc = ffi.gc
local ffi_load = ffi.load
local ffi_sizeof = ffi.sizeof
local ffi_string = ffi.string
local error = error
local floor = math.floor
local ipairs = ipairs
local pcall = pcall
local setmetatable = setmetatable
local tonumber = tonumber
local tostring = tostring
local type = type

local has_table_new, table_new = pcall(require, "table.new")
if not has_table_new then
    table_new = function() return {} end
end
local has_table_clear, table_clear = pcall(require, "table.clear")
if not has_table_clear then
    table_clear = function(t)
        for key in pairs(t) do
            t[key] = nil
        end
    end
end

local OK = 0
local MISSING_INPUT = 4
local PANIC = -7
local MAX_ATTRIBUTES = 64
local MAX_VALUE_BYTES = 65536
-- The texts of a bliss_http_t in their order, and the variables of nginx that tell them.
local HTTP_FIELDS = {
    "ip", "ip_bytes", "method", "target", "scheme", "host", "user_agent", "referrer", "accept", "accept_language",
    "accept_encoding", "sec_fetch_site", "sec_fetch_mode", "sec_fetch_dest", "sec_ch_ua", "sec_ch_ua_mobile",
    "sec_ch_ua_platform", "pass",
}
local HTTP_VARIABLES = {
    false, "binary_remote_addr", "request_method", "request_uri", "scheme", "host", "http_user_agent", "http_referer",
    "http_accept", "http_accept_language", "http_accept_encoding", "http_sec_fetch_site", "http_sec_fetch_mode",
    "http_sec_fetch_dest", "http_sec_ch_ua", "http_sec_ch_ua_mobile", "http_sec_ch_ua_platform",
    "cookie_bliss_pass",
}
local HTTP_FIELD_COUNT = #HTTP_FIELDS
local ACTIONS = { [0] = "allow", "observe", "tag", "rate_limit_key", "challenge", "block" }
local MAX_ID_BYTES = 64
local PASS_BYTES = 64
local STATUSES = { [0] = "unused", "fresh", "stale", "missing", "absent" }

local _M = { _VERSION = "0.1.0" }

-- The library, and where it came from; loaded by the first `open`.
local lib, lib_path

-- What bliss_last_error and bliss_open write to.
local MESSAGE_BYTES = 512
local message_buffer = ffi_new("char[?]", MESSAGE_BYTES)
-- What bliss_pass writes to.
local pass_buffer = ffi_new("char[?]", PASS_BYTES)

-- Paths at which the library may lie: beside other native modules, then where the system looks.
local function candidates()
    local paths = {}
    for template in package.cpath:gmatch("[^;]+") do
        local directory = template:match("^(.*/)[^/]*%?")
        if directory and directory:sub(1, 1) == "/" and not directory:find("?", 1, true) then
            paths[#paths + 1] = directory .. "libblissffi.so.0"
            paths[#paths + 1] = directory .. "libblissffi.so"
        end
    end
    paths[#paths + 1] = "libblissffi.so.0"
    paths[#paths + 1] = "libblissffi.so"
    return paths
end

local function load_library(wanted)
    if lib then
        if wanted and wanted ~= lib_path then
            return nil, "libblissffi is loaded already, from " .. lib_path .. "; not from " .. wanted
        end
        return lib
    end
    local tried = {}
    for _, path in ipairs(wanted and { wanted } or candidates()) do
        local loaded, found = pcall(ffi_load, path)
        if loaded then
            local has_version, version = pcall(function() return found.bliss_abi_version() end)
            if has_version and version == cdefs.ABI_VERSION then
                lib, lib_path = found, path
                return lib
            end
            found = has_version
                    and "its binary interface has version " .. tostring(version) .. ", this module needs "
                        .. cdefs.ABI_VERSION .. "; install the libblissffi that came with it"
                or "it is not libblissffi: " .. tostring(version)
        end
        tried[#tried + 1] = path .. " (" .. tostring(found) .. ")"
    end
    return nil, "cannot load libblissffi; tried:\n    " .. table.concat(tried, "\n    ")
end

local Handle = {}
local handle_metatable = { __index = Handle }

-- What went wrong with the last call, in words.
local function last_error(self)
    local len = tonumber(lib.bliss_last_error(self.pointer, message_buffer, MESSAGE_BYTES))
    if len == 0 then
        return self.pointer and "the handle cannot be used here" or "the handle is closed"
    end
    return ffi_string(message_buffer)
end

-- A code below 0: an error of the caller's, or, where the library is to blame, nil and a reason. Tail-called, so that
-- level 2 is whoever called the method.
local function failed(self, code)
    if code == PANIC then
        self.broken = true
        return nil, last_error(self)
    end
    error(last_error(self), 2)
end

-- Opens the directory that a daemon publishes to, for the worker that calls it. It need not exist yet.
--
-- Options: `library`, the path of libblissffi (default: along package.cpath, then where the system looks);
-- `max_size_bytes`, see bliss_options_t in bliss_ffi.h.
function _M.open(directory, options)
    if type(directory) ~= "string" then
        error("expected the name of a directory, found a " .. type(directory), 2)
    end
    options = options or {}
    local loaded, why = load_library(options.library)
    if not loaded then
        return nil, why
    end
    local given = ffi_new("bliss_options_t")
    given.size = ffi_sizeof(given)
    given.max_size_bytes = options.max_size_bytes or 0
    local out = ffi_new("bliss_t *[1]")
    local code = lib.bliss_open(directory, #directory, given, out, message_buffer, MESSAGE_BYTES)
    if code ~= OK then
        return nil, ffi_string(message_buffer)
    end
    local answer, found = ffi_new("bliss_answer_t"), ffi_new("bliss_features_t")
    local shadow, decision = ffi_new("bliss_shadow_t"), ffi_new("bliss_decision_t")
    decision.size = ffi_sizeof(decision)
    answer.size = ffi_sizeof(answer)
    shadow.size = ffi_sizeof(shadow)
    found.size = ffi_sizeof(found)
    local http = ffi_new("bliss_http_t")
    http.size = ffi_sizeof(http)
    -- So that there is no score before the first one.
    answer.result = 1
    return setmetatable({
        pointer = ffi_gc(out[0], lib.bliss_close),
        answer = answer,
        found = found,
        -- The shadow that was fetched last; its name is NULL where none was since the last score.
        shadow = shadow,
        decision = decision,
        -- Names of rules and the like, so that they need not be made again while the same policies are in force.
        kept = table_new(0, 64),
        kept_generation = -1,
        -- Whether a bug in the library was caught: close the handle and open another one.
        broken = false,
        -- The whole request, its texts as an array, and the strings that they point to.
        request = http,
        texts = ffi_cast("bliss_text_t *", ffi_cast("char *", http) + ffi_sizeof("size_t")),
        told = table_new(HTTP_FIELD_COUNT, 0),
        -- Those of a request that is being handed over: until the library has it, it reads the ones before.
        coming = table_new(HTTP_FIELD_COUNT, 0),
        -- Values that the library has pointers to, by attribute; they must not be collected before the next request.
        held = table_new(MAX_ATTRIBUTES, 1),
        -- Names of models by index, made when models are bound.
        bound = -1,
        names = table_new(64, 1),
        versions = table_new(64, 1),
        -- An explanation and one of its contributions, made by `register_explain`; and names of inputs, by model and
        -- number.
        explanation = false,
        contribution = false,
        input_names = table_new(64, 1),
        inputs_bound = -1,
        -- What `request_value` writes to.
        number = ffi_new("float[1]"),
        -- Reasons by their codes, made once.
        reasons = table_new(16, 1),
    }, handle_metatable)
end

-- The version of the library, and where it was found; nil before the first `open`.
function _M.library()
    if lib then
        return ffi_string(lib.bliss_version()), lib_path
    end
end

-- Names -------------------------------------------------------------------------------------------------------------

local function id_of(self, register, name)
    if type(name) ~= "string" then
        error("expected a name, found a " .. type(name), 2)
    end
    local id = register(self.pointer, name, #name)
    if id < 0 then
        return failed(self, id)
    end
    return id
end

-- The id of an attribute of requests, such as "ip" or "user_agent". Register names once, after opening.
function Handle:register_attribute(name)
    return id_of(self, lib.bliss_attribute_register, name)
end

-- The id of a number that requests bring of their own; models call it "request.NAME".
function Handle:register_number(name)
    return id_of(self, lib.bliss_number_register, name)
end

-- The id of a category that requests bring of their own; models call it "request.NAME".
function Handle:register_category(name)
    return id_of(self, lib.bliss_category_register, name)
end

-- Registers what `http` hands over: the attributes ip, user_agent, browser, crawler, host, path, method, scheme and
-- referrer, and what a request says by itself ("request.no_referrer" and so on). Once, after opening.
function Handle:register_http()
    local code = lib.bliss_http_register(self.pointer)
    if code ~= OK then
        return failed(self, code)
    end
    return true
end

-- One request -------------------------------------------------------------------------------------------------------
-- From `clear` to `score` there must be no yield (no cosocket, no ngx.sleep): other requests use the same handle.

-- Begins a request.
function Handle:clear()
    local code = lib.bliss_request_clear(self.pointer)
    if code ~= OK then
        return failed(self, code)
    end
    return true
end

-- Sets the value of an attribute as text: an address, hexadecimal digits, a string or a decimal number. Without a
-- value (nil) the attribute is absent. With a length, only so many bytes of the value count; so no string has to be
-- made for a part of another.
function Handle:set_text(id, value, len)
    if value == nil then
        return true
    end
    if type(value) ~= "string" then
        error("expected a string or nil, found a " .. type(value), 2)
    end
    len = len or #value
    if len < 0 or len > #value then
        error("expected a length of 0 to " .. #value .. " bytes, found " .. len, 2)
    end
    if len > MAX_VALUE_BYTES then
        return nil, "value too long"
    end
    local code = lib.bliss_request_set_text(self.pointer, id, value, len)
    if code ~= OK then
        return failed(self, code)
    end
    self.held[id + 1] = value
    return true
end

-- Sets the value of an attribute as bytes: an address as $binary_remote_addr has it, a digest, a string.
function Handle:set_binary(id, value)
    if value == nil then
        return true
    end
    if type(value) ~= "string" then
        error("expected a string or nil, found a " .. type(value), 2)
    end
    if #value > MAX_VALUE_BYTES then
        return nil, "value too long"
    end
    local code = lib.bliss_request_set_binary(self.pointer, id, value, #value)
    if code ~= OK then
        return failed(self, code)
    end
    self.held[id + 1] = value
    return true
end

-- Sets the value of an attribute that is a number, such as "asn".
function Handle:set_u64(id, value)
    if value == nil then
        return true
    end
    if type(value) ~= "cdata" and (type(value) ~= "number" or value < 0 or value >= 2^64 or value ~= floor(value)) then
        error("expected a whole number from 0 to 2^64 - 1, or nil", 2)
    end
    local code = lib.bliss_request_set_u64(self.pointer, id, value)
    if code ~= OK then
        return failed(self, code)
    end
    return true
end

-- Sets the value of a number of the request; without one (nil) it is NaN to models.
function Handle:set_number(id, value)
    if value == nil then
        return true
    end
    local code = lib.bliss_request_set_number(self.pointer, id, value)
    if code ~= OK then
        return failed(self, code)
    end
    return true
end

-- Sets the value of a category of the request; without one (nil) it is the empty string to models.
function Handle:set_category(id, value)
    if value == nil then
        return true
    end
    if type(value) ~= "string" then
        error("expected a string or nil, found a " .. type(value), 2)
    end
    if #value > MAX_VALUE_BYTES then
        return nil, "value too long"
    end
    local code = lib.bliss_request_set_category(self.pointer, id, value, #value)
    if code ~= OK then
        return failed(self, code)
    end
    return true
end

-- Hands a whole request over: after this and `clear` no attribute of `register_http` need be set.
--
-- Without a table it is nginx's current request. Else the table's fields are those of bliss_http_t: `ip` (text) or
-- `ip_bytes`, `method`, `target`, `scheme`, `host`, `user_agent`, `referrer`, `accept`, `accept_language`,
-- `accept_encoding`, `sec_fetch_site`, `sec_fetch_mode`, `sec_fetch_dest`, `sec_ch_ua`, `sec_ch_ua_mobile`,
-- `sec_ch_ua_platform`, `pass` (what `pass` made; of nginx's request, the cookie bliss_pass). A field that is not there
-- is not told, and NaN to models; "" says that the request has none.
-- Of nginx's current request the first 64 KiB of each text count, so that no client can keep itself from being scored.
function Handle:http(fields)
    local texts, coming = self.texts, self.coming
    local variables = not fields and ngx.var -- luacheck: ignore ngx
    for i = 1, HTTP_FIELD_COUNT do
        local value
        if fields then
            value = fields[HTTP_FIELDS[i]]
        elseif HTTP_VARIABLES[i] then
            value = variables[HTTP_VARIABLES[i]] or ""
        end
        if value == nil then
            texts[i - 1].data = nil
            texts[i - 1].len = 0
        elseif type(value) ~= "string" then
            error("expected a string or nil as " .. HTTP_FIELDS[i] .. ", found a " .. type(value), 2)
        elseif #value > MAX_VALUE_BYTES and fields then
            return nil, "value too long"
        else
            texts[i - 1].data = value
            texts[i - 1].len = #value > MAX_VALUE_BYTES and MAX_VALUE_BYTES or #value
        end
        coming[i] = value or false
    end
    local code = lib.bliss_request_http(self.pointer, self.request)
    if code ~= OK then
        return failed(self, code)
    end
    self.told, self.coming = coming, self.told
    return true
end

-- What the request that was handed over says by itself under a name, such as "no_referrer": NaN where it is not told.
function Handle:request_value(name)
    local code = lib.bliss_request_value(self.pointer, name, #name, self.number)
    if code ~= OK then
        return failed(self, code)
    end
    return self.number[0]
end

-- The reason for a code above 0.
local function reason_of(self, code)
    local reason = self.reasons[code]
    if not reason then
        reason = last_error(self):match("^[^:]*")
        self.reasons[code] = reason
    end
    return reason
end

-- Scores the request for a route (nil or "" for the default one) at a time in seconds, such as ngx.time().
-- Returns 1 (certainly automated) to 99 (certainly human); or nil and the reason why there is no score.
function Handle:score(route, now)
    route = route or ""
    self.shadow.model_name.data = nil
    local code = lib.bliss_score(self.pointer, route, #route, now, self.answer)
    if code == OK then
        return self.answer.score
    end
    if code > 0 then
        return nil, reason_of(self, code)
    end
    return failed(self, code)
end

-- What is to be done with the request -----------------------------------------------------------------------

-- Says which id the request has in logs, such as nginx's $request_id: 1 to 64 bytes of visible ASCII. Without it
-- `decide` makes one. It holds until `clear`.
function Handle:set_request_id(id)
    if type(id) ~= "string" then
        error("expected a string, found a " .. type(id), 2)
    end
    if #id > MAX_ID_BYTES then
        return nil, "request id too long"
    end
    local code = lib.bliss_request_set_id(self.pointer, id, #id)
    if code ~= OK then
        return failed(self, code)
    end
    return true
end

-- A text of the last decision; nil if there is none. Those that occur again and again are kept.
local function kept(self, found)
    if found.data == nil then
        return nil
    end
    local generation = tonumber(self.decision.policies_generation)
    if self.kept_generation ~= generation then
        table_clear(self.kept)
        self.kept_generation = generation
    end
    local name = ffi_string(found.data, found.len)
    self.kept[name] = true
    return name
end

-- Scores the request for a route (nil or "" for the default one) at a time in seconds, such as ngx.time(), and asks the
-- route's policy what to do with it.
--
-- Returns the action ("allow", "observe", "tag", "rate_limit_key", "challenge" or "block"), the name of the rule that
-- says so, the status to answer with (0: none), and what `score` returns: the score, or nil and the reason. Or nil and
-- a reason where the library is to blame: then serve the request.
function Handle:decide(route, now)
    route = route or ""
    self.shadow.model_name.data = nil
    local decision, answer = self.decision, self.answer
    local code = lib.bliss_decide(self.pointer, route, #route, now, decision, answer)
    if code ~= OK then
        decision.rule.data = nil
        return failed(self, code)
    end
    local action, rule = ACTIONS[decision.action] or "allow", kept(self, decision.rule)
    if answer.result == OK then
        return action, rule, decision.status, answer.score
    end
    local reason = self.reasons[answer.result]
    if not reason then
        reason = ffi_string(answer.reason.data, answer.reason.len)
        self.reasons[answer.result] = reason
    end
    return action, rule, decision.status, nil, reason
end

-- The functions that follow are about the last `decide`, to be called before anything else is done with the handle.

-- The first simulated rule that would have answered before, and its action; nil if there is none.
function Handle:simulated()
    local decision = self.decision
    local rule = kept(self, decision.simulated_rule)
    if rule then
        return rule, ACTIONS[decision.simulated_action]
    end
end

-- Name and value of the header to add; nil if there is none.
function Handle:decision_header()
    local decision = self.decision
    return kept(self, decision.header_name), kept(self, decision.header_value)
end

-- The exception that answered; nil if none did.
function Handle:exception()
    return kept(self, self.decision.exception)
end

-- The policy that was asked, and its generation; or nil and the reason why none was.
function Handle:policy()
    local decision = self.decision
    local name = kept(self, decision.policy)
    if name then
        return name, tonumber(decision.policies_generation)
    end
    return nil, kept(self, decision.no_policy_reason)
end

-- Whether the request brought a pass that holds; nil where that is not told, or cannot be checked.
function Handle:passed()
    local decision = self.decision
    if decision.rule.data ~= nil and decision.challenge_passed >= 0 then
        return decision.challenge_passed == 1
    end
end

-- The request's id. Makes a string.
function Handle:request_id()
    local id = self.decision.request_id
    if id.data ~= nil then
        return ffi_string(id.data, id.len)
    end
end

-- Makes a pass for the client of the request that was handed over, who passed a challenge: a text to set as the cookie
-- bliss_pass. It holds from `now`, in seconds such as ngx.time(), for so many seconds (1 to 2592000), for this address
-- (of IPv6 the first 64 bits) and this user agent alone; nothing challenges the client then but rules with
-- `even_if_passed`. Whoever calls this vouches for it that the client passed. Returns nil and the reason where no
-- features can be read. Makes a string.
function Handle:pass(seconds, now)
    local code = lib.bliss_pass(self.pointer, seconds, now, pass_buffer, PASS_BYTES)
    if code == OK then
        return ffi_string(pass_buffer)
    end
    if code > 0 then
        return nil, reason_of(self, code)
    end
    return failed(self, code)
end

-- About the last score --------------------------------------------------------------------------------------------

-- The names of the model of an answer or shadow; made where they are not cached.
local function names_of(self, result)
    local bound = self.answer.model_binding_count
    if self.bound ~= bound then
        table_clear(self.names)
        table_clear(self.versions)
        self.bound = bound
    end
    local index = result.model_index + 1
    local name = self.names[index]
    if not name then
        name = ffi_string(result.model_name.data, result.model_name.len)
        self.names[index] = name
        self.versions[index] = ffi_string(result.model_version.data, result.model_version.len)
    end
    return name, self.versions[index]
end

-- Name and version of the model that gave the last score; nil if there is none. To be called before anything else is
-- done with the handle.
function Handle:model()
    local answer = self.answer
    if answer.result ~= OK then
        return nil
    end
    return names_of(self, answer)
end

-- How many shadow models were evaluated beside the last score.
function Handle:shadow_count()
    return tonumber(lib.bliss_shadow_count(self.pointer))
end

-- Fetches a shadow model's result, counted from 1, for the last request; `shadow_model` and `shadow_probability`
-- are about the one fetched last. Returns its score; or nil and the reason why there is none, which may be "no such
-- shadow". To be called before anything but `model` and `counts` is done with the handle.
function Handle:shadow_score(index)
    local shadow = self.shadow
    if lib.bliss_shadow_get(self.pointer, index - 1, shadow) ~= OK then
        shadow.model_name.data = nil
        return nil, "no such shadow"
    end
    if shadow.result == OK then
        return shadow.score
    end
    local reason = self.reasons[shadow.result]
    if not reason then
        reason = ffi_string(shadow.reason.data, shadow.reason.len)
        self.reasons[shadow.result] = reason
    end
    return nil, reason
end

-- Name and version of the shadow model that was fetched last; nil if there was none.
function Handle:shadow_model()
    local shadow = self.shadow
    if shadow.model_name.data == nil then
        return nil
    end
    return names_of(self, shadow)
end

-- Probability that the request is automated, by the shadow model that was fetched last; nil if it gave no score.
function Handle:shadow_probability()
    local shadow = self.shadow
    if shadow.model_name.data == nil or shadow.result ~= OK then
        return nil
    end
    return shadow.bot_probability
end

-- How many dimensions answered fresh, stale, missing and absent.
function Handle:counts()
    local answer = self.answer
    return answer.fresh, answer.stale, answer.missing, answer.absent
end

-- Probability that the request is automated; nil if there is no score.
function Handle:probability()
    local answer = self.answer
    if answer.result ~= OK then
        return nil
    end
    return answer.bot_probability
end

-- Generations of the features and of the models that the last answer came from; 0 if there are none.
function Handle:generations()
    local answer = self.answer
    return tonumber(answer.features_generation), tonumber(answer.models_generation)
end

-- The missing input, if that is why there is no score.
function Handle:missing_input()
    local input = self.answer.missing_input
    if self.answer.result == MISSING_INPUT and input.data ~= nil then
        return ffi_string(input.data, input.len)
    end
end

-- Why the last call failed, at length: with files, numbers and what to do. Makes a string.
function Handle:last_error()
    return last_error(self)
end

-- Why this handle does not count for the daemon's metrics, if it does not; it tries again at each `maintain`. Makes a
-- string.
function Handle:metrics_error()
    if lib.bliss_metrics_error(self.pointer, message_buffer, MESSAGE_BYTES) > 0 then
        return ffi_string(message_buffer)
    end
end

-- Why a request has its score -----------------------------------------------------------------------------------------
-- For people who ask about a request, not for every request: it takes some thousand times as long as `score`.

-- Makes the memory that `explain` needs. Once, after opening, by those who explain.
function Handle:register_explain()
    local code = lib.bliss_explain_register(self.pointer)
    if code ~= OK then
        return failed(self, code)
    end
    if not self.explanation then
        self.explanation, self.contribution = ffi_new("bliss_explanation_t"), ffi_new("bliss_contribution_t")
        self.explanation.size = ffi_sizeof(self.explanation)
        self.contribution.size = ffi_sizeof(self.contribution)
    end
    return true
end

-- The name of a contribution's input, "group.name"; made where it is not cached.
local function input_name(self, explanation, contribution)
    local bound = explanation.model_binding_count
    if self.inputs_bound ~= bound then
        table_clear(self.input_names)
        self.inputs_bound = bound
    end
    local names = self.input_names[explanation.model_index]
    if not names then
        names = {}
        self.input_names[explanation.model_index] = names
    end
    local name = names[contribution.input_index]
    if not name then
        local group, own = contribution.group, contribution.name
        name = ffi_string(group.data, group.len) .. "." .. ffi_string(own.data, own.len)
        names[contribution.input_index] = name
    end
    return name
end

-- Scores the request as `score` does and says what the score comes from, with the active model of a route or with the
-- model of this name. Fills `into`, which may be used again and again, and returns it; or returns nil and the reason.
--
-- `score`, `expected_score` (of a request of which nothing is known), `probability`, `answer` and `expected` (the
-- model's own numbers), `model`, `version`; and from 1 on, the largest contribution first, tables with `name`, `value`
-- (NaN: not told, or a category), `is_category`, `category_hash`, `status` (how its dimension answered; "unused": it
-- has none), `contribution` to the answer and `points` of the score. With `limit` only so many of them. Below 0, points
-- speak for a bot; all together they are the way from `expected_score` to `score`.
function Handle:explain(route, now, into, model, limit)
    if type(into) ~= "table" then
        error("expected a table to fill, found a " .. type(into), 2)
    end
    route, model = route or "", model or ""
    local explanation, contribution = self.explanation, self.contribution
    if not explanation then
        error(
            self.pointer and "explanations are not registered; call register_explain after opening"
                or "the handle is closed",
            2
        )
    end
    local code = lib.bliss_explain(self.pointer, route, #route, model, #model, now, explanation)
    if code > 0 then
        return nil, reason_of(self, code)
    elseif code ~= OK then
        return failed(self, code)
    end
    into.score, into.expected_score = explanation.score, explanation.expected_score
    into.probability = explanation.bot_probability
    into.answer, into.expected = explanation.answer, explanation.expected
    -- Names of models are kept by the number of bindings, which answers have too.
    self.answer.model_binding_count = explanation.model_binding_count
    into.model, into.version = names_of(self, explanation)
    local count = tonumber(explanation.input_count)
    if limit and limit < count then
        count = limit
    end
    for i = 1, count do
        code = lib.bliss_contribution_get(self.pointer, i - 1, contribution)
        if code ~= OK then
            return failed(self, code)
        end
        local row = into[i]
        if not row then
            row = table_new(0, 7)
            into[i] = row
        end
        row.name = input_name(self, explanation, contribution)
        row.is_category = contribution.is_category == 1
        row.value, row.category_hash = contribution.value, contribution.category_hash
        row.status = STATUSES[contribution.status]
        row.contribution, row.points = contribution.contribution, contribution.points
    end
    for i = #into, count + 1, -1 do
        into[i] = nil
    end
    return into
end

-- Between requests --------------------------------------------------------------------------------------------------

-- Does ahead of time what the next request would have to do after a publication; call it from a timer, about once a
-- second. Returns true, or nil and why not.
function Handle:maintain()
    local code = lib.bliss_maintain(self.pointer)
    if code == OK then
        return true
    end
    if code > 0 then
        return nil, last_error(self)
    end
    return failed(self, code)
end

-- Closes the handle; it cannot be used any more.
function Handle:close()
    local pointer = self.pointer
    if pointer then
        self.pointer = nil
        lib.bliss_close(ffi_gc(pointer, nil))
        self.answer.result = 1
        self.shadow.model_name.data = nil
        self.decision = ffi_new("bliss_decision_t")
        self.found.value_count, self.found.dimension_count = 0, 0
    end
end

-- Features ----------------------------------------------------------------------------------------------------------

-- Looks up all dimensions for the request. Returns the number of values; or nil and the reason.
function Handle:lookup(now)
    local code = lib.bliss_lookup(self.pointer, now, self.found)
    if code == OK then
        return tonumber(self.found.value_count)
    end
    if code > 0 then
        return nil, reason_of(self, code)
    end
    return failed(self, code)
end

-- The value that the last `lookup` found at an index, counted from 1 in the order of `features`. To be called before
-- anything else is done with the handle.
function Handle:value(index)
    local found = self.found
    if index >= 1 and index <= found.value_count then
        return found.values[index - 1]
    end
end

-- How a dimension answered the last `lookup`, counted from 1: "fresh", "stale", "missing" or "absent".
function Handle:status(index)
    local found = self.found
    if index >= 1 and index <= found.dimension_count then
        return STATUSES[found.statuses[index - 1]]
    end
end

-- What the publication calls things, for tools; each call makes tables and strings -----------------------------------

local text, text2, text3 = ffi_new("bliss_text_t"), ffi_new("bliss_text_t"), ffi_new("bliss_text_t")

local function string_of(found)
    if found.data ~= nil then
        return ffi_string(found.data, found.len)
    end
end

-- Names of the dimensions.
function Handle:dimensions()
    local names = {}
    for i = 1, tonumber(lib.bliss_dimension_count(self.pointer)) do
        lib.bliss_dimension_name(self.pointer, i - 1, text)
        names[i] = string_of(text)
    end
    return names
end

-- Names of the features, as "dimension.feature".
function Handle:features()
    local names = {}
    for i = 1, tonumber(lib.bliss_feature_count(self.pointer)) do
        lib.bliss_feature_name(self.pointer, i - 1, text, text2)
        names[i] = string_of(text) .. "." .. string_of(text2)
    end
    return names
end

-- The models: tables with `name`, `version`, and `missing_input` where one is missing.
function Handle:models()
    local models = {}
    for i = 1, tonumber(lib.bliss_model_count(self.pointer)) do
        lib.bliss_model_get(self.pointer, i - 1, text, text2, text3)
        models[i] = { name = string_of(text), version = string_of(text2), missing_input = string_of(text3) }
    end
    return models
end

return _M
