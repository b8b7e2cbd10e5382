"""A file of `dir`/rewound, decoded: which writes a rewind has taken back, as values.

It must not know how they are printed. The files hold frames as on the wire, those of the
discarded positions; a frame's records are rows, and what several commands of one frame wrote to
a row is one record. So what is shown are effects, by frame, and not commands.

Invariant: a database is named by its number where the file tells it (a batch that changes a
database's counts has its record), else by its id.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from kvserver import codec, history
from kvserver.frames import DATA, HEADER_LEN, Frame, FrameError, FrameParser
from kvserver.storage.wal_batch import (
    DELETE,
    DELETE_RANGE,
    PUT,
    SINGLE_DELETE,
    Record,
    WalError,
    decode_records,
)

FOLDER: Final = "rewound"
SUFFIX: Final = ".frames"
_READ_BYTES: Final = 1 << 20

# Column families, in the order that CommitLog has.
_KEYS: Final = 0
_ELEMENTS: Final = 1
_LOG: Final = 3

#: Shown of a log row with this key: what it is. Others say nothing of the user's data.
_WRITER_KEY: Final = b"w"


class DiscardedError(Exception):
    """A file can't be read, or isn't what it should be."""


class Effect(NamedTuple):
    """What one record did. `what`: set, del, flush, element, del-element, del-elements, era,
    writer. `db`: a database's number, or its id with `#` before it; "" where there is none."""

    what: str
    db: str = ""
    key: bytes = b""
    type: str = ""
    value: bytes | None = None
    expire_ms: int = 0


class Discarded(NamedTuple):
    """One frame, and its records but for those that say nothing of the user's data."""

    frame: Frame
    effects: list[Effect]


def read_frames(path: Path) -> Iterator[Frame]:
    """The data frames of a file. Raises DiscardedError."""
    parser = FrameParser()
    unread = 0
    try:
        with path.open("rb") as file:
            while data := file.read(_READ_BYTES):
                unread += len(data)
                for frame in parser.feed(data):
                    unread -= HEADER_LEN + len(frame.payload)
                    if frame.kind == DATA:
                        yield frame
    except OSError as error:
        raise DiscardedError(f"{path}: {error.strerror}") from None
    except FrameError as error:
        raise DiscardedError(f"{path}: {error}") from None
    if unread:
        raise DiscardedError(f"{path}: the last frame is cut short")


def read(path: Path) -> Iterator[Discarded]:
    """The frames of a file with their effects. Raises DiscardedError."""
    names = _Databases()
    for frame in read_frames(path):  # what a later frame calls a database holds before it too
        names.learn(_records(path, frame), first_only=True)
    for frame in read_frames(path):
        records = _records(path, frame)
        names.learn(records)
        yield Discarded(frame, list(_effects(records, names)))


def _records(path: Path, frame: Frame) -> list[Record]:
    try:
        return decode_records(frame.payload, frame.records)
    except WalError as error:
        raise DiscardedError(f"{path}: position {frame.first_seq}: {error}") from None


class _Databases:
    """The number of the database that an id belongs to. SWAPDB exchanges ids, FLUSHDB takes new
    ones."""

    def __init__(self) -> None:
        self._index: dict[int, int] = {}

    def learn(self, records: list[Record], *, first_only: bool = False) -> None:
        """Take what the records of databases in a batch say."""
        for op, cf, key, value in records:
            if cf == _LOG and op == PUT and key.startswith(codec.DATABASE_KEY):
                db_id = codec.unpack_database(value)[0]
                if not (first_only and db_id in self._index):
                    self._index[db_id] = int.from_bytes(key[1:], "big")

    def name(self, key: bytes) -> str:
        """The database of a row key."""
        db_id = int.from_bytes(key[: codec.DB_PREFIX_LEN], "big")
        return str(self._index.get(db_id, f"#{db_id}"))


def _effects(records: list[Record], names: _Databases) -> Iterator[Effect]:
    for op, cf, key, value in records:
        if cf == _KEYS:
            yield _key_effect(op, key, value, names)
        elif cf == _ELEMENTS:
            what = {PUT: "element", DELETE_RANGE: "del-elements"}.get(op, "del-element")
            yield Effect(what, key=key, value=value if op != DELETE else None)
        elif cf == _LOG and op == PUT:
            yield from _log_effect(key, value)


def _key_effect(op: int, key: bytes, row: bytes, names: _Databases) -> Effect:
    if op == DELETE_RANGE:
        return Effect("flush", names.name(key))
    name = codec.user_key(key)
    if op in (DELETE, SINGLE_DELETE):
        return Effect("del", names.name(key), name)
    kind = codec.row_type(row)
    text = codec.TYPE_NAMES.get(kind, b"type %d" % kind).decode()
    if kind == codec.SPARSE:
        text = "fragments"  # the value isn't what the string is: that is in its elements
    value = codec.row_value(row)
    return Effect("set", names.name(key), name, text, value, codec.row_expire(row))


def _log_effect(key: bytes, value: bytes) -> Iterator[Effect]:
    if key == codec.HISTORY_KEY:
        era = history.decode(value).current
        yield Effect("era", value=f"{era.epoch} {era.replid} from {era.first_seq}".encode())
    elif key.startswith(_WRITER_KEY):
        yield Effect("writer", key=key[1:], value=value)
