"""The log: stdlib logging set up from `loglevel`, `logfile` and `log-format`.

It knows nothing of the server; the role letter comes from a callable. Modules log through
`logging.getLogger(__name__)` and never pass command arguments or passwords: what arrives here is
written. What arrives may quote a client, so control characters are escaped and no client can forge
a line.

The line format is that of Redis (serverLogRaw in server.c): `pid:role date level message`.
A log that can't be written never stops the server.
"""

from __future__ import annotations

import json
import logging
import os
import re
import time
from collections.abc import Callable

# Between DEBUG (10) and INFO (20), which is Redis' notice.
VERBOSE = 15
NOTHING = logging.CRITICAL + 10

LEVELS = {
    "debug": logging.DEBUG,
    "verbose": VERBOSE,
    "notice": logging.INFO,
    "warning": logging.WARNING,
    "nothing": NOTHING,
}
SIGNS = {"debug": ".", "verbose": "-", "notice": "*", "warning": "#"}

STDOUT_FD = 1
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_CONTROL_BUT_NEWLINE = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029]")

Role = Callable[[], str]


def level_name(levelno: int) -> str:
    """The Redis name of a stdlib level; everything from WARNING up is `warning`."""
    if levelno >= logging.WARNING:
        return "warning"
    if levelno >= logging.INFO:
        return "notice"
    return "verbose" if levelno >= VERBOSE else "debug"


def _escape(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode("ascii")


class LineFormatter(logging.Formatter):
    """`1234:M 21 Nov 2026 10:00:00.123 * message`; a traceback follows, indented."""

    def __init__(self, role: Role) -> None:
        super().__init__()
        self._role = role

    def format(self, record: logging.LogRecord) -> str:
        when = time.strftime("%d %b %Y %H:%M:%S", time.localtime(record.created))
        millis = int(record.created * 1000) % 1000
        sign = SIGNS[level_name(record.levelno)]
        message = _CONTROL.sub(_escape, record.getMessage())
        line = f"{record.process}:{self._role()} {when}.{millis:03d} {sign} {message}"
        if record.exc_info:
            trace = _CONTROL_BUT_NEWLINE.sub(_escape, self.formatException(record.exc_info))
            line += "\n    " + trace.replace("\n", "\n    ")
        return line


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (UTC), level, pid, role, message, perhaps exception."""

    def __init__(self, role: Role) -> None:
        super().__init__()
        self._role = role

    def format(self, record: logging.LogRecord) -> str:
        when = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        fields: dict[str, str | int | None] = {
            "time": f"{when}.{int(record.created * 1000) % 1000:03d}Z",
            "level": level_name(record.levelno),
            "pid": record.process,
            "role": self._role(),
            "message": record.getMessage(),
        }
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return json.dumps(fields)


FORMATS: dict[str, Callable[[Role], logging.Formatter]] = {
    "line": LineFormatter,
    "json": JsonFormatter,
}


class LogHandler(logging.Handler):
    """Appends to a file, or writes to stdout if the path is empty.

    As Redis does, it opens the file for each line: logrotate may move it, and no failed write
    stays behind in a buffer.
    """

    def __init__(self, path: str) -> None:
        super().__init__()
        self._path = path
        if path:
            with open(path, "ab"):
                pass  # it can be opened

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record) + "\n"
            self._write(line.encode("utf-8", "backslashreplace"))
        except OSError:
            pass  # the disk is full, the reader gone: the line is lost, the server goes on
        except Exception:
            self.handleError(record)  # arguments that don't fit the message: says so on stderr

    def _write(self, data: bytes) -> None:
        if not self._path:
            os.write(STDOUT_FD, data)
            return
        with open(self._path, "ab", buffering=0) as file:
            file.write(data)


_handler: LogHandler | None = None


def setup(level: str, path: str, fmt: str, role: Role) -> None:
    """Send all logging to `path` ('' is stdout), from `level` on, as `line` or `json`.

    `role` gives the letter of the server's role now: M, S, or C before it serves. May be called
    again; the new settings replace the old ones. Raises OSError if the file can't be opened, and
    then the old ones stay.
    """
    global _handler
    handler = LogHandler(path)
    handler.setFormatter(FORMATS[fmt](role))
    root = logging.getLogger()
    if _handler is not None:
        root.removeHandler(_handler)
    root.addHandler(handler)
    _handler = handler
    set_level(level)


def set_level(level: str) -> None:
    """Log what is of `level` (a name in LEVELS) or above."""
    logging.getLogger().setLevel(LEVELS[level])
