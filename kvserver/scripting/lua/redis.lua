-- The `redis` object: calls, replies, and the little that goes with them.
--
-- Replies come in as RESP bytes, and a script's value leaves as RESP bytes. Source: Redis 7.4's
-- script_lua.c (luaRedisGenericCommand, redisProtocolToLuaType_*, luaReplyToRedisReply).

local k = ...
local host = k.host

local error, type, select, tonumber, tostring = error, type, select, tonumber, tostring
local rawget, next = rawget, next
local byte, find, sub, gsub, format = string.byte, string.find, string.sub, string.gsub, string.format
local concat = table.concat

-- Replies of commands ---------------------------------------------------------------------------

local read

local function read_items(text, at, count)
  local items = {}
  for i = 1, count do
    items[i], at = read(text, at)
  end
  return items, at
end

local function read_pairs(text, at, count)
  local map, key, value = {}, nil, nil
  for _ = 1, count do
    key, at = read(text, at)
    value, at = read(text, at)
    if key ~= nil then
      map[key] = value
    end
  end
  return { map = map }, at
end

local function read_set(text, at, count)
  local set, key = {}, nil
  for _ = 1, count do
    key, at = read(text, at)
    if key ~= nil then
      set[key] = true
    end
  end
  return { set = set }, at
end

local function read_double(line)
  if line == "inf" then
    return math.huge
  elseif line == "-inf" then
    return -math.huge
  elseif line == "nan" then
    return 0 / 0
  end
  return tonumber(line)
end

-- The value at a place of a reply, and the place after it.
function read(text, at)
  local stop = find(text, "\r\n", at, true)
  local kind, line = byte(text, at), sub(text, at + 1, stop - 1)
  at = stop + 2
  if kind == 36 or kind == 61 then -- $ =
    local size = tonumber(line)
    if size < 0 then
      return false, at
    end
    local data = sub(text, at, at + size - 1)
    at = at + size + 2
    if kind == 61 then
      return { verbatim_string = { format = sub(data, 1, 3), string = sub(data, 5) } }, at
    end
    return data, at
  elseif kind == 58 then -- :
    return tonumber(line), at
  elseif kind == 42 or kind == 62 then -- * >
    local count = tonumber(line)
    if count < 0 then
      return false, at
    end
    return read_items(text, at, count)
  elseif kind == 43 then -- +
    return { ok = line }, at
  elseif kind == 45 then -- -
    return { err = line }, at
  elseif kind == 37 then -- %
    return read_pairs(text, at, tonumber(line))
  elseif kind == 126 then -- ~
    return read_set(text, at, tonumber(line))
  elseif kind == 95 then -- _
    return nil, at
  elseif kind == 35 then -- #
    return line == "t", at
  elseif kind == 44 then -- ,
    return { double = read_double(line) }, at
  elseif kind == 40 then -- (
    return { big_number = line }, at
  end
  error("unknown reply", 0)
end

-- The value of a script ---------------------------------------------------------------------------

-- How deep tables may be: each holds a place of Lua's stack, and four more must be free.
local MAX_DEPTH = 7995

local function one_line(text)
  return (gsub(text, "[\r\n]", " "))
end

local write

local function write_table(out, value, depth, resp3, script3)
  local item = rawget(value, "err")
  if type(item) == "string" then
    out[#out + 1] = "-" .. one_line(item) .. "\r\n"
    return
  end
  item = rawget(value, "ok")
  if type(item) == "string" then
    out[#out + 1] = "+" .. one_line(item) .. "\r\n"
    return
  end
  item = rawget(value, "double")
  if type(item) == "number" then
    local text = host.double(item)
    out[#out + 1] = resp3 and "," .. text .. "\r\n" or "$" .. #text .. "\r\n" .. text .. "\r\n"
    return
  end
  item = rawget(value, "big_number")
  if type(item) == "string" then
    item = one_line(item)
    out[#out + 1] = resp3 and "(" .. item .. "\r\n" or "$" .. #item .. "\r\n" .. item .. "\r\n"
    return
  end
  item = rawget(value, "verbatim_string")
  if type(item) == "table" then
    local text, kind = rawget(item, "string"), rawget(item, "format")
    if type(text) == "string" and type(kind) == "string" then
      if resp3 then
        kind = sub(kind .. "   ", 1, 3)
        out[#out + 1] = "=" .. #text + 4 .. "\r\n" .. kind .. ":" .. text .. "\r\n"
      else
        out[#out + 1] = "$" .. #text .. "\r\n" .. text .. "\r\n"
      end
      return
    end
  end
  local head = #out + 1
  out[head] = ""
  local count = 0
  item = rawget(value, "map")
  if type(item) == "table" then
    for key, each in next, item do
      write(out, key, depth + 2, resp3, script3)
      write(out, each, depth + 1, resp3, script3)
      count = count + 1
    end
    out[head] = resp3 and "%" .. count .. "\r\n" or "*" .. 2 * count .. "\r\n"
    return
  end
  item = rawget(value, "set")
  if type(item) == "table" then
    for key in next, item do
      write(out, key, depth + 2, resp3, script3)
      count = count + 1
    end
    out[head] = (resp3 and "~" or "*") .. count .. "\r\n"
    return
  end
  item = rawget(value, 1)
  while item ~= nil do
    write(out, item, depth + 1, resp3, script3)
    count = count + 1
    item = rawget(value, count + 1)
  end
  out[head] = "*" .. count .. "\r\n"
end

function write(out, value, depth, resp3, script3)
  local kind = type(value)
  if depth > MAX_DEPTH then
    out[#out + 1] = "-ERR reached lua stack limit\r\n"
  elseif kind == "string" then
    out[#out + 1] = "$" .. #value .. "\r\n"
    out[#out + 1] = value
    out[#out + 1] = "\r\n"
  elseif kind == "number" then
    out[#out + 1] = format(":%d\r\n", value)
  elseif kind == "boolean" and script3 then
    out[#out + 1] = resp3 and (value and "#t\r\n" or "#f\r\n") or (value and ":1\r\n" or ":0\r\n")
  elseif value == true then
    out[#out + 1] = ":1\r\n"
  elseif kind == "table" then
    write_table(out, value, depth, resp3, script3)
  else
    out[#out + 1] = resp3 and "_\r\n" or "$-1\r\n"
  end
end

-- What the script may have set with setresp; false: RESP2.
local script3 = false

-- A script's value as a reply under one protocol.
function k.reply(value, resp3)
  local out = {}
  write(out, value, 1, resp3, script3)
  return concat(out)
end

-- redis.* -----------------------------------------------------------------------------------------

local ARGUMENTS = "ERR Lua redis lib command arguments must be strings or integers"
local NO_ARGUMENTS = "ERR Please specify at least one argument for this redis lib call"

-- The reply to a command, or nil and an error's text and whether it was counted.
local function call(...)
  local n = select("#", ...)
  if n == 0 then
    return nil, NO_ARGUMENTS
  end
  local arguments = { ... }
  for i = 1, n do
    local kind = type(arguments[i])
    if kind ~= "string" and kind ~= "number" then
      return nil, ARGUMENTS
    end
  end
  local kind, value, counted = host.call(...)
  if kind == 0 then
    return value
  elseif kind == 1 then
    return (read(value, 1))
  elseif kind == 2 then
    return nil, value, counted
  end
  return { ok = value }
end

local function failure(message, counted)
  return { err = message, ignore_error_stats_update = counted and true or nil }
end

local redis = {}

function redis.call(...)
  local value, message, counted = call(...)
  if message then
    error(failure(message, counted), 0)
  end
  return value
end

function redis.pcall(...)
  local value, message, counted = call(...)
  if message then
    return failure(message, counted)
  end
  return value
end

local WRONG_ARGUMENTS = "ERR wrong number or type of arguments"

function redis.error_reply(...)
  local text = ...
  if select("#", ...) ~= 1 or type(text) ~= "string" then
    return { err = WRONG_ARGUMENTS }
  end
  if byte(text) == 45 then
    text = sub(text, 2)
  end
  text = string.match(text, "^%z*([^%z]*)") or ""
  text = string.match(text, "^[\r\n]*(.-)[\r\n]*$")
  if find(text, " ", 1, true) then
    return { err = text }
  end
  return { err = "ERR " .. text }
end

function redis.status_reply(...)
  local text = ...
  if select("#", ...) ~= 1 or type(text) ~= "string" then
    return { err = WRONG_ARGUMENTS }
  end
  return { ok = text }
end

local function fail(message)
  error({ err = "ERR " .. message }, 0)
end

function redis.sha1hex(...)
  if select("#", ...) ~= 1 then
    fail("wrong number of arguments")
  end
  local text = ...
  local kind = type(text)
  return host.sha1hex((kind == "string" or kind == "number") and tostring(text) or "")
end

redis.LOG_DEBUG, redis.LOG_VERBOSE, redis.LOG_NOTICE, redis.LOG_WARNING = 0, 1, 2, 3

function redis.log(...)
  local n = select("#", ...)
  if n < 2 then
    fail("redis.log() requires two arguments or more.")
  end
  local level = ...
  if type(level) ~= "number" then
    fail("First argument must be a number (log level).")
  elseif level < 0 or level > 3 then
    fail("Invalid log level.")
  end
  local words = {}
  for i = 2, n do
    local word = select(i, ...)
    if type(word) == "string" or type(word) == "number" then
      words[#words + 1] = word
    end
  end
  host.log(level, concat(words, " "))
end

function redis.setresp(...)
  if select("#", ...) ~= 1 then
    fail("redis.setresp() requires one argument.")
  end
  local version = tonumber((...))
  if version ~= 2 and version ~= 3 then
    fail("RESP version must be 2 or 3.")
  end
  script3 = version == 3
  host.setresp(script3)
end

function redis.replicate_commands()
  return true
end

redis.REPL_NONE, redis.REPL_AOF, redis.REPL_SLAVE, redis.REPL_REPLICA, redis.REPL_ALL = 0, 1, 2, 2, 3

-- What a script writes is replicated as rows, in one batch: there is nothing to choose.
function redis.set_repl(...)
  if select("#", ...) ~= 1 then
    fail("redis.set_repl() requires two arguments.")
  end
  local flags = ...
  if type(flags) ~= "number" or flags < 0 or flags > 3 then
    fail("Invalid replication flags. Use REPL_AOF, REPL_REPLICA, REPL_ALL or REPL_NONE.")
  end
end

function redis.acl_check_cmd(...)
  local n = select("#", ...)
  if n == 0 then
    error({ err = NO_ARGUMENTS }, 0)
  end
  for i = 1, n do
    local kind = type((select(i, ...)))
    if kind ~= "string" and kind ~= "number" then
      error({ err = ARGUMENTS }, 0)
    end
  end
  local allowed = host.acl_check(...)
  if allowed == nil then
    fail("Invalid command passed to redis.acl_check_cmd()")
  end
  return allowed
end

redis.REDIS_VERSION, redis.REDIS_VERSION_NUM = k.version, k.version_num

k.redis = redis

-- Before each script.
function k.begin()
  script3 = false
end

local rawcollect = collectgarbage

function k.collect()
  k.globals.KEYS, k.globals.ARGV = nil, nil
  rawcollect("collect")
end

-- Run a function. (true, the reply in RESP2, and in RESP3 unless it is the same), or (false, ...) as
-- k.run has it.
function k.execute(f, keys, argv, as_globals)
  k.begin()
  keys, argv = (read(keys, 1)), (read(argv, 1))
  local ok, value, source, line, counted
  if as_globals then
    k.globals.KEYS, k.globals.ARGV = keys, argv
    ok, value, source, line, counted = k.run(f)
  else
    ok, value, source, line, counted = k.run(f, keys, argv)
  end
  if not ok then
    return false, value, source, line, counted
  end
  local resp2 = k.reply(value, false)
  local kind = type(value)
  if kind == "string" or kind == "number" then
    return true, resp2, false
  end
  return true, resp2, k.reply(value, true)
end
