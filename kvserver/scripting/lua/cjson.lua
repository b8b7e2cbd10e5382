-- The cjson library as scripts know it: lua-cjson 2.1.0 with Redis' settings.
--
-- Source: Redis 7.4's deps/lua/src/lua_cjson.c; the texts of its errors are these.

local k = ...
local host = k.host

local error, type, select, tonumber, tostring = error, type, select, tonumber, tostring
local next, pcall, rawget = next, pcall, rawget
local byte, char, find, format = string.byte, string.char, string.find, string.format
local gsub, match, sub, lower = string.gsub, string.match, string.sub, string.lower
local concat, floor, huge = table.concat, math.floor, math.huge

local null = newproxy(true)
getmetatable(null).__tostring = function()
  return "userdata: (nil)"
end

-- Encoding ----------------------------------------------------------------------------------

local ESCAPES = {
  ['"'] = '\\"', ["\\"] = "\\\\", ["/"] = "\\/", ["\b"] = "\\b", ["\t"] = "\\t", ["\n"] = "\\n",
  ["\f"] = "\\f", ["\r"] = "\\r", ["\127"] = "\\u007f", ["\0"] = "\\u0000",
}
for code = 1, 31 do
  local c = char(code)
  ESCAPES[c] = ESCAPES[c] or format("\\u%04x", code)
end

local function quoted(text)
  return '"' .. gsub(text, '[%z%c"\\/\127]', ESCAPES) .. '"'
end

-- Errors of the code below: a table, so that they can be told from all others.
local function fail(...)
  error({ format(...) }, 0)
end

local function number_text(settings, number)
  if number ~= number or number == huge or number == -huge then
    if settings.encode_invalid_numbers == "null" then
      return "null"
    elseif settings.encode_invalid_numbers == "off" then
      fail("Cannot serialise number: must not be NaN or Inf")
    end
    return number ~= number and "nan" or number > 0 and "inf" or "-inf"
  end
  return format(settings.number_format, number)
end

-- How long a table is as an array; -1: it is an object.
local function array_length(settings, value)
  local max, items = 0, 0
  for key in next, value do
    if type(key) ~= "number" or key < 1 or floor(key) ~= key then
      return -1
    end
    max = key > max and key or max
    items = items + 1
  end
  local ratio = settings.sparse_ratio
  if ratio > 0 and max > items * ratio and max > settings.sparse_safe then
    if not settings.sparse_convert then
      fail("Cannot serialise table: excessively sparse array")
    end
    return -1
  end
  return max
end

local encode

local function encode_table(settings, out, value, depth)
  if depth > settings.encode_max_depth then
    fail("Cannot serialise, excessive nesting (%d)", depth)
  end
  local length = array_length(settings, value)
  if length > 0 then
    out[#out + 1] = "["
    for i = 1, length do
      if i > 1 then
        out[#out + 1] = ","
      end
      encode(settings, out, rawget(value, i), depth)
    end
    out[#out + 1] = "]"
    return
  end
  out[#out + 1] = "{"
  local first = true
  for key, item in next, value do
    if not first then
      out[#out + 1] = ","
    end
    first = false
    if type(key) == "number" then
      out[#out + 1] = '"' .. number_text(settings, key) .. '":'
    elseif type(key) == "string" then
      out[#out + 1] = quoted(key) .. ":"
    else
      fail("Cannot serialise %s: table key must be a number or string", type(key))
    end
    encode(settings, out, item, depth)
  end
  out[#out + 1] = "}"
end

function encode(settings, out, value, depth)
  local kind = type(value)
  if kind == "string" then
    out[#out + 1] = quoted(value)
  elseif kind == "number" then
    out[#out + 1] = number_text(settings, value)
  elseif kind == "boolean" then
    out[#out + 1] = tostring(value)
  elseif kind == "table" then
    encode_table(settings, out, value, depth + 1)
  elseif value == nil or value == null then
    out[#out + 1] = "null"
  else
    fail("Cannot serialise %s: type not supported", kind)
  end
end

-- Decoding ----------------------------------------------------------------------------------

local SINGLE = {
  ["{"] = "T_OBJ_BEGIN", ["}"] = "T_OBJ_END", ["["] = "T_ARR_BEGIN", ["]"] = "T_ARR_END",
  [":"] = "T_COLON", [","] = "T_COMMA",
}
local UNESCAPES = {
  ['"'] = '"', ["\\"] = "\\", ["/"] = "/", b = "\b", f = "\f", n = "\n", r = "\r", t = "\t",
}

local function utf8(code)
  if code < 0x80 then
    return char(code)
  elseif code < 0x800 then
    return char(0xC0 + floor(code / 64), 0x80 + code % 64)
  elseif code < 0x10000 then
    return char(0xE0 + floor(code / 4096), 0x80 + floor(code / 64) % 64, 0x80 + code % 64)
  end
  return char(
    0xF0 + floor(code / 262144), 0x80 + floor(code / 4096) % 64, 0x80 + floor(code / 64) % 64,
    0x80 + code % 64
  )
end

-- The character of \uXXXX at a place, and the place after it; nil if it is none.
local function unicode(text, at)
  local digits = match(text, "^%x%x%x%x", at + 2)
  if not digits then
    return nil
  end
  local code = tonumber(digits, 16)
  if code < 0xD800 or code > 0xDFFF then
    return utf8(code), at + 6
  elseif code >= 0xDC00 then
    return nil
  end
  local low = match(text, "^\\u(%x%x%x%x)", at + 6)
  low = low and tonumber(low, 16)
  if not low or low < 0xDC00 or low > 0xDFFF then
    return nil
  end
  return utf8((code - 0xD800) * 1024 + (low - 0xDC00) + 0x10000), at + 12
end

-- A string whose quote stands at `start`: token, value, place after it.
local function string_token(text, start)
  local at = start + 1
  local stop = find(text, '["\\%z]', at)
  if stop and byte(text, stop) == 34 then -- the usual one, without escapes
    return "T_STRING", sub(text, at, stop - 1), stop + 1
  end
  local parts = {}
  while true do
    stop = find(text, '["\\%z]', at)
    if not stop then
      return "T_ERROR", "unexpected end of string", #text + 1
    end
    parts[#parts + 1] = sub(text, at, stop - 1)
    local code = byte(text, stop)
    if code == 34 then
      return "T_STRING", concat(parts), stop + 1
    elseif code == 0 then
      return "T_ERROR", "unexpected end of string", stop
    end
    local c = sub(text, stop + 1, stop + 1)
    local plain
    if c == "u" then
      plain, at = unicode(text, stop)
      if not plain then
        return "T_ERROR", "invalid unicode escape code", stop
      end
    else
      plain, at = UNESCAPES[c], stop + 2
      if not plain then
        return "T_ERROR", "invalid escape code", stop
      end
    end
    parts[#parts + 1] = plain
  end
end

-- Whether what stands there is a number only to strtod (json_is_invalid_number).
local function is_invalid_number(text, at)
  local rest = lower(sub(text, at, at + 4))
  rest = gsub(rest, "^[+-]", "")
  return find(rest, "^0[x%d]") or find(rest, "^inf") or find(rest, "^nan")
end

-- The longest number, as strtod finds it: its value and the place after it.
local function strtod(text, at)
  local start, stop = find(text, "^[+-]?0[xX]%x+", at)
  if start then
    local sign, digits = match(sub(text, start, stop), "^([+-]?)0[xX](%x+)$")
    local value = 0
    for digit in string.gmatch(digits, "%x") do
      value = value * 16 + tonumber(digit, 16)
    end
    return sign == "-" and -value or value, stop + 1
  end
  start, stop = find(text, "^[+-]?%d+%.?%d*", at)
  if not start then
    start, stop = find(text, "^[+-]?%.%d+", at)
  end
  if start then
    local _, after = find(text, "^[eE][+-]?%d+", stop + 1)
    stop = after or stop
    local digits = gsub(sub(text, start, stop), "^%+", "")
    return tonumber(digits), stop + 1
  end
  local word = lower(sub(text, at, at + 8))
  local sign, name = match(word, "^([+-]?)(infinity)")
  if not name then
    sign, name = match(word, "^([+-]?)(inf)")
  end
  if name then
    return sign == "-" and -huge or huge, at + #sign + #name
  end
  sign = match(word, "^([+-]?)nan")
  if sign then
    return 0 / 0, at + #sign + 3
  end
  return nil
end

local function number_token(text, at)
  local value, after = strtod(text, at)
  if not value then
    return "T_ERROR", "invalid number", at
  end
  return "T_NUMBER", value, after
end

-- The next token: its type, its value, the place after it, where it begins.
local function token(settings, text, at)
  local start = find(text, "[^ \t\r\n]", at) or #text + 1
  local c = sub(text, start, start)
  if c == '"' then
    local kind, value, after = string_token(text, start)
    return kind, value, after, kind == "T_ERROR" and after or start
  elseif SINGLE[c] then
    return SINGLE[c], nil, start + 1, start
  elseif c == "" or c == "\0" then
    return "T_END", nil, start, start
  elseif find(c, "[-%d]") then
    if settings.decode_invalid_numbers or not is_invalid_number(text, start) then
      local kind, value, after = number_token(text, start)
      return kind, value, after, start
    end
    return "T_ERROR", "invalid number", start, start
  elseif sub(text, start, start + 3) == "true" then
    return "T_BOOLEAN", true, start + 4, start
  elseif sub(text, start, start + 4) == "false" then
    return "T_BOOLEAN", false, start + 5, start
  elseif sub(text, start, start + 3) == "null" then
    return "T_NULL", null, start + 4, start
  elseif find(c, "[+fiInNt]") and settings.decode_invalid_numbers and is_invalid_number(text, start) then
    local kind, value, after = number_token(text, start)
    return kind, value, after, start
  end
  return "T_ERROR", "invalid token", start, start
end

local function unexpected(wanted, kind, value, start)
  fail(
    "Expected %s but found %s at character %d", wanted, kind == "T_ERROR" and value or kind, start
  )
end

local decode

local function descend(settings, depth, at)
  if depth > settings.decode_max_depth then
    fail("Found too many nested data structures (%d) at character %d", depth, at - 1)
  end
end

local function decode_object(settings, text, at, depth)
  descend(settings, depth, at)
  local object = {}
  local kind, key, after, start = token(settings, text, at)
  if kind == "T_OBJ_END" then
    return object, after
  end
  while true do
    if kind ~= "T_STRING" then
      unexpected("object key string", kind, key, start)
    end
    local value
    kind, value, after, start = token(settings, text, after)
    if kind ~= "T_COLON" then
      unexpected("colon", kind, value, start)
    end
    object[key], after = decode(settings, text, depth, token(settings, text, after))
    kind, value, after, start = token(settings, text, after)
    if kind == "T_OBJ_END" then
      return object, after
    elseif kind ~= "T_COMMA" then
      unexpected("comma or object end", kind, value, start)
    end
    kind, key, after, start = token(settings, text, after)
  end
end

local function decode_array(settings, text, at, depth)
  descend(settings, depth, at)
  local array, n = {}, 0
  local kind, value, after, start = token(settings, text, at)
  if kind == "T_ARR_END" then
    return array, after
  end
  while true do
    n = n + 1
    array[n], after = decode(settings, text, depth, kind, value, after, start)
    kind, value, after, start = token(settings, text, after)
    if kind == "T_ARR_END" then
      return array, after
    elseif kind ~= "T_COMMA" then
      unexpected("comma or array end", kind, value, start)
    end
    kind, value, after, start = token(settings, text, after)
  end
end

-- The value that begins with this token, and the place after it.
function decode(settings, text, depth, kind, value, after, start)
  if kind == "T_STRING" or kind == "T_NUMBER" or kind == "T_BOOLEAN" or kind == "T_NULL" then
    return value, after
  elseif kind == "T_OBJ_BEGIN" then
    return decode_object(settings, text, after, depth + 1)
  elseif kind == "T_ARR_BEGIN" then
    return decode_array(settings, text, after, depth + 1)
  end
  unexpected("value", kind, value, start)
end

local function decode_all(settings, text)
  if #text >= 2 and (byte(text, 1) == 0 or byte(text, 2) == 0) then
    fail("JSON parser does not support UTF-16 or UTF-32")
  end
  local value, after = decode(settings, text, 0, token(settings, text, 1))
  local kind, found, _, start = token(settings, text, after)
  if kind ~= "T_END" then
    unexpected("the end", kind, found, start)
  end
  return value
end

-- The library -------------------------------------------------------------------------------

-- A function whose `fail` is an error of who called it.
local function raised(ok, ...)
  if ok then
    return ...
  end
  local problem = ...
  if type(problem) == "table" and problem[1] then
    error(problem[1], 3)
  end
  error(problem, 0)
end

local function one_argument(name, ...)
  if select("#", ...) ~= 1 then
    error(format("bad argument #1 to '%s' (expected 1 argument)", name), 3)
  end
end

local function integer_setting(settings, field, name, low, high)
  return function(...)
    if select("#", ...) > 1 then
      error(format("bad argument #2 to '%s' (found too many arguments)", name), 2)
    end
    local value = ...
    if value ~= nil then
      value = tonumber(value)
      if not value or value < low or value > high then
        error(
          format("bad argument #1 to '%s' (expected integer between %d and %d)", name, low, high), 2
        )
      end
      settings[field] = floor(value)
    end
    return settings[field]
  end
end

local function flag_setting(settings, field, name, options)
  return function(...)
    local value = ...
    if value ~= nil then
      if type(value) == "boolean" then
        value = value and "on" or "off"
      end
      if not options[value] then
        error(format("bad argument #1 to '%s' (invalid option '%s')", name, tostring(value)), 2)
      end
      settings[field] = value
    end
    local now = settings[field]
    if now == "on" then
      return true
    elseif now == "off" then
      return false
    end
    return now
  end
end

local SWITCH = { on = true, off = true }
local WITH_NULL = { on = true, off = true, null = true }

local function new()
  local settings = {
    sparse_convert = false, sparse_ratio = 2, sparse_safe = 10,
    encode_max_depth = 1000, decode_max_depth = 1000,
    encode_invalid_numbers = "off", decode_invalid_numbers = true, invalid = "on",
    keep_buffer = "off", precision = 14, number_format = "%.14g",
  }
  local cjson = { null = null, _NAME = "cjson", _VERSION = "2.1.0" }
  function cjson.encode(...)
    one_argument("encode", ...)
    local out = {}
    raised(pcall(encode, settings, out, (...), 0))
    return concat(out)
  end
  function cjson.decode(...)
    one_argument("decode", ...)
    local text = ...
    if type(text) == "number" then
      text = tostring(text)
    elseif type(text) ~= "string" then
      error(format("bad argument #1 to 'decode' (string expected, got %s)", type(text)), 2)
    end
    local value = raised(pcall(decode_all, settings, text))
    return value
  end
  function cjson.encode_sparse_array(convert, ratio, safe)
    if convert ~= nil then
      settings.sparse_convert = convert == true or convert == "on"
    end
    settings.sparse_ratio = tonumber(ratio) or settings.sparse_ratio
    settings.sparse_safe = tonumber(safe) or settings.sparse_safe
    return settings.sparse_convert, settings.sparse_ratio, settings.sparse_safe
  end
  cjson.encode_max_depth =
    integer_setting(settings, "encode_max_depth", "encode_max_depth", 1, 4000)
  cjson.decode_max_depth =
    integer_setting(settings, "decode_max_depth", "decode_max_depth", 1, 4000)
  local precision = integer_setting(settings, "precision", "encode_number_precision", 1, 14)
  function cjson.encode_number_precision(...)
    local value = precision(...)
    settings.number_format = "%." .. value .. "g"
    return value
  end
  cjson.encode_keep_buffer = flag_setting(settings, "keep_buffer", "encode_keep_buffer", SWITCH)
  cjson.encode_invalid_numbers =
    flag_setting(settings, "encode_invalid_numbers", "encode_invalid_numbers", WITH_NULL)
  local invalid = flag_setting(settings, "invalid", "decode_invalid_numbers", SWITCH)
  function cjson.decode_invalid_numbers(...)
    local value = invalid(...)
    settings.decode_invalid_numbers = value
    return value
  end
  cjson.new = new
  return cjson
end

k.globals.cjson = k.readonly(new())
