"""The configuration: kinds and CONFIG GET/SET beside a real redis-server, files, REWRITE."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import redis
from harness import Server
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from kvserver import config_file, errors
from kvserver.config import Config, ConfigError, Int, Row
from kvserver.config_file import (
    SIGNATURE,
    load,
    parse_command_line,
    quote,
    render_default,
    rewrite,
    rewritten,
    split_words,
)
from kvserver.directives import DIRECTIVES, buffer_limit, default_config
from kvserver.kinds import BufferLimit

CONF = Path(__file__).parent.parent / "conf" / "kvserver.conf"
REGENERATE = (
    "python -c 'from kvserver.config_file import render_default as r; print(r(), end=\"\")' "
    "> conf/kvserver.conf"
)
WITH_FIXTURE = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def no_stdin() -> str:
    raise AssertionError("standard input was read")


def everything(config: Config) -> dict[str, Any]:
    return {row.name: config.value(row.name) for row in config.rows}


def set_error(config: Config, *pairs: tuple[str, str]) -> str | None:
    """What CONFIG SET answers, without the leading ERR; None if it is OK."""
    try:
        config.set_many(pairs)
    except errors.RedisError as error:
        return str(error).removeprefix("ERR ")
    return None


def refusal(*argv: str, stdin: Callable[[], str] = no_stdin) -> str:
    with pytest.raises(ConfigError) as caught:
        load(argv, stdin)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    return tmp_path / "kvserver.conf"


# -- the table and the default file ----------------------------------------------------


def test_rows_are_whole() -> None:
    names = [name for row in DIRECTIVES for name in (row.name, *row.aliases)]
    assert len(set(names)) == len(names)
    for row in DIRECTIVES:
        assert row.name == row.name.lower()
        assert row.doc.endswith(".") and ". " not in row.doc, f"{row.name}: one sentence"
        assert bool(row.default) or bool(row.example) or row.name == "save", row.name


def test_conf_is_what_the_table_says() -> None:
    assert CONF.read_text() == render_default(), f"out of date; run: {REGENERATE}"


def test_conf_loads_as_the_defaults() -> None:
    assert everything(load([str(CONF)], no_stdin)) == everything(default_config())


@pytest.mark.parametrize("row", [r for r in DIRECTIVES if r.example], ids=lambda r: r.name)
def test_examples_are_valid(row: Row) -> None:
    assert f"\n# {row.name} {row.example}\n" in CONF.read_text()
    if row.name != "include":
        load([], no_stdin).set_at_startup(row, split_words(row.example))


def test_defaults_are_those_of_redis(oracle: Server) -> None:
    theirs = oracle.client(decode_responses=True).config_get("*")
    ours = default_config().get_matching(["*"])
    differing = {name for name in ours.keys() & theirs.keys() if ours[name] != theirs[name]}
    started_with = {"port", "bind", "dir", "logfile", "pidfile", "enable-debug-command"}
    # The log is always on, and NOTIFY_SOCKET is used wherever it is set.
    assert differing - started_with == {"appendonly", "supervised"}


# -- values, beside redis-server -------------------------------------------------------


def texts(separated: str) -> list[str]:
    return separated.split("|")


SIZES = texts("0|1|1mb|1MB|2m|3g|1gb|64kb|1048575|1048576b|1.5gb|x|-1")
NUMBERS = texts("0|1|10|2147483647|2147483648|-1|-2|007|+1| 1||x|1e3|0x10|-0")
NUMBERS += ["9223372036854775807", "9223372036854775808"]
BOOLS = texts("yes|no|YES|No|1||true")
EVENTS = texts("|KEA|AKE|Kx|g$lshzxetdKE|g$lshzxeKE|AKEm|AnKE|nK|q|K E|KK")
PERCENTILES = texts("50|99.9 99.99||0 100|100.5|-1|x|50 |1e1|33.333333333")
LIMITS = texts(
    "|normal 1 2 3|normal 1mb 2kb 3 pubsub 0 0 0|slave 1 2 3|replica 1g 2 3|NORMAL 1 2 3|normal 1 2"
    "|normal  1 2 3|master 1 2 3|x 1 2 3|normal x 2 3|normal 1 y 3|normal 1 2 z|normal 1 2 -1"
    "|pubsub 5 5 5 pubsub 6 6 6"
)
INTEGERS = "timeout tcp-keepalive hz shutdown-timeout slowlog-log-slower-than slowlog-max-len"

SHARED = {
    **dict.fromkeys([*INTEGERS.split(), "latency-monitor-threshold"], NUMBERS),
    **dict.fromkeys(["proto-max-bulk-len", "client-query-buffer-limit"], SIZES),
    **dict.fromkeys(["latency-tracking", "tls-prefer-server-ciphers"], BOOLS),
    "appendfsync": ["no", "always", "EverySec", "", "sometimes"],
    "tls-auth-clients": ["no", "yes", "Optional", "maybe"],
    "tls-cert-file": ["", "some file"],
    "tls-ciphers": ["", "DEFAULT:!MEDIUM"],
    "notify-keyspace-events": EVENTS,
    "latency-tracking-info-percentiles": PERCENTILES,
    "client-output-buffer-limit": LIMITS,
}


def oracle_set_error(client: redis.Redis, words: Sequence[str]) -> str | None:
    try:
        client.execute_command("CONFIG SET", *words)
    except redis.ResponseError as error:
        return str(error)
    return None


@pytest.mark.parametrize("name", SHARED)
def test_values_are_taken_and_refused_as_redis_does(name: str, oracle: Server) -> None:
    client = oracle.client(decode_responses=True)
    config = default_config()
    for text in SHARED[name]:
        assert set_error(config, (name, text)) == oracle_set_error(client, [name, text]), text
        assert config.get_matching([name]) == client.config_get(name), text


SETTINGS = st.sampled_from([(name, text) for name, texts in SHARED.items() for text in texts])
ODD_SETTINGS = st.tuples(
    st.sampled_from(["databases", "DataBases", "nosuch", "TIMEOUT", "rename-command"]), st.just("5")
)


@WITH_FIXTURE
@given(st.lists(st.lists(SETTINGS | ODD_SETTINGS, min_size=1, max_size=4), max_size=4))
@example([[("timeout", "1"), ("timeout", "2")], [("timeout", "1"), ("Timeout", "2")]])
@example([[("timeout", "7"), ("hz", "x")]])
@example([[("databases", "1"), ("nosuch", "1")], [("nosuch", "1"), ("databases", "1")]])
def test_several_settings_are_atomic_as_in_redis(
    oracle: Server, commands: list[list[tuple[str, str]]]
) -> None:
    client = oracle.client(decode_responses=True)
    config = default_config()
    client.config_set(
        *(word for name in SHARED for word in (name, config.get_matching([name])[name]))
    )
    for pairs in commands:
        words = [word for pair in pairs for word in pair]
        assert set_error(config, *pairs) == oracle_set_error(client, words)
        assert config.get_matching(list(SHARED)) == client.config_get(*SHARED)


@pytest.mark.parametrize(
    "patterns",
    texts("port|PORT port|PO* PORT|TIMEOUT time*|[t]imeout|ti\\meout|nosuch|include"),
)
def test_get_spells_names_as_redis_does(patterns: str, oracle: Server) -> None:
    theirs = oracle.client(decode_responses=True).config_get(*patterns.split())
    assert default_config().get_matching(patterns.split()).keys() == theirs.keys()


def test_get_matches_globs() -> None:
    found = default_config().get_matching(["maxmemory*", "rocksdb.wal_*"])
    assert list(found.items()) == [
        ("maxmemory", "0"),
        ("maxmemory-policy", "noeviction"),
        ("rocksdb.wal_ttl_seconds", "10800"),
        ("rocksdb.wal_size_limit_mb", "16384"),
    ]


def test_rewrite_without_a_file_is_refused_as_redis_does(oracle: Server) -> None:
    with pytest.raises(redis.ResponseError) as theirs:
        oracle.client().config_rewrite()
    with pytest.raises(errors.RedisError) as ours:
        rewrite(default_config())
    assert str(ours.value) == f"ERR {theirs.value}"


def test_facts_can_be_set_to_what_they_are() -> None:
    config = default_config()
    assert set_error(config, ("appendonly", "YES"), ("save", ""), ("maxmemory", "0")) is None
    assert set_error(config, ("maxmemory-policy", "noeviction")) is None
    for name, text in [("appendonly", "no"), ("save", "900 1"), ("maxmemory", "1gb")]:
        assert "argument must be '" in (set_error(config, (name, text)) or "")
    assert set_error(config, ("maxmemory-policy", "allkeys-lru")) == (
        "CONFIG SET failed (possibly related to argument 'maxmemory-policy') - "
        "argument(s) must be one of the following: noeviction"
    )


# -- Config ----------------------------------------------------------------------------


def test_getters_are_typed() -> None:
    config = load(["--rename-command", "GET", "g"], no_stdin)
    assert config.get_int("port") == 6379
    assert config.get_int("row-cache-size") == 256 << 20
    assert config.get_bool("protected-mode") is True
    assert config.get_str("appendfsync") == "everysec"
    assert config.get_list("bind") == ("127.0.0.1", "-::1")
    assert config.get_floats("latency-tracking-info-percentiles") == (50.0, 99.0, 99.9)
    assert config.get_lines("rename-command") == (("GET", "g"),)
    assert config.get_str("dir") == os.path.abspath("data")
    assert buffer_limit(config, "replica") == BufferLimit(256 << 20, 64 << 20, 60)
    for getter, name in [
        (config.get_int, "protected-mode"),
        (config.get_bool, "port"),
        (config.get_str, "bind"),
        (config.get_list, "latency-tracking-info-percentiles"),
    ]:
        with pytest.raises(TypeError):
            getter(name)
    with pytest.raises(KeyError):
        config.get_int("prot")


def test_secrets_are_known_by_any_spelling() -> None:
    config = default_config()
    assert config.is_secret("requirepass") and config.is_secret("RequirePass")
    assert not config.is_secret("port") and not config.is_secret("nosuch")


def test_aliases_are_names_too() -> None:
    config = Config([Row("replica-x", Int(0, 9), "5", "X.", aliases=("slave-x",))])
    config.set_many([("Slave-X", "6")])
    assert config.get_matching(["*"]) == {"replica-x": "6", "slave-x": "6"}
    assert config.get_matching(["SLAVE-X"]) == {"SLAVE-X": "6"}
    assert "duplicate parameter" in str(set_error(config, ("slave-x", "1"), ("replica-x", "1")))
    assert rewritten(config, "slave-x 1\n# end\n") == "replica-x 6\n# end\n"


def test_listeners_hear_of_changes_once() -> None:
    config = default_config()
    heard: list[tuple[int, int]] = []
    config.on_change(
        ("port", "timeout"),
        lambda: heard.append((config.get_int("port"), config.get_int("timeout"))),
    )
    config.set_many([("port", "1"), ("timeout", "2"), ("hz", "50")])
    config.set_many([("port", "1")])
    assert heard == [(1, 2)]


def test_setting_a_certificate_again_reloads_it() -> None:
    config = default_config()
    heard: list[str] = []
    config.on_change("tls-cert-file", lambda: heard.append(config.get_str("tls-cert-file")))
    config.set_many([("tls-cert-file", "a")])
    config.set_many([("tls-cert-file", "a")])
    assert heard == ["a", "a"]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ConfigError("Unable to listen"), "Unable to listen"),
        (OSError(28, "No space left"), "No space left"),
    ],
)
def test_a_listener_that_fails_undoes_everything(error: Exception, reason: str) -> None:
    config = default_config()
    before = everything(config)
    heard: list[tuple[str, int]] = []

    def refuse() -> None:
        heard.append(("refuse", config.get_int("port")))
        if config.get_int("port") == 1:
            raise error

    config.on_change("timeout", lambda: heard.append(("timeout", config.get_int("timeout"))))
    config.on_change("port", refuse)
    config.on_change("hz", lambda: heard.append(("hz", config.get_int("hz"))))
    message = set_error(config, ("timeout", "5"), ("port", "1"), ("hz", "20"))
    assert message == f"CONFIG SET failed (possibly related to argument 'port') - {reason}"
    assert everything(config) == before
    assert heard == [("timeout", 5), ("refuse", 1), ("timeout", 0), ("refuse", 6379)]


def test_a_listener_with_a_bug_undoes_everything_too() -> None:
    config = default_config()
    heard: list[int] = []
    config.on_change("timeout", lambda: heard.append(1 // config.get_int("timeout")))
    config.on_change("hz", lambda: heard.append(config.get_int("hz")))
    config.set_many([("timeout", "1")])
    with pytest.raises(ZeroDivisionError):
        config.set_many([("hz", "20"), ("timeout", "0")])
    assert (config.get_int("hz"), config.get_int("timeout")) == (10, 1)
    assert heard == [1, 20, 10, 1]


# -- the syntax ------------------------------------------------------------------------


@given(st.lists(st.binary(max_size=12), max_size=5))
@example([b""])
@example([b"\\", b"'", b'"', b"#", b"\x00\xff", b"a b", "é".encode()])
def test_quoted_words_come_back(words: list[bytes]) -> None:
    texts = [word.decode("utf-8", "surrogateescape") for word in words]
    line = " ".join(map(quote, texts))
    assert split_words(line) == texts
    assert line.isascii() and line.isprintable()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("", []),
        (" a  b\tc ", ["a", "b", "c"]),
        (r'"\x41\n\r\t\b\a\"\\\q\xZZ"', ['A\n\r\t\b\a"\\qxZZ']),
        (r"'it\'s \n' x", ["it's \\n", "x"]),
        (r"a\nb C:\dir", [r"a\nb", r"C:\dir"]),
        ("pre\"fix\" pre'fix'", ["prefix", "prefix"]),
        ("'' \"\"", ["", ""]),
        ('"é"', ["é"]),
        (r'"\xc3\xa9"', ["é"]),
    ],
)
def test_words_are_split(line: str, words: list[str]) -> None:
    assert split_words(line) == words


@pytest.mark.parametrize("line", ['"', "'", 'a "b', r'"a\"', r"'a\'", '"a"b', "'a'b", "\"a\"'b'"])
def test_unbalanced_quotes_are_refused(line: str) -> None:
    with pytest.raises(ValueError, match="Unbalanced quotes"):
        split_words(line)


def test_long_quotes_are_split_in_linear_time() -> None:
    word = "\\'" * 200_000
    assert split_words(f"'{word}'") == ["'" * 200_000]
    with pytest.raises(ValueError, match="Unbalanced quotes"):
        split_words(f"'{word}")


# -- files and the command line --------------------------------------------------------


def test_later_sources_override_earlier_ones(conf: Path) -> None:
    conf.write_text("port 1\nhz 20\n\n  # comment\nTIMEOUT 1\nmaxclients 5\n")
    config = load([str(conf), "--port", "3", "-"], lambda: "port 2\ntimeout 2")
    names = ["port", "hz", "timeout", "maxclients"]
    assert [config.get_int(name) for name in names] == [3, 20, 2, 5]
    assert config.path == str(conf)


def test_lists_and_lines_in_a_file(conf: Path) -> None:
    conf.write_text(
        '\f\nbind "10.0.0.1 ::1"\nsave ""\r\nrename-command CONFIG ""\nrename-command get "a b"\n'
        "client-output-buffer-limit replica 1mb 1kb 5\nclient-output-buffer-limit normal 9 9 9\n"
        "latency-tracking-info-percentiles ''\n"
    )
    config = load([str(conf)], no_stdin)
    assert config.get_list("bind") == ("10.0.0.1", "::1")
    assert config.get_lines("rename-command") == (("CONFIG", ""), ("get", "a b"))
    assert config.get_matching(["client-output-buffer-limit"]) == {
        "client-output-buffer-limit": "normal 9 9 9 slave 1048576 1024 5 pubsub 33554432 8388608 60"
    }
    assert config.get_floats("latency-tracking-info-percentiles") == ()


def test_bytes_that_are_not_utf8_survive(conf: Path) -> None:
    conf.write_bytes(b"requirepass \xff\xfe\n")
    config = load([str(conf)], no_stdin)
    assert config.get_str("requirepass").encode("utf-8", "surrogateescape") == b"\xff\xfe"
    config.set_many([("timeout", "5")])
    rewrite(config)
    assert conf.read_bytes() == b"requirepass \xff\xfe\n# Generated by CONFIG REWRITE\ntimeout 5\n"


def test_include(conf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(conf.parent)
    os.makedirs("conf.d")
    Path("conf.d/1.conf").write_text("port 1\ntimeout 1\ninclude conf.d/deeper\n")
    Path("conf.d/2.conf").write_text("timeout 2")
    Path("conf.d/deeper").write_text("hz 77\n")
    conf.write_text("timeout 9\nport 9\ninclude conf.d/*.conf\ninclude none/*.conf\nport 3\n")
    config = load(["kvserver.conf"], no_stdin)
    assert [config.get_int(name) for name in ("port", "timeout", "hz")] == [3, 2, 77]
    assert config.path == str(conf)


def test_include_errors_name_their_place(conf: Path) -> None:
    other = conf.with_name("other.conf")
    conf.write_text(f"port 1\n\ninclude {other}\n")
    assert refusal(str(conf)) == f"{conf} line 3: can't open '{other}': No such file or directory"
    other.write_text("prot 5\n")
    assert refusal(str(conf)).startswith(f"{other} line 1: 'prot ...': unknown directive; did you")
    other.write_text(f"include {conf}\n")
    assert refusal(str(conf)).endswith("more than 16 files include each other")


@pytest.mark.parametrize(
    ("argv", "path", "from_stdin", "options"),
    [
        ([], None, False, []),
        (["a.conf"], "a.conf", False, []),
        (["-"], None, True, []),
        (["a.conf", "-"], "a.conf", True, []),
        (["a.conf", "--port", "1", "-"], "a.conf", True, [["port", "1"]]),
        (["--port", "-", "--hz", "1"], None, False, [["port", "-"], ["hz", "1"]]),
        (["--hz", "1", "--bind", "a", "b"], None, False, [["hz", "1"], ["bind", "a", "b"]]),
        (["--port 7", "--hz", "1"], None, False, [["port", "7"], ["hz", "1"]]),
        (["--requirepass", "--x", "--hz", "1"], None, False, [["requirepass", "--x"], ["hz", "1"]]),
        (["--save", "--hz", "1"], None, False, [["save", ""], ["hz", "1"]]),
        (["--hz", "1", "--save"], None, False, [["hz", "1"], ["save", ""]]),
        (["--save", "", "--hz", "1"], None, False, [["save", ""], ["hz", "1"]]),
        (["--port"], None, False, [["port"]]),
    ],
)
def test_command_line(
    argv: list[str], path: str | None, from_stdin: bool, options: list[list[str]]
) -> None:
    assert parse_command_line(argv) == (path, from_stdin, options)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("port 99999", "'port 99999': argument must be between 0 and 65535 inclusive; "),
        ("port", "'port': wrong number of arguments; port takes an integer from 0 to 65535"),
        ("port 1 # plain", "'port 1 # plain': wrong number of arguments; "),
        ("Port abc", "'Port abc': argument couldn't be parsed into an integer; port takes an "),
        ("unixsocketperm 8", "8': argument couldn't be parsed as an octal number; "),
        ("unixsocketperm 1000", "argument must be between 0 and 777 inclusive"),
        ("hz 'a b'", "'hz \"a b\"': "),
        ("dir ''", "argument can't be empty; dir takes the path of a directory"),
        ("appendonly no", "argument must be 'yes': every write goes to RocksDB's log"),
        ("rename-command GET", "'rename-command ...': wrong number of arguments; "),
        ('bind "127.0.0.1 \'"', "Unbalanced quotes in configuration line; bind takes up to 16"),
        ('port "1', "'port ...': Unbalanced quotes in configuration line"),
        ("daemonise yes", "'daemonise ...': unknown directive; kvserver.conf lists"),
        ("maxclient 5", "'maxclient ...': unknown directive; did you mean maxclients?"),
        ("rocksdb.block_cach_size 1", "did you mean rocksdb.block_cache_size"),
    ],
)
def test_refusals_name_source_line_and_what_is_valid(line: str, message: str, conf: Path) -> None:
    conf.write_text(f"# one\n{line}\n")
    assert refusal(str(conf)).startswith(f"{conf} line 2: '")
    assert message in refusal(str(conf))
    assert message in refusal("-", stdin=lambda: line)
    assert refusal("-", stdin=lambda: line).startswith("standard input line 1: ")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--prot", "1"], "command line: '--prot ...': unknown directive; did you mean port"),
        (["--port", "x"], "command line: '--port x': argument couldn't be parsed into an integer"),
        (["--requirepass 'a"], "command line: '--requirepass ...': Unbalanced quotes"),
        (["-x"], "command line: '-x': expected --directive value"),
        (["--"], "command line: '-- ...': unknown directive"),
        (["none.conf"], "can't open config file 'none.conf': No such file or directory"),
    ],
)
def test_refusals_on_the_command_line(argv: list[str], message: str) -> None:
    assert refusal(*argv).startswith(message)


@pytest.mark.parametrize(
    "line",
    ["requirepass secret x", "requirepas secret", 'requirepass "secret', "rename-command secret"],
)
def test_refusals_hide_secrets(line: str, conf: Path) -> None:
    conf.write_text(line)
    assert "secret" not in refusal(str(conf)).removeprefix(str(conf))
    assert "secret" not in refusal(f"--{line}")


def test_checks_of_the_server_name_the_line_too(conf: Path) -> None:
    def no_such_command(words: Sequence[str]) -> None:
        if words[0] != "GET":
            raise ConfigError("No such command in rename-command")

    conf.write_text("rename-command GET g\nrename-command GETT g\n")
    with pytest.raises(ConfigError, match=r"line 2: 'rename-command \.\.\.': No such command in"):
        load([str(conf)], no_stdin, {"rename-command": no_such_command})


# -- CONFIG REWRITE --------------------------------------------------------------------


def rewrite_text(text: str, *pairs: tuple[str, str]) -> str:
    config = load(["-"], lambda: text)
    config.set_many(pairs)
    return rewritten(config, text)


def test_rewrite_changes_only_what_changed() -> None:
    text = "# a\n  PORT   7000\n\n\ntimeout 0\t\nproto-max-bulk-len 1gb\nrename-command get g\n# z"
    assert rewrite_text(text) == text + "\n"
    assert rewrite_text(text, ("timeout", "5"), ("hz", "20")) == (
        text.replace("timeout 0\t", "timeout 5") + f"\n{SIGNATURE}\nhz 20\n"
    )


def test_rewrite_removes_superseded_lines() -> None:
    text = "timeout 1\n# between\ntimeout 2\nhz 5\ntimeout 3\n"
    assert rewrite_text(text) == "timeout 3\n# between\nhz 5\n"
    assert rewrite_text(text, ("timeout", "0")) == "timeout 0\n# between\nhz 5\n"


def test_rewrite_of_lines_that_add_up() -> None:
    name = "client-output-buffer-limit"
    text = f"{name} replica 1mb 0 0\n# x\n{name} normal 1kb 0 0\n"
    assert rewrite_text(text) == text
    assert rewrite_text(text, (name, "pubsub 3 2 1")) == (
        f"{name} normal 1kb 0 0 replica 1mb 0 0 pubsub 3 2 1\n# x\n"
    )


def test_rewrite_quotes_and_keeps_all_event_classes() -> None:
    pairs = [("requirepass", 'a "b" \\ \n'), ("notify-keyspace-events", "KEAn"), ("bind", "")]
    text = rewrite_text("", *pairs)
    assert text == (
        f'{SIGNATURE}\nbind ""\nrequirepass "a \\"b\\" \\\\ \\n"\nnotify-keyspace-events AnKE\n'
    )


def test_rewrite_appends_after_its_signature_once() -> None:
    text = f"port 1\n{SIGNATURE}\nhz 20\n"
    assert rewrite_text(text, ("timeout", "5")) == text + "timeout 5\n"


def test_rewrite_comments_out_what_it_does_not_know() -> None:
    config = load(["-"], lambda: "port 5")
    later = 'port 5\nnosuch 1\nhz "\ntimeout x\n'
    assert rewritten(config, later) == 'port 5\n# ??? nosuch 1\n# ??? hz "\ntimeout 0\n'


def test_rewrite_outlives_an_include(conf: Path) -> None:
    other = conf.with_name("other.conf")
    other.write_text("port 7\ntimeout 5\nhz 5\n")
    text = f"port 1\nhz 1\ninclude {other}\n"
    conf.write_text(text)
    config = load([str(conf)], no_stdin)
    config.set_many([("port", "9"), ("timeout", "0")])
    rewrite(config)
    assert conf.read_text() == f"hz 5\ninclude {other}\n{SIGNATURE}\nport 9\ntimeout 0\n"
    assert everything(load([str(conf)], no_stdin)) == everything(config)
    other.unlink()
    with pytest.raises(errors.RedisError, match=r"ERR Rewriting config file: .* can't open"):
        rewrite(config)


RUNTIME = [
    ("timeout", st.integers(0, 99).map(str)),
    ("row-cache-size", st.sampled_from(["0", "1kb", "1mb", "1025"])),
    ("appendfsync", st.sampled_from(["no", "always", "everysec"])),
    ("requirepass", st.text(st.characters(codec="utf-8"), max_size=6)),
    ("notify-keyspace-events", st.text("Ag$lshzxetdKEmn", max_size=6)),
    ("bind", st.lists(st.sampled_from(["::1", "-::1", "*"]), max_size=3).map(" ".join)),
    ("latency-tracking-info-percentiles", st.sampled_from(["", "50", "1 99.99"])),
    ("client-output-buffer-limit", st.sampled_from(["normal 1 1 1", "slave 2mb 1 1 pubsub 5 5 5"])),
    ("tls-auth-clients", st.sampled_from(["no", "yes"])),
]
CHANGES = st.one_of([st.tuples(st.just(name), values) for name, values in RUNTIME])
FILE_LINES = st.one_of(
    CHANGES.map(lambda pair: f"{pair[0]} {quote(pair[1])}"),
    st.sampled_from(["", "# comment", "#", "  ", "port 7000", "PORT 7001", SIGNATURE]),
)


@settings(deadline=None)
@given(st.lists(FILE_LINES, max_size=12), st.lists(CHANGES, max_size=5))
def test_a_rewritten_file_gives_the_same_configuration(
    lines: list[str], changes: list[tuple[str, str]]
) -> None:
    text = "\n".join(lines)
    config = load(["-"], lambda: text)
    for change in changes:
        config.set_many([change])
    new = rewritten(config, text)
    assert everything(load(["-"], lambda: new)) == everything(config)
    assert rewritten(config, new) == new, "a second rewrite changes nothing"
    kept = [line for line in new.split("\n") if line.startswith("#")]
    comments = [line for line in lines if line.startswith("#")]
    assert kept[: len(comments)] == comments
    assert kept[len(comments) :] in ([], [SIGNATURE])


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o644])
def test_rewrite_keeps_permissions_and_links(conf: Path, mode: int) -> None:
    real = conf.with_name("real.conf")
    real.write_text("port 1\n")
    real.chmod(mode)
    conf.symlink_to(real.name)
    config = load([str(conf)], no_stdin)
    config.set_many([("port", "2")])
    rewrite(config)
    assert conf.is_symlink() and real.read_text() == "port 2\n"
    assert stat.S_IMODE(real.stat().st_mode) == mode
    assert sorted(os.listdir(conf.parent)) == [conf.name, real.name]


def test_rewrite_makes_a_file_that_is_gone_again(conf: Path) -> None:
    conf.write_text("requirepass x\n")
    config = load([str(conf)], no_stdin)
    conf.unlink()
    rewrite(config)
    assert conf.read_text() == f"{SIGNATURE}\nrequirepass x\n"
    assert stat.S_IMODE(conf.stat().st_mode) == 0o600


def test_a_failed_rewrite_leaves_the_old_file(conf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    conf.write_text("port 1\n")
    config = load([str(conf)], no_stdin)
    config.set_many([("port", "2")])

    def full(fd: int) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(config_file.os, "fsync", full)
    with pytest.raises(errors.RedisError) as caught:
        rewrite(config)
    assert str(caught.value) == "ERR Rewriting config file: No space left on device"
    assert conf.read_text() == "port 1\n"
    assert os.listdir(conf.parent) == [conf.name]
