"""Errors as they travel to a client: one exception class and one sentence each.

``str(error)`` is the whole error line without the leading ``-`` and the final CRLF: a code in
capitals, a space, a sentence. The texts are those of Redis 7.4 (server.c, networking.c,
object.c, multi.c); clients and test suites match on them, so they are written nowhere else.

A function makes a new exception for each raise: a shared instance would keep the traceback,
and with it the frames and arguments, of the last command that failed.

Bytes from a client are kept with ``surrogateescape``, so that the encoder, which also replaces
newlines, can send them back as they came. This module knows nothing of RESP or of commands.
"""

from collections.abc import Sequence
from typing import Self

# Redis prints at most so many bytes of a name, and of the arguments together, that it refuses.
_ECHO_LIMIT = 128


class RedisError(Exception):
    """An error reply. Raise it from a handler; it ends the command, not the connection."""

    @property
    def code(self) -> str:
        """The first word, such as ``ERR`` or ``WRONGTYPE``: INFO errorstats counts by it."""
        return str(self).partition(" ")[0]

    def as_reply(self) -> Self:
        """Without where it was raised: frames there refer to the reply, which would be a cycle."""
        self.__traceback__ = self.__context__ = None
        return self


class InternalError(RedisError):
    """A command failed in a way that nobody foresaw: a defect of the server, or of its disk."""

    def __init__(self, text: str = "internal error") -> None:
        super().__init__("ERR " + text)


def error(text: str) -> RedisError:
    """A plain ``ERR`` with a sentence that only one command uses."""
    return RedisError("ERR " + text)


def _echo(data: bytes, limit: int = _ECHO_LIMIT) -> str:
    """What printf's ``%.128s`` shows of client bytes: it stops at a NUL."""
    return data.partition(b"\0")[0][:limit].decode("utf-8", "surrogateescape")


# Arguments and options


def syntax() -> RedisError:
    return RedisError("ERR syntax error")


def not_integer() -> RedisError:
    return RedisError("ERR value is not an integer or out of range")


def not_float() -> RedisError:
    return RedisError("ERR value is not a valid float")


def not_in_range(low: int, high: int) -> RedisError:
    return RedisError(f"ERR value is out of range, value must between {low} and {high}")


def invalid_expire(command: str) -> RedisError:
    """``command`` is the full name in lower case."""
    return RedisError(f"ERR invalid expire time in '{command}' command")


def unsupported_option(option: bytes) -> RedisError:
    return RedisError(f"ERR Unsupported option {_echo(option, len(option))}")


def unknown_argument(word: bytes) -> RedisError:
    return RedisError(f"ERR unknown argument: {_echo(word, len(word))}")


def timeout_not_integer() -> RedisError:
    return RedisError("ERR timeout is not an integer or out of range")


def timeout_not_float() -> RedisError:
    return RedisError("ERR timeout is not a float or out of range")


def timeout_negative() -> RedisError:
    return RedisError("ERR timeout is negative")


def timeout_out_of_range() -> RedisError:
    return RedisError("ERR timeout is out of range")


def no_samples(event: bytes) -> RedisError:
    return RedisError(f"ERR No samples available for event '{_echo(event, len(event))}'")


def invalid_cursor() -> RedisError:
    return RedisError("ERR invalid cursor")


# Keys and values


def wrong_type() -> RedisError:
    return RedisError("WRONGTYPE Operation against a key holding the wrong kind of value")


def no_such_key() -> RedisError:
    return RedisError("ERR no such key")


def busy_key() -> RedisError:
    return RedisError("BUSYKEY Target key name already exists.")


def migration_not_connected() -> RedisError:
    return RedisError("IOERR error or timeout connecting to the client")


def migration_failed(doing: str) -> RedisError:
    """``doing``: reading or writing."""
    return RedisError(f"IOERR error or timeout {doing} to target instance")


def target_replied(line: bytes) -> RedisError:
    return RedisError(f"ERR Target instance replied with error: {_echo(line, len(line))}")


def offset_out_of_range() -> RedisError:
    return RedisError("ERR offset is out of range")


def bit_offset_out_of_range() -> RedisError:
    return RedisError("ERR bit offset is not an integer or out of range")


def invalid_stream_id() -> RedisError:
    return RedisError("ERR Invalid stream ID specified as stream command argument")


def no_group(key: bytes, group: bytes, more: str = "") -> RedisError:
    """``more`` follows the sentence."""
    return RedisError(
        f"NOGROUP No such key '{_echo(key, len(key))}' or consumer group "
        f"'{_echo(group, len(group))}'{more}"
    )


def no_group_of(key: bytes, group: bytes) -> RedisError:
    """The same where the key is known to exist."""
    return RedisError(
        f"NOGROUP No such consumer group '{_echo(group, len(group))}' for key name "
        f"'{_echo(key, len(key))}'"
    )


def busy_group() -> RedisError:
    return RedisError("BUSYGROUP Consumer Group name already exists")


def unrecognized_xclaim_option(option: bytes) -> RedisError:
    return RedisError(f"ERR Unrecognized XCLAIM option '{_echo(option, len(option))}'")


def string_too_long() -> RedisError:
    return RedisError("ERR string exceeds maximum allowed size (proto-max-bulk-len)")


def not_hyperloglog() -> RedisError:
    return RedisError("WRONGTYPE Key is not a valid HyperLogLog string value.")


def corrupt_hyperloglog() -> RedisError:
    return RedisError("INVALIDOBJ Corrupted HLL object detected")


def unknown_pfdebug(subcommand: bytes) -> RedisError:
    return RedisError(f"ERR Unknown PFDEBUG subcommand '{_echo(subcommand, len(subcommand))}'")


def integer_overflow() -> RedisError:
    return RedisError("ERR increment or decrement would overflow")


def decrement_overflow() -> RedisError:
    return RedisError("ERR decrement would overflow")


def nan_or_infinity() -> RedisError:
    return RedisError("ERR increment would produce NaN or Infinity")


def same_object() -> RedisError:
    return RedisError("ERR source and destination objects are the same")


def db_index_out_of_range() -> RedisError:
    return RedisError("ERR DB index is out of range")


# Looking up the command


def unknown_command(name: bytes, args: Sequence[bytes]) -> RedisError:
    """``args`` are the arguments after the name; quoted until 128 bytes are shown."""
    shown = ""
    room = _ECHO_LIMIT
    for arg in args:
        if room <= 0:
            break
        word = arg[:room].partition(b"\0")[0]
        shown += f"'{_echo(word)}' "
        room -= len(word) + 3
    return RedisError(f"ERR unknown command '{_echo(name)}', with args beginning with: {shown}")


def unknown_subcommand(container: bytes, name: bytes) -> RedisError:
    """``container`` as the client spelled it."""
    return RedisError(
        f"ERR unknown subcommand '{_echo(name)}'. Try {_echo(container.upper())} HELP."
    )


def subcommand_syntax(container: bytes, name: bytes) -> RedisError:
    """A known subcommand whose arguments fit none of its forms (addReplySubcommandSyntaxError)."""
    return RedisError(
        f"ERR unknown subcommand or wrong number of arguments for '{_echo(name)}'. "
        f"Try {_echo(container.upper())} HELP."
    )


def wrong_arity(full_name: str) -> RedisError:
    """``full_name`` in lower case, a subcommand as ``config|get``."""
    return RedisError(f"ERR wrong number of arguments for '{full_name}' command")


# Who may do what, and when


def no_auth() -> RedisError:
    return RedisError("NOAUTH Authentication required.")


def hello_no_auth() -> RedisError:
    return RedisError(
        "NOAUTH HELLO must be called with the client already authenticated, otherwise the "
        "HELLO <proto> AUTH <user> <pass> option can be used to authenticate the client and "
        "select the RESP protocol version at the same time"
    )


def wrong_password() -> RedisError:
    return RedisError("WRONGPASS invalid username-password pair or user is disabled.")


def unknown_category(name: bytes) -> RedisError:
    return RedisError(f"ERR Unknown category '{_echo(name)}'")


def no_permission(sentence: str, in_script: bool) -> RedisError:
    """``sentence`` says who may not do what."""
    return RedisError("NOPERM " + ("ACL failure in script: " if in_script else "") + sentence)


def needs_admin() -> RedisError:
    """Kvrocks' sentence: in a namespace one may not do that."""
    return RedisError("ERR admin permission required to perform the command")


def permission_lost(reason: str) -> RedisError:
    """EXEC leaves a command out that was allowed when it was queued."""
    return RedisError(
        "NOPERM ACLs rules changed between the moment the transaction was accumulated and the EXEC "
        f"call. This command is no longer allowed for the following reason: {reason}"
    )


def no_password() -> RedisError:
    return RedisError(
        "ERR AUTH <password> called without any password configured for the default user. Are you "
        "sure your configuration is correct?"
    )


def protected_command(name: str, directive: str) -> RedisError:
    """``name`` in capitals."""
    return RedisError(
        f'ERR {name} command not allowed. If the {directive} option is set to "local", you can '
        "run it from a local connection, otherwise you need to set this option in the "
        "configuration file, and then restart the server."
    )


def no_protocol() -> RedisError:
    return RedisError("NOPROTO unsupported protocol version")


def protocol(detail: str) -> RedisError:
    """The last words on a connection whose bytes are not RESP."""
    return RedisError("ERR Protocol error: " + detail)


def max_clients() -> RedisError:
    return RedisError("ERR max number of clients reached")


def only_pubsub(full_name: str) -> RedisError:
    return RedisError(
        f"ERR Can't execute '{full_name}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / "
        "RESET are allowed in this context"
    )


def loading() -> RedisError:
    return RedisError("LOADING Redis is loading the dataset in memory")


def readonly() -> RedisError:
    return RedisError("READONLY You can't write against a read only replica.")


def master_down() -> RedisError:
    return RedisError(
        "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'."
    )


def no_replicas() -> RedisError:
    return RedisError("NOREPLICAS Not enough good replicas to write.")


def not_acknowledged() -> RedisError:
    """The write is done here, and fewer replicas than replica-ack-quorum have it in time."""
    return RedisError(
        "NOREPLICAS Not enough replicas acknowledged the write in time; it may or may not survive"
    )


def shutdown_failed() -> RedisError:
    """For who called a SHUTDOWN that was called off."""
    return error("Errors trying to SHUTDOWN. Check logs.")


def no_master_link(reason: str) -> RedisError:
    """PSYNC can't be answered for now."""
    return RedisError(f"NOMASTERLINK Can't SYNC while {reason}")


def role_changed() -> RedisError:
    """A primary became a replica while a command waited."""
    return RedisError(
        "UNBLOCKED force unblock from blocking operation, instance state changed "
        "(master -> replica?)"
    )


def replica_keyspace() -> RedisError:
    """For connections of replicas; Redis counts a client that sent MONITOR as one."""
    return RedisError("ERR Replica can't interact with the keyspace")


def misconf(reason: str) -> RedisError:
    """Writing fails: ``reason`` is the operating system's or RocksDB's message."""
    return RedisError("MISCONF Errors writing to the AOF file: " + reason)


# Clients and their connections


def hello_option(word: bytes) -> RedisError:
    return RedisError(f"ERR Syntax error in HELLO option '{_echo(word, len(word))}'")


def bad_client_attribute(attribute: bytes) -> RedisError:
    """A client's or library's name with a character that would break CLIENT LIST."""
    return RedisError(
        f"ERR {_echo(attribute, len(attribute))} cannot contain spaces, newlines or special "
        "characters."
    )


def unrecognized_option(word: bytes) -> RedisError:
    return RedisError(f"ERR Unrecognized option '{_echo(word, len(word))}'")


def unknown_client_type(word: bytes) -> RedisError:
    return RedisError(f"ERR Unknown client type '{_echo(word, len(word))}'")


def no_such_user(name: bytes) -> RedisError:
    return RedisError(f"ERR No such user '{_echo(name, len(name))}'")


def no_such_client() -> RedisError:
    return RedisError("ERR No such client")


def prefix_overlaps(prefix: bytes, what: str, other: bytes) -> RedisError:
    """CLIENT TRACKING: ``what`` is "an existing" or "another provided"."""
    return RedisError(
        f"ERR Prefix '{_echo(prefix, len(prefix))}' overlaps with {what} prefix "
        f"'{_echo(other, len(other))}'. Prefixes for a single client must not overlap."
    )


def unblocked() -> RedisError:
    """CLIENT UNBLOCK ERROR ended the wait."""
    return RedisError("UNBLOCKED client unblocked via CLIENT UNBLOCK")


# Transactions


def exec_abort() -> RedisError:
    return RedisError("EXECABORT Transaction discarded because of previous errors.")


def exec_abort_because(cause: RedisError) -> RedisError:
    """EXEC itself was refused, for the same reason as any of its commands would be."""
    reason = str(cause).removeprefix("ERR ")
    return RedisError(f"EXECABORT Transaction discarded because of: {reason}")


def nested_multi() -> RedisError:
    return RedisError("ERR MULTI calls can not be nested")


def exec_without_multi() -> RedisError:
    return RedisError("ERR EXEC without MULTI")


# Exactly-once writers (ours: ONCE)


def out_of_order(expected: int) -> RedisError:
    """``expected``: the number that the writer's next command must have."""
    return RedisError(f"OUTOFORDER expected {expected}")


def not_for_once(full_name: str) -> RedisError:
    return RedisError(f"ERR '{full_name}' can't be executed by ONCE: it reads and writes no data")


def discard_without_multi() -> RedisError:
    return RedisError("ERR DISCARD without MULTI")


def watch_inside_multi() -> RedisError:
    return RedisError("ERR WATCH inside MULTI is not allowed")


def not_in_transaction() -> RedisError:
    return RedisError("ERR Command not allowed inside a transaction")
