"""What a start refuses, in one clear line, and what it accepts: the directory, the log's tail."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from harness import Server, directive_args

import kvserver
from kvserver.directives import default_config
from kvserver.storage.commitlog import EngineError
from kvserver.storage.engine import Engine
from kvserver.storage.wal import WalReader, log_numbers, log_path
from kvserver.storage.wal_file import BLOCK

FreshServer = Callable[..., Server]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(kvserver.__file__).parent.parent)}


# -- the process -----------------------------------------------------------------------------


def refusal(directory: Path, *launcher: str) -> str:
    """Start a server that must not come up: its one line on standard error."""
    options = directive_args({"port": 0, "bind": "127.0.0.1", "dir": str(directory)})
    run = subprocess.run(
        [*launcher, sys.executable, "-m", "kvserver", *options],
        capture_output=True,
        text=True,
        timeout=30,
        env=ENVIRONMENT,
    )
    assert run.returncode == 1, run.stderr + run.stdout
    (line,) = run.stderr.splitlines()
    return line


def test_a_second_server_on_the_same_directory_is_refused(fresh_server: FreshServer) -> None:
    server = fresh_server()
    server.client().set("a", "1")
    line = refusal(server.directory)
    assert line == f"kvserver: can't open {server.directory}/db: another process has it open"
    assert server.client().get("a") == b"1"
    server.terminate()
    server.start()
    assert server.client().get("a") == b"1"


def test_a_directory_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "db").write_text("")
    assert refusal(tmp_path / "file").endswith("Not a directory")
    assert refusal(tmp_path / "data").endswith("it is not a directory")


@pytest.mark.parametrize("mode", [0o500, 0o000])
def test_a_directory_without_permission_is_refused(tmp_path: Path, mode: int) -> None:
    launcher: tuple[str, ...] = ()
    if os.geteuid() == 0:  # root is allowed everything, unless it gives that up
        if shutil.which("setpriv") is None:
            pytest.skip("needs setpriv to give up root's rights")
        launcher = ("setpriv", "--bounding-set=-dac_override,-dac_read_search")
    data = tmp_path / "data"
    data.mkdir()
    data.chmod(mode)
    try:
        assert refusal(data, *launcher) == f"kvserver: can't open {data}/db: Permission denied"
    finally:
        data.chmod(0o700)


# -- RocksDB's files ----------------------------------------------------------------------------

ROWS = 400
ROW = 500
#: Batches of the log, as `fill` writes them.
FILLED = list(range(ROWS))


@contextmanager
def engine(path: Path) -> Iterator[Engine]:
    engine = Engine(str(path), default_config())
    try:
        yield engine
    finally:
        engine.close()


def fill(engine: Engine, first: int = 0, count: int = ROWS) -> None:
    """One batch for each number."""
    for number in range(first, first + count):
        batch = engine.batch()
        engine.batch_put(batch, 0, b"%06d" % number, b"x" * ROW)
        engine.write(batch)


def stored(path: Path) -> list[int]:
    """The numbers that a fresh start finds."""
    with engine(path) as opened:
        return [int(key) for key, _ in opened.scan(0, b"0", b":")]


@pytest.fixture
def killed(tmp_path: Path) -> Path:
    """A data directory as kill -9 leaves it, with all rows in the log."""
    with engine(tmp_path / "source") as source:
        fill(source)
        shutil.copytree(tmp_path / "source", tmp_path / "db")
    return tmp_path / "db"


@pytest.fixture
def two_logs(tmp_path: Path) -> Path:
    """The same, with another column family flushed in the middle, so that there are two logs."""
    with engine(tmp_path / "source") as source:
        batch = source.batch()
        source.batch_put(batch, 2, b"other", b"")
        source.write(batch)
        fill(source, 0, ROWS // 2)
        source._views[2].flush(True)
        fill(source, ROWS // 2, ROWS // 2)
        shutil.copytree(tmp_path / "source", tmp_path / "db")
    assert len(log_numbers(str(tmp_path / "db"))) == 2
    return tmp_path / "db"


def logs(path: Path) -> list[Path]:
    """The live log files, the newest last."""
    return [Path(log_path(str(path), number)) for number in sorted(log_numbers(str(path)))]


def flip(path: Path, offset: int) -> None:
    """Change one bit."""
    with path.open("r+b") as file:
        file.seek(offset)
        (byte,) = file.read(1)
        file.seek(offset)
        file.write(bytes([byte ^ 4]))


def refused(path: Path) -> str:
    with pytest.raises(EngineError) as error:
        Engine(str(path), default_config())
    assert "\n" not in str(error.value)
    assert str(error.value).startswith(f"can't open {path}: ")
    return str(error.value)


def test_a_log_as_kill_leaves_it_is_accepted(killed: Path) -> None:
    assert stored(killed) == FILLED


@pytest.mark.parametrize("lost", [1, 100, ROW + 30, 3 * ROW])
def test_a_tail_cut_short_is_dropped(killed: Path, lost: int) -> None:
    (log,) = logs(killed)
    os.truncate(log, log.stat().st_size - lost)
    found = stored(killed)
    assert found == list(range(len(found)))
    assert ROWS - 1 - lost // ROW - 1 <= len(found) < ROWS
    assert stored(killed) == found


@pytest.mark.parametrize("lost", [10, 1000, 10_000])
def test_a_zeroed_tail_is_dropped(killed: Path, lost: int) -> None:
    """A file grows before its blocks are written: after a power cut they may be zeros."""
    (log,) = logs(killed)
    size = log.stat().st_size
    os.truncate(log, size - lost)
    os.truncate(log, size)
    found = stored(killed)
    assert found == list(range(len(found)))
    assert ROWS - lost // ROW - 2 <= len(found) < ROWS


def test_a_flipped_bit_in_the_last_record_is_dropped(killed: Path) -> None:
    (log,) = logs(killed)
    flip(log, log.stat().st_size - 10)
    assert stored(killed) == FILLED[:-1]


@pytest.mark.parametrize("at", [0.02, 0.5, 0.99])
@pytest.mark.parametrize("part", ["header", "body"])
def test_damage_in_the_middle_of_the_newest_log_is_refused(
    killed: Path, at: float, part: str
) -> None:
    (log,) = logs(killed)
    offset = record_at(killed, int(ROWS * at))
    flip(log, offset + (5 if part == "header" else 100))
    text = refused(killed)
    assert f"{log} is damaged at offset {offset} " in text
    assert f"truncate -s {offset} {log}" in text
    # Doing what the message says gives up what follows, and nothing else.
    os.truncate(log, offset)
    found = stored(killed)
    assert found == list(range(len(found)))
    assert abs(len(found) - int(ROWS * at)) <= 1


def record_at(path: Path, number: int) -> int:
    """Where the batch with this number begins in the log."""
    with closing(WalReader(str(path))) as reader:
        for _ in range(number + 1):
            batch = reader.read()
            assert batch is not None
        return batch.offset


def test_a_lost_page_in_the_middle_is_refused(killed: Path) -> None:
    (log,) = logs(killed)
    with log.open("r+b") as file:
        file.seek(BLOCK)
        file.write(bytes(4096))
    assert "intact writes follow" in refused(killed)


def test_damage_in_an_older_log_is_refused(two_logs: Path) -> None:
    older, newer = logs(two_logs)
    flip(older, older.stat().st_size // 2)
    text = refused(two_logs)
    assert f"{older} is damaged at offset " in text
    assert f" && rm {newer}" in text


def test_an_older_log_cut_short_is_refused(two_logs: Path) -> None:
    older, _ = logs(two_logs)
    os.truncate(older, older.stat().st_size - 100)
    assert f"{older} is damaged at offset " in refused(two_logs)


def test_a_torn_record_that_the_next_log_goes_on_from_is_accepted(two_logs: Path) -> None:
    """What is left of a write that failed on a full disk, before RocksDB was opened again."""
    older, _ = logs(two_logs)
    with older.open("ab") as file:
        file.write(b"\x01\x02\x03\x04\xff\x01\x01torn")
    assert stored(two_logs) == FILLED


def test_without_current_nothing_is_opened(killed: Path) -> None:
    with engine(killed) as opened:
        opened.flush()
    files = set(os.listdir(killed)) - {"CURRENT"}
    (killed / "CURRENT").unlink()
    for log in logs(killed):
        log.unlink()
    assert "no file CURRENT" in refused(killed)
    assert {name for name in files if name.endswith(".sst")} <= set(os.listdir(killed))


def test_a_first_start_cut_short_is_no_hindrance(tmp_path: Path) -> None:
    """RocksDB makes the first MANIFEST before it makes CURRENT."""
    path = tmp_path / "db"
    path.mkdir()
    (path / "MANIFEST-000001").write_bytes(b"")
    assert stored(path) == []


@pytest.mark.parametrize("name", ["CURRENT", "MANIFEST"])
@pytest.mark.parametrize("damage", ["flipped", "empty", "missing"])
def test_damaged_metadata_is_refused(killed: Path, name: str, damage: str) -> None:
    (path,) = (killed / file for file in os.listdir(killed) if file.startswith(name))
    if damage == "flipped":
        flip(path, 3)
    else:
        path.unlink()
        if damage == "empty":
            path.write_bytes(b"")
    refused(killed)
    assert logs(killed), "a refused start leaves the data alone"


def test_a_missing_data_file_is_refused(killed: Path) -> None:
    with engine(killed) as opened:
        opened.flush()
    for file in killed.glob("*.sst"):
        file.unlink()
    assert ".sst" in refused(killed)
