"""Writes docs/commands.md: every command of Redis 7.4, whether kvserver has it, since when, and
what differs or why it isn't there; then those that Redis 7.4 doesn't have.

    python -m tools.commands_md

What kvserver has is taken from the registry, what Redis has from redis-7.4-commands.txt beside this
file (name, group, first version: Redis' own COMMAND DOCS). The version in which kvserver got a
command is kept from the document as it stands; a command that is new there gets the version now.
tests/test_commands_md.py holds the document against the registry.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final, NamedTuple

import kvserver.commands  # noqa: F401  (declares the commands)
from kvserver import __version__
from kvserver.registry import COMMANDS

DOCUMENT: Final = Path(__file__).parent.parent / "docs" / "commands.md"
REDIS: Final = Path(__file__).with_name("redis-7.4-commands.txt")
GROUPS: Final = (
    *("generic", "string", "hash", "list", "set", "sorted-set", "stream", "bitmap", "hyperloglog"),
    *("geo", "pubsub", "transactions", "scripting", "connection", "server", "cluster"),
)
ABSENT: Final = "—"
#: Commands that Redis 7.4 doesn't have, and where they come from.
OWN: Final = {
    "cad": "kvrocks",
    "cas": "kvrocks",
    "hgetdel": "Redis 8.0",
    "hgetex": "Redis 8.0",
    "hsetex": "Redis 8.0",
    "namespace": "kvrocks",
    "namespace|add": "kvrocks",
    "namespace|current": "kvrocks",
    "namespace|del": "kvrocks",
    "namespace|get": "kvrocks",
    "namespace|help": "kvrocks",
    "namespace|set": "kvrocks",
    "once": "kvserver",
    "repldigest": "kvserver",
}

_NO_CLUSTER: Final = "There is no cluster mode yet."
_NO_MODULES: Final = "There are no modules."
#: Why a command of Redis isn't there.
MISSING: Final = {
    "asking": _NO_CLUSTER,
    "bgrewriteaof": "There is no append-only file to rewrite: RocksDB compacts what it holds.",
    "cluster": _NO_CLUSTER,
    "module|load": _NO_MODULES,
    "module|loadex": _NO_MODULES,
    "module|unload": _NO_MODULES,
    "readonly": _NO_CLUSTER,
    "readwrite": _NO_CLUSTER,
    "script|debug": "There is no debugger: a script's effects are one batch.",
    "sync": "Replicas send PSYNC; what follows it is kvserver's own protocol.",
}

#: What a command does otherwise than Redis. Texts of error messages that Redis changed after 7.4,
#: and replies that name memory addresses or times, aren't differences.
DIFFERENCES: Final[dict[str, str]] = {
    "bgsave": "Makes a backup in `dir`/backups, from which a server can be started; the data "
    "doesn't need it to survive.",
    "bitop": "NOT of a sparse bitmap writes all of it.",
    "client|list": "Figures of buffers that kvserver doesn't have (`qbuf-free`, `rbs`, `rbp`, "
    "`obl`) are 0.",
    "command|docs": "Arguments without `since` and `deprecated_since`.",
    "command|getkeys": "Knows kvserver's commands only.",
    "config|get": "kvserver's own directives are there too, those of Redis that mean nothing here "
    "are not: conf/kvserver.conf has them all.",
    "debug": "ERROR, JMAP, LOG, OBJECT, PROTOCOL, RELOAD, SET-ACTIVE-EXPIRE, SLEEP, "
    "STRINGMATCH-LEN and HELP; the others show or break what isn't here.",
    "eval": "Each Lua state may take 1 GiB; a script's effects are one batch.",
    "fcall": "As EVAL.",
    "flushall": "Takes the same short time whatever is there: ASYNC and SYNC are the same.",
    "flushdb": "Takes the same short time whatever is there: ASYNC and SYNC are the same.",
    "geosearch": "Error texts name the command in capitals.",
    "hexpire": "A field whose time has passed counts as missing.",
    "hgetall": "In the order of the fields' bytes; Redis keeps the order of insertion in small "
    "hashes.",
    "hrandfield": "Exactly uniform up to 512 fields; beyond that a field after a gap comes more "
    "often. A negative count is limited to 10 million.",
    "info": "Sections and fields of Redis where they mean something here, and those of RocksDB.",
    "latency|histogram": "A command that waited is counted when it began, too.",
    "lolwut": "Another picture.",
    "memory|doctor": "Looks at peak, allocator, client buffers and scripts: used memory is the "
    "resident one here.",
    "memory|stats": "Without the figures of hash tables, with those of RocksDB.",
    "memory|usage": "What the key takes in the row cache, whether it is there or not.",
    "migrate": "Not inside MULTI or scripts. Others are served meanwhile, but writes to these "
    "keys wait. Plain TCP only.",
    "module|list": "Always empty: there are no modules.",
    "object|encoding": "The encoding that Redis would choose for the value, written by SET.",
    "object|freq": "Always the error of a server without an LFU policy.",
    "object|idletime": "As the row cache knows it: 0 while the key was in use lately, else the "
    "seconds since it certainly wasn't.",
    "object|refcount": "What it would be in Redis.",
    "pfselftest": "With fewer elements.",
    "randomkey": "The first key after a random place: a key after a gap comes more often.",
    "restore": "IDLETIME and FREQ are checked, and mean nothing here.",
    "save": "As BGSAVE, and answers when the backup is there; others are served meanwhile.",
    "shutdown": "SAVE flushes RocksDB's memtables to files, NOSAVE leaves that to the next start; "
    "neither loses an acknowledged write.",
    "srandmember": "A negative count is limited to 16 million.",
    "waitaof": "The append-only file is RocksDB's write-ahead log.",
    "xadd": "With `~`: as XTRIM.",
    "xgroup|create": "An error about the subcommand names it in capitals.",
    "xinfo|consumers": "A consumer's command that changed nothing isn't seen.",
    "xinfo|stream": "The radix tree is the one that Redis would have: its keys where XDEL has "
    "emptied no node, its nodes about. With FULL, `seen-time` as XINFO CONSUMERS.",
    "xtrim": "With `~` the nodes are those of Redis, but for nodes whose last entries went by "
    "XDEL.",
    "zrandmember": "A negative count is limited to 16 million.",
}


class Command(NamedTuple):
    """A command of Redis, subcommands as `config|get`."""

    name: str
    group: str
    since: str


def redis_commands() -> list[Command]:
    """The commands of Redis 7.4, by name."""
    return [Command(*line.split()) for line in REDIS.read_text().splitlines()]


def our_commands() -> set[str]:
    """The names of the registry."""
    specs = [spec for top in COMMANDS.values() for spec in (top, *top.subcommands.values())]
    return {spec.name for spec in specs}


def versions(document: str) -> dict[str, str]:
    """{name: the version in which kvserver got it}, as the document has it."""
    rows = re.findall(r"^\| `([^`]+)` \| [^|]+ \| (\d\S*) \|", document, re.MULTILINE)
    return {title.lower().replace(" ", "|"): version for title, version in rows}


def render(document: str) -> str:
    """The document anew; `document` is its present text."""
    known, ours = versions(document), our_commands()
    since = {name: known.get(name, __version__) for name in ours}
    commands = redis_commands()
    sections = [_section(group, commands, since) for group in GROUPS]
    return _HEAD.format(have=_count(commands, since)) + "".join(sections) + _own_section(since)


def _section(group: str, commands: list[Command], since: dict[str, str]) -> str:
    rows = [command for command in commands if command.group == group]
    lines = [f"\n## {group} ({_count(rows, since)})\n\n", _TABLE]
    lines += [_row(command, since.get(command.name)) for command in rows]
    return "".join(lines)


def _own_section(since: dict[str, str]) -> str:
    rows = [
        f"| `{_title(name)}` | {source} | {since[name]} | {_summary(name)} |\n"
        for name, source in OWN.items()
    ]
    head = "| command | from | kvserver | what it does |\n|---|---|---|---|\n"
    return "\n## Beyond Redis 7.4\n\n" + head + "".join(rows)


def _summary(name: str) -> str:
    parent, _, sub = name.partition("|")
    spec = COMMANDS[parent]
    return (spec.subcommands[sub] if sub else spec).summary


def _title(name: str) -> str:
    return name.upper().replace("|", " ")


def _count(commands: list[Command], since: dict[str, str]) -> str:
    return f"{sum(command.name in since for command in commands)} of {len(commands)}"


def _row(command: Command, version: str | None) -> str:
    note = DIFFERENCES.get(command.name, "")
    if version is None:
        note = MISSING.get(command.name) or MISSING[command.name.partition("|")[0]]
    return f"| `{_title(command.name)}` | {command.since} | {version or ABSENT} | {note} |\n"


_TABLE: Final = (
    "| command | Redis | kvserver | what differs, or why it isn't there |\n|---|---|---|---|\n"
)

_HEAD: Final = f"""\
# Commands

The commands of Redis 7.4 and, for each, the version of Redis and of kvserver that brought it;
{ABSENT}: not there, and answered as an unknown command. kvserver has {{have}}, with subcommands.
Names, arguments, replies and errors are those of Redis 7.4 unless the last column says otherwise.

Written by `python -m tools.commands_md` from the commands' declarations; don't edit it.
"""


if __name__ == "__main__":
    DOCUMENT.write_text(render(DOCUMENT.read_text() if DOCUMENT.exists() else ""))
