-- Backends for nginx, asked from elasticd's socket: no file, no reload, no DNS.
--
--   load_module modules/ndk_http_module.so;              # Debian's libnginx-mod-http-lua does this itself
--   load_module modules/ngx_http_lua_module.so;
--   http {
--     lua_package_path "/etc/nginx/lua/?.lua;;";         # where this file is
--     lua_shared_dict elasticd 10m;                      # about 100,000 backends
--     lua_socket_log_errors off;                         # this says once what it cannot do
--     init_worker_by_lua_block { require("elasticd").start() }
--     upstream web {
--       server 127.0.0.1:1 down;                         # never used, but nginx wants one
--       balancer_by_lua_block { require("elasticd").balance("web") }
--       keepalive 64;
--     }
--     server { location / { proxy_pass http://web; } }   # proxy_next_upstream says what is tried again elsewhere
--   }
--
-- One worker at a time asks elasticd, with a request that is answered when something changes; all workers share what
-- it learns. While elasticd is away the last list stays. nginx's workers must be let in: set api.group to their group.

local balancer = require "ngx.balancer"

local M = {}

-- How long elasticd is asked to wait for a change, in seconds.
local WAIT = 25
-- For how long the worker that asks is believed to live, in seconds; it says so again each second.
local LEASE = 3
-- The pauses, in seconds, after a failure to ask: the first, and the longest.
local RETRY, RETRY_MAX = 0.1, 2

local options = { socket = "/run/elasticd/elasticd.sock", dict = "elasticd", tries = 3, rest = 10 }
local dict

-- Sends one request. Returns the status, the revision and the body; or nil and what is wrong.
local function ask(path)
    local socket = ngx.socket.tcp()
    socket:settimeouts(1000, 1000, (WAIT + 10) * 1000)
    local connected, problem = socket:connect("unix:" .. options.socket)
    if not connected then
        return nil, problem
    end
    local function finish(...)
        socket:close()
        return ...
    end
    local sent
    sent, problem = socket:send("GET " .. path .. " HTTP/1.1\r\nHost: nginx\r\nConnection: close\r\n\r\n")
    if not sent then
        return finish(nil, problem)
    end
    local line
    line, problem = socket:receive("*l")
    local status = line and tonumber(line:match("^HTTP/1%.1 (%d%d%d)"))
    if not status then
        return finish(nil, problem or "no HTTP answer")
    end
    local headers = {}
    while true do
        line, problem = socket:receive("*l")
        if not line then
            return finish(nil, problem)
        end
        if line == "" then
            break
        end
        local key, value = line:match("^([^:]+):%s*(.-)%s*$")
        if key then
            headers[key:lower()] = value
        end
    end
    local body, length = "", tonumber(headers["content-length"] or 0)
    if status ~= 304 and length > 0 then
        body, problem = socket:receive(length)
        if not body then
            return finish(nil, problem)
        end
    end
    return finish(status, tonumber(headers["x-elasticd-revision"]), body)
end

-- Asks once, and keeps what is new. Returns nil and what is wrong, if anything is.
local function refresh()
    local revision = dict:get("revision")
    local path = "/v1/services?format=text"
    if revision then
        path = path .. "&wait=" .. WAIT .. "s&revision=" .. revision
    end
    local status, now, body = ask(path)
    if status == 304 then
        return true
    elseif status ~= 200 then
        return nil, status and "it answers " .. status or now
    end
    -- The list first: whoever sees the new revision must find it.
    local kept, problem = dict:set("backends", body)
    if not kept then
        return nil, "lua_shared_dict " .. options.dict .. " is too small: " .. problem
    end
    dict:set("generation", (dict:get("generation") or 0) + 1)
    dict:set("revision", now)
    return true
end

-- Asks for as long as this worker may.
local function lead()
    local me, failures = ngx.worker.pid(), 0
    local asking = ngx.thread.spawn(function()
        while not ngx.worker.exiting() do
            local good, problem = refresh()
            if good then
                if failures > 0 then
                    ngx.log(ngx.NOTICE, "elasticd answers again")
                end
                failures = 0
            else
                if failures == 0 then
                    ngx.log(ngx.WARN, "elasticd cannot be asked at ", options.socket, ": ", problem, "; the last list stays")
                end
                failures = failures + 1
                ngx.sleep(math.min(RETRY * 2 ^ math.min(failures, 10), RETRY_MAX))
            end
        end
    end)
    local renewing = ngx.thread.spawn(function()
        while not ngx.worker.exiting() and dict:get("leader") == me do
            dict:set("leader", me, LEASE)
            ngx.sleep(1)
        end
    end)
    -- A worker that is told to end must not wait for an answer.
    ngx.thread.wait(asking, renewing)
    ngx.thread.kill(asking)
    ngx.thread.kill(renewing)
    if dict:get("leader") == me then
        dict:delete("leader")
    end
end

local function tick(premature)
    if premature or ngx.worker.exiting() then
        return
    end
    if dict:add("leader", ngx.worker.pid(), LEASE) then
        lead()
    end
    if not ngx.worker.exiting() then
        ngx.timer.at(1, tick)
    end
end

-- To be called by init_worker_by_lua. `given` may hold:
--   socket   elasticd's query socket (/run/elasticd/elasticd.sock)
--   dict     the name of the lua_shared_dict (elasticd)
--   tries    attempts for one request, each at another backend (3)
--   rest     seconds for which a worker spares a backend that failed (10)
function M.start(given)
    for key, value in pairs(given or {}) do
        if options[key] == nil then
            error("elasticd: there is no option " .. key)
        end
        options[key] = value
    end
    dict = ngx.shared[options.dict]
    if not dict then
        error("elasticd: add `lua_shared_dict " .. options.dict .. " 10m;` to the http block")
    end
    ngx.timer.at(0, tick)
end

-- What this worker has made of the list.
local made = { generation = nil, services = {} }
-- Until when it spares which backend.
local resting = {}

local function read(text)
    local services = {}
    for name, address, port, weight in text:gmatch("(%S+) (%S+):(%d+) (%d+)\n") do
        local service = services[name] or { total = 0 }
        services[name] = service
        weight = tonumber(weight)
        if weight > 0 then
            service.total = service.total + weight
            service[#service + 1] = { address = address, port = tonumber(port), weight = weight, key = address .. ":" .. port }
        end
    end
    return services
end

local function backends(name)
    local generation = dict:get("generation")
    if generation ~= made.generation then
        made = { generation = generation, services = read(dict:get("backends") or "") }
    end
    return made.services[name]
end

-- One of the service's backends, by weight, that `avoided` does not say to avoid.
local function choose(service, avoided)
    local total = 0
    for i = 1, #service do
        if not avoided(service[i].key) then
            total = total + service[i].weight
        end
    end
    if total == 0 then
        return nil
    end
    local drawn = math.random() * total
    local last
    for i = 1, #service do
        local backend = service[i]
        if not avoided(backend.key) then
            drawn, last = drawn - backend.weight, backend
            if drawn < 0 then
                return backend
            end
        end
    end
    return last
end

local function draw(service)
    local drawn = math.random() * service.total
    for i = 1, #service do
        drawn = drawn - service[i].weight
        if drawn < 0 then
            return service[i]
        end
    end
    return service[#service]
end

-- To be called by balancer_by_lua: one of the service's backends, by weight; after a failure, another one.
function M.balance(name)
    local service = backends(name)
    if not service or #service == 0 then
        -- nginx then turns to the servers it knows itself, all of which are down, and answers 502.
        ngx.log(ngx.ERR, "elasticd: service ", name, " has no backends")
        return
    end
    local now, tried = ngx.now(), ngx.ctx.elasticd
    if tried then
        local last = tried[#tried]
        tried[last] = true
        resting[last] = now + options.rest
    else
        tried = {}
        ngx.ctx.elasticd = tried
        balancer.set_more_tries(math.min(options.tries, #service) - 1)
    end
    local backend
    if not next(resting) and not tried[1] then
        backend = draw(service)
    else
        local function rests(key)
            local until_when = resting[key]
            if until_when and until_when <= now then
                resting[key] = nil
                return false
            end
            return until_when ~= nil
        end
        -- Rather one that has failed than none; rather one that failed another request than one that failed this.
        backend = choose(service, function(key) return tried[key] or rests(key) end)
            or choose(service, function(key) return tried[key] end)
            or draw(service)
    end
    tried[#tried + 1] = backend.key
    local set, problem = balancer.set_current_peer(backend.address, backend.port)
    if not set then
        ngx.log(ngx.ERR, "elasticd: ", backend.key, ": ", problem)
        return ngx.exit(500)
    end
end

return M
