"""redis-cli, redis-benchmark, and what a monitoring exporter reads."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import programs
import pytest
import redis
from harness import Server, wait_until
from programs import Worker


@pytest.fixture(autouse=True)
def redis_tools() -> None:
    if shutil.which("redis-cli") is None or shutil.which("redis-benchmark") is None:
        pytest.skip("redis-cli or redis-benchmark is not installed")


@pytest.fixture
def cli(server: Server) -> Callable[..., str]:
    """Run redis-cli to its end; what it printed."""

    def run(*args: str) -> str:
        return programs.run(["redis-cli", "-p", str(server.port), *args])

    return run


@pytest.fixture
def filled(server: Server) -> redis.Redis:
    """The server with keys of every type, some of them large."""
    client = server.client(decode_responses=True)
    with client.pipeline(transaction=False) as pipe:
        for number in range(500):
            pipe.set(f"string:{number}", "x" * number, ex=1000 if number % 2 else None)
        for number in range(300):
            pipe.rpush("list:big", number).sadd("set:big", number).zadd("zset:big", {number: 1})
            pipe.hset("hash:big", str(number), "v").xadd("stream:big", {"n": number})
        pipe.pfadd("hll", *range(100)).execute()
    return client


def test_cli_finds_big_keys(cli: Callable[..., str], filled: redis.Redis) -> None:
    report = cli("--bigkeys")
    assert "Sampled 506 keys in the keyspace!" in report
    for kind, what in {
        "list": "300 items",
        "set": "300 members",
        "zset": "300 members",
        "hash": "300 fields",
        "stream": "300 entries",
    }.items():
        assert re.search(rf"Biggest +{kind} found .*{kind}:big.* has {what}", report), report
    assert re.search(r"501 strings with \d+ bytes", report)


def test_cli_finds_memory_keys(cli: Callable[..., str], filled: redis.Redis) -> None:
    report = cli("--memkeys")
    assert "Sampled 506 keys in the keyspace!" in report
    assert re.search(r"Biggest +list found .*list:big.* has \d+ bytes", report), report


def test_cli_scans(cli: Callable[..., str], filled: redis.Redis) -> None:
    assert sorted(cli("--scan").split()) == sorted(filled.keys())
    assert len(cli("--scan", "--pattern", "string:1*").split()) == 111


def test_cli_measures_latency(cli: Callable[..., str]) -> None:
    """Without a terminal --latency takes samples for a second and prints one line."""
    low, high, mean, samples = cli("--raw", "--latency", "-i", "1").split()
    assert 0 <= int(low) <= float(mean) <= int(high) and int(samples) > 10


def test_cli_shows_statistics(server: Server, filled: redis.Redis, spawn: Any) -> None:
    """--stat goes on until it's ended: keys, memory, clients, blocked, requests, connections."""
    worker: Worker = spawn("redis-cli", "-p", str(server.port), "--stat", "-i", "0.1")
    wait_until(lambda: len(worker.tail().splitlines()) >= 5)
    numbers = worker.tail().splitlines()[2].split()
    assert numbers[0] == "506" and re.fullmatch(r"[\d.]+[KMG]", numbers[1])
    assert numbers[2] == "2" and int(numbers[4]) > 2000


def test_cli_monitors(server: Server, spawn: Any) -> None:
    worker: Worker = spawn("redis-cli", "-p", str(server.port), "monitor")
    wait_until(lambda: "OK" in worker.tail())
    server.client().set("key", 'a "quoted"\nvalue\x00')
    wait_until(lambda: '"SET" "key"' in worker.tail())
    line = next(line for line in worker.tail().splitlines() if '"SET"' in line)
    assert re.fullmatch(
        r'\d+\.\d{6} \[0 127\.0\.0\.1:\d+\] "SET" "key" "a \\"quoted\\"\\nvalue\\x00"', line
    )


def test_cli_loads_through_a_pipe(server: Server) -> None:
    """--pipe: raw commands in, and an ECHO at the end that tells when all were answered."""
    commands = b"".join(
        b"*3\r\n$3\r\nSET\r\n$%d\r\n%b\r\n$1\r\nv\r\n" % (len(key), key)
        for key in (b"key:%d" % number for number in range(20_000))
    )
    done = subprocess.run(
        ["redis-cli", "-p", str(server.port), "--pipe"],
        input=commands,
        capture_output=True,
        timeout=60,
    )
    assert b"errors: 0, replies: 20000" in done.stdout, done
    assert server.client().dbsize() == 20_000


@pytest.mark.parametrize("protocol", ["-2", "-3"])
def test_cli_formats_replies(cli: Callable[..., str], protocol: str, tmp_path: Any) -> None:
    script = tmp_path / "script.lua"
    script.write_text("return {KEYS[1], ARGV[1], redis.call('INCR', KEYS[1])}")
    assert cli(protocol, "--eval", str(script), "key", ",", "arg").split() == ["key", "arg", "1"]
    cli(protocol, "hset", "hash", "a", "1")
    assert cli(protocol, "--no-raw", "hgetall", "hash") in (
        '1) "a"\n2) "1"\n',  # RESP2
        '1# "a" => "1"\n',
    )
    assert "Returns the string value of a key" in cli("help", "get")


@pytest.mark.parametrize(
    "options",
    [(), ("-P", "16"), ("--threads", "2"), ("-r", "1000", "-d", "100")],
    ids=["plain", "pipelined", "threads", "random-keys"],
)
def test_benchmark_s_default_set_runs(server: Server, options: tuple[str, ...]) -> None:
    command = ["redis-benchmark", "-p", str(server.port), "-n", "2000", "-c", "20", "--csv"]
    output = programs.run([*command, *options])
    assert "rror" not in output and "WARNING" not in output, output
    rows = [line for line in output.splitlines() if line.startswith('"')]
    assert len(rows) == 21, output  # with the head
    assert {"SET", "ZPOPMIN (needed to benchmark ZPOPMIN)", "MSET (10 keys)"} - {
        row.split('"')[1] for row in rows
    } <= {"ZPOPMIN (needed to benchmark ZPOPMIN)"}


#: INFO's fields that are words; an exporter takes all others for numbers.
WORDS = re.compile(
    r"""redis_version|redis_git_\w+|redis_build_id|redis_mode|os|multiplexing_api|gcc_version|
    atomicvar_api|monotonic_clock|process_supervised|run_id|executable|config_file|\w+_human|
    maxmemory_policy|mem_allocator|\w+_perc|paused_\w+|listener\d+|rdb_last_bgsave_status|
    aof_last_\w+_status|appendfsync|role|master_replid2?|master_failover_state|log_failure|dataset_consistent|
    kvserver_\w+|python_version|io_threads_active|\w+_api|master_link_status|master_host|
    slave\d+""",
    re.VERBOSE,
)


def sections(info: str) -> Iterator[tuple[str, str, str]]:
    """Each field with its section, as redis_exporter splits them."""
    section = ""
    for line in info.split("\r\n"):
        if line.startswith("# "):
            section = line[2:]
        elif line:
            name, colon, value = line.partition(":")
            assert colon and section, line
            yield section, name, value


def test_an_exporter_can_read_everything(server: Server, filled: redis.Redis) -> None:
    filled.config_set("slowlog-log-slower-than", 0)
    with pytest.raises(redis.ResponseError):
        filled.lpush("hash:big", 1)
    conn = server.conn()
    conn.ask("INFO", "everything")
    info = conn.ask("INFO", "everything").partition(b"\r\n")[2].decode()
    found: dict[str, dict[str, str]] = {}
    for section, name, value in sections(info.strip("\r\n")):
        found.setdefault(section, {})[name] = value
    assert set(found) >= {
        *("Server", "Clients", "Memory", "Persistence", "Stats", "Replication", "CPU"),
        *("Commandstats", "Errorstats", "Latencystats", "Cluster", "Keyspace"),
    }
    for section in ("Server", "Clients", "Memory", "Persistence", "Stats", "Replication", "CPU"):
        for name, value in found[section].items():
            if not WORDS.fullmatch(name):
                assert float(value) >= -1, f"{name}:{value}"

    keyspace = fields(found["Keyspace"]["db0"])
    assert (keyspace["keys"], keyspace["expires"], keyspace["subexpiry"]) == (506, 250, 0)
    assert 0 < keyspace["avg_ttl"] <= 1_000_000
    assert fields(found["Commandstats"]["cmdstat_set"])["calls"] == 500
    for stats in found["Commandstats"].values():
        assert set(fields(stats)) == {
            *("calls", "usec", "usec_per_call", "rejected_calls", "failed_calls")
        }
    assert fields(found["Errorstats"]["errorstat_WRONGTYPE"]) == {"count": 1}
    assert set(fields(found["Latencystats"]["latency_percentiles_usec_set"])) == {
        *("p50", "p99", "p99.9")
    }


def fields(value: str) -> dict[str, float]:
    """`a=1,b=2` as numbers."""
    pairs = (pair.split("=") for pair in value.split(","))
    return {name: float(number) for name, number in pairs}


def test_what_else_an_exporter_asks(server: Server, filled: redis.Redis) -> None:
    """The other commands of redis_exporter, on keys of every type."""
    assert int(filled.config_get("maxmemory")["maxmemory"]) == 0
    assert len(filled.config_get("*")) > 50
    assert filled.slowlog_len() >= 0 and isinstance(filled.slowlog_get(1), list)
    assert filled.execute_command("LATENCY LATEST") is not None
    assert filled.execute_command("LATENCY HISTOGRAM") is not None
    assert filled.client_list(_type="normal")[0]["cmd"] == "client|list"
    assert filled.module_list() == []
    assert filled.acl_whoami() == "default"
    kinds = {"string:9": "string", "list:big": "list", "set:big": "set", "zset:big": "zset"}
    for key, kind in {**kinds, "hash:big": "hash", "stream:big": "stream"}.items():
        assert filled.type(key) == kind
        assert filled.memory_usage(key) > 0
        assert isinstance(filled.object("encoding", key), str)
    assert filled.xinfo_stream("stream:big")["length"] == 300
    assert filled.pfcount("hll") == pytest.approx(100, abs=3)
