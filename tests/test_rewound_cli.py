"""`kvserver rewound`: files of discarded frames, made from the log of a real server, are shown as
what was written."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from conftest import FreshServer

from kvserver.codec import STAMP
from kvserver.frames import DATA, Frame, encode
from kvserver.storage.wal import WalReader
from kvserver.storage.wal_batch import BATCH_HEADER, Batch

LONG = b"x" * 500
BINARY = b'\xff\x00\n"\t'


def run(*args: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "kvserver", "rewound", *args]
    return subprocess.run(command, capture_output=True, timeout=60)


def lines(*args: str) -> list[str]:
    done = run(*args)
    assert done.returncode == 0, done.stderr
    return done.stdout.decode().splitlines()


def frames(engine: Path) -> Iterator[Frame]:
    """What the log under `engine` holds, as it would travel."""
    with closing(WalReader(str(engine))) as reader:
        yield from (frame for batch in iter(reader.read, None) if (frame := as_frame(batch)))


def as_frame(batch: Batch) -> Frame | None:
    records = batch.records()
    if not records or records[-1][2] != b"s":
        return None
    epoch, first, last, unix_ms = STAMP.unpack(records[-1][3])
    payload = batch.payload[BATCH_HEADER:]
    return Frame(DATA, epoch, first, last, batch.count, unix_ms, payload)


@pytest.fixture
def directory(fresh_server: FreshServer) -> Path:
    """A server's directory with one file of frames, each of one command."""
    server = fresh_server()
    client = server.client()
    client.set("greeting", "hello")
    client.set(BINARY, LONG, pxat=4102444800000)
    client.delete("greeting")
    client.execute_command("SELECT", "3")
    client.set("other", BINARY)
    client.flushdb()
    server.terminate()
    folder = server.directory / "rewound"
    folder.mkdir()
    saved = b"".join(encode(frame) for frame in frames(server.directory / "db"))
    (folder / "20261121-120000-1-9.frames").write_bytes(saved)
    return server.directory


def test_list(directory: Path) -> None:
    head, row = lines("list", "--dir", str(directory))
    assert head.split() == ["file", "rewound", "positions", "epoch", "commands", "records", "bytes"]
    summary = json.loads(lines("list", "--dir", str(directory), "--json")[0])
    assert row.startswith("20261121-120000-1-9.frames")
    assert summary["epoch"] == "1"
    first, last = map(int, summary["positions"].split("-"))
    assert summary["commands"] == last - first + 1 >= 5
    size = (directory / "rewound" / summary["file"]).stat().st_size
    assert summary["bytes"] == size


def test_show_quotes_and_cuts(directory: Path) -> None:
    shown = lines("show", "--dir", str(directory))
    assert shown[0] == "# 20261121-120000-1-9.frames"
    assert '    db0 set "greeting" string "hello"' in shown
    assert '    db0 del "greeting"' in shown
    quoted = r'"\xff\x00\n\"\t"'
    cut = '"' + "x" * 60 + '"... (500 bytes)'
    assert f"    db0 set {quoted} string {cut} (expires 2100-01-01 00:00:00.000Z)" in shown
    assert f'    db3 set "other" string {quoted}' in shown
    assert "    db3 flush" in shown


def test_show_json_has_everything(directory: Path) -> None:
    shown = [json.loads(line) for line in lines("show", "--dir", str(directory), "--json")]
    assert [entry["first"] for entry in shown] == sorted(entry["first"] for entry in shown)
    effects = [effect for entry in shown for effect in entry["effects"]]
    assert {"effect": "set", "db": 0, "key": "greeting", "type": "string", "value": "hello"} in (
        effects
    )
    long = next(effect for effect in effects if effect.get("value") == LONG.decode())
    assert long["key_base64"] == "/wAKIgk=" and long["expire_ms"] == 4102444800000
    assert {"effect": "del", "db": 0, "key": "greeting"} in effects
    assert {"effect": "flush", "db": 3} in effects


def test_show_raw_is_the_bytes(directory: Path) -> None:
    done = run("show", "--dir", str(directory), "--raw", "20261121-120000-1-9.frames")
    assert b"\tset\t0\tgreeting\tstring\t\thello\n" in done.stdout
    assert b"\tset\t0\t" + BINARY + b"\tstring\t4102444800000\t" + LONG + b"\n" in done.stdout


def test_nothing_was_rewound(tmp_path: Path) -> None:
    assert len(lines("list", "--dir", str(tmp_path))) == 1
    assert lines("show", "--dir", str(tmp_path)) == []


def test_damage_is_told(directory: Path) -> None:
    path = next((directory / "rewound").iterdir())
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    for action in ("list", "show"):
        done = run(action, "--dir", str(directory))
        assert done.returncode == 1
        assert done.stderr.decode() == f"kvserver rewound: {path}: the last frame is cut short\n"
    path.write_bytes(whole[:-1] + b"\xff")
    assert b"wrong checksum" in run("show", "--dir", str(directory)).stderr


@pytest.mark.parametrize(
    ("args", "complaint"),
    [
        (("show", "--dir", "/nonexistent"), b"/nonexistent is not a directory"),
        (("show", "/nonexistent/a.frames"), b"/nonexistent/a.frames: No such file or directory"),
    ],
)
def test_what_is_not_there(args: tuple[str, ...], complaint: bytes) -> None:
    done = run(*args)
    assert done.returncode == 1 and done.stderr == b"kvserver rewound: " + complaint + b"\n"
