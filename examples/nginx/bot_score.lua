-- Scores requests in nginx with BLISS: sets $bot_score, $bot_status, $bot_model and $bot_model_version, and blocks what
-- is below $bot_block_below. See nginx.conf and README.md beside this file.

local bliss = require "resty.bliss"

local ngx = ngx
local pcall = pcall
local tonumber = tonumber

local FORBIDDEN = ngx.HTTP_FORBIDDEN

local _M = {}

-- The worker's handle; nil until the directory could be opened; `why` is the reason.
local handle
local why = "not opened"
local ip, user_agent, path, method, host, referrer

-- Scores as text, so that none is made per request.
local SCORES = {}
for score = 1, 99 do
    SCORES[score] = tostring(score)
end

local function open(directory)
    local opened, reason = bliss.open(directory)
    if not opened then
        if reason ~= why then
            ngx.log(ngx.ERR, "bliss: ", reason)
            why = reason
        end
        return
    end
    ip = opened:register_attribute("ip")
    user_agent = opened:register_attribute("user_agent")
    path = opened:register_attribute("path")
    method = opened:register_attribute("method")
    host = opened:register_attribute("host")
    referrer = opened:register_attribute("referrer")
    handle = opened
end

-- Between requests: what is new is mapped and bound here rather than in a request.
local function tick(premature, directory)
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
        open(directory)
    end
end

-- For init_worker_by_lua.
function _M.init(directory)
    open(directory)
    local ok, reason = ngx.timer.every(1, tick, directory)
    if not ok then
        ngx.log(ngx.ERR, "bliss: no timer: ", reason)
    end
end

-- The attributes are those of the access log, so that a request finds the rows that requests like it made.
-- Nothing in here may yield.
local function score(var)
    handle:clear()
    handle:set_binary(ip, var.binary_remote_addr)
    handle:set_text(user_agent, var.http_user_agent)
    handle:set_text(method, var.request_method)
    handle:set_text(host, var.host)
    handle:set_text(referrer, var.http_referer)
    -- Up to `?`, and a header `-` as none: the library makes the same of these values as of what the log has.
    handle:set_text(path, var.request_uri)
    return handle:score(var.bot_route, ngx.time())
end

-- For access_by_lua. If scoring fails, the request goes on without a score.
function _M.access()
    local var = ngx.var
    if not handle then
        var.bot_status = "not open"
        return
    end
    local ok, found, reason = pcall(score, var)
    if not ok then
        ngx.log(ngx.ERR, "bliss: ", found)
        var.bot_status = "error"
        return
    end
    if not found then
        var.bot_status = reason
        return
    end
    var.bot_score = SCORES[found]
    var.bot_status = "scored"
    var.bot_model, var.bot_model_version = handle:model()
    local below = tonumber(var.bot_block_below)
    if below and found < below then
        return ngx.exit(FORBIDDEN)
    end
end

return _M
