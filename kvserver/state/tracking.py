"""CLIENT TRACKING: clients that keep copies of values are told when the keys change.

It must not know commands or sockets. Source: Redis 7.4's tracking.c. A key is known by its name
alone, whatever its database, but by its namespace too: nobody hears of keys of another. Invariants:
- Who read a key is told of its next change, once, and is then forgotten until he reads it again.
- A message isn't sent before the write that it tells of can be seen, and is sent also if that
  write fails: who was told is forgotten already.
- What a command changed is told to its own client after the reply, and what changed during a long
  read after the reply to that: the reader would take what it gets for new.

A replica gets rows and no commands. A row of an element has the id of its collection, not the name
of the key, so `_elements` has the names of collections that clients of a replica read.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from types import GeneratorType
from typing import Any, Final

from kvserver import codec, resp
from kvserver.config import Config
from kvserver.keyspace import TRACKED, Keyspace
from kvserver.registry import PUBSUB, READONLY
from kvserver.state.replication import Replication
from kvserver.state.session import COLD, IN_MULTI, TRACKING, Session
from kvserver.state.table import Entry
from kvserver.state.turn import Turn
from kvserver.storage.commitlog import DATA, ROWS
from kvserver.storage.wal_batch import DELETE_RANGE, Record

CHANNEL: Final = b"__redis__:invalidate"
_MAX_KEYS: Final = "tracking-table-max-keys"
#: Not their keys are remembered, but those of the commands that they call (server.c, call).
_SCRIPTS: Final = ("eval_ro", "evalsha_ro", "fcall_ro")
#: Keys that are given up in one turn, as long as there are too many; more from turn to turn.
_EFFORT: Final = 100
#: Collections whose names are known at most; 0 for the limit of the table sets none.
_MAX_ELEMENTS: Final = 1_000_000


class ClientTracking:
    """What a client asked for with CLIENT TRACKING ON."""

    __slots__ = (
        "bcast",
        "broken",
        "caching",
        "deferred",
        "noloop",
        "optin",
        "optout",
        "prefixes",
        "redirect",
    )

    def __init__(self) -> None:
        #: The id of the client that the messages go to; 0: to itself.
        self.redirect = 0
        self.bcast = self.optin = self.optout = self.noloop = False
        #: CLIENT CACHING was called: the next command is an exception.
        self.caching = False
        #: There was a message for `redirect` when that was gone.
        self.broken = False
        self.prefixes: dict[bytes, None] = {}
        #: Messages that follow the reply of the walk under way.
        self.deferred: list[bytes] = []


#: A key's namespace (as Session.namespace) and its name.
Place = tuple[int, bytes]


class _Prefix:
    """A prefix of BCAST mode: who wants to know, and what changed in this turn, by whom."""

    __slots__ = ("changed", "sessions")

    def __init__(self) -> None:
        self.changed: dict[Place, Session | None] = {}
        self.sessions: dict[Session, None] = {}


class Tracking:
    """Which clients may have copies of which keys."""

    def __init__(
        self, keyspace: Keyspace, turn: Turn, config: Config, replication: Replication
    ) -> None:
        self._keyspace = keyspace
        self._turn = turn
        self._log = turn.log
        self._config = config
        self._replication = replication
        #: Key -> the id of the client that read it, or of several. Ids stay when clients leave.
        self._table: OrderedDict[Place, int | set[int]] = OrderedDict()
        self.total_items = 0
        self._prefixes: dict[bytes, _Prefix] = {}
        self._elements: OrderedDict[bytes, Place] = OrderedDict()
        #: The clients in tracking mode.
        self.sessions: dict[Session, None] = {}
        #: Whose command runs, if that is in tracking mode.
        self._current: Session | None = None
        self._depth = 0
        self._held: list[tuple[Session, bytes]] = []
        self._full_turns = 0
        self._max_keys = config.get_int(_MAX_KEYS)
        config.on_change(_MAX_KEYS, self._configure)
        turn.before_end = self._end_turn

    def _configure(self) -> None:
        self._max_keys = self._config.get_int(_MAX_KEYS)

    @property
    def total_keys(self) -> int:
        """Keys in the table."""
        return len(self._table)

    @property
    def total_prefixes(self) -> int:
        """Prefixes of all clients in BCAST mode."""
        return len(self._prefixes)

    # -- the clients' modes ------------------------------------------------------------------

    def enable(self, session: Session, mode: ClientTracking) -> None:
        """Track for the session in this mode; prefixes that it has are kept."""
        before = session.tracking
        if before is not None:
            mode.prefixes = {**before.prefixes, **mode.prefixes}
            mode.caching, mode.deferred = before.caching, before.deferred
        session.tracking = mode
        session.gate |= TRACKING
        self.sessions[session] = None
        for prefix in mode.prefixes:
            self._prefixes.setdefault(prefix, _Prefix()).sessions[session] = None
        self._observe()

    def disable(self, session: Session) -> None:
        """Track no longer. The session's id stays in the table until the keys change."""
        mode, session.tracking = session.tracking, None
        if mode is None:
            return
        session.gate &= ~TRACKING
        del self.sessions[session]
        for name in mode.prefixes:
            prefix = self._prefixes[name]
            del prefix.sessions[session]
            if not prefix.sessions:
                del self._prefixes[name]
        self._observe()

    def _observe(self) -> None:
        self._keyspace.observe(TRACKED, bool(self.sessions or self._table))

    # -- commands ----------------------------------------------------------------------------

    def begin(self, session: Session) -> Session | None:
        """A command of the session begins: what is told waits for `end`, to which the returned
        value is to be given."""
        outer, self._current = self._current, session
        self._depth += 1
        return outer

    def end(self, session: Session, entry: Entry, outer: Session | None) -> None:
        """The command is over, and its reply sent."""
        self.spend(session, entry)
        self._current = outer
        self._depth -= 1
        if not self._depth and self._held:
            held, self._held = self._held, []
            for target, data in held:
                self._emit(target, data)

    def spend(self, session: Session, entry: Entry | None) -> None:
        """A command was executed or refused: CLIENT CACHING is for the next command or transaction
        only (networking.c, resetClient)."""
        mode = session.tracking
        goes_on = session.gate & IN_MULTI or session.stop & COLD
        if mode is not None and mode.caching and not goes_on:
            mode.caching = entry is not None and entry.name.startswith("client|")

    def remember(self, index: int, entry: Entry, args: list[bytes]) -> None:
        """A command was executed, with database `index`, by the client whose command runs or by a
        script that it runs: it may have copies of what was read."""
        session = self._current
        mode = session.tracking if session is not None else None
        if session is None or mode is None or not entry.flags & READONLY or entry.flags & PUBSUB:
            return
        if entry.name in _SCRIPTS:
            return
        if (mode.optin and not mode.caching) or (mode.optout and mode.caching):
            return
        keys = [args[at] for at, _ in entry.spec.find_keys(args)]
        if not mode.bcast:
            for key in keys:
                self._add((session.namespace, key), session.id)
        if self._replication.is_replica:
            self._remember_elements(index, keys)

    def _add(self, key: Place, number: int) -> None:
        numbers = self._table.get(key)
        if numbers is None:
            self._table[key] = number
        elif isinstance(numbers, set):
            if number in numbers:
                return
            numbers.add(number)
        elif numbers == number:
            return
        else:
            self._table[key] = {numbers, number}
        self.total_items += 1

    def _remember_elements(self, index: int, keys: Iterable[bytes]) -> None:
        reader = self._keyspace.readers[index]
        for key in keys:
            prefix = reader.elements(key)
            if prefix is not None:
                self._elements[prefix] = (self._keyspace.namespace_of(index), key)
                if len(self._elements) > _MAX_ELEMENTS:
                    namespace, oldest = self._elements.popitem(last=False)[1]
                    self.touch(oldest, namespace)

    # -- changes -----------------------------------------------------------------------------

    def touch(self, key: bytes, namespace: int) -> None:
        """The key changed: tell those who may have a copy."""
        for prefix, state in self._prefixes.items():
            if key.startswith(prefix):
                state.changed[namespace, key] = self._current
                self._turn.arm()
        if self._table:
            self._give_up((namespace, key), self._current)

    def _give_up(self, key: Place, current: Session | None) -> None:
        """Tell those who read the key, and forget them; `current` not, if it said NOLOOP."""
        numbers = self._table.pop(key, None)
        if numbers is None:
            return
        readers = numbers if isinstance(numbers, set) else (numbers,)
        self.total_items -= len(readers)
        for number in readers:
            session = self._turn.sessions.get(number)
            mode = session.tracking if session is not None else None
            if session is None or mode is None or mode.bcast:
                continue
            if not (mode.noloop and session is current):
                self._tell(session, mode, [key[1]])
        if not self._table:
            self._observe()

    def installed(self, records: list[Record], emptied: bool) -> None:
        """A primary's records came in; `emptied`: a whole database went."""
        if emptied:
            self.flush()
        space = self._keyspace
        namespaces = {db.prefix: db.index for db in space.databases[space.numbered :]}
        for op, cf, row_key, _ in records:
            if op == DELETE_RANGE:
                continue  # a collection's range goes with its key's row
            if cf == ROWS:
                namespace = namespaces.get(row_key[: codec.DB_PREFIX_LEN], 0)
                self.touch(codec.user_key(row_key), namespace)
            elif cf == DATA:
                key = self._elements.get(row_key[: codec.ELEMENT_PREFIX_LEN])
                if key is not None:
                    self.touch(key[1], key[0])

    def flush(self, namespace: int = 0) -> None:
        """All keys may have changed, or all of a namespace: that is told in one message."""
        for session in self.sessions:
            if session.tracking is not None and namespace in (0, session.namespace):
                self._tell(session, session.tracking, None)
        if namespace:
            return  # who is told of one of these keys once more reads it once more
        self._table.clear()
        self.total_items = 0
        self._elements.clear()
        self._observe()

    # -- the end of a turn ---------------------------------------------------------------------

    def _end_turn(self) -> None:
        for state in self._prefixes.values():
            if state.changed:
                self._broadcast(state)
        if self._max_keys and len(self._table) > self._max_keys:
            self._limit()

    def _broadcast(self, state: _Prefix) -> None:
        """Tell of what changed under a prefix, in one message to each client."""
        changed, state.changed = state.changed, {}
        places = sorted(changed)
        for session in state.sessions:
            mode = session.tracking
            if mode is None:
                continue
            keys = [
                place[1]
                for place in places
                if place[0] == session.namespace and not (mode.noloop and changed[place] is session)
            ]
            if keys:
                self._tell(session, mode, keys)

    def _limit(self) -> None:
        """Give up keys that nobody changed, the longest known first, until few enough are left
        (trackingLimitUsedSlots, which takes random ones)."""
        effort = _EFFORT * (self._full_turns + 1)
        while len(self._table) > self._max_keys:
            if not effort:
                self._full_turns += 1
                return
            effort -= 1
            self._give_up(next(iter(self._table)), None)
        self._full_turns = 0

    # -- messages --------------------------------------------------------------------------------

    def _tell(self, session: Session, mode: ClientTracking, keys: list[bytes] | None) -> None:
        """Tell that keys changed, all of them for None (sendTrackingMessage)."""
        target: Session | None = session
        if mode.redirect:
            target = self._turn.sessions.get(mode.redirect)
            if target is None:
                mode.broken = True
                if session.resp3:
                    self._send(session, [b"tracking-redir-broken", mode.redirect])
                return
        if target is None:
            return
        if target.resp3:
            self._send(target, [b"invalidate", keys])
        elif mode.redirect and (target.subscriptions or target.shard_channels):
            self._send(target, [b"message", CHANNEL, keys])

    def _send(self, session: Session, push: list[Any]) -> None:
        data = resp.encode(resp.Push(push), session.resp3)
        if self._depth:
            self._held.append((session, data))
        else:
            self._emit(session, data)

    def answered(self, session: Session) -> None:
        """A reply that came later was sent."""
        mode = session.tracking
        if mode is not None and mode.deferred:
            deferred, mode.deferred = mode.deferred, []
            for data in deferred:
                self._emit(session, data)

    def _emit(self, session: Session, data: bytes) -> None:
        mode = session.tracking
        if mode is not None and type(session.blocked_on) is GeneratorType:
            mode.deferred.append(data)
            return
        session.send(data)
        if self._log.unsettled:
            self._turn.mark(session, data)
