"""The parts of the benchmarks that compute: intervals, goals, tables, plots, loads."""

import xml.etree.ElementTree as ET
from random import Random

import pytest
from harness import Server

from benchmarks import cost, plot, report, scale_report, workload
from benchmarks.__main__ import loads
from benchmarks.generator import Batch, drive
from benchmarks.measure import Figures, Load, cpu_seconds, prepare, sized, trial
from benchmarks.pairs import Interval, interval, outcome
from benchmarks.plot import Axis, Line, Panel
from benchmarks.points import Part, Point

# Pairs


def test_the_interval_of_the_median_is_that_of_the_sign_test() -> None:
    # Of 12 values the 3rd and the 10th: 1 - 2 * (1 + 12 + 66) / 4096 is 96 %.
    assert interval([float(n) for n in range(1, 13)]) == Interval(3, 6.5, 10)
    # Of 8 the second would give 93 %: all of them are needed.
    assert interval([8.0, 1, 7, 2, 6, 3, 5, 4]) == Interval(1, 4.5, 8)
    assert interval([5.0]) == Interval(5, 5, 5)


def test_the_interval_covers_the_median_as_often_as_it_says() -> None:
    random = Random(1)
    hits = 0
    for _ in range(2000):
        found = interval([random.expovariate(1.0) for _ in range(12)])
        hits += found.low <= 0.6931 <= found.high
    assert 0.945 < hits / 2000 < 0.98


def test_an_outlier_changes_no_verdict() -> None:
    steady = [(100.0, 2.0)] * 12
    assert (
        outcome(steady, [*steady[:10], (1.0, 90.0), (900.0, 2.0)]).verdict == "no difference seen"
    )


@pytest.mark.parametrize(
    ("rate", "cpu", "verdict", "failed"),
    [
        (1.0, 1.0, "no difference seen", False),
        (0.97, 1.0, "slower", False),
        (0.94, 1.0, "**FAILED**: slower", True),
        (1.2, 0.8, "faster, less CPU", False),
        (1.0, 1.06, "**FAILED**: more CPU", True),
    ],
)
def test_a_verdict_needs_more_than_five_percent_to_fail(
    rate: float, cpu: float, verdict: str, failed: bool
) -> None:
    found = outcome([(1000.0, 5.0)] * 12, [(1000.0 * rate, 5.0 * cpu)] * 12)
    assert (found.verdict, found.failed) == (verdict, failed)


def test_a_difference_within_the_noise_is_none() -> None:
    before = [(1000.0, 5.0)] * 12
    after = [(1000.0 * factor, 5.0) for factor in (0.8, 1.1) * 6]
    assert outcome(before, after).verdict == "no difference seen"


# Tables and goals


def row(test: str, pipeline: int, ratio: float) -> report.Row:
    return report.Row(
        Load(test, pipeline, 1000), Figures(1000 * ratio, 1, 2, 3), Figures(1000, 1, 2, 3)
    )


def test_figures_are_medians_column_by_column() -> None:
    samples = [Figures(1, 9, 5, 2), Figures(3, 7, 4, 1), Figures(2, 8, 6, 3)]
    assert report.combine(samples) == Figures(2, 8, 5, 2)


def test_the_summary_names_what_misses_its_goal() -> None:
    rows = [("everysec", row("set", 1, 0.9)), ("everysec", row("incr", 1, 0.85))]
    rows += [("everysec", row("get", 16, 0.4)), ("always", row("set", 1, 1.3))]
    assert report.summary(rows).splitlines()[2:] == [
        "| `everysec`, pipeline 1, writes: 0.9 | 2 | 1 | INCR 1: 0.85 |",
        "| `everysec`, pipeline 16, reads: 1.0 | 1 | 0 | GET 16: 0.40 |",
        "| `always`, pipeline 1, writes: 1.3 | 1 | 1 |  |",
        "| `everysec`, every row: 0.5 | 3 | 2 | GET 16: 0.40 |",
    ]


def test_a_page_is_changed_between_its_markers_only() -> None:
    page = "a\n<!-- begin: x -->\nold\n<!-- end: x -->\nb <!-- begin: y --><!-- end: y -->"
    assert report.replaced(page, "x", "new\n") == page.replace("\nold\n", "\n\nnew\n\n")
    with pytest.raises(ValueError):
        report.replaced(page, "z", "new")


def test_the_page_has_a_place_for_every_table() -> None:
    page = report.DOCUMENT.read_text()
    for name in (
        "bench",
        "replicas",
        "cost",
        *(f"scale-{topic.name}" for topic in scale_report.TOPICS),
    ):
        report.replaced(page, name, "")


def test_with_always_only_some_tests_are_measured() -> None:
    found = loads("always", ("set", "ping_mbulk"), (1, 64))
    assert [(load.test, load.pipeline) for load in found] == [("set", 1)]


# Loads


def test_a_load_is_sized_by_the_mean_rate_in_whole_pipelines() -> None:
    load = Load("set", 16, 0)
    assert sized(load, [100_000, 400_000], 0.2).requests == 40_000
    assert sized(load, [10.0, 10.0], 0.2).requests == 2 * 50 * 16
    assert trial(load).requests == 2000
    assert trial(load._replace(pipeline=1, value_bytes=1 << 20)).requests == 64


def test_waits_come_behind_each_write_or_each_pipeline() -> None:
    each, last, none = (
        workload.batches("set", 4, 8, 10, 3, wait)[0] for wait in (workload.EACH, workload.LAST, "")
    )
    assert (none.lines, none.data.count(b"WAIT")) == (4, 0)
    assert (each.lines, each.data.count(b"WAIT")) == (8, 4)
    assert (last.lines, last.data.count(b"WAIT")) == (5, 1)
    assert last.data.endswith(b"*3\r\n$4\r\nWAIT\r\n$1\r\n1\r\n$1\r\n0\r\n")


def test_a_fifth_of_the_mixed_load_are_writes() -> None:
    data = b"".join(b.data for b in workload.batches("mixed", 16, 16_000, 1000, 8, ""))
    assert data.count(b"GET") + data.count(b"SET") == 16_000
    assert 0.18 < data.count(b"SET") / 16_000 < 0.22


@pytest.mark.parametrize("test", workload.MAKERS)
def test_the_generator_gets_all_replies(server: Server, test: str) -> None:
    load = Load(test, 3, 30, keys=20, value_bytes=8)
    prepare(server.port, load._replace(test="get"))  # a GET that finds nothing has one line less
    batches = workload.batches(test, 3, 30, 20, 8, "")
    assert len(drive(server.port, batches, clients=4).latencies) == len(batches) == 10


def test_the_generator_stops_at_an_error(server: Server) -> None:
    with pytest.raises(ConnectionError, match="unknown command"):
        drive(server.port, [Batch(b"PING\r\nNOSUCH\r\n", 2)] * 3, clients=1)


def test_fills_add_exactly_what_is_asked_for(server: Server) -> None:
    client = server.client(decode_responses=True)
    workload.fill_keys(server.port, 5, 1234, 8)
    assert client.dbsize() == 1229
    assert client.get(f"key:{1233:012}") == client.get(f"key:{5:012}") == "x" * 8
    for test, count in (("lpush", client.llen), ("sadd", client.scard), ("zadd", client.zcard)):
        workload.fill_collection(server.port, test, 777, 8)
        assert count({"lpush": "mylist", "sadd": "myset", "zadd": "myzset"}[test]) == 777


def test_the_cpu_clock_of_a_process_goes_on(server: Server) -> None:
    before = cpu_seconds(server.pid)
    workload.fill_keys(server.port, 0, 2000, 8)
    assert cpu_seconds(server.pid) > before > 0


# Profiles

PERF_SCRIPT = """\
python     41
\tffffffff811 _raw_spin_unlock ([kernel.kallsyms])
\tffffffff812 __x64_sys_write ([kernel.kallsyms])
\t     a1 uv_try_write (/lib/loop.so)
\t     b1 CPyDef_turn___Turn___end (/lib/kvserver.so)

rocksdb:high     42
\t     c1 rocksdb::MemTable::Add(int, rocksdb::Slice const&) (/lib/rocksdict.so)

python     41
\t     c1 rocksdb::MemTable::Add (/lib/rocksdict.so)
\t     c2 rocksdb_write (/lib/rocksdict.so)
\t     b2 CPyDef_commitlog___CommitLog___commit (/lib/kvserver.so)

python     41
\tffffffff813 tcp_recvmsg ([kernel.kallsyms])
\t     a2 uv__read (/lib/loop.so)
"""


def test_a_sample_belongs_to_the_innermost_stage_on_its_stack() -> None:
    found = [
        cost.stage_of(number == 41, thread, stack)
        for thread, number, stack in cost.samples(PERF_SCRIPT.splitlines())
    ]
    assert found == ["send: kernel", cost.BACKGROUND, "RocksDB: memtable", "receive: kernel"]


def test_every_stage_has_a_row() -> None:
    assert {stage.name for stage in cost.STAGES} | {cost.REST, cost.OTHERS} < set(cost.ROWS)


def test_a_profile_is_shown_in_time_per_operation() -> None:
    shares = {"parse": 0.6, cost.BACKGROUND: 0.4}
    ours, theirs = Figures(100_000, 1, 2, 5.0), Figures(200_000, 1, 2, 2.0)
    profile = cost.Profile(Load("set", 16, 0), "always", ours, shares, theirs)
    lines = cost.table([profile]).splitlines()
    assert "| parse | 3.00 |" in lines and "| **together** | **5.00** |" in lines
    assert "| of which RocksDB | 2.00 |" in lines
    assert lines[-1] == "| main thread's share of a core | 30% |"


# Plots


def test_ticks_enclose_the_values() -> None:
    assert plot.log_ticks(30, 800) == [20, 50, 100, 200, 500, 1000]
    assert plot.log_ticks(1, 1) == [1, 2]
    assert plot.log_ticks(1, 1e7) == [10.0**n for n in range(8)]
    assert plot.linear_ticks(170_000) == [0, 50_000, 100_000, 150_000, 200_000]
    assert plot.linear_ticks(0) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1.0])


def test_labels_are_short() -> None:
    assert [plot.plain(value) for value in (0.5, 200, 50_000, 3e7)] == ["0.5", "200", "50k", "30M"]
    assert [plot.size_in_bytes(1 << n) for n in (4, 12, 20)] == ["16 B", "4 KiB", "1 MiB"]


def test_a_figure_is_well_formed_and_within_its_frame() -> None:
    lines = [Line("a <b>", [(1, 10.0), (100, 1000.0)]), Line("c", [(1, 20.0), (100, 20.0)])]
    panel = Panel("p & q", Axis("x"), Axis("y"), lines)
    root = ET.fromstring(plot.figure("t", [panel, panel, panel]))
    names = [text.text for text in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"a <b>", "c", "p & q", "x", "y", "100"} <= set(names)
    for circle in root.iter("{http://www.w3.org/2000/svg}circle"):
        assert 0 < float(circle.attrib["cx"]) < plot.WIDTH
        assert 0 < float(circle.attrib["cy"]) < plot.HEIGHT


def test_a_single_value_is_in_the_middle() -> None:
    panel = Panel("p", Axis("x"), Axis("y"), [Line("a", [(10, 10.0)])])
    plot.figure("t", [panel])
    assert plot.Scale(10, 10, 0, 100, log=True)(10) == 50


def test_points_become_a_table_and_a_plot() -> None:
    points = [
        Point(server, "set", 1, x, Figures(1000.0 * x, 1, 2, 3), memory=x << 20, start=0.5)
        for x in (10, 1000)
        for server in scale_report.SERVERS
    ]
    text = scale_report.body(scale_report.KEYS, Part("Measured today.", points))
    assert "| SET | 1 | 1,000 | 1,000,000 | 1,000,000 | **1.00** |" in text
    assert "| 10 MiB | 10 MiB | 0.50 s | 0.50 s |" in text
    assert "with the fewest: SET, pipeline 1: **100.00**." in text
    panels = scale_report.KEYS.panels(scale_report.KEYS, points)
    titles = ["SET, pipeline 1", "Memory, at most", "Start-up time"]
    assert [panel.title for panel in panels] == titles
