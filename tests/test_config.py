"""The configuration: the table of directives and its default file; getters, listeners, aliases."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from configs import conf as conf
from configs import everything, no_stdin, set_error
from harness import Server

from kvserver.config import Config, ConfigError, Int, Row
from kvserver.config_file import load, render_default, rewritten, split_words
from kvserver.directives import DIRECTIVES, buffer_limit, default_config
from kvserver.kinds import BufferLimit

CONF = Path(__file__).parent.parent / "conf" / "kvserver.conf"


REGENERATE = (
    "python -c 'from kvserver.config_file import render_default as r; print(r(), end=\"\")' "
    "> conf/kvserver.conf"
)


# -- the table and the default file ----------------------------------------------------------------


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


# -- Config ----------------------------------------------------------------------------------------


def test_getters_are_typed() -> None:
    config = load(["--rename-command", "GET", "g"], no_stdin)
    assert config.get_int("port") == 6379
    assert config.get_int("row-cache-size") == -25
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
