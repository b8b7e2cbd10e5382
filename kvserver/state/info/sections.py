"""INFO: what the server tells of itself, section by section.

It must not know commands or sockets. Source: Redis 7.4's server.c, genRedisInfoString. Each
section is a function from a view of the server to fields, in Redis' order; ours follow Redis'.
The fields of Redis that kvserver leaves out, because nothing here answers to them:

- server: redis_git_sha1, redis_git_dirty, atomicvar_api, gcc_version;
- stats: eventloop_cycles, eventloop_duration_sum, instantaneous_eventloop_*: libuv runs the loop
  and counts nothing;
- memory: nothing, but `used_memory` is the resident size of the process: it is what the process
  uses, RocksDB and Python's own allocator included.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

from kvserver.state.info import activity, clients, memory, node, replication, storage
from kvserver.state.info.fields import Fields
from kvserver.state.info.view import View

if TYPE_CHECKING:
    from kvserver.state.server import Server

Section = Callable[[View], Fields]

#: Name -> (heading, fields), in the order of the reply.
SECTIONS: Final[dict[str, tuple[str, Section]]] = {
    "server": ("Server", node.server),
    "clients": ("Clients", clients.clients),
    "memory": ("Memory", memory.memory),
    "persistence": ("Persistence", storage.persistence),
    "stats": ("Stats", activity.stats),
    "replication": ("Replication", replication.replication),
    "cpu": ("CPU", node.cpu),
    "modules": ("Modules", node.modules),
    "commandstats": ("Commandstats", activity.commandstats),
    "errorstats": ("Errorstats", activity.errorstats),
    "latencystats": ("Latencystats", activity.latencystats),
    "cluster": ("Cluster", node.cluster),
    "keyspace": ("Keyspace", storage.keyspace),
    "rocksdb": ("RocksDB", storage.rocksdb),
}
#: What INFO shows when no section is named.
DEFAULT: Final = SECTIONS.keys() - {"commandstats", "latencystats"}
_GROUPS: Final = {
    "default": DEFAULT,
    "all": SECTIONS.keys(),
    "everything": SECTIONS.keys(),
    "module_list": {"modules"},
}


def render(server: Server, names: Iterable[str], namespace: int) -> bytes:
    """The text of the sections with these names, in any case; names that aren't known are
    ignored, and no name at all means `default`. Whoever is in a namespace isn't shown the figures
    that all data is in."""
    wanted: set[str] = set()
    for name in [name.lower() for name in names] or ["default"]:
        wanted |= _GROUPS.get(name, {name})
    if namespace:
        wanted.discard("rocksdb")
    view = View(server, namespace)
    texts = [
        _format(heading, section(view))
        for name, (heading, section) in SECTIONS.items()
        if name in wanted
    ]
    return "\r\n".join(texts).encode("utf-8", "surrogateescape")


def _format(heading: str, fields: Fields) -> str:
    lines = [f"# {heading}", *(f"{name}:{value}" for name, value in fields.items())]
    return "".join(f"{line}\r\n" for line in lines)
