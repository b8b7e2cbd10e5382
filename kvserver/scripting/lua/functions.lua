-- Libraries of functions: what FUNCTION LOAD runs, and how a library registers its functions.
--
-- While a library is loaded it sees nothing but `redis`, with register_function and log. Source: Redis
-- 7.4's function_lua.c.

local k = ...

local error, type, select, next, rawget, tostring = error, type, select, next, rawget, tostring
local getmetatable, setmetatable = getmetatable, setmetatable
local find, concat = string.find, table.concat

local FLAGS = {
  ["no-writes"] = true, ["allow-oom"] = true, ["allow-stale"] = true, ["no-cluster"] = true,
  ["allow-cross-slot-keys"] = true,
}

local function fail(message)
  error({ err = "ERR " .. message }, 0)
end

-- Positional or named arguments as one table.
local function named(...)
  local n = select("#", ...)
  if n == 1 then
    local given = ...
    if type(given) ~= "table" then
      fail("calling redis.register_function with a single argument is only applicable to Lua table"
        .. " (representing named arguments).")
    end
    return given
  elseif n ~= 2 then
    fail("wrong number of arguments to redis.register_function")
  end
  local name, callback = ...
  if type(name) ~= "string" and type(name) ~= "number" then
    fail("first argument to redis.register_function must be a string")
  elseif type(callback) ~= "function" then
    fail("second argument to redis.register_function must be a function")
  end
  return { function_name = tostring(name), callback = callback }
end

local function flag_names(flags)
  local names = {}
  local i = 1
  while rawget(flags, i) ~= nil do
    local flag = rawget(flags, i)
    if not FLAGS[flag] then
      fail("unknown flag given")
    end
    names[i] = flag
    i = i + 1
  end
  return concat(names, ",")
end

-- What is missing of an argument, or wrong with it.
local CHECKS = {
  function_name = { "string", "function_name argument given to redis.register_function must be a string" },
  description = { "string", "description argument given to redis.register_function must be a string" },
  callback = { "function", "callback argument given to redis.register_function must be a function" },
  flags = {
    "table", "flags argument to redis.register_function must be a table representing function flags",
  },
}

local registered, names = {}, {}

local function register(...)
  local given = named(...)
  for key, value in next, given do
    local check = CHECKS[key]
    if type(key) ~= "string" then
      fail("named argument key given to redis.register_function is not a string")
    elseif not check then
      fail("unknown argument given to redis.register_function")
    elseif type(value) ~= check[1] and not (check[1] == "string" and type(value) == "number") then
      fail(check[2])
    end
  end
  local name, callback = rawget(given, "function_name"), rawget(given, "callback")
  name = name and tostring(name)
  local flags = flag_names(rawget(given, "flags") or {})
  if not name then
    fail("redis.register_function must get a function name argument")
  elseif not callback then
    fail("redis.register_function must get a callback argument")
  elseif not find(name, "^[%w_]+$") then
    fail("Library names can only contain letters, numbers, or underscores(_) and must be at least "
      .. "one character long")
  elseif names[name] then
    fail("Function already exists in the library")
  end
  names[name] = true
  local description = rawget(given, "description")
  registered[#registered + 1] = {
    name = name, callback = callback, flags = flags,
    description = description and tostring(description) or false,
  }
end

local missing = getmetatable(k.globals)
local library_redis = setmetatable({
  register_function = register, log = k.redis.log, LOG_DEBUG = 0, LOG_VERBOSE = 1, LOG_NOTICE = 2,
  LOG_WARNING = 3, REDIS_VERSION = k.version, REDIS_VERSION_NUM = k.version_num,
}, missing)
local library_globals = setmetatable({ redis = k.readonly(library_redis) }, missing)

-- Run a library's chunk: the functions that it registered, or nil and the error's text.
function k.load_library(chunk)
  registered, names = {}, {}
  k.show(library_globals)
  local ok, message = k.run(chunk)
  k.show(k.globals)
  if not ok then
    return nil, message
  end
  return registered, #registered
end
