-- The sandbox: what a script can reach, and nothing else.
--
-- It is given the table `k` that all these files share; scripts never see it. A library or the
-- table of globals is shown as a proxy: an empty table that reads from the real one and refuses
-- writes. Whatever could write or look past a proxy (rawset, next, table.insert, ...) knows them.
-- Source: Redis 7.4's script_lua.c (luaRegisterRedisAPI, the allow lists) and eval.c.

local k = ...
local host = k.host

local error, type, select, tostring, unpack = error, type, select, tostring, unpack
local pcall, xpcall, setfenv, loadstring = pcall, xpcall, setfenv, loadstring
local next, rawget, rawset, rawequal, ipairs = next, rawget, rawset, rawequal, ipairs
local getmetatable, setmetatable, collectgarbage = getmetatable, setmetatable, collectgarbage
local getinfo, sethook = debug.getinfo, debug.sethook
local string, table, math, coroutine = string, table, math, coroutine
local byte, find, match, sub, format = string.byte, string.find, string.match, string.sub, string.format
local dump, concat, floor = string.dump, table.concat, math.floor

local READONLY = "Attempt to modify a readonly table"
-- A longer pattern could outgrow the C stack: Lua 5.1 matches it by recursion.
local MAX_PATTERN = 10000
-- What fits Lua 5.1's stack (LUAI_MAXCSTACK).
local MAX_RESULTS = 7900
-- Instructions between two looks at the clock.
local HOOK_COUNT = 100000

-- Proxies -----------------------------------------------------------------------------------

local real = setmetatable({}, { __mode = "k" })

local function refuse()
  error(READONLY, 2)
end

local function readonly(shown)
  local proxy = {}
  real[proxy] = shown
  return setmetatable(proxy, { __index = shown, __newindex = refuse })
end

k.readonly = readonly

local function bad(index, name, wanted, ...)
  local got = "no value"
  if select("#", ...) >= index then
    got = type((select(index, ...)))
  end
  error(format("bad argument #%d to '%s' (%s expected, got %s)", index, name, wanted, got), 3)
end

-- Globals -----------------------------------------------------------------------------------

local globals = {}
local globals_meta = {
  __index = function(_, name)
    error(format("Script attempted to access nonexistent global variable '%s'", tostring(name)), 2)
  end,
}
setmetatable(globals, globals_meta)
local env = readonly(globals)
k.globals = globals

-- Show other globals; a library being loaded sees few.
function k.show(shown)
  real[env] = shown
  getmetatable(env).__index = shown
end

-- Loading: text only, compiled without tail calls, so that an error always knows its line --------

local function compile(code, name)
  if byte(code) == 27 then
    return nil, format("[string \"%s\"]:1: unexpected symbol near 'char(27)'", "Lua")
  end
  local loaded, message = loadstring(code, name)
  if not loaded then
    return nil, message
  end
  return setfenv(loadstring(host.untail(dump(loaded)), name), env)
end

k.compile = compile

-- The part before a NUL is what Lua takes for the name; it must not be collected while Lua parses.
local function chunk_name(name)
  return match(name, "^[^%z]*")
end

function globals.loadstring(...)
  local code, name = ...
  if type(code) ~= "string" and type(code) ~= "number" then
    bad(1, "loadstring", "string", ...)
  end
  code = tostring(code)
  return compile(code, chunk_name(name == nil and code or tostring(name)))
end

function globals.load(...)
  local reader, name = ...
  if type(reader) ~= "function" then
    bad(1, "load", "function", ...)
  end
  local parts, n = {}, 0
  while true do
    local part = reader()
    if part == nil or part == "" then
      break
    elseif type(part) ~= "string" then
      return nil, "reader function must return a string"
    end
    n = n + 1
    parts[n] = part
  end
  return compile(concat(parts), name == nil and "=(load)" or chunk_name(tostring(name)))
end

-- Base library ------------------------------------------------------------------------------

for _, name in ipairs({
  "assert", "error", "gcinfo", "ipairs", "rawequal", "select", "tonumber", "tostring", "type",
  "_VERSION",
}) do
  globals[name] = _G[name]
end
globals._G = env

-- A lack of memory ends the script: it isn't for the script to go on then.
local NO_MEMORY = "not enough memory"

-- Calls that C makes of Lua, one within the other: with too many of them the hook could not be
-- called any more (LUAI_MAXCCALLS is 200).
local MAX_NESTED = 150
local nested = 0

local function enter()
  if nested >= MAX_NESTED then
    error("C stack overflow", 3)
  end
  nested = nested + 1
end

local function caught(ok, ...)
  nested = nested - 1
  if ok then
    return true, ...
  end
  local problem = ...
  if problem == NO_MEMORY then
    error(NO_MEMORY, 0)
  elseif type(problem) == "table" and type(problem.err) == "string" then
    return false, problem.err -- luaRedisPcall: who calls pcall gets a string
  end
  return false, problem
end

function globals.pcall(...)
  if select("#", ...) == 0 then
    return nil
  end
  enter()
  return caught(pcall(...))
end

local function caught_by_handler(ok, ...)
  nested = nested - 1
  if not ok and (...) == NO_MEMORY then
    error(NO_MEMORY, 0)
  end
  return ok, ...
end

-- The error that ends a script which was killed.
local kill

function globals.xpcall(...)
  local f, handler = ...
  if select("#", ...) < 2 then
    error("bad argument #2 to 'xpcall' (value expected)", 2)
  end
  local function handle(problem)
    if rawequal(problem, kill) then
      return problem -- Lua calls no hook here: what the handler did could not be ended
    end
    return handler(problem)
  end
  enter()
  return caught_by_handler(xpcall(f, type(handler) == "function" and handle or handler))
end

function globals.next(...)
  local t, key = ...
  if type(t) ~= "table" then
    bad(1, "next", "table", ...)
  end
  return next(real[t] or t, key)
end

function globals.pairs(...)
  local t = ...
  if type(t) ~= "table" then
    bad(1, "pairs", "table", ...)
  end
  return next, real[t] or t, nil
end

function globals.rawget(...)
  local t, key = ...
  if type(t) ~= "table" then
    bad(1, "rawget", "table", ...)
  end
  return rawget(real[t] or t, key)
end

function globals.rawset(...)
  local t, key, value = ...
  if type(t) ~= "table" then
    bad(1, "rawset", "table", ...)
  elseif real[t] then
    error(READONLY, 0)
  end
  return rawset(t, key, value)
end

function globals.setmetatable(...)
  local t, meta = ...
  if type(t) ~= "table" then
    bad(1, "setmetatable", "table", ...)
  elseif meta ~= nil and type(meta) ~= "table" then
    error("bad argument #2 to 'setmetatable' (nil or table expected)", 2)
  elseif real[t] then
    error(READONLY, 0)
  end
  local old = getmetatable(t)
  if type(old) == "table" and rawget(old, "__metatable") ~= nil or old ~= nil and type(old) ~= "table" then
    error("cannot change a protected metatable", 2)
  end
  return setmetatable(t, meta)
end

local shown_meta = readonly(globals_meta)
local string_meta -- made below, with the string library

function globals.getmetatable(...)
  if select("#", ...) == 0 then
    error("bad argument #1 to 'getmetatable' (value expected)", 2)
  end
  local value = ...
  local kind = type(value)
  if kind == "string" then
    return string_meta
  elseif kind ~= "table" then
    return nil
  elseif value == env then
    return shown_meta
  elseif real[value] then
    return nil
  end
  return getmetatable(value)
end

function globals.unpack(...)
  local t, first, last = ...
  if type(t) ~= "table" then
    bad(1, "unpack", "table", ...)
  end
  first = first == nil and 1 or first
  last = last == nil and #t or last
  if type(first) == "number" and type(last) == "number" and not (last - first < MAX_RESULTS) then
    error("too many results to unpack", 2)
  end
  return unpack(t, first, last)
end

-- Nothing that would outlast the script: no stop, no other pace of the collector.
function globals.collectgarbage(option, argument)
  option = option or "collect"
  if option == "stop" or option == "restart" or option == "setpause" or option == "setstepmul" then
    return 0
  end
  return collectgarbage(option, argument)
end

-- Libraries ---------------------------------------------------------------------------------

local function copy(library)
  local found = {}
  for name, value in next, library do
    found[name] = value
  end
  return found
end

local strings = copy(string)
for _, name in ipairs({ "find", "match", "gmatch", "gsub" }) do
  local original = string[name]
  local function guarded(...)
    local text, pattern = ...
    local kind = type(text)
    if kind ~= "string" and kind ~= "number" then
      bad(1, name, "string", ...)
    end
    kind = type(pattern)
    if kind ~= "string" and kind ~= "number" then
      bad(2, name, "string", ...)
    elseif kind == "string" and #pattern > MAX_PATTERN then
      error("pattern too complex", 2)
    end
    return original(...)
  end
  strings[name] = guarded
end
strings.gfind = strings.gmatch
-- Methods of strings find the same functions.
for name, value in next, strings do
  string[name] = value
end
local shown_strings = readonly(strings)
string_meta = readonly({ __index = shown_strings })
getmetatable("").__index = strings

local tables = copy(table)
local insert = table.insert
function tables.insert(...)
  local t = ...
  if type(t) ~= "table" then
    bad(1, "insert", "table", ...)
  elseif real[t] then
    error(READONLY, 0)
  end
  return insert(...)
end
for _, name in ipairs({ "foreach", "foreachi" }) do
  local original = table[name]
  tables[name] = function(...)
    local t, f = ...
    if type(t) ~= "table" then
      bad(1, name, "table", ...)
    end
    return original(real[t] or t, f)
  end
end

-- A new coroutine has no hook of its own: without one it could run for ever.
local coroutines = copy(coroutine)
local create, resume, hook = coroutine.create, coroutine.resume, nil

local function new_coroutine(f)
  local thread = create(f)
  sethook(thread, hook, "", HOOK_COUNT)
  return thread
end

function coroutines.resume(...)
  if type((...)) ~= "thread" then
    error("bad argument #1 to 'resume' (coroutine expected)", 2)
  end
  enter()
  return caught_by_handler(resume(...))
end

function coroutines.create(...)
  local f = ...
  if type(f) ~= "function" or getinfo(f, "S").what == "C" then
    error("bad argument #1 to 'create' (Lua function expected)", 2)
  end
  return new_coroutine(f)
end

local function results(ok, ...)
  nested = nested - 1
  if ok then
    return ...
  end
  error((...), type((...)) == "string" and 3 or 0)
end

function coroutines.wrap(...)
  local f = ...
  if type(f) ~= "function" or getinfo(f, "S").what == "C" then
    error("bad argument #1 to 'wrap' (Lua function expected)", 2)
  end
  local thread = new_coroutine(f)
  return function(...)
    enter()
    return results(resume(thread, ...))
  end
end

-- The same numbers everywhere: rand.c, redisLrand48.
local maths = copy(math)
local LOW = 16777216 -- 2^24
local seed_high, seed_low = 0, 0x330E

local function srand48(seed)
  seed = seed % 4294967296
  local all = seed * 65536 + 0x330E
  seed_high, seed_low = floor(all / LOW), all % LOW
end

local function lrand48()
  -- x = (x * 0x5DEECE66D + 0xB) mod 2^48, in halves of 24 bits
  local a_high, a_low = 0x5DE, 0xECE66D
  local low = seed_low * a_low + 0xB
  local carry = floor(low / LOW)
  local high = (seed_high * a_low + seed_low * a_high + carry) % LOW
  seed_high, seed_low = high, low % LOW
  return floor((seed_high * LOW + seed_low) / 131072)
end

function maths.random(...)
  local r = lrand48() % 2147483647 / 2147483647
  local n = select("#", ...)
  if n == 0 then
    return r
  elseif n > 2 then
    error("wrong number of arguments", 2)
  end
  local low, high = ...
  if type(low) ~= "number" and not tonumber(low) then
    bad(1, "random", "number", ...)
  elseif n == 2 and type(high) ~= "number" and not tonumber(high) then
    bad(2, "random", "number", ...)
  end
  low = floor(low)
  if n == 1 then
    low, high = 1, low
  else
    high = floor(high)
  end
  if low > high then
    error(format("bad argument #%d to 'random' (interval is empty)", n), 2)
  end
  return floor(r * (high - low + 1)) + low
end

function maths.randomseed(...)
  local seed = ...
  if type(seed) ~= "number" then
    bad(1, "randomseed", "number", ...)
  end
  srand48(floor(seed))
end

globals.string = shown_strings
globals.table = readonly(tables)
globals.math = readonly(maths)
globals.coroutine = readonly(coroutines)
globals.os = readonly({ clock = os.clock })

-- The clock, and errors -----------------------------------------------------------------------

local PRELUDE = getinfo(1, "S").source

function hook()
  local message = host.tick()
  if message then
    sethook(hook, "l") -- again at the next line, whatever catches this
    kill = kill or { err = message }
    if getinfo(2, "S").source ~= PRELUDE then
      error(kill, 0)
    end
  end
end

-- __redis__err__handler: an error becomes a table that says where it arose. The frames of a
-- function of ours count as one of C.
local function on_error(err)
  local level, frame = 2, getinfo(2, "Sl")
  while frame and (frame.source == PRELUDE or frame.what == "C" or frame.what == "tail") do
    level = level + 1
    frame = getinfo(level, "Sl")
  end
  if type(err) ~= "table" then
    err = { err = "ERR " .. tostring(err) }
  end
  if frame then
    err.source, err.line = frame.source, frame.currentline
  end
  return err
end

-- Call a script's function. (true, its value), or (false, the error's text, source, line, whether
-- it was counted already).
function k.run(f, ...)
  kill, nested = nil, 0
  sethook(hook, "", HOOK_COUNT)
  local arguments, n = { ... }, select("#", ...)
  local ok, value = xpcall(function()
    return f(unpack(arguments, 1, n))
  end, on_error)
  sethook(hook, "", HOOK_COUNT)
  if ok then
    return true, value
  elseif type(value) ~= "table" then -- out of memory: the handler isn't asked
    return false, "ERR " .. tostring(value), nil, nil, false
  end
  local message = rawget(value, "err")
  if type(message) ~= "string" then
    message = "ERR unknown error"
  end
  local source, line = rawget(value, "source"), rawget(value, "line")
  return false, message, source and tostring(source), line,
    rawget(value, "ignore_error_stats_update") ~= nil
end
