-- Backends for nginx from elasticd's socket: no file, no reload, no DNS.
--
--   load_module modules/ndk_http_module.so;              # Debian's libnginx-mod-http-lua does this itself
--   load_module modules/ngx_http_lua_module.so;
--   http {
--     lua_package_path "/etc/nginx/lua/?.lua;;";         # where this file is
--     lua_shared_dict elasticd 10m;                      # about 100,000 backends
--     lua_socket_log_errors off;                         # this module logs a failure once
--     init_worker_by_lua_block { require("elasticd").start() }
--     upstream web {
--       server 127.0.0.1:1 down;                         # never used, but nginx requires one
--       balancer_by_lua_block { require("elasticd").balance("web") }
--       keepalive 64;
--     }
--     server { location / { proxy_pass http://web; } }   # proxy_next_upstream sets what is retried
--   }
--
-- One worker at a time sends elasticd a request that is answered when something changes; the workers share the list in
-- memory. While elasticd does not answer, the last list is kept. nginx's workers need access to the socket: set api.group
-- to their group.

local balancer = require "ngx.balancer"

local M = {}

-- How long elasticd waits for a change before it answers, in seconds.
local WAIT = 25
-- How long a worker is the only one that asks, in seconds; it renews that each second.
local LEASE = 3
-- The first and the longest pause after a failed request, in seconds.
local RETRY, RETRY_MAX = 0.1, 2

local options = { socket = "/run/elasticd/elasticd.sock", dict = "elasticd", tries = 3, rest = 10 }
local dict

-- Sends one request. Returns the status, the revision and the body; or nil and the error.
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

-- Sends one request, and keeps a new list. Returns nil and the error if that fails.
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
        return nil, status and "status " .. status or now
    end
    -- The list first: a worker that reads the new revision must find it.
    local kept, problem = dict:set("backends", body)
    if not kept then
        return nil, "lua_shared_dict " .. options.dict .. " is too small: " .. problem
    end
    dict:set("generation", (dict:get("generation") or 0) + 1)
    dict:set("revision", now)
    return true
end

-- Keeps the list up to date, for as long as this worker holds the lease.
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
                    ngx.log(ngx.WARN, "no answer from elasticd at ", options.socket, ": ", problem, "; keeping the last list")
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
    -- A worker that has to exit must not wait for an answer.
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
--   rest     seconds for which a worker does not use a backend after a failure (10)
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

-- The list as this worker has parsed it.
local parsed = { generation = nil, services = {} }
-- The backends that failed, and until when this worker does not use them.
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
    if generation ~= parsed.generation then
        parsed = { generation = generation, services = read(dict:get("backends") or "") }
    end
    return parsed.services[name]
end

-- One of the service's backends, by weight, for which `avoided` returns false.
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
        -- nginx then uses the servers of its configuration, which are all down, and answers 502.
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
        -- If all are resting, one that has not failed this request; if all have failed it, any of them.
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
