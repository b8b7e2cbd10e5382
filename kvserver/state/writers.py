"""Exactly-once writers: which commands ONCE executes, and what is kept of each writer.

It must not know sockets, or how a command is run. Everything is in rows of the column family
`log`, written in the batch of the command that they are about, so that effect and memory of it
are committed, undone, replicated and rewound together. Invariants:
- Nothing is kept outside of these rows: a batch that fails takes the writer's command back.
- Only a primary forgets writers, through the log.
- The replies of the last KEPT commands are there, whatever their size.

Layouts (integers big-endian):

    w                      how many writers there are u64
    w | writer id          n of the last command u64 | unix_ms u64 | the last replies, oldest first
    r | n % KEPT u8 | id   a reply that is too long for that row

A reply is `size of the RESP2 form u32 | RESP2 form [| RESP3 form, if it is another]`. In the
writer's row its whole size (u32) precedes it; ELSEWHERE says that it has a row of its own.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Sequence
from time import perf_counter_ns
from typing import Final, NamedTuple

from kvserver import errors
from kvserver.codec import WRITER_KEY, WRITER_REPLY_KEY, prefix_end
from kvserver.errors import RedisError
from kvserver.keyspace import Keyspace
from kvserver.registry import MAY_REPLICATE, NO_MULTI, NOT_QUEUED, READONLY, WRITE
from kvserver.state.session import Session
from kvserver.state.table import CommandTable, Entry
from kvserver.storage.commitlog import LOG, CommitLog, EngineError
from kvserver.storage.table import Table

#: A writer's last replies that are kept: how many commands it may send before it reads a reply.
KEPT: Final = 5
#: A longer reply has a row of its own: the writer's row is written again with each command.
INLINE_BYTES: Final = 256
ELSEWHERE: Final = 0xFFFFFFFF
#: Where the command begins among ONCE's arguments, its own name included.
COMMAND_AT: Final = 3

_HEAD: Final = struct.Struct(">QQ")
_SIZE: Final = struct.Struct(">I")

_FIRST: Final = WRITER_KEY + b"\0"
_END: Final = prefix_end(WRITER_KEY)
#: Writers between two looks at the clock, and writers that are forgotten at one position.
_CHUNK: Final = 64
#: How long the walk over all writers rests: a part of their lifetime, within these seconds.
_REST_PART: Final = 100
_REST_SECONDS: Final = (1.0, 3600.0)


# -- which commands ------------------------------------------------------------------------------


def inner_entry(table: CommandTable, words: Sequence[bytes]) -> Entry:
    """The command that ONCE is to execute. Raises RedisError: unknown, with a wrong number of
    arguments, or none that reads or writes data."""
    entry = table.find(list(words))
    count = len(words)
    if count != entry.arity and (entry.arity >= 0 or count < -entry.arity):
        raise errors.wrong_arity(entry.name)
    data = entry.flags & (WRITE | READONLY | MAY_REPLICATE)
    if entry.name != "exec" and (not data or entry.flags & (NO_MULTI | NOT_QUEUED)):
        raise errors.not_for_once(entry.name)
    return entry


def misuse(table: CommandTable, session: Session, args: Sequence[bytes]) -> RedisError | None:
    """What would be said of the command in a call of ONCE before anything else is looked at. In a
    transaction ONCE can only end it."""
    try:
        entry = inner_entry(table, args[COMMAND_AT:])
    except RedisError as error:
        return error.as_reply()
    return errors.not_in_transaction() if session.in_multi and entry.name != "exec" else None


def runs_exec(table: CommandTable, entry: Entry, args: Sequence[bytes]) -> bool:
    """Whether a command is EXEC, by way of ONCE or not."""
    if entry.name != "once" or len(args) <= COMMAND_AT:
        return entry.name == "exec"
    inner = table.entries.get(args[COMMAND_AT].lower())
    return inner is not None and inner.name == "exec"


# -- what is kept --------------------------------------------------------------------------------


class Reply(NamedTuple):
    """A reply as each protocol has it."""

    resp2: bytes
    resp3: bytes

    def pack(self) -> bytes:
        """As it is kept."""
        other = b"" if self.resp3 == self.resp2 else self.resp3
        return b"".join((_SIZE.pack(len(self.resp2)), self.resp2, other))


def _unpack(packed: bytes) -> Reply:
    (size,) = _SIZE.unpack_from(packed)
    resp2, resp3 = packed[4 : 4 + size], packed[4 + size :]
    return Reply(resp2, resp3 or resp2)


def _split(row: bytes) -> list[bytes | None]:
    """The replies in a writer's row, oldest first; None: it has a row of its own."""
    found: list[bytes | None] = []
    at = _HEAD.size
    while at < len(row):
        (size,) = _SIZE.unpack_from(row, at)
        at += _SIZE.size
        if size == ELSEWHERE:
            found.append(None)
        else:
            found.append(row[at : at + size])
            at += size
    return found


def _reply_key(writer: bytes, n: int) -> bytes:
    return WRITER_REPLY_KEY + bytes([n % KEPT]) + writer


class Writer:
    """One writer, as the log knows it now."""

    def __init__(self, meta: Table, writer: bytes) -> None:
        self._meta = meta
        self._id = writer
        self._row = meta.get(WRITER_KEY + writer)
        #: The number of its last command; 0: there was none.
        self.last = 0
        self._replies: list[bytes | None] = []
        if self._row is not None:
            self.last, _ = _HEAD.unpack_from(self._row)
            self._replies = _split(self._row)

    def reply(self, n: int) -> Reply | None:
        """The reply to a command, if it is one of the last."""
        behind = self.last - n
        if not 0 <= behind < len(self._replies):
            return None
        packed = self._replies[-1 - behind]
        if packed is None:
            packed = self._meta.get(_reply_key(self._id, n))
            if packed is None:
                raise EngineError(f"the reply to command {n} of writer {self._id!r} is missing")
        return _unpack(packed)

    def record(self, packed: bytes, now: int) -> None:
        """The next command was executed, with this reply."""
        self.last += 1
        slot = _reply_key(self._id, self.last)
        # The reply that goes had the same slot.
        goes = self._replies.pop(0) if len(self._replies) == KEPT else b""
        if len(packed) > INLINE_BYTES:
            self._meta.put(slot, packed)
            self._replies.append(None)
        else:
            self._replies.append(packed)
            if goes is None:
                self._meta.delete(slot)
        if self._row is None:
            _add_to_count(self._meta, 1)
        self._write(now)

    def _write(self, now: int) -> None:
        parts = [_HEAD.pack(self.last, now)]
        for packed in self._replies:
            if packed is None:
                parts.append(_SIZE.pack(ELSEWHERE))
            else:
                parts += (_SIZE.pack(len(packed)), packed)
        self._row = b"".join(parts)
        self._meta.put(WRITER_KEY + self._id, self._row)

    def confirm(self) -> None:
        """Write what is known once more: whoever waits for this position waits for those before."""
        assert self._row is not None
        self._meta.put(WRITER_KEY + self._id, self._row)


def _add_to_count(meta: Table, change: int) -> None:
    count = int.from_bytes(meta.get(WRITER_KEY) or b"", "big") + change
    meta.put(WRITER_KEY, count.to_bytes(8, "big"))


def count_committed(log: CommitLog) -> int:
    """How many writers there are, those of the running turn left out."""
    if log.engine.closed:
        return 0
    return int.from_bytes(log.engine.get(LOG, WRITER_KEY) or b"", "big")


# -- forgetting ----------------------------------------------------------------------------------


class Forgetting:
    """The walk over all writers that forgets those who sent nothing for long: piece by piece, and
    with a rest after the last, since an index by time would cost each command two records."""

    def __init__(self, keyspace: Keyspace) -> None:
        self._keyspace = keyspace
        self._log = keyspace.log
        self._place = _FIRST
        self._ended = time.monotonic()

    def cycle(self, lifetime_ms: int, budget_ns: int) -> bool:
        """Walk for about `budget_ns`; returns whether there is more to do at once."""
        if not lifetime_ms or not self._keyspace.may_expire or self._rests(lifetime_ms / 1000):
            return False
        more = self._walk(self._keyspace.now - lifetime_ms, perf_counter_ns() + budget_ns)
        self._log.touched = False  # no reply depends on it
        return more

    def _rests(self, lifetime: float) -> bool:
        if self._place != _FIRST:
            return False
        least, most = _REST_SECONDS
        return time.monotonic() - self._ended < min(max(lifetime / _REST_PART, least), most)

    def _walk(self, before_ms: int, deadline: int) -> bool:
        """Forget writers whose last command is as old; returns whether time ran out."""
        old: list[tuple[bytes, bytes]] = []
        for seen, (key, row) in enumerate(self._log.meta.scan(self._place, _END), 1):
            last_ms = _HEAD.unpack_from(row)[1]
            if last_ms <= before_ms:
                old.append((key, row))
                if len(old) == _CHUNK:
                    self._forget(old)
                    old = []
            if seen % _CHUNK == 0 and perf_counter_ns() > deadline:
                self._forget(old)
                self._place = key + b"\0"
                return True
        self._forget(old)
        self._place, self._ended = _FIRST, time.monotonic()
        return False

    def _forget(self, old: list[tuple[bytes, bytes]]) -> None:
        """Delete these writers' rows, at one position."""
        if not old:
            return
        meta = self._log.meta
        for key, row in old:
            last, _ = _HEAD.unpack_from(row)
            for behind, packed in enumerate(reversed(_split(row))):
                if packed is None:
                    meta.delete(_reply_key(key[len(WRITER_KEY) :], last - behind))
            meta.delete(key)
        _add_to_count(meta, -len(old))
        self._log.advance()
