"""Namespaces: who enters one has a key space of his own, and no other.

After Apache Kvrocks (src/server/namespace.cc). A namespace is a database that SELECT can't reach;
its token, given to AUTH instead of the default user's password, leads into it. It must not know
commands or sockets. Invariants:
- The rows (codec.NAMESPACE_KEY) are the namespaces: a batch that fails, a full sync, a rewind and a
  primary's change are followed by reading them again.
- A session in a namespace has its name and the index of its database; it is ended when these no
  longer belong together. So a slot can be given away once its database is empty.
- A namespace that was deleted keeps its row, without a token, while there are keys in it: they are
  there again when one of the same name is added.
- Everybody in a namespace has the same rights (`new_tenant`): whatever reaches no further than its
  keys and messages.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Final, NamedTuple

from kvserver.acl.user import User, valid_name
from kvserver.codec import (
    MAX_NAMESPACES,
    NAMESPACE_KEY,
    pack_namespace,
    prefix_end,
    unpack_namespace,
)
from kvserver.config import wire
from kvserver.keyspace import Keyspace
from kvserver.state.session import Session

#: What Kvrocks calls the key space of those who are in no namespace.
DEFAULT_NAMESPACE: Final = b"__namespace"
MAX_NAME: Final = 255

#: What everybody in a namespace may do. Without what concerns other key spaces, shows figures of
#: them, sends keys elsewhere, or changes or shows at work the scripts that all share. ROLE, which
#: clients use to tell a primary, is Kvrocks' exception from what is the administrator's.
_RIGHTS: Final = (
    *("on", "~*", "&*", "+@all", "-@admin", "+role"),
    *("-flushall", "-swapdb", "-migrate"),
    *("-memory|doctor", "-memory|malloc-stats", "-memory|purge", "-memory|stats"),
    *("-script|flush", "-script|kill", "-function|delete", "-function|flush"),
    *("-function|kill", "-function|load", "-function|restore", "-function|stats"),
)


class Namespace(NamedTuple):
    """A namespace that can be entered."""

    name: bytes
    token: bytes
    #: The index of its database.
    database: int


class _Kept(NamedTuple):
    """What a row says."""

    slot: int
    token: bytes | None


def new_tenant() -> User:
    """The user that everybody in a namespace is."""
    user = User("", True)
    user.apply_all([rule.encode() for rule in _RIGHTS])
    return user


def legal_name(name: bytes) -> bool:
    """Whether a namespace may have it: it stands where users' names do (CLIENT LIST, INFO)."""
    return len(name) > 0 and name[-1] != 0x7F and valid_name(name)


class Namespaces:
    """The namespaces of the data set."""

    def __init__(self, keyspace: Keyspace, sessions: dict[int, Session]) -> None:
        self._keyspace = keyspace
        self._meta = keyspace.log.meta
        self._sessions = sessions
        self._kept: dict[bytes, _Kept] = {}
        #: By the hash of the token: how long a look-up takes tells nothing of tokens.
        self._by_token: dict[bytes, Namespace] = {}
        keyspace.on_namespaces = self._reload
        self._reload()

    # -- what there is -------------------------------------------------------------------------

    def all(self) -> list[Namespace]:
        """Those that can be entered, by token."""
        self._keyspace.log.note_scan()
        return sorted(self._by_token.values(), key=_token)

    def get(self, name: bytes) -> Namespace | None:
        """One that can be entered."""
        self._meta.get(NAMESPACE_KEY + name)  # the reply depends on it
        return self._find(name)

    def of_token(self, token: bytes) -> Namespace | None:
        """The one that a token leads into."""
        found = self._by_token.get(_digest(token))
        if found is not None:
            self._meta.get(NAMESPACE_KEY + found.name)
        return found

    def _find(self, name: bytes) -> Namespace | None:
        kept = self._kept.get(name)
        if kept is None or kept.token is None:
            return None
        return Namespace(name, kept.token, self._keyspace.numbered + kept.slot)

    def indices(self) -> list[tuple[bytes, int]]:
        """(name, index of the database) of all, those that were deleted but for their keys too.
        For INFO, which waits for no commit."""
        numbered = self._keyspace.numbered
        return [(name, numbered + kept.slot) for name, kept in sorted(self._kept.items())]

    # -- changes -------------------------------------------------------------------------------

    def put(self, name: bytes, token: bytes) -> bool:
        """Make a namespace, or give it another token, which no other has; False: there are too
        many. Those who are in it stay."""
        kept = self._kept.get(name)
        slot = self._free_slot() if kept is None else kept.slot
        if slot >= MAX_NAMESPACES:
            return False
        self._keyspace.make_room(slot + 1)
        self._meta.put(NAMESPACE_KEY + name, pack_namespace(slot, token))
        self._take({**self._kept, name: _Kept(slot, token)})
        return True

    def delete(self, name: bytes) -> bool:
        """Let nobody into a namespace any more, and end the sessions that are in it; False: there
        is none. Its keys are kept."""
        found = self._find(name)
        if found is None:
            return False
        rest = dict(self._kept)
        kept = rest.pop(name)
        if self._keyspace.databases[found.database].keys:
            rest[name] = _Kept(kept.slot, None)
            self._meta.put(NAMESPACE_KEY + name, pack_namespace(kept.slot, None))
        else:
            self._meta.delete(NAMESPACE_KEY + name)
        self._take(rest)
        return True

    def _free_slot(self) -> int:
        """The first slot that nobody's keys are in. Rows that were kept for keys which are gone
        since go first."""
        databases, numbered = self._keyspace.databases, self._keyspace.numbered
        for name, kept in list(self._kept.items()):
            if kept.token is None and not databases[numbered + kept.slot].keys:
                self._meta.delete(NAMESPACE_KEY + name)
                del self._kept[name]
        used = {kept.slot for kept in self._kept.values()}
        return next(slot for slot in range(len(used) + 1) if slot not in used)

    # -- following the rows --------------------------------------------------------------------

    def _reload(self) -> None:
        rows = self._meta.scan(NAMESPACE_KEY, prefix_end(NAMESPACE_KEY))
        found = {key[len(NAMESPACE_KEY) :]: _Kept(*unpack_namespace(row)) for key, row in rows}
        if found != self._kept:
            self._take(found)

    def _take(self, kept: dict[bytes, _Kept]) -> None:
        """These are the namespaces from now on."""
        self._kept = kept
        found = [namespace for name in kept if (namespace := self._find(name)) is not None]
        self._by_token = {_digest(namespace.token): namespace for namespace in found}
        for session in list(self._sessions.values()):
            if session.namespace:
                namespace = self._find(wire(session.user))
                if namespace is None or namespace.database != session.namespace:
                    session.sink.abort()

    # -- ONCE ----------------------------------------------------------------------------------

    def writer_id(self, session: Session, writer: bytes) -> bytes:
        """What the log calls a session's writer of this name: namespaces may use the same names
        without learning each other's replies."""
        if not session.namespace:
            return writer
        name = wire(session.user)
        return sha256(bytes([len(name)]) + name + writer).digest()


def _digest(token: bytes) -> bytes:
    return sha256(token).digest()


def _token(namespace: Namespace) -> bytes:
    return namespace.token
