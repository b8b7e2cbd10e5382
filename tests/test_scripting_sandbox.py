"""What a script can't do: leave the sandbox, change it for others, or take the server with it."""

from __future__ import annotations

import pytest
from harness import Server

from kvserver.scripting.bytecode import without_tail_calls

#: Each would be a way out if it gave anything but nil or an error; all must answer "closed".
ESCAPES = [
    # what isn't there
    *(
        f"return rawget(_G, '{name}') == nil and 'closed'"
        for name in (
            "python",
            "io",
            "package",
            "require",
            "module",
            "debug",
            "dofile",
            "loadfile",
            "print",
            "getfenv",
            "setfenv",
            "newproxy",
            "host",
            "k",
        )
    ),
    "local n = 0 for name in pairs(_G.os) do n = n + 1 end return n == 1 and 'closed'",
    # objects of Python's: there must be none in reach
    "local seen, bad = {}, nil "
    "local function walk(t) "
    "  if type(t) == 'userdata' and t ~= cjson.null then bad = t end "
    "  if type(t) ~= 'table' or seen[t] then return end "
    "  seen[t] = true "
    "  walk(getmetatable(t)) "
    "  for key, value in pairs(t) do walk(key) walk(value) end "
    "end "
    "walk(_G) walk(getmetatable('')) return bad == nil and 'closed'",
    "return getmetatable(cjson.null) == nil and 'closed'",
    "local ok = pcall(function() return cjson.null.x end) return not ok and 'closed'",
    "return getmetatable(redis.call) == nil and 'closed'",
    "local ok = pcall(function() return redis.call.__class__ end) return not ok and 'closed'",
    "local ok, e = pcall(redis.call, 'get') return type(e) == 'string' and 'closed'",
    "local ok, e = pcall(redis.sha1hex) return type(e) ~= 'userdata' and 'closed'",
    "local ok, e = pcall(struct.unpack, 'z', 'x') return type(e) == 'string' and 'closed'",
    "local ok, e = pcall(bit.band, {}) return type(e) == 'string' and 'closed'",
    "local ok, e = pcall(bit.tohex, 1, {}) return type(e) ~= 'userdata' and 'closed'",
    "local co = coroutine.create(function() redis.call('get') end) "
    "local ok, e = coroutine.resume(co) return type(e) == 'table' and 'closed'",
    # code that isn't text
    "local f = loadstring(string.dump(function() return 1 end)) return f == nil and 'closed'",
    "local f = loadstring('\\27Lua') return f == nil and 'closed'",
    "local parts = {'\\27', 'Lua'} "
    "local f = load(function() return table.remove(parts, 1) end) return f == nil and 'closed'",
    # the environment of loaded code
    "local f = loadstring('return python') return not pcall(f) and 'closed'",
    "local f = loadstring('leaked = 1') return not pcall(f) and 'closed'",
    "local f = load(function() end) return f ~= nil and 'closed'",
    "local f = coroutine.wrap(function() return loadstring('return debug')() end) "
    "return not pcall(f) and 'closed'",
    # writes
    *(
        f"return not pcall(function() {code} end) and 'closed'"
        for code in (
            "_G.x = 1",
            "redis.x = 1",
            "string.find = 1",
            "getmetatable('').__index = {}",
            "getmetatable('').__index.find = 1",
            "getmetatable(_G).__index = {}",
            "getmetatable(_G).__newindex = nil",
            "rawset(_G, 'x', 1)",
            "rawset(string, 'x', 1)",
            "setmetatable(_G, nil)",
            "setmetatable(redis, {})",
            "table.insert(redis, 1)",
            "table.insert(_G, 1)",
            "math.random = 1",
            "cjson.encode = 1",
            "os.clock = 1",
            "coroutine.wrap = 1",
            "rawset(getmetatable(''), '__index', 1)",
        )
    ),
    "local t = next(_G) and getmetatable(string) return t == nil and 'closed'",
    # limits
    "return not pcall(unpack, {}, 0, 2^31 - 1) and 'closed'",
    "return not pcall(unpack, {}, -2^31, 2^31 - 1) and 'closed'",
    "return not pcall(unpack, {}, 1, 1e308) and 'closed'",
    "local s = string.rep('a', 300000) "
    "return not pcall(string.find, s, string.rep('a?', 300000)) and 'closed'",
    "return not pcall(('x').find, 'x', string.rep('(', 20000)) and 'closed'",
    "local function f() return f() + 1 end return not pcall(f) and 'closed'",
    "return bit.tohex(1, -2147483648) ~= nil and 'closed'",
    "local ok = pcall(cjson.decode, string.rep('[', 100000)) return not ok and 'closed'",
    "local t = {} t[1] = t return not pcall(cjson.encode, t) and 'closed'",
    "local t = {} t[1] = t return #cmsgpack.pack(t) < 100 and 'closed'",
    "return not pcall(cmsgpack.unpack, string.rep('\\145', 100000)) and 'closed'",
    "return not pcall(struct.pack, string.rep('I32', 10), 1) and 'closed'",
    "return not pcall(struct.unpack, 'c2147483647', 'x') and 'closed'",
    # No script can be killed meanwhile.
    "return not pcall(struct.pack, string.rep('x', 1e6)) and 'closed'",
    "return not pcall(struct.size, string.rep('x', 1e6)) and 'closed'",
    "collectgarbage('stop') collectgarbage('setpause', 1000) return 'closed'",
    # a name of a chunk that nobody holds, while the parser's memory is collected
    "local i = 0 local f = load(function() i = i + 1 collectgarbage() "
    "return i < 50 and 'local a' .. i .. ' = 1 ' or nil end, 'n' .. '\\0' .. 'x') "
    "return f ~= nil and 'closed'",
]


@pytest.mark.parametrize("script", ESCAPES)
def test_the_sandbox_is_closed(server: Server, script: str) -> None:
    conn = server.conn()
    assert conn.ask("EVAL", script, 0) == b"$6\r\nclosed\r\n"
    assert conn.ask("EVAL", "return {redis.call('ping'), #KEYS, (('ab'):find('b'))}", 0) == (
        b"*3\r\n+PONG\r\n:0\r\n:2\r\n"
    )


DOUBLE = "local s = 'x' while true do s = s .. s end"


@pytest.mark.parametrize(
    "script",
    [
        DOUBLE,
        "local t = {} for i = 1, 1e9 do t[i] = i end",
        f"while true do pcall(function() {DOUBLE} end) end",
        f"while true do xpcall(function() {DOUBLE} end, function() return 1 end) end",
        f"while true do coroutine.resume(coroutine.create(function() {DOUBLE} end)) end",
        f"local co = coroutine.wrap(function() {DOUBLE} end) while true do pcall(co) end",
    ],
)
def test_a_script_without_measure_is_ended(server: Server, script: str) -> None:
    conn = server.conn()
    assert b"not enough memory" in conn.ask("EVAL", script, 0)
    assert conn.ask("EVAL", "return redis.call('set', 'a', 1)", 0) == b"+OK\r\n"


def test_a_reply_that_does_not_fit_is_an_error(server: Server) -> None:
    conn = server.conn()
    conn.ask("SETRANGE", "large", 60 << 20, "x")
    script = "local t = {} for i = 1, 30 do t[i] = redis.call('get', 'large') .. i end"
    assert b"not enough memory" in conn.ask("EVAL", script, 0)
    assert conn.ask("EVAL", "return #redis.call('get', 'large')", 0) == b":62914561\r\n"


def test_bytecode_of_another_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="bytecode"):
        without_tail_calls(b"\x1bLuaQ\0\0")


def test_a_tail_call_keeps_the_line_of_its_error(server: Server) -> None:
    script = """
        local function deep()
          return error('here')
        end
        return deep()
    """
    reply = server.conn().ask("EVAL", script, 0)
    assert reply.startswith(b"-ERR user_script:3: here script: ")
    assert reply.endswith(b", on @user_script:3.\r\n")
