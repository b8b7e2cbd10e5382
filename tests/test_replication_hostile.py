"""A primary that sends its replica anything at all."""

from __future__ import annotations

import contextlib
import random
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
import rocksdict
from cluster import Cluster, position, promote
from crc32c import crc32c
from harness import Server
from hostile_peers import (
    LOG,
    Peer,
    data_frame,
    fake_primary_of,
    files_frame,
    mutated,
    put,
    raw_header,
    unharmed,
)
from hostile_peers import cluster as cluster
from hostile_peers import victim as victim

from kvserver import frames, history
from kvserver.codec import HISTORY_KEY, STAMP, STAMP_KEY
from kvserver.storage.engine import COLUMN_FAMILIES

Script = Callable[[Peer], None]


def after_continue(make: Callable[[Peer], bytes]) -> Script:
    def script(peer: Peer) -> None:
        peer.answer("CONTINUE")
        peer.send(make(peer))

    return script


def after_full(*parts: bytes, asked: bool = False) -> Script:
    def script(peer: Peer) -> None:
        peer.answer("FULLRESYNC")
        peer.send(parts[0])
        if asked:
            peer.await_request(b"REPLCONF", b"END")
        peer.send(b"".join(parts[1:]))

    return script


def rewind_with(make: Callable[[Peer], bytes]) -> Script:
    """A rewind to where the replica is, answered with nonsense."""

    def script(peer: Peer) -> None:
        peer.answer("REWIND")
        peer.await_request(b"REPLCONF", b"END")
        peer.send(make(peer))

    return script


ONE = files_frame((b"CURRENT", 4))


SCRIPTS: dict[str, Script] = {
    "no answer of ours": lambda peer: peer.send(b"HTTP/1.1 200 OK\r\n"),
    "an endless line": lambda peer: peer.send(b"+" + b"x" * 200_000),
    "a long position": lambda peer: peer.send(b"+CONTINUE x " + b"9" * 5000 + b"\r\n"),
    "a position of 100 digits": lambda peer: peer.send(b"+CONTINUE x " + b"9" * 100 + b"\r\n"),
    "a negative position": lambda peer: peer.send(b"+CONTINUE x -1\r\n"),
    "another position": lambda peer: peer.answer("CONTINUE", peer.last + 7),
    "an error for the terminal": lambda peer: peer.send(b"-ERR \x1b[2J\x07\nfake log line\r\n"),
    "empty lines, then nonsense": lambda peer: peer.send(b"\r\n" * 300_000 + b"nonsense\r\n"),
    "a fork to come": lambda peer: peer.answer("REWIND", peer.last + 5),
    "garbage": after_continue(lambda peer: b"\xff" * 100),
    "another version": after_continue(lambda peer: b"\x02" + bytes(60)),
    "a kind that doesn't exist": after_continue(lambda peer: raw_header(99, 0)),
    "a wrong checksum": after_continue(lambda peer: raw_header(frames.HEARTBEAT, 0)),
    "an endless heartbeat": after_continue(lambda peer: raw_header(frames.HEARTBEAT, 1 << 31)),
    "an endless piece": after_continue(lambda peer: raw_header(frames.CHUNK, 1 << 31)),
    "an empty frame": after_continue(lambda peer: data_frame(0, 0)[:-1] + b"\0"),
    "a gap": after_continue(lambda peer: data_frame(peer.last + 3, peer.last + 3)),
    "a frame that leads back": after_continue(lambda peer: data_frame(peer.last + 1, 0)),
    "another stamp": after_continue(
        lambda peer: data_frame(peer.last + 1, peer.last + 1, stamp=STAMP.pack(1, 5, 5, 5))
    ),
    "a row of another family": after_continue(
        lambda peer: data_frame(peer.last + 1, peer.last + 1, put(9, b"a", b"b"), 1)
    ),
    "a row of the sender's own": after_continue(
        lambda peer: data_frame(peer.last + 1, peer.last + 1, put(LOG, b"~u", bytes(16)), 1)
    ),
    "a wrong number of records": after_continue(
        lambda peer: data_frame(peer.last + 1, peer.last + 1, put(0, b"a", b"b"), 7)
    ),
    "a history that is none": after_continue(
        lambda peer: data_frame(peer.last + 1, peer.last + 1, put(LOG, HISTORY_KEY, b"x"), 1)
    ),
    "a merge": after_continue(
        lambda peer: data_frame(peer.last + 1, peer.last + 1, b"\x06\x00\x01a\x01b", 1)
    ),
    "padding unasked": after_continue(
        lambda peer: frames.control(frames.PADDING, peer.last + 1, peer.last + 9, peer.known)
    ),
    "a message of one field": after_continue(
        lambda peer: frames.control(frames.PUBSUB, payload=frames.pack_fields([b"message"]))
    ),
    "fields cut short": after_continue(
        lambda peer: frames.control(frames.HEARTBEAT, payload=b"\0\0\1\0abc")
    ),
    "rows unasked": after_continue(lambda peer: frames.control(frames.VALUES)),
    "files unasked": after_continue(lambda peer: ONE),
    "data in a full sync": after_full(data_frame(1, 1)),
    "the end of the files at once": after_full(frames.control(frames.SYNC_END)),
    "a piece at once": after_full(frames.control(frames.CHUNK, 0, 0, b"abcd")),
    "a piece before it was asked for": after_full(
        ONE, frames.control(frames.CHUNK, 0, 0, b"abcd"), frames.control(frames.SYNC_END)
    ),
    "no files": after_full(files_frame()),
    "a path": after_full(files_frame((b"../CURRENT", 4), (b"CURRENT", 4))),
    "an absolute path": after_full(files_frame((b"/tmp/x", 4), (b"CURRENT", 4))),
    "a hidden file": after_full(files_frame((b".x", 4), (b"CURRENT", 4))),
    "a name of 200 bytes": after_full(files_frame((b"a" * 200, 4), (b"CURRENT", 4))),
    "the same file twice": after_full(files_frame((b"CURRENT", 4), (b"CURRENT", 5))),
    "no CURRENT": after_full(files_frame((b"000007.sst", 4))),
    "a list of odd length": after_full(
        frames.control(frames.FILES, payload=frames.pack_fields([b"CURRENT"]))
    ),
    "the list twice": after_full(ONE, ONE, asked=True),
    "a piece of another file": after_full(
        ONE, frames.control(frames.CHUNK, 7, 0, b"a"), asked=True
    ),
    "a piece elsewhere": after_full(ONE, frames.control(frames.CHUNK, 0, 2, b"ab"), asked=True),
    "a piece too long": after_full(ONE, frames.control(frames.CHUNK, 0, 0, b"abcde"), asked=True),
    "an early end": after_full(ONE, frames.control(frames.FILE_END, 0, 0), asked=True),
    "a wrong checksum of a file": after_full(
        ONE,
        frames.control(frames.CHUNK, 0, 0, b"abcd"),
        frames.control(frames.FILE_END, 0, 1),
        asked=True,
    ),
    "rows of a family that doesn't exist": rewind_with(
        lambda peer: frames.control(frames.VALUES, payload=frames.pack_fields([b"\x09a", b"b"]))
    ),
    "rows of an odd number of fields": rewind_with(
        lambda peer: frames.control(frames.VALUES, payload=frames.pack_fields([b"\x00a"]))
    ),
    "a row without a family": rewind_with(
        lambda peer: frames.control(frames.VALUES, payload=frames.pack_fields([b"", b""]))
    ),
    "a row of our own": rewind_with(
        lambda peer: frames.control(frames.VALUES, payload=frames.pack_fields([b"\x03s", b""]))
    ),
    "the end of rows without a history": rewind_with(
        lambda peer: frames.control(frames.VALUES_END, 0, 5)
    ),
    "a file amidst rows": rewind_with(lambda peer: ONE),
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_hostile_primary(victim: Server, name: str) -> None:
    with unharmed(victim), fake_primary_of(victim) as peer:
        SCRIPTS[name](peer)
        peer.read_to_end()


def test_padding_that_leads_back(cluster: Cluster) -> None:
    server = cluster.start(**{"replication-enable-sequence-padding": True})
    server.client().set("key:3", 3)
    with unharmed(server), fake_primary_of(server) as peer:
        peer.answer("CONTINUE")
        peer.send(frames.control(frames.PADDING, peer.last + 1, 0, peer.known))
        peer.read_to_end()


def test_frames_after_a_stall_or_pause_are_checked_as_well(victim: Server) -> None:
    """Those that wait for the next turn are taken by a timer, which must end the link, too."""
    big = frames.control(
        frames.PUBSUB, payload=frames.pack_fields([b"message", b"c", bytes(300_000)])
    )
    with unharmed(victim), fake_primary_of(victim) as peer:
        peer.answer("CONTINUE")
        peer.send(big + data_frame(peer.last + 9, peer.last + 9))
        peer.read_to_end()


def send_files(peer: Peer, files: dict[str, bytes]) -> None:
    """A full sync with these files."""
    peer.answer("FULLRESYNC")
    peer.send(files_frame(*((name.encode(), len(data)) for name, data in files.items())))
    peer.await_request(b"REPLCONF", b"END")
    for index, data in enumerate(files.values()):
        for at in range(0, len(data), 1 << 18):
            peer.send(frames.control(frames.CHUNK, index, at, data[at : at + (1 << 18)]))
        peer.send(frames.control(frames.FILE_END, index, crc32c(data)))
    peer.send(frames.control(frames.SYNC_END))


def strange_data_set(path: Path, rows: dict[bytes, bytes]) -> dict[str, bytes]:
    """The files of a RocksDB with these rows in the column family of the log."""
    options = rocksdict.Options(raw_mode=True)
    options.create_if_missing(True)
    db = rocksdict.Rdict(str(path), options)
    views = [db.create_column_family(name, options) for name in COLUMN_FAMILIES[1:]]
    for key, row in rows.items():
        views[LOG - 1][key] = row
    for view in views:
        view.flush()
    del views, view
    db.close()
    names = [file for file in path.iterdir() if file.is_file() and file.name != "LOCK"]
    return {file.name: file.read_bytes() for file in names if not file.name.startswith("LOG")}


GENESIS = history.genesis().encode()


@pytest.mark.parametrize(
    "rows",
    [
        None,
        {},
        {STAMP_KEY: STAMP.pack(1, 1, 1, 1)},
        {STAMP_KEY: STAMP.pack(1, 1, 1, 1), HISTORY_KEY: b"nonsense"},
        {STAMP_KEY: b"nonsense", HISTORY_KEY: GENESIS},
    ],
    ids=["no RocksDB", "empty", "no history", "bad history", "bad stamp"],
)
def test_full_sync_of_no_data_set(
    victim: Server, tmp_path: Path, rows: dict[bytes, bytes] | None
) -> None:
    files = {"CURRENT": b"nonsense"} if rows is None else strange_data_set(tmp_path / "db", rows)
    before = position(victim)
    with fake_primary_of(victim) as peer:
        send_files(peer, files)
        peer.read_to_end()
    assert victim.client().get("key:3") == b"3"
    assert position(victim) == before
    promote(victim)
    assert victim.client().set("key:3", 3)


def test_mutated_frames(victim: Server) -> None:
    """Whole sessions, with some bytes changed, left out or doubled."""
    rng = random.Random(7)
    with contextlib.ExitStack() as stack:
        stack.enter_context(unharmed(victim))
        for _ in range(40):
            with fake_primary_of(victim) as peer:
                peer.answer("CONTINUE")
                parts = [
                    frames.control(frames.HEARTBEAT, 1, peer.last, frames.pack_fields([b"a" * 40])),
                    frames.control(
                        frames.PUBSUB, payload=frames.pack_fields([b"message", b"c", b"m"])
                    ),
                    data_frame(peer.last + 5, peer.last + 6, put(0, b"a", b"b"), 1),
                ]
                rng.shuffle(parts)
                peer.send(mutated(rng, b"".join(parts)))
                peer.sock.shutdown(socket.SHUT_WR)
                peer.read_to_end()
