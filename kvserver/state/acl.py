"""The server's users: who they are, what their sessions may do, what was denied.

It must not know commands or sockets. The rules themselves are kvserver/acl's. Source: Redis 7.4's
acl.c. Invariants:
- A session has the name of a user that is there: who is deleted is disconnected. Those in a
  namespace have its name instead, and are all one user, who is in no list (`user_of`).
- A session's bits NEEDS_AUTH and RESTRICTED say what its user is now; a session without them is
  never looked up here.
- Users belong to this server: they aren't replicated.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final, NamedTuple

from kvserver import errors
from kvserver.acl import loading
from kvserver.acl.loading import Users
from kvserver.acl.selector import (
    DENIED_CHANNEL,
    DENIED_COMMAND,
    DENIED_KEY,
    READ,
    RuleError,
)
from kvserver.acl.user import DEFAULT, User, default_user, hash_password, merge_selectors
from kvserver.config import Config, ConfigError, wire
from kvserver.config_file import replace_file
from kvserver.errors import RedisError
from kvserver.registry import Spec
from kvserver.state import clientinfo
from kvserver.state.acl_log import AclLog
from kvserver.state.namespaces import Namespaces, new_tenant
from kvserver.state.pause import unix_ms
from kvserver.state.session import NEEDS_AUTH, RESTRICTED, Session
from kvserver.state.stats import Stats
from kvserver.state.table import CommandTable, Entry
from kvserver.state.writers import COMMAND_AT, inner_entry

logger = logging.getLogger("kvserver")

# Where a command came from when it was denied, as ACL LOG says it.
TOPLEVEL: Final = "toplevel"
MULTI: Final = "multi"
LUA: Final = "lua"

_KINDS: Final = {DENIED_COMMAND: "command", DENIED_KEY: "key", DENIED_CHANNEL: "channel"}
#: Why EXEC leaves a command out.
_LOST: Final = {
    DENIED_COMMAND: "no permission to execute the command or subcommand",
    DENIED_KEY: "no permission to touch the specified keys",
    DENIED_CHANNEL: "no permission to access one of the channels used as arguments",
}


class Denied(NamedTuple):
    """What a user may not do."""

    reason: int
    #: The command's full name.
    command: str
    #: The key or channel, or the command's name as it was given.
    word: bytes


class Acl:
    """The users and their sessions."""

    def __init__(
        self,
        config: Config,
        sessions: dict[int, Session],
        stats: Stats,
        table: CommandTable,
        namespaces: Namespaces,
    ) -> None:
        """Raises ConfigError."""
        self._config = config
        self._sessions = sessions
        self._stats = stats
        self._table = table
        self._namespaces = namespaces
        self._tenant: User | None = None
        self.users = startup_users(config)
        self.log = AclLog(unix_ms)
        config.on_change("requirepass", self._password_changed)
        config.on_change("acllog-max-len", self._resize_log)
        self._resize_log()

    # -- users -------------------------------------------------------------------------------

    @property
    def default(self) -> User:
        return self.users[DEFAULT]

    @property
    def is_open(self) -> bool:
        """Whether the default user, who may be the administrator, needs no password."""
        return self.default.no_password and self.default.enabled

    def _resize_log(self) -> None:
        self.log.resize(self._config.get_int("acllog-max-len"))

    def in_order(self) -> list[User]:
        """The users, ordered by the bytes of their names."""
        return sorted(self.users.values(), key=_name_bytes)

    def set_user(self, name: str, rules: Sequence[bytes], caller: Session) -> None:
        """Make or change a user. Raises RuleError; then nothing is changed."""
        rules = merge_selectors(rules)
        all_channels = _all_channels(self._config)
        old = self.users.get(name)
        user = User(name, all_channels) if old is None else old.copy(all_channels)
        user.apply_all(rules)
        self.users[name] = user
        if old is not None:
            self._sessions_follow({name: old}, caller)

    def delete(self, names: Sequence[str], caller: Session) -> int:
        """Delete users, and end their sessions; returns how many were there."""
        gone = {name: user for name in names if (user := self.users.pop(name, None)) is not None}
        if gone:
            self._sessions_follow(gone, caller)
        return len(gone)

    def _password_changed(self) -> None:
        """`requirepass` is the default user's password (ACLUpdateDefaultUserPassword)."""
        user = self.default.copy(_all_channels(self._config))
        _set_password(user, self._config)
        self.users[DEFAULT] = user
        for session in self._sessions.values():
            self.regate(session)

    def lines(self) -> tuple[tuple[str, ...], ...]:
        """What CONFIG REWRITE writes: the words after `user` for each user, unless they have a file
        of their own or say no more than `requirepass` does."""
        if self._config.get_str("aclfile"):
            return ()
        usual = default_user()
        _set_password(usual, self._config)
        users = self.in_order()
        if len(users) == 1 and users[0].describe() == usual.describe():
            return ()
        return tuple((user.name, *_text(user.describe()).split(" ")) for user in users)

    # -- the file ------------------------------------------------------------------------------

    def load(self, caller: Session) -> None:
        """ACL LOAD. Raises RuleError; then nothing is changed."""
        before, self.users = self.users, _read_file(self._config)
        self._sessions_follow(before, caller)

    def save(self) -> None:
        """ACL SAVE. Raises OSError."""
        text = b"".join(user.line() + b"\n" for user in self.in_order())
        replace_file(self._config.get_str("aclfile"), _text(text))

    # -- sessions ------------------------------------------------------------------------------

    def welcome(self, session: Session) -> None:
        """A session that begins, or begins again: it is the default user's
        (clientSetDefaultAuth)."""
        session.user, session.namespace = DEFAULT, 0
        session.authenticated = self.is_open
        self.regate(session)

    def user_of(self, session: Session) -> User:
        """Who a session is: one of the users, or the one that everybody in a namespace is."""
        if not session.namespace:
            return self.users[session.user]
        if self._tenant is None:
            self._tenant = new_tenant()
        return self._tenant

    def log_in(self, session: Session, name: bytes, password: bytes, command: bytes) -> bool:
        """Make a session a user's, if the password is right, or that of a namespace, if it is a
        namespace's token instead of the default user's password. `command` is what asked for it."""
        user = self.users.get(_text(name))
        if user is None:
            user = User("", False)  # takes as long, and has no password
        namespace = None
        if user.name == DEFAULT and hash_password(password) not in user.passwords:
            namespace = self._namespaces.of_token(password)
        if namespace is not None:
            self._enter(session, _text(namespace.name), namespace.database)
            return True
        if user.takes_password(password):
            self._enter(session, user.name, 0)
            return True
        self._stats.acl_denied["auth"] += 1
        self._record(session, "auth", command, name, "")
        return False

    def _enter(self, session: Session, user: str, namespace: int) -> None:
        """A session proved to be a user, or to know a namespace's token."""
        if session.namespace != namespace:
            session.namespace = session.db = namespace
        session.user, session.authenticated = user, True
        self.regate(session)

    def regate(self, session: Session) -> None:
        """Say in the session's gate what its user is."""
        gate = session.gate & ~(NEEDS_AUTH | RESTRICTED)
        if not session.authenticated and not self.is_open:
            gate |= NEEDS_AUTH
        if not self.user_of(session).unrestricted:
            gate |= RESTRICTED
        session.gate = gate

    def _sessions_follow(self, before: Users, caller: Session) -> None:
        """Users were changed or deleted, from what they were before: end the sessions of those who
        are gone, and those that listen to what they no longer may."""
        narrowed: dict[str, bool] = {}
        ended: list[Session] = []
        for session in self._sessions.values():
            if session.namespace:
                self.regate(session)
                continue
            old = before.get(session.user)
            new = self.users.get(session.user)
            if new is None:
                session.user, session.authenticated = DEFAULT, False
                ended.append(session)
            elif old is not None and clientinfo.is_subscribed(session):
                if new.name not in narrowed:
                    narrowed[new.name] = _loses_channels(old, new)
                if narrowed[new.name] and not _may_listen(session, new):
                    ended.append(session)
            self.regate(session)
        for session in ended:
            if session is caller:
                session.close_after_reply()
            else:
                session.sink.abort()

    # -- checks --------------------------------------------------------------------------------

    def denied(self, user: User, entry: Entry, args: Sequence[bytes]) -> Denied | None:
        """What keeps a user from running a command, if something does. ONCE has the keys and
        channels of the command that it executes."""
        if entry.name != "once":
            found = user.check(entry.spec, args)
            return found and Denied(found.reason, entry.name, args[found.at])
        if not user.allows_command(entry.spec, args):
            return Denied(DENIED_COMMAND, entry.name, args[0])
        words = args[COMMAND_AT:]
        try:
            return self.denied(user, inner_entry(self._table, words), words)
        except RedisError:
            return None  # it will be told why it is none

    def check(
        self, session: Session, entry: Entry, args: Sequence[bytes], context: str = ""
    ) -> RedisError | None:
        """Why a session may not run a command, if so, which is logged. `context` is where the
        command came from; empty: from the client, in a transaction or not."""
        found = self._check(session, entry, args, context)
        if found is None:
            return None
        if session.namespace:
            return errors.needs_admin()
        return errors.no_permission(_sentence(session.user, found), context == LUA)

    def check_queued(
        self, session: Session, entry: Entry, args: Sequence[bytes]
    ) -> RedisError | None:
        """The same for a command of a transaction, which was allowed when it was queued."""
        found = self._check(session, entry, args, MULTI)
        if found is None:
            return None
        error = errors.permission_lost(_LOST[found.reason])
        self._stats.count_error(error.code)
        return error

    def reads_every_key(self, session: Session, spec: Spec, args: Sequence[bytes]) -> bool:
        """Whether a session that runs a command may read whatever key that leads it to."""
        if not session.gate & RESTRICTED:
            return True
        return self.user_of(session).has_every_key(spec, args, READ)

    def _check(
        self, session: Session, entry: Entry, args: Sequence[bytes], context: str
    ) -> Denied | None:
        if not session.gate & RESTRICTED:
            return None
        found = self.denied(self.user_of(session), entry, args)
        if found is not None:
            kind, word = _KINDS[found.reason], found.word
            if found.reason == DENIED_COMMAND:
                word = found.command.encode()
            self._stats.acl_denied[kind] += 1
            self._record(session, kind, word, wire(session.user), context)
        return found

    def _record(self, session: Session, kind: str, word: bytes, user: bytes, context: str) -> None:
        context = context or (MULTI if session.in_multi else TOPLEVEL)
        self.log.add(kind, context, word, user, clientinfo.describe(session))


def sentence(user: str, found: Denied) -> str:
    """A denial in words, for who may know them all (getAclErrorMessage, verbose)."""
    if found.reason == DENIED_COMMAND:
        return f"User {user} has no permissions to run the '{found.command}' command"
    kind, word = _KINDS[found.reason], _text(found.word)
    return f"User {user} has no permissions to access the '{word}' {kind}"


def _sentence(user: str, found: Denied) -> str:
    """A denial in words, for the user."""
    if found.reason == DENIED_COMMAND:
        return sentence(user, found)
    return f"No permissions to access a {_KINDS[found.reason]}"


# -- the start ---------------------------------------------------------------------------------


def startup_users(config: Config) -> Users:
    """The users that a server begins with. Raises ConfigError."""
    try:
        if config.get_str("aclfile"):
            return _users_of_file(config)
        return _users_of_config(config)
    except RuleError as error:
        raise ConfigError(str(error)) from None


def _users_of_file(config: Config) -> Users:
    if config.get_lines("user"):
        raise ConfigError(
            "users are given by `user` in the configuration and by aclfile: use one of the two"
        )
    if config.get_str("requirepass"):
        logger.warning("requirepass is ignored: aclfile says who the default user is")
    return _read_file(config)


def _users_of_config(config: Config) -> Users:
    users = {DEFAULT: default_user()}
    _set_password(users[DEFAULT], config)
    for words in config.get_lines("user"):
        user = loading.configured_user([wire(word) for word in words], _all_channels(config))
        users[user.name] = user
        if not user.enabled:
            logger.info(
                "The user '%s' is disabled (there is no 'on' modifier in the user description). "
                "Make sure this is not a configuration error.",
                user.name,
            )
    return users


def _read_file(config: Config) -> Users:
    path = config.get_str("aclfile")
    try:
        with open(path, "rb") as file:
            text = file.read()
    except OSError as error:
        reason = f"Error loading ACLs, opening file '{path}': {error.strerror}"
        raise RuleError(reason) from None
    return loading.parse_file(text, path, _all_channels(config))


def _all_channels(config: Config) -> bool:
    """Whether a new selector may use all channels."""
    return config.get_str("acl-pubsub-default") == "allchannels"


def _set_password(user: User, config: Config) -> None:
    """Give a user the password of `requirepass`, or none."""
    password = config.get_str("requirepass")
    rules = [b"resetpass", b">" + wire(password)] if password else [b"nopass"]
    user.apply_all(rules)


# -- sessions that listen ----------------------------------------------------------------------


def _loses_channels(old: User, new: User) -> bool:
    """Whether a user may listen to less than before, as far as its rules tell
    (ACLKillPubsubClientsIfNeeded)."""
    if any(selector.all_channels for selector in new.selectors):
        return False
    upcoming = {channel for selector in new.selectors for channel in selector.channels}
    return any(
        selector.all_channels or not upcoming.issuperset(selector.channels)
        for selector in old.selectors
    )


def _may_listen(session: Session, user: User) -> bool:
    """Whether a session may keep all of its subscriptions."""
    return all(user.allows_channel(pattern, True) for pattern in session.patterns) and all(
        user.allows_channel(channel, False)
        for channel in (*session.channels, *session.shard_channels)
    )


def _name_bytes(user: User) -> bytes:
    return wire(user.name)


def _text(word: bytes) -> str:
    return word.decode("utf-8", "surrogateescape")
