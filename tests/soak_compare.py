"""Are these servers equal? Everything that clients can read of them, and REPLDIGEST.

It knows nothing of the load. Invariant: a comparison that doesn't look at everything fails: a type
that it can't read is an error.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import redis
from group import connect, info
from harness import Conn, Server, encode_command, wait_until

DATABASES = 16
SYNC_SECONDS = 60.0
DIGEST_SECONDS = 20.0
#: What lives for less could expire while servers are compared.
SOON_MS = 60_000
FOR_EVER = -1

#: (type, expiry, value) of each (database, key).
Content = dict[tuple[int, bytes], tuple[bytes, int, Any]]


def _fields(client: redis.Redis, key: bytes) -> dict[bytes, tuple[bytes, int]]:
    """A hash, with the expiry of each field."""
    values = client.hgetall(key)
    names = list(values)
    times = client.execute_command("HPEXPIRETIME", key, "FIELDS", len(names), *names)
    return {name: (values[name], at) for name, at in zip(names, times, strict=True)}


def _stream(client: redis.Redis, key: bytes) -> Any:
    """Entries, groups, consumers and what is pending: all that is stored of a stream. As two words
    the command's reply isn't parsed by redis-py, which leaves half of it out."""
    return client.execute_command("XINFO", "STREAM", key, "FULL", "COUNT", 0)


def _string(client: redis.Redis, key: bytes) -> tuple[bytes, int]:
    """The bytes; a long one may be kept in fragments."""
    return client.get(key), client.strlen(key)


READERS: dict[bytes, Callable[[redis.Redis, bytes], Any]] = {
    b"string": _string,
    b"hash": _fields,
    b"list": lambda client, key: client.lrange(key, 0, -1),
    b"set": lambda client, key: client.smembers(key),
    b"zset": lambda client, key: client.zrange(key, 0, -1, withscores=True),
    b"stream": _stream,
}


def content(server: Server) -> Content:
    """Everything that the server holds."""
    found: Content = {}
    for db in range(DATABASES):
        client: redis.Redis = server.client(db=db)
        keys = client.keys()
        for key in keys:
            kind = client.type(key)
            found[db, key] = (kind, client.pexpiretime(key), READERS[kind](client, key))
        assert client.dbsize() == len(keys), f"{server}: DBSIZE of database {db}"
        client.close()
    return found


def is_at_rest(primary: Server) -> bool:
    """Whether nothing expires while it is compared: what has expired is deleted (until then DBSIZE
    counts it), and nothing is about to."""
    for db in range(DATABASES):
        client = primary.client(db=db)
        keys = client.keys()
        left = [client.pttl(key) for key in keys]
        size = client.dbsize()
        client.close()
        if size != len(keys) or any(ms != FOR_EVER and ms < SOON_MS for ms in left):
            return False
    return True


def in_step(servers: list[Server], primary: Server) -> bool:
    """Whether all have the primary's position and replication id, and are consistent."""
    fields = [info(server) for server in servers]
    wanted = info(primary)
    return all(
        f.get("master_repl_offset") == wanted.get("master_repl_offset")
        and f.get("master_replid") == wanted.get("master_replid")
        and f.get("dataset_consistent") == "yes"
        for f in fields
    )


def assert_equal(servers: list[Server], primary: Server) -> int:
    """Nobody writes now: all hold the same; the number of keys."""
    wait_until(lambda: is_at_rest(primary), SYNC_SECONDS, "what was to expire is gone")
    wait_until(lambda: in_step(servers, primary), SYNC_SECONDS, "all servers are in step")
    expected = content(primary)
    for server in servers:
        held = content(server)
        different = sorted(k for k in {*held, *expected} if held.get(k) != expected.get(k))
        shown = [(k, f"{held.get(k)!r:.999}", f"{expected.get(k)!r:.999}") for k in different[:5]]
        assert not different, f"{server} differs from {primary} in {len(different)}: {shown}"
    digests = {bytes(ask_digest(server)) for server in servers}
    assert len(digests) == 1, f"the contents are equal, the digests are not: {digests!r}"
    return len(expected)


def ask_digest(server: Server) -> bytes:
    """REPLDIGEST's reply now."""
    with connect(server) as conn:
        return conn.ask("REPLDIGEST")


def compare_digests(servers: list[Server], primary: Server, ahead: int) -> bool:
    """Digests at one position, while writes go on; False if there is none to compare. They block
    until the position passes, so all are asked before it does."""
    position = int(info(primary).get("master_repl_offset", 0)) + ahead
    command = ("REPLDIGEST", "AT", position, "TIMEOUT", int(DIGEST_SECONDS * 1000))
    conns: list[Conn] = []
    try:
        for server in servers:
            conn = connect(server)
            conn.sock.settimeout(DIGEST_SECONDS + 10)
            conn.send(encode_command(*command))
            conns.append(conn)
        replies = [conn.reply() for conn in conns]
    except OSError:
        return False
    finally:
        for conn in conns:
            conn.close()
    found = [reply for reply in replies if reply.startswith(b"*5")]
    assert len(set(found)) <= 1, f"digests at {position} differ: {servers} {replies}"
    return len(found) == len(servers)
