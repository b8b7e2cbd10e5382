-- The libraries cmsgpack, struct and bit.
--
-- Lua 5.1 has no integers: what works on bits is done by the host. Source: Redis 7.4's
-- deps/lua/src: lua_cmsgpack.c, lua_struct.c, lua_bit.c.

local k = ...
local host, globals, readonly = k.host, k.globals, k.readonly

local error, type, select, tonumber, tostring = error, type, select, tonumber, tostring
local next, pcall, unpack = next, pcall, unpack
local byte, char, format, rep, sub = string.byte, string.char, string.format, string.rep, string.sub
local concat, floor, huge = table.concat, math.floor, math.huge

local function bad(index, name, what)
  error(format("bad argument #%d to '%s' (%s)", index, name, what), 3)
end

-- Only strings and numbers may go to the host.
local function plain(name, ...)
  for i = 1, select("#", ...) do
    local kind = type((select(i, ...)))
    if kind ~= "string" and kind ~= "number" then
      error(format("bad argument #%d to '%s' (number expected, got %s)", i, name, kind), 3)
    end
  end
end

-- cmsgpack ------------------------------------------------------------------------------------

local MAX_NESTING = 16
local MISSING, MALFORMED = "Missing bytes in input.", "Bad data format in input."

local function unsigned(value, size)
  local bytes = {}
  for i = size, 1, -1 do
    bytes[i] = char(value % 256)
    value = floor(value / 256)
  end
  return concat(bytes)
end

local function pack_integer(n)
  if n >= 0 then
    if n <= 0x7F then
      return char(n)
    elseif n <= 0xFF then
      return "\204" .. char(n)
    elseif n <= 0xFFFF then
      return "\205" .. unsigned(n, 2)
    elseif n <= 0xFFFFFFFF then
      return "\206" .. unsigned(n, 4)
    end
    return "\207" .. unsigned(n, 8)
  elseif n >= -32 then
    return char(256 + n)
  elseif n >= -0x80 then
    return "\208" .. char(256 + n)
  elseif n >= -0x8000 then
    return "\209" .. unsigned(n + 0x10000, 2)
  elseif n >= -0x80000000 then
    return "\210" .. unsigned(n + 0x100000000, 4)
  end
  return "\211" .. host.pack_int64(n)
end

local function is_integer(n)
  return n == floor(n) and n >= -9223372036854775808 and n < 9223372036854775808
end

local function pack_string(text)
  local size = #text
  if size < 32 then
    return char(0xA0 + size) .. text
  elseif size <= 0xFF then
    return "\217" .. char(size) .. text
  elseif size <= 0xFFFF then
    return "\218" .. unsigned(size, 2) .. text
  end
  return "\219" .. unsigned(size, 4) .. text
end

local function header(count, short, long)
  if count <= 15 then
    return char(short + count)
  elseif count <= 0xFFFF then
    return char(long) .. unsigned(count, 2)
  end
  return char(long + 1) .. unsigned(count, 4)
end

-- Whether it has nothing but 1 .. n, and how many entries it has.
local function measure(t)
  local max, count, dense = 0, 0, true
  for key in next, t do
    if type(key) ~= "number" or key <= 0 or not is_integer(key) then
      dense = false
    elseif key > max then
      max = key
    end
    count = count + 1
  end
  return dense and max == count, count
end

local function pack_value(out, value, level)
  local kind = type(value)
  if kind == "table" and level == MAX_NESTING then
    kind = "nil"
  end
  if kind == "string" then
    out[#out + 1] = pack_string(value)
  elseif kind == "boolean" then
    out[#out + 1] = value and "\195" or "\194"
  elseif kind == "number" then
    out[#out + 1] = is_integer(value) and pack_integer(value) or host.pack_double(value)
  elseif kind == "table" then
    local is_array, count = measure(value)
    if is_array then
      out[#out + 1] = header(count, 0x90, 0xDC)
      for i = 1, count do
        pack_value(out, value[i], level + 1)
      end
    else
      out[#out + 1] = header(count, 0x80, 0xDE)
      for key, item in next, value do
        pack_value(out, key, level + 1)
        pack_value(out, item, level + 1)
      end
    end
  else
    out[#out + 1] = "\192"
  end
end

local cmsgpack = {
  _NAME = "cmsgpack", _VERSION = "lua-cmsgpack 0.4.0",
  _COPYRIGHT = "Copyright (C) 2012, Redis Ltd.",
  _DESCRIPTION = "MessagePack C implementation for Lua",
}

function cmsgpack.pack(...)
  local n = select("#", ...)
  if n == 0 then
    error("bad argument #0 to 'pack' (MessagePack pack needs input.)", 2)
  end
  local out = {}
  for i = 1, n do
    pack_value(out, (select(i, ...)), 0)
  end
  return concat(out)
end

local function fail(message)
  error({ message }, 0)
end

-- `size` bytes at a place, as a number; the place after them.
local function read_unsigned(text, at, size)
  if #text - at + 1 < size then
    fail(MISSING)
  end
  local value = 0
  for i = at, at + size - 1 do
    value = value * 256 + byte(text, i)
  end
  return value, at + size
end

local function read_signed(text, at, size)
  if size == 8 then
    if #text - at + 1 < 8 then
      fail(MISSING)
    end
    return host.unpack_int64(sub(text, at, at + 7)), at + 8
  end
  local value
  value, at = read_unsigned(text, at, size)
  local limit = 256 ^ size
  return value >= limit / 2 and value - limit or value, at
end

local function read_bytes(text, at, size)
  if #text - at + 1 < size then
    fail(MISSING)
  end
  return sub(text, at, at + size - 1), at + size
end

local function read_float(text, at, size)
  local data
  data, at = read_bytes(text, at, size)
  return host.unpack_double(data), at
end

local unpack_value

-- Deeper than this the C library would run out of Lua's stack too.
local MAX_DEPTH = 3900

local function read_array(text, at, count, depth)
  local array = {}
  for i = 1, count do
    array[i], at = unpack_value(text, at, depth + 1)
  end
  return array, at
end

local function read_map(text, at, count, depth)
  local map, key, value = {}, nil, nil
  for _ = 1, count do
    key, at = unpack_value(text, at, depth + 1)
    value, at = unpack_value(text, at, depth + 1)
    if key == nil or key ~= key then
      fail("table index is " .. (key == nil and "nil" or "NaN"))
    end
    map[key] = value
  end
  return map, at
end

local SIZED = {
  [0xCA] = { read_float, 4 }, [0xCB] = { read_float, 8 },
  [0xCC] = { read_unsigned, 1 }, [0xCD] = { read_unsigned, 2 }, [0xCE] = { read_unsigned, 4 },
  [0xCF] = { read_signed, 8 }, -- it is cast to a signed one
  [0xD0] = { read_signed, 1 }, [0xD1] = { read_signed, 2 }, [0xD2] = { read_signed, 4 },
  [0xD3] = { read_signed, 8 },
}
local COUNTED = {
  [0xD9] = { read_bytes, 1 }, [0xDA] = { read_bytes, 2 }, [0xDB] = { read_bytes, 4 },
  [0xDC] = { read_array, 2 }, [0xDD] = { read_array, 4 },
  [0xDE] = { read_map, 2 }, [0xDF] = { read_map, 4 },
}

function unpack_value(text, at, depth)
  local code = byte(text, at)
  if not code then
    fail(MISSING)
  elseif depth > MAX_DEPTH then
    fail(MALFORMED)
  end
  at = at + 1
  if code < 0x80 then
    return code, at
  elseif code >= 0xE0 then
    return code - 256, at
  elseif code < 0x90 then
    return read_map(text, at, code - 0x80, depth)
  elseif code < 0xA0 then
    return read_array(text, at, code - 0x90, depth)
  elseif code < 0xC0 then
    return read_bytes(text, at, code - 0xA0)
  elseif code == 0xC0 then
    return nil, at
  elseif code == 0xC2 or code == 0xC3 then
    return code == 0xC3, at
  end
  local way = SIZED[code]
  if way then
    return way[1](text, at, way[2])
  end
  way = COUNTED[code]
  if not way then
    fail(MALFORMED)
  end
  local count
  count, at = read_unsigned(text, at, way[2])
  return way[1](text, at, count, depth)
end

-- Up to `limit` values from a place on; how many, and the place after them.
local function unpack_some(text, at, limit)
  local found, n = {}, 0
  while at <= #text and n < limit do
    n = n + 1
    found[n], at = unpack_value(text, at, 0)
  end
  return found, n, at
end

local function unpack_at(ok, ...)
  if ok then
    return ...
  end
  local problem = ...
  if type(problem) == "table" and problem[1] then
    error(problem[1], 3)
  end
  error(problem, 0)
end

local function input(name, text)
  if type(text) == "number" then
    return tostring(text)
  elseif type(text) ~= "string" then
    error(format("bad argument #1 to '%s' (string expected, got %s)", name,
      text == nil and "no value" or type(text)), 3)
  end
  return text
end

function cmsgpack.unpack(text)
  text = input("unpack", text)
  local found, n = unpack_at(pcall(unpack_some, text, 1, 7900))
  return unpack(found, 1, n)
end

local function check_range(text, offset, limit)
  if offset < 0 or limit < 0 then
    error(format("Invalid request to unpack with offset of %d and limit of %d.", offset, #text), 3)
  elseif offset > #text then
    error(format("Start offset %d greater than input length %d.", offset, #text), 3)
  end
end

function cmsgpack.unpack_one(text, offset)
  text = input("unpack_one", text)
  offset = floor(tonumber(offset) or 0)
  check_range(text, offset, 1)
  local found, n, at = unpack_at(pcall(unpack_some, text, offset + 1, 1))
  return at > #text and -1 or at - 1, unpack(found, 1, n)
end

function cmsgpack.unpack_limit(text, limit, offset)
  text = input("unpack_limit", text)
  limit, offset = floor(tonumber(limit) or 0), floor(tonumber(offset) or 0)
  check_range(text, offset, limit)
  local most = limit == 0 and offset == 0 and 7900 or limit
  local found, n, at = unpack_at(pcall(unpack_some, text, offset + 1, most < 7900 and most or 7900))
  if limit == 0 and offset == 0 then
    return unpack(found, 1, n)
  end
  return at > #text and -1 or at - 1, unpack(found, 1, n)
end

globals.cmsgpack = readonly(cmsgpack)

-- struct ----------------------------------------------------------------------------------------

local struct = {}

local function checked(problem, ...)
  if problem then
    error(problem, 3)
  end
  return ...
end

function struct.pack(...)
  if type((...)) ~= "string" then
    error(format("bad argument #1 to 'pack' (string expected, got %s)",
      select("#", ...) == 0 and "no value" or type((...))), 2)
  end
  plain("pack", ...)
  local value = checked(host.struct_pack(...))
  return value
end

function struct.unpack(...)
  local text, data = ...
  if type(text) ~= "string" then
    bad(1, "unpack", "string expected, got " .. (select("#", ...) == 0 and "no value" or type(text)))
  elseif type(data) ~= "string" and type(data) ~= "number" then
    bad(2, "unpack", "string expected, got " .. (select("#", ...) < 2 and "no value" or type(data)))
  end
  plain("unpack", ...)
  local function values(problem, ...)
    if problem then
      error(problem, 3)
    end
    return ...
  end
  return values(host.struct_unpack(...))
end

function struct.size(...)
  if type((...)) ~= "string" then
    error(format("bad argument #1 to 'size' (string expected, got %s)",
      select("#", ...) == 0 and "no value" or type((...))), 2)
  end
  local size = checked(host.struct_size((...)))
  return size
end

globals.struct = readonly(struct)

-- bit -------------------------------------------------------------------------------------------

local bit = {}

for name, count in next, {
  arshift = 2, band = 1, bnot = 1, bor = 1, bswap = 1, bxor = 1, lshift = 2, rol = 2, ror = 2,
  rshift = 2, tobit = 1,
} do
  local operation = host.bit[name]
  bit[name] = function(...)
    local n = select("#", ...)
    for i = 1, n > count and n or count do
      if i > n then
        bad(i, name, "number expected, got no value")
      end
      local kind = type((select(i, ...)))
      if kind ~= "number" and not (kind == "string" and tonumber((select(i, ...)))) then
        bad(i, name, "number expected, got " .. kind)
      end
    end
    if count == 2 then
      local a, b = ...
      return operation(tonumber(a), tonumber(b))
    elseif n == 1 then
      return operation(tonumber((...)))
    elseif n == 2 then
      local a, b = ...
      return operation(tonumber(a), tonumber(b))
    end
    local value = tonumber((...))
    for i = 2, n do
      value = operation(value, tonumber((select(i, ...))))
    end
    return value
  end
end

function bit.tohex(...)
  local value, digits = ...
  if type(value) ~= "number" and not tonumber(value) then
    bad(1, "tohex", "number expected, got " .. (select("#", ...) == 0 and "no value" or type(value)))
  end
  return host.tohex(tonumber(value), tonumber(digits) or 8)
end

globals.bit = readonly(bit)

k.begin()
globals.redis = readonly(k.redis)
