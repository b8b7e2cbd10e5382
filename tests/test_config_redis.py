"""The configuration beside a real redis-server: values, CONFIG GET and SET, refusals."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import redis
from configs import WITH_FIXTURE, set_error
from harness import Server
from hypothesis import example, given
from hypothesis import strategies as st

from kvserver import errors
from kvserver.config_file import rewrite
from kvserver.directives import default_config


def texts(separated: str) -> list[str]:
    return separated.split("|")


SIZES = texts("0|1|1mb|1MB|2m|3g|1gb|64kb|1048575|1048576b|1.5gb|x|-1")


NUMBERS = texts("0|1|10|2147483647|2147483648|-1|-2|007|+1| 1||x|1e3|0x10|-0")


NUMBERS += ["9223372036854775807", "9223372036854775808"]


BOOLS = texts("yes|no|YES|No|1||true")


EVENTS = texts("|KEA|AKE|Kx|g$lshzxetdKE|g$lshzxeKE|AKEm|AnKE|nK|q|K E|KK")


PERCENTILES = texts("50|99.9 99.99||0 100|100.5|-1|x|50 |1e1|33.333333333")


LIMITS = texts(
    "|normal 1 2 3|normal 1mb 2kb 3 pubsub 0 0 0|slave 1 2 3|replica 1g 2 3|NORMAL 1 2 3|normal 1 2"
    "|normal  1 2 3|master 1 2 3|x 1 2 3|normal x 2 3|normal 1 y 3|normal 1 2 z|normal 1 2 -1"
    "|pubsub 5 5 5 pubsub 6 6 6"
)


INTEGERS = "timeout tcp-keepalive hz shutdown-timeout slowlog-log-slower-than slowlog-max-len"


SHARED = {
    **dict.fromkeys([*INTEGERS.split(), "latency-monitor-threshold"], NUMBERS),
    **dict.fromkeys(["proto-max-bulk-len", "client-query-buffer-limit"], SIZES),
    **dict.fromkeys(["latency-tracking", "tls-prefer-server-ciphers"], BOOLS),
    "appendfsync": ["no", "always", "EverySec", "", "sometimes"],
    "tls-auth-clients": ["no", "yes", "Optional", "maybe"],
    "tls-cert-file": ["", "some file"],
    "tls-ciphers": ["", "DEFAULT:!MEDIUM"],
    "notify-keyspace-events": EVENTS,
    "latency-tracking-info-percentiles": PERCENTILES,
    "client-output-buffer-limit": LIMITS,
}


def oracle_set_error(client: redis.Redis, words: Sequence[str]) -> str | None:
    try:
        client.execute_command("CONFIG SET", *words)
    except redis.ResponseError as error:
        return str(error)
    return None


@pytest.mark.parametrize("name", SHARED)
def test_values_are_taken_and_refused_as_redis_does(name: str, oracle: Server) -> None:
    client = oracle.client(decode_responses=True)
    config = default_config()
    for text in SHARED[name]:
        assert set_error(config, (name, text)) == oracle_set_error(client, [name, text]), text
        assert config.get_matching([name]) == client.config_get(name), text


SETTINGS = st.sampled_from([(name, text) for name, texts in SHARED.items() for text in texts])


ODD_SETTINGS = st.tuples(
    st.sampled_from(["databases", "DataBases", "nosuch", "TIMEOUT", "rename-command"]), st.just("5")
)


@WITH_FIXTURE
@given(st.lists(st.lists(SETTINGS | ODD_SETTINGS, min_size=1, max_size=4), max_size=4))
@example([[("timeout", "1"), ("timeout", "2")], [("timeout", "1"), ("Timeout", "2")]])
@example([[("timeout", "7"), ("hz", "x")]])
@example([[("databases", "1"), ("nosuch", "1")], [("nosuch", "1"), ("databases", "1")]])
def test_several_settings_are_atomic_as_in_redis(
    oracle: Server, commands: list[list[tuple[str, str]]]
) -> None:
    client = oracle.client(decode_responses=True)
    config = default_config()
    client.config_set(
        *(word for name in SHARED for word in (name, config.get_matching([name])[name]))
    )
    for pairs in commands:
        words = [word for pair in pairs for word in pair]
        assert set_error(config, *pairs) == oracle_set_error(client, words)
        assert config.get_matching(list(SHARED)) == client.config_get(*SHARED)


@pytest.mark.parametrize(
    "patterns",
    texts("port|PORT port|PO* PORT|TIMEOUT time*|[t]imeout|ti\\meout|nosuch|include"),
)
def test_get_spells_names_as_redis_does(patterns: str, oracle: Server) -> None:
    theirs = oracle.client(decode_responses=True).config_get(*patterns.split())
    assert default_config().get_matching(patterns.split()).keys() == theirs.keys()


def test_get_matches_globs() -> None:
    found = default_config().get_matching(["maxmemory*", "rocksdb.wal_*"])
    assert list(found.items()) == [
        ("maxmemory", "0"),
        ("maxmemory-policy", "noeviction"),
        ("rocksdb.wal_ttl_seconds", "10800"),
        ("rocksdb.wal_size_limit_mb", "16384"),
    ]


def test_rewrite_without_a_file_is_refused_as_redis_does(oracle: Server) -> None:
    with pytest.raises(redis.ResponseError) as theirs:
        oracle.client().config_rewrite()
    with pytest.raises(errors.RedisError) as ours:
        rewrite(default_config())
    assert str(ours.value) == f"ERR {theirs.value}"


def test_facts_can_be_set_to_what_they_are() -> None:
    config = default_config()
    assert set_error(config, ("appendonly", "YES"), ("save", ""), ("maxmemory", "0")) is None
    assert set_error(config, ("maxmemory-policy", "noeviction")) is None
    for name, text in [("appendonly", "no"), ("save", "900 1"), ("maxmemory", "1gb")]:
        assert "argument must be '" in (set_error(config, (name, text)) or "")
    assert set_error(config, ("maxmemory-policy", "allkeys-lru")) == (
        "CONFIG SET failed (possibly related to argument 'maxmemory-policy') - "
        "argument(s) must be one of the following: noeviction"
    )
