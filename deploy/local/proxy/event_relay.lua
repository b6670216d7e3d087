-- Relay of streams of events: a stream whose replica dies ends with an error event, not with a broken connection.
--
-- HAProxy cannot add to a response that its server has cut off. This service stands between the client and a listener
-- of the same HAProxy, which sends the request to a replica, and to another one if that dies before it responds. The
-- service passes the response on as it comes, and adds the event where an event stream ends before its end.
local listener = ...

local FAILED = '{"type":"about:blank","title":"Service Unavailable","status":503,"detail":"no replica responds; try again"}'
local CUT_OFF = 'data: {"error":{"message":"the replica that generated the response has failed; try again",'
  .. '"type":"server_error","param":null,"code":null}}\n\n'


local HOP = {
  ["connection"] = true, ["keep-alive"] = true, ["proxy-connection"] = true, ["transfer-encoding"] = true,
  ["te"] = true, ["upgrade"] = true, ["expect"] = true, ["content-length"] = true,
}

-- Headers of a message as lines. given: name -> values, counted from 0.
local function lines_of(given, to)
  for name, values in pairs(given) do
    if not HOP[name] then
      for number = 0, #values do
        if values[number] ~= nil then to[#to + 1] = name .. ": " .. values[number] end
      end
    end
  end
end

local function request_of(applet, body)
  local path = applet.path
  if applet.qs ~= nil and applet.qs ~= "" then path = path .. "?" .. applet.qs end
  local lines = { applet.method .. " " .. path .. " HTTP/1.1" }
  lines_of(applet.headers, lines)
  lines[#lines + 1] = "content-length: " .. #body
  lines[#lines + 1] = "connection: close"
  return table.concat(lines, "\r\n") .. "\r\n\r\n" .. body
end

-- Status and headers of the response, nil where there is none.
local function head_of(server)
  while true do
    local line = server:receive("*l")
    local status = line and tonumber(line:match("^HTTP/1%.%d (%d%d%d)"))
    if status == nil then return nil end
    local headers = {}
    line = server:receive("*l")
    while line ~= nil and line ~= "" and line ~= "\r" do
      local name, value = line:match("^([^:]+):%s*(.-)\r?$")
      if name ~= nil then headers[#headers + 1] = { name:lower(), value } end
      line = server:receive("*l")
    end
    if line == nil then return nil end
    if status >= 200 then return status, headers end
  end
end

-- Sender of an event stream in whole events: what is cut off may end within one. `rest` sends what is left.
local function sender_of_events(applet)
  local held = ""
  local function send(data)
    held = held .. data
    local last = held:match("^.*\n\n()")
    if last ~= nil then
      applet:send(held:sub(1, last - 1))
      held = held:sub(last)
    end
  end
  local function rest()
    if held ~= "" then applet:send(held) end
  end
  return send, rest
end

-- Pass on a body of this length, or one that ends with the connection. Returns true if it is complete.
local function pass_plain(server, send, length)
  while length == nil or length > 0 do
    local data, why, rest = server:receive(length and math.min(length, 16384) or 1)
    data = data or rest
    if data == nil or data == "" then return length == nil and why ~= "timeout" end
    send(data)
    if length ~= nil then length = length - #data end
  end
  return true
end

-- Pass on a body in chunks, each as it comes. Returns true if it is complete.
local function pass_chunks(server, send)
  while true do
    local line = server:receive("*l")
    local size = line and tonumber(line:match("^(%x+)") or "", 16)
    if size == nil then return false end
    if size == 0 then return true end
    local data = server:receive(size)
    if data == nil or #data < size then return false end
    send(data)
    server:receive("*l")
  end
end

local function relay(applet)
  local body = applet:receive()
  local server = core.tcp()
  server:settimeout(3600)
  local status, headers
  if server:connect(listener) then
    server:send(request_of(applet, body))
    status, headers = head_of(server)
  end
  if status == nil then
    applet:set_status(503)
    applet:add_header("content-type", "application/problem+json")
    applet:add_header("retry-after", "2")
    applet:add_header("cache-control", "no-store")
    applet:start_response()
    applet:send(FAILED)
    return
  end
  applet:set_status(status)
  local length, chunked, events
  for _, header in ipairs(headers) do
    local name, value = header[1], header[2]
    if name == "content-length" then length = tonumber(value) end
    if name == "transfer-encoding" then chunked = value:lower():find("chunked") ~= nil end
    if name == "content-type" then events = value:lower():find("^text/event%-stream") ~= nil end
    if name == "content-length" or not HOP[name] then applet:add_header(name, value) end
  end
  applet:start_response()
  local function send(data) applet:send(data) end
  local function rest() end
  if events then send, rest = sender_of_events(applet) end
  local complete
  if chunked then complete = pass_chunks(server, send) else complete = pass_plain(server, send, length) end
  server:close()
  if complete then rest() elseif events then applet:send(CUT_OFF) else error("the response was cut off") end
end

core.register_service("relay_events", "http", relay)
