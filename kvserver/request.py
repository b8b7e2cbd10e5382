"""Requests: bytes from a client to argument vectors, under limits, incrementally.

It must not know commands or sockets. Source: Redis 7.4's networking.c
(processMultibulkBuffer, processInlineBuffer): the same limits, the same error texts.

Why not hiredis' Reader: it allocates what a header declares (`*268435456` is 2 GB), takes
arguments that aren't bulk strings, knows no inline commands and doesn't say where a partial
command began, so everything would have to be checked again around it.

Invariants: nothing is allocated for a declared length before the bytes are there; a
partial command is never parsed twice (its finished arguments are kept); after a
ProtocolError the parser takes no more input.
"""

from __future__ import annotations

from typing import Final

from kvserver.numbers import parse_int64
from kvserver.quoting import split_args

Request = list[bytes]

CRLF: Final = b"\r\n"
INLINE_MAX: Final = 64 * 1024
MULTIBULK_MAX: Final = (1 << 31) - 1
#: Before authentication (networking.c: authRequired): so many arguments, so many bytes each,
#: so many bytes that are no complete command yet.
UNAUTH_ARGS: Final = 10
UNAUTH_BULK: Final = 16384
UNAUTH_BUFFER: Final = 1 << 20
#: What CPython keeps beside an argument's bytes; counted against the query buffer's limit.
ARG_OVERHEAD: Final = 48

_TABLE: Final = 1024
#: From this length on an argument is long: to split at CRLF would look at each of its bytes.
_LONG: Final = 512
_COUNTS: Final[dict[bytes, int]] = {b"*%d" % n: n for n in range(1, _TABLE)}
_HEADERS: Final[list[bytes]] = [b"$%d" % n for n in range(_LONG)]
_LENGTHS: Final[dict[bytes, int]] = {b"%d" % n: n for n in range(_TABLE)}
_HEADER_COMES: Final = -1


class ProtocolError(Exception):
    """The bytes are not RESP; the text is what Redis says after `Protocol error: `. `parsed`
    are the requests that came before it, which are still to be answered."""

    def __init__(self, text: str, parsed: list[Request]) -> None:
        super().__init__(text)
        self.parsed = parsed


class QueryBufferExceeded(ProtocolError):
    """The client sent more than client-query-buffer-limit without completing a command."""


class Limits:
    """What every parser of a server obeys: the longest argument (proto-max-bulk-len), the most
    bytes held for an incomplete command (client-query-buffer-limit)."""

    __slots__ = ("max_buffer", "max_bulk")

    def __init__(self, max_bulk: int, max_buffer: int) -> None:
        self.max_bulk = max_bulk
        self.max_buffer = max_buffer


class RequestParser:
    """One connection's parser."""

    __slots__ = (
        "_args",
        "_args_bytes",
        "_bulk",
        "_chunks",
        "_have",
        "_left",
        "_limits",
        "_long",
        "_need",
        "authenticated",
        "deferred",
    )

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        #: Set by the owner before `feed`.
        self.authenticated = True
        #: The next command breaks the limits of clients that haven't authenticated; whether
        #: this one has is known once what came before is executed: call `feed` again then.
        self.deferred = False
        #: Bytes not parsed yet; parsing can't get any further before `_need` of them are there.
        self._chunks: list[bytes] = []
        self._have = 0
        self._need = 0
        #: The incomplete command: its finished arguments, how many are to come, and the size of
        #: the one whose first byte is next.
        self._args: Request = []
        self._args_bytes = 0
        self._left = 0
        self._bulk = _HEADER_COMES
        #: What was parsed last had long arguments: the next ones probably have some as well.
        self._long = False

    @property
    def buffered(self) -> int:
        """Bytes held for a command that isn't complete, overhead included."""
        return self._have + self._args_bytes

    def feed(self, data: bytes) -> list[Request]:
        """The requests that `data` completes. Raises ProtocolError."""
        requests: list[Request] = []
        self.deferred = False
        if self._chunks:
            self._chunks.append(data)
            self._have += len(data)
            if self._have < self._need:
                self._check_buffer(requests)
                return requests
            data = self._join(requests)
        at = 0 if self._left or self._long else self._fast(data, requests)
        if at < len(data):
            self._exact(data, at, requests)
        return requests

    def _join(self, requests: list[Request]) -> bytes:
        """What is there, in one piece; a long argument is taken out first, in one copy."""
        chunks, self._chunks = self._chunks, []
        have, self._have = self._have, 0
        if self._bulk == _HEADER_COMES:
            return b"".join(chunks)
        beyond = have - self._bulk
        tail: list[bytes] = []
        while beyond > 0:
            chunk = chunks.pop()
            cut = max(len(chunk) - beyond, 0)
            beyond -= len(chunk) - cut
            tail.append(chunk[cut:])
            if cut:
                chunks.append(chunk[:cut])
        self._take(b"".join(chunks), requests)
        return b"".join(reversed(tail))[2:]

    def _fast(self, data: bytes, requests: list[Request]) -> int:
        """Split at CRLF and check that the pieces are as long as they say: right for whole
        commands of small arguments, which is nearly all there is. Returns where it gave up."""
        pieces = data.split(CRLF)
        end = len(pieces) - 1
        most = _TABLE if self.authenticated else UNAUTH_ARGS + 1
        at = 0
        while at < end:
            count = _COUNTS.get(pieces[at], _TABLE)
            stop = at + 1 + 2 * count
            if count >= most or stop > end:
                break
            args = _arguments(pieces, at + 1, stop)
            if args is None:
                break
            requests.append(args)
            at = stop
        if at == end and not pieces[end]:
            return len(data)
        return sum(map(len, pieces[:at])) + 2 * at

    # -- the exact parser: any length, any place to be cut --------------------------------

    def _exact(self, data: bytes, at: int, requests: list[Request]) -> None:
        """Parse from `at` on; each step returns where the next begins, or -1 when it needs more
        bytes than there are."""
        size = len(data)
        self._long = False
        while at < size:
            if self._bulk != _HEADER_COMES:
                after = self._long_argument(data, at, requests)
            elif self._left:
                after = self._bulk_string(data, at, requests)
            elif data[at] == 0x2A:
                after = self._header(data, at, requests)
            else:
                after = self._inline(data, at, requests)
            if after < 0:
                self._chunks = [data[at:] if at else data]
                self._have = size - at
                break
            at = after
        if not self.deferred:
            self._check_buffer(requests)

    def _line(
        self, data: bytes, at: int, requests: list[Request], complaint: str
    ) -> tuple[bytes, int]:
        """The header line at `at` and what follows it; -1: not there yet."""
        end = data.find(CRLF, at, at + INLINE_MAX)
        if end < 0:
            self._need_line(data, at, requests, complaint)
            return b"", -1
        # max: a compiled slice must not end before it begins (docs/development.md).
        return data[at + 1 : max(at + 1, end)], end + 2

    def _need_line(self, data: bytes, at: int, requests: list[Request], complaint: str) -> None:
        have = len(data) - at
        if have > INLINE_MAX:
            raise ProtocolError(complaint, requests)
        self._need = have + 1

    def _header(self, data: bytes, at: int, requests: list[Request]) -> int:
        line, after = self._line(data, at, requests, "too big mbulk count string")
        if after < 0:
            return -1
        count = parse_int64(line)
        if count is None or count > MULTIBULK_MAX:
            raise ProtocolError("invalid multibulk length", requests)
        if count > UNAUTH_ARGS and not self.authenticated:
            return self._defer("unauthenticated multibulk length", requests)
        self._left = max(count, 0)
        return after

    def _bulk_string(self, data: bytes, at: int, requests: list[Request]) -> int:
        line, after = self._line(data, at, requests, "too big bulk count string")
        if after < 0:
            return -1
        if data[at] != 0x24:
            raise ProtocolError(f"expected '$', got '{chr(data[at])}'", requests)
        size = _LENGTHS.get(line)
        if size is None:
            size = parse_int64(line)
        if size is None or size < 0 or size > self._limits.max_bulk:
            raise ProtocolError("invalid bulk length", requests)
        if size > UNAUTH_BULK and not self.authenticated:
            return self._defer("unauthenticated bulk length", requests)
        end = after + size
        if len(data) < end + 2:
            self._bulk = size
            return after
        self._take(data[after:end], requests)
        return end + 2

    def _long_argument(self, data: bytes, at: int, requests: list[Request]) -> int:
        """An argument whose header came before."""
        end = at + self._bulk
        if len(data) < end + 2:
            self._need = self._bulk + 2
            return -1
        self._take(data[at:end], requests)
        return end + 2

    def _take(self, arg: bytes, requests: list[Request]) -> None:
        """An argument is complete, and so may be its command."""
        self._bulk = _HEADER_COMES
        size = len(arg)
        if size >= _LONG:
            self._long = True
        self._args.append(arg)
        self._args_bytes += size + ARG_OVERHEAD
        self._left -= 1
        if not self._left:
            requests.append(self._args)
            self._args = []
            self._args_bytes = 0

    def _inline(self, data: bytes, at: int, requests: list[Request]) -> int:
        end = data.find(b"\n", at, at + INLINE_MAX)
        if end < 0:
            self._need_line(data, at, requests, "too big inline request")
            return -1
        line = data[at:end]
        args = split_args(line[:-1] if line.endswith(b"\r") else line)
        if args is None:
            raise ProtocolError("unbalanced quotes in request", requests)
        if args:
            requests.append(args)
        return end + 1

    # -- limits ------------------------------------------------------------------------------

    def _defer(self, complaint: str, requests: list[Request]) -> int:
        """More than a client may send that hasn't authenticated. One of the requests before may
        be its AUTH."""
        if not requests:
            raise ProtocolError(complaint, requests)
        self.deferred = True
        self._need = 0
        return -1

    def _check_buffer(self, requests: list[Request]) -> None:
        limit = self._limits.max_buffer
        if not self.authenticated:
            limit = min(limit, UNAUTH_BUFFER)
        if self.buffered > limit:
            raise QueryBufferExceeded("query buffer limit exceeded", requests)


def _arguments(pieces: list[bytes], start: int, stop: int) -> Request | None:
    """The arguments of a command whose headers and arguments alternate in pieces[start:stop];
    None if one isn't as long as its header says, or not small."""
    args: Request = []
    for at in range(start, stop, 2):
        arg = pieces[at + 1]
        size = len(arg)
        if size >= _LONG or pieces[at] != _HEADERS[size]:
            return None
        args.append(arg)
    return args
