"""LATENCY DOCTOR, LATENCY GRAPH, MEMORY DOCTOR: the same texts as redis-server's."""

from __future__ import annotations

import re
from typing import Any

import pytest
from harness import Conn
from pair import Pair

from kvserver import sparkline
from kvserver.commands.doctor import memory_report
from kvserver.state.info.memory import Usage
from kvserver.state.latency import LatencyMonitor
from kvserver.state.process import Allocator

SLEEP = ("DEBUG", "SLEEP", "0.01")


def body(reply: bytes) -> str:
    """The text of a bulk or verbatim reply."""
    return reply.partition(b"\r\n")[2].removeprefix(b"txt:").removesuffix(b"\r\n").decode()


def masked(text: str) -> list[str]:
    """The lines, numbers masked, without what depends on the kernel: huge pages."""
    lines = [line for line in text.splitlines() if "anonymous huge pages" not in line]
    return [re.sub(r"\d+(\.\d+)?", "0", line) for line in lines]


def reports(pair: Pair, *command: str) -> tuple[list[str], list[str]]:
    ours, theirs = pair.ask_both([command])
    return masked(body(ours[0][1])), masked(body(theirs[0][1]))


def note_spike(pair: Pair) -> None:
    pair.same([("LATENCY", "RESET"), ("CONFIG", "SET", "latency-monitor-threshold", 5), SLEEP])


@pytest.fixture
def watched(pair: Pair) -> Pair:
    """Connections to two servers that have forgotten all spikes."""
    pair.ask_both([("LATENCY", "RESET")])
    return pair


def test_latency_doctor_is_off_at_first(watched: Pair) -> None:
    watched.same("LATENCY DOCTOR")


def test_latency_doctor_without_spikes(watched: Pair) -> None:
    watched.same("CONFIG SET latency-monitor-threshold 1000000")
    ours, theirs = reports(watched, "LATENCY", "DOCTOR")
    # With huge pages there is an advice, and the text of a server without spikes isn't there.
    assert ours == theirs or "advices" in ours[1] + theirs[1]


@pytest.mark.parametrize(
    "config",
    [
        "slowlog-log-slower-than 10000",
        "slowlog-log-slower-than 1000",
        "slowlog-log-slower-than -1",
        "slowlog-log-slower-than 20000",
    ],
)
def test_latency_doctor_with_spikes(watched: Pair, config: str) -> None:
    note_spike(watched)
    watched.same(f"CONFIG SET {config}")
    ours, theirs = reports(watched, "LATENCY", "DOCTOR")
    assert ours == theirs and len(ours) > 5
    # What was noted stays when nothing more is.
    watched.same("CONFIG SET latency-monitor-threshold 0")
    ours, theirs = reports(watched, "LATENCY", "DOCTOR")
    assert ours == theirs and len(ours) > 5


def test_latency_doctor_sees_a_slow_log_without_entries(watched: Pair) -> None:
    # Redis 7.0 doesn't look at slowlog-max-len, 7.4 does.
    note_spike(watched)
    watched.same("CONFIG SET slowlog-max-len 0")
    ours, _ = reports(watched, "LATENCY", "DOCTOR")
    assert any("Try to enable the Slow Log" in line for line in ours)


def test_latency_graph(watched: Pair) -> None:
    watched.same('LATENCY GRAPH command\nLATENCY GRAPH ""\nLATENCY GRAPH\nLATENCY GRAPH a b')
    note_spike(watched)
    ours, theirs = watched.ask_both([("LATENCY", "GRAPH", "command")])
    ours_text, theirs_text = (body(replies[0][1]) for replies in (ours, theirs))
    assert masked(ours_text)[:6] == masked(theirs_text)[:6]
    watched.same("LATENCY RESET COMMAND\nLATENCY GRAPH command")


def test_latency_histogram_has_the_bounds_of_redis(watched: Pair) -> None:
    # Long enough that both servers take the same power of two.
    watched.same([("CONFIG", "RESETSTAT"), ("DEBUG", "SLEEP", "0.04"), ("DEBUG", "SLEEP", "0.08")])
    watched.same([("DEBUG", "SLEEP", "1.1"), ("LATENCY", "HISTOGRAM", "debug")])


def test_memory_doctor_of_an_empty_server(watched: Pair) -> None:
    ours, theirs = watched.ask_both([("MEMORY", "DOCTOR")])
    assert "Hi Sam, this instance is empty" in body(theirs[0][1])
    # A process with an interpreter in it is never that small.
    assert "Sam" in body(ours[0][1])
    assert memory_report(usage(used=1 << 20), 1, 0) == body(theirs[0][1])


def usage(**figures: Any) -> Usage:
    names = dict.fromkeys(Usage._fields, 0)
    given = {"used": 100 << 20, "peak": 100 << 20, "allocator": Allocator(0, 0), **figures}
    return Usage(**{**names, **given})


@pytest.mark.parametrize(
    ("figures", "issues"),
    [
        ({}, []),
        ({"peak": 140 << 20}, []),
        ({"peak": 160 << 20}, ["Peak memory"]),
        ({"allocator": Allocator(50 << 20, 70 << 20)}, ["High allocator fragmentation"]),
        ({"allocator": Allocator(1 << 20, 2 << 20)}, []),
        ({"allocator": Allocator(500 << 20, 520 << 20)}, []),
        ({"clients": 1 << 20}, ["Big client buffers"]),
        ({"clients": 300 << 10}, []),
        ({"clients": 1 << 20, "peak": 1 << 30}, ["Peak memory", "Big client buffers"]),
    ],
)
def test_memory_doctor(figures: dict[str, Any], issues: list[str]) -> None:
    report = memory_report(usage(**figures), clients=2, scripts=1000)
    assert re.findall(r"^ \* ([^:]*):", report, re.MULTILINE) == issues
    begins = "Sam, I detected a few issues" if issues else "Hi Sam, I can't find any memory issue"
    assert report.startswith(begins)


def test_memory_doctor_counts_scripts() -> None:
    assert "* Many scripts: " in memory_report(usage(), clients=1, scripts=1001)


def test_full_memory_is_examined(pair: Pair) -> None:
    pair.same([("SET", "k", b"x" * (20 << 20))])
    ours, theirs = pair.ask_both([("MEMORY", "DOCTOR")])
    assert {body(replies[0][1])[:6] for replies in (ours, theirs)} <= {"Hi Sam", "Sam, I"}


# -- the graph ------------------------------------------------------------------------------


def test_sparkline() -> None:
    samples = [(1, "5s"), (4, "12m"), (8, ""), (12, "1h"), (13, "0s")]
    expected = ["  _", "_o|", "   ", "51 ", "s2 ", " m ", "", "##", "||", "  ", "10", "hs", ""]
    assert sparkline.render(samples, 3, 2).split("\n") == expected


def test_sparkline_of_nothing() -> None:
    assert sparkline.render([], 80, 4) == ""
    assert sparkline.render([(7, "0s")], 80, 2) == " \n_\n \n0\ns\n"


def test_the_worst_spike_is_remembered() -> None:
    monitor = LatencyMonitor()
    assert monitor.worst("command") == 0
    monitor.threshold = 1
    for spike in (5, 9, 7):
        monitor.note("command", spike)
    assert monitor.worst("command") == 9


def test_reports_are_verbatim_strings(pair: Pair) -> None:
    conn: Conn = pair.conns[0]
    assert conn.ask("LATENCY", "DOCTOR")[:1] == (b"=" if pair.protocol == 3 else b"$")
