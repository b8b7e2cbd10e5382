"""kvserver.logs: formats, levels, files, and that neither clients nor disks can break it."""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kvserver import logs

LINE = re.compile(r"(\d+):([A-Z]) \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d\.\d{3} (.) (.*)")
log = logging.getLogger("kvserver.test")


def master() -> str:
    return "M"


@pytest.fixture(autouse=True)
def root_logger_as_before() -> Iterator[None]:
    root = logging.getLogger()
    level, handlers = root.level, root.handlers[:]
    yield
    root.setLevel(level)
    for handler in root.handlers[:]:
        if handler not in handlers:
            root.removeHandler(handler)
            handler.close()


def setup(*args: Any) -> None:
    """`logs.setup` without pytest's handlers: what they capture must be text, which another
    process can be sent."""
    logging.getLogger().handlers.clear()
    logs.setup(*args)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "server.log"


def test_line_is_that_of_redis(path: Path) -> None:
    setup("debug", str(path), "line", master)
    log.debug("one")
    log.log(logs.VERBOSE, "two")
    log.info("three %d", 3)
    log.warning("four")
    log.error("five")
    found = [LINE.fullmatch(line) for line in path.read_text().splitlines()]
    parts = [match.groups() for match in found if match]
    pid = str(os.getpid())
    assert parts == [
        (pid, "M", ".", "one"),
        (pid, "M", "-", "two"),
        (pid, "M", "*", "three 3"),
        (pid, "M", "#", "four"),
        (pid, "M", "#", "five"),
    ]


@pytest.mark.parametrize(
    ("level", "logged"),
    [
        ("debug", ["debug", "verbose", "notice", "warning"]),
        ("verbose", ["verbose", "notice", "warning"]),
        ("notice", ["notice", "warning"]),
        ("warning", ["warning"]),
        ("nothing", []),
    ],
)
def test_levels(path: Path, level: str, logged: list[str]) -> None:
    setup("debug", str(path), "json", master)
    logs.set_level(level)
    for name in ("debug", "verbose", "notice", "warning"):
        log.log(logs.LEVELS[name], "message")
    assert [json.loads(line)["level"] for line in path.read_text().splitlines()] == logged


def test_role_is_asked_each_time(path: Path) -> None:
    roles = iter("CMS")
    setup("notice", str(path), "line", lambda: next(roles))
    for _ in range(3):
        log.info("x")
    found = [LINE.fullmatch(line) for line in path.read_text().splitlines()]
    assert [match[2] for match in found if match] == ["C", "M", "S"]


def test_json(path: Path) -> None:
    setup("notice", str(path), "json", master)
    log.info('say "%s"', "a\nb\udcff")
    fields = json.loads(path.read_text())
    when = fields.pop("time")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", when)
    assert fields == {
        "level": "notice",
        "pid": os.getpid(),
        "role": "M",
        "message": 'say "a\nb\udcff"',
    }


@pytest.mark.parametrize("fmt", ["line", "json"])
def test_exception(path: Path, fmt: str) -> None:
    setup("notice", str(path), fmt, master)
    try:
        raise ValueError("forged\n1:M 01 Jan 2026 00:00:00.000 * line\x1b[2J")
    except ValueError:
        log.exception("it failed")
    text = path.read_text()
    assert "ValueError" in text
    assert "\x1b" not in text
    if fmt == "line":
        assert len([line for line in text.splitlines() if LINE.match(line)]) == 1
    else:
        assert "Traceback" in json.loads(text)["exception"]


def test_client_cannot_forge_a_line(path: Path) -> None:
    setup("notice", str(path), "line", master)
    log.info("name: %s", "x\r\n1:M 01 Jan 2026 00:00:00.000 * forged\u2028\x1b\x9b")
    lines = path.read_text().splitlines()
    assert len(lines) == 1
    assert lines[0].endswith(r"* name: x\r\n1:M 01 Jan 2026 00:00:00.000 * forged\u2028\x1b\x9b")


def test_stdout(capfd: pytest.CaptureFixture[str]) -> None:
    setup("notice", "", "line", master)
    log.info("Ready: \u20ac \udc80")
    out, err = capfd.readouterr()
    assert out.endswith("* Ready: \u20ac \\udc80\n")
    assert err == ""


def test_setup_again_replaces(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    setup("notice", str(first), "line", master)
    setup("notice", str(second), "line", master)
    log.info("here")
    assert first.read_text() == ""
    assert "here" in second.read_text()


def test_appends_and_follows_logrotate(path: Path) -> None:
    path.write_text("before\n")
    setup("notice", str(path), "line", master)
    log.info("one")
    moved = path.rename(path.with_suffix(".1"))
    log.info("two")
    assert moved.read_text().startswith("before\n")
    assert "one" in moved.read_text()
    assert "two" in path.read_text()


def test_file_that_cannot_be_opened_keeps_the_old_log(path: Path, tmp_path: Path) -> None:
    setup("notice", str(path), "line", master)
    with pytest.raises(OSError):
        logs.setup("debug", str(tmp_path / "missing" / "log"), "line", master)
    log.info("still here")
    assert "still here" in path.read_text()


def test_full_disk_is_survived(capfd: pytest.CaptureFixture[str]) -> None:
    setup("notice", "/dev/full", "line", master)
    log.info("lost")
    setup("notice", "", "line", master)
    log.info("kept")
    out, err = capfd.readouterr()
    assert "kept" in out
    assert err == ""


def test_wrong_arguments_do_not_raise(path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    setup("notice", str(path), "line", master)
    handlers = logging.getLogger().handlers
    (handler,) = [one for one in handlers if isinstance(one, logs.LogHandler)]
    handler.handle(logging.LogRecord("x", logging.INFO, __file__, 1, "%d", ("word",), None))
    assert "Logging error" in capfd.readouterr().err
    assert path.read_text() == ""
