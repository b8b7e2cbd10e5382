"""`kvserver rewound list|show`: the writes that rewinds have taken back, for people and scripts.

It must not know how the files are laid out. Invariant: whatever a key or value holds, a line of
text stays one line, unless --raw asks for the bytes as they are.
"""

from __future__ import annotations

import argparse
import base64
import datetime
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from kvserver.admin.discarded import (
    FOLDER,
    SUFFIX,
    Discarded,
    DiscardedError,
    Effect,
    read,
    read_frames,
)
from kvserver.state.monitor import quoted

#: Of longer keys and values only so many bytes are shown, unless --json or --raw asks for all.
SHOWN_BYTES: Final = 60
#: Stands before a database's id where its number isn't known.
_DATABASE_ID: Final = "#"

COLUMNS: Final = ("file", "rewound", "positions", "epoch", "commands", "records", "bytes")


def main(argv: Sequence[str]) -> int:
    """Run the sub-command; its exit status."""
    options = _parser().parse_args(argv)
    try:
        lines = _list(options) if options.action == "list" else _show(options)
        for line in lines:
            sys.stdout.buffer.write(line + b"\n")
        sys.stdout.flush()
    except DiscardedError as error:
        sys.stdout.flush()
        print(f"kvserver rewound: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="kvserver rewound",
        description="Writes that this node had and its new primary had not: a rewind saves them "
        "before it takes them back.",
        allow_abbrev=False,
    )
    actions = parser.add_subparsers(dest="action", required=True)
    listing = actions.add_parser("list", help="the files", allow_abbrev=False)
    show = actions.add_parser("show", help="what was written", allow_abbrev=False)
    show.add_argument("file", nargs="*", help="a file's name or path; default: all of them")
    form = show.add_mutually_exclusive_group()
    form.add_argument(
        "--raw",
        action="store_true",
        help="first position, effect, database, key, type, expiry and value, unquoted and whole, "
        "with tabs between",
    )
    for action, target in ((listing, listing), (show, form)):
        action.add_argument(
            "--dir", type=Path, default=Path("."), help="the server's directory (`dir`)"
        )
        target.add_argument("--json", action="store_true", help="one object a line, nothing cut")
    return parser


def _files(options: argparse.Namespace) -> list[Path]:
    folder: Path = options.dir / FOLDER
    named: list[str] = getattr(options, "file", [])
    if named:
        return [folder / name if os.sep not in name else Path(name) for name in named]
    if not options.dir.is_dir():
        raise DiscardedError(f"{options.dir} is not a directory")
    return sorted(folder.glob(f"*{SUFFIX}"))


# -- list ------------------------------------------------------------------------------------


def _list(options: argparse.Namespace) -> Iterator[bytes]:
    rows = [_summary(path) for path in _files(options)]
    if options.json:
        yield from (json.dumps(row).encode() for row in rows)
        return
    cells = [COLUMNS, *(tuple(str(row[name]) for name in COLUMNS) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        padded = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        yield "  ".join(padded).rstrip().encode()


def _summary(path: Path) -> dict[str, Any]:
    """One file: its frames cover positions without a gap, and each position was one command."""
    first = last = records = 0
    epochs: list[int] = []
    for frame in read_frames(path):
        first = first or frame.first_seq
        last = frame.last_seq
        records += frame.records
        if frame.epoch not in epochs:
            epochs.append(frame.epoch)
    size, when = path.stat().st_size, path.stat().st_mtime
    return {
        "file": path.name,
        "rewound": _time(int(when * 1000)),
        "positions": f"{first}-{last}",
        "epoch": ",".join(map(str, epochs)),
        "commands": last - first + 1 if first else 0,
        "records": records,
        "bytes": size,
    }


# -- show ------------------------------------------------------------------------------------


def _show(options: argparse.Namespace) -> Iterator[bytes]:
    form = _as_json if options.json else _as_raw if options.raw else _as_text
    for path in _files(options):
        if form is _as_text:
            yield f"# {path.name}".encode()
        for discarded in read(path):
            yield from form(discarded)


def _as_text(discarded: Discarded) -> Iterator[bytes]:
    frame = discarded.frame
    positions = f"{frame.first_seq}-{frame.last_seq}"
    if frame.first_seq == frame.last_seq:
        positions = str(frame.first_seq)
    yield f"{positions}  epoch {frame.epoch}  {_time(frame.unix_ms)}".encode()
    for effect in discarded.effects:
        yield b"    " + b" ".join(_words(effect))


def _words(effect: Effect) -> Iterator[bytes]:
    if effect.db:
        yield f"db{effect.db}".encode()
    yield effect.what.encode()
    if effect.key:
        yield _cut(effect.key)
    if effect.type:
        yield effect.type.encode()
    if effect.value is not None:
        yield _cut(effect.value)
    if effect.expire_ms:
        yield f"(expires {_time(effect.expire_ms)})".encode()


def _cut(data: bytes) -> bytes:
    if len(data) <= SHOWN_BYTES:
        return quoted(data)
    return quoted(data[:SHOWN_BYTES]) + b"... (%d bytes)" % len(data)


def _as_raw(discarded: Discarded) -> Iterator[bytes]:
    for effect in discarded.effects:
        yield b"\t".join(
            (
                b"%d" % discarded.frame.first_seq,
                effect.what.encode(),
                effect.db.encode(),
                effect.key,
                effect.type.encode(),
                b"%d" % effect.expire_ms if effect.expire_ms else b"",
                effect.value or b"",
            )
        )


def _as_json(discarded: Discarded) -> Iterator[bytes]:
    frame = discarded.frame
    yield json.dumps(
        {
            "first": frame.first_seq,
            "last": frame.last_seq,
            "epoch": frame.epoch,
            "time": _time(frame.unix_ms),
            "effects": [_object(effect) for effect in discarded.effects],
        }
    ).encode()


def _object(effect: Effect) -> dict[str, Any]:
    found: dict[str, Any] = {"effect": effect.what}
    if effect.db:
        named = not effect.db.startswith(_DATABASE_ID)
        found["db" if named else "db_id"] = int(effect.db.removeprefix(_DATABASE_ID))
    if effect.key or effect.what in ("set", "del"):
        found.update(_bytes("key", effect.key))
    if effect.type:
        found["type"] = effect.type
    if effect.value is not None:
        found.update(_bytes("value", effect.value))
    if effect.expire_ms:
        found["expire_ms"] = effect.expire_ms
    return found


def _bytes(name: str, data: bytes) -> dict[str, str]:
    """As text, or else as base64 under another name."""
    try:
        return {name: data.decode()}
    except UnicodeDecodeError:
        return {f"{name}_base64": base64.b64encode(data).decode()}


def _time(unix_ms: int) -> str:
    """UTC. A time that no calendar has stays a number."""
    try:
        when = datetime.datetime.fromtimestamp(unix_ms / 1000, datetime.UTC)
    except (OverflowError, ValueError, OSError):
        return str(unix_ms)
    return when.strftime("%Y-%m-%d %H:%M:%S.") + f"{unix_ms % 1000:03d}Z"
