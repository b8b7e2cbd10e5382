"""CONFIG REWRITE: what it changes of a file, what it leaves, and how it fails."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from configs import conf as conf
from configs import everything, no_stdin
from hypothesis import given, settings
from hypothesis import strategies as st

from kvserver import config_file, errors
from kvserver.config_file import SIGNATURE, load, quote, rewrite, rewritten


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
    ("row-cache-size", st.sampled_from(["0", "1kb", "1mb", "1025", "0%", "7%", "100%"])),
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
