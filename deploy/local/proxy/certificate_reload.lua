-- Takes up changed certificates, authorities and revocation lists without a restart: each HAProxy looks at the files every
-- second and changes its own copies by its command socket. Connections that are open keep what they began with.
--
-- Arguments: this process's command socket, and a folder with `sources` (lines "KIND SOURCE", KIND being cert, ca-file or
-- crl-file) and the copies KIND.pem that HAProxy starts with. A copy is replaced only after HAProxy has accepted the file,
-- so that an unfinished or invalid file changes nothing; `error` has the reason meanwhile.

local socket, folder = ...
local LIMIT = 61440 -- bytes; a command has to fit into HAProxy's buffer
local NEEDED = {
  cert = { "BEGIN CERTIFICATE", "PRIVATE KEY" }, ["ca-file"] = { "BEGIN CERTIFICATE" }, ["crl-file"] = { "BEGIN X509 CRL" },
}

local function read(path)
  local file = io.open(path, "rb")
  if file == nil then return nil end
  local text = file:read(LIMIT + 1)
  file:close()
  return text
end

-- Replace a file atomically. Both HAProxies write the same text.
local function write(path, text)
  local temporary = path .. "." .. socket:match("(%w+)%.sock$")
  local file = io.open(temporary, "wb")
  if file == nil then return end
  file:write(text)
  file:close()
  os.rename(temporary, path)
end

local function command(text)
  local connection = core.tcp()
  connection:settimeout(5)
  if not connection:connect(socket) then return "the command socket does not respond" end
  connection:send(text .. "\n")
  local found = connection:receive("*a")
  connection:close()
  return found or ""
end

-- Return the argument of `set ssl`, in which an empty line would end the command.
local function payload(text)
  return " <<\n" .. text:gsub("\r", ""):gsub("\n%s*\n+", "\n"):gsub("^%s+", "") .. "\n"
end

-- Return nil if HAProxy uses this text from now on, else the reason. used: the text that it uses now.
local function install(kind, text, used)
  if #text > LIMIT then return "it has more than " .. LIMIT .. " bytes; run raypath down, then raypath up" end
  for _, words in ipairs(NEEDED[kind]) do
    if not text:find(words, 1, true) then return "it has no " .. words end
  end
  local name = " ssl " .. kind .. " " .. folder .. "/" .. kind .. ".pem"
  local said = command("set" .. name .. payload(text))
  if said:find("ransaction", 1, true) then
    -- A commit that fails, for a key of another certificate, leaves its error in OpenSSL's queue, and HAProxy 2.8 takes it
    -- for an error of the next connection that it reads from, which it closes. Loading a file empties the queue; in the same
    -- line, since no connection is read from between the commands of a line.
    said = command("commit" .. name .. "; set" .. name .. payload(used))
    command("abort" .. name)
    if said:find("Success", 1, true) then return nil end
  end
  return said:gsub("Transaction.*", ""):gsub("%s+", " "):sub(1, 300)
end

local watched = {}
for line in io.lines(folder .. "/sources") do
  local kind, source = line:match("^(%S+) (.+)$")
  watched[#watched + 1] = { kind = kind, source = source, text = read(folder .. "/" .. kind .. ".pem") }
end

core.register_task(function()
  while true do
    core.msleep(1000)
    local errors = {}
    for _, each in ipairs(watched) do
      local text = read(each.source)
      if text == nil then
        errors[#errors + 1] = each.source .. ": cannot be read"
      elseif text == each.text then
        each.rejected = nil
      else
        if text ~= each.rejected then
          each.reason = install(each.kind, text, each.text)
          if each.reason == nil then
            each.text, each.rejected = text, nil
            write(folder .. "/" .. each.kind .. ".pem", text)
          else
            each.rejected = text
          end
        end
        if each.rejected then errors[#errors + 1] = each.source .. ": " .. each.reason end
      end
    end
    local found = table.concat(errors, "\n")
    if found ~= (read(folder .. "/error") or "") then write(folder .. "/error", found) end
  end
end)
