"""LATENCY DOCTOR and MEMORY DOCTOR: what may be wrong, in the words of Redis.

Source: Redis 7.4's latency.c (createLatencyReport) and object.c (getMemoryDoctorReport). Only
what can be found here is looked for: the events that kvserver notes are commands, and used memory
is the resident size of the process, so it isn't compared with that size.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Final

from kvserver import resp
from kvserver.commands import latency, memory
from kvserver.registry import command
from kvserver.state import process
from kvserver.state.context import ReadContext
from kvserver.state.info import memory as figures
from kvserver.state.info.view import View
from kvserver.state.latency import Sample
from kvserver.state.server import Server

# -- LATENCY DOCTOR --------------------------------------------------------------------------

_DISABLED: Final = (
    "I'm sorry, Dave, I can't do that. Latency monitoring is disabled in this Redis instance. You "
    'may use "CONFIG SET latency-monitor-threshold <milliseconds>." in order to enable it. If we '
    "weren't in a deep space mission I'd suggest to take a look at "
    "https://redis.io/topics/latency-monitor.\n"
)
_SPIKES: Final = (
    "Dave, I have observed latency spikes in this Redis instance. You don't mind talking about it, "
    "do you Dave?\n\n"
)
_NO_SPIKE: Final = (
    "Dave, no latency spike was observed during the lifetime of this Redis instance, not in the "
    "slightest bit. I honestly think you ought to sit down calmly, take a stress pill, and think "
    "things over.\n"
)
_ADVICES: Final = "\nI have a few advices for you:\n\n"
_ENABLE_SLOWLOG: Final = (
    "- There are latency issues with potentially slow commands you are using. Try to enable the "
    "Slow Log Redis feature using the command 'CONFIG SET slowlog-log-slower-than {}'. If the Slow "
    "log is disabled Redis is not able to log slow commands execution for you.\n"
)
_TUNE_SLOWLOG: Final = (
    "- Your current Slow Log configuration only logs events that are slower than your configured "
    "latency monitor threshold. Please use 'CONFIG SET slowlog-log-slower-than {}'.\n"
)
_INSPECT_SLOWLOG: Final = (
    "- Check your Slow Log to understand what are the commands you are running which are too slow "
    "to execute. Please check https://redis.io/commands/slowlog for more information.\n"
)
_SCHEDULER: Final = (
    "- The system is slow to execute Redis code paths not containing system calls. This usually "
    "means the system does not provide Redis CPU time to run for long periods. You should try to:\n"
    "  1) Lower the system load.\n"
    "  2) Use a computer / VM just for Redis if you are running other software in the same "
    "system.\n"
    '  3) Check if you have a "noisy neighbour" problem.\n'
    "  4) Check with 'redis-cli --intrinsic-latency 100' what is the intrinsic latency in your "
    "system.\n"
    "  5) Check if the problem is allocator-related by recompiling Redis with MALLOC=libc, if you "
    "are using Jemalloc. However this may create fragmentation problems.\n"
)
_LARGE_OBJECTS: Final = (
    "- Deleting, expiring or evicting (because of maxmemory policy) large objects is a blocking "
    "operation. If you have very large objects that are often deleted, expired, or evicted, try to "
    "fragment those objects into multiple smaller objects.\n"
)
_HUGE_PAGES: Final = (
    "- I detected a non zero amount of anonymous huge pages used by your process. This creates "
    "very serious latency events in different conditions, especially when Redis is persisting on "
    "disk. To disable THP support use the command 'echo never > "
    "/sys/kernel/mm/transparent_hugepage/enabled', make sure to also add it into /etc/rc.local so "
    "that the command will be executed again after a reboot. Note that even if you have already "
    "disabled THP, you still need to restart the Redis process to get rid of the huge pages "
    "already created.\n"
)


@command(
    "latency|doctor",
    2,
    latency.FLAGS,
    group="server",
    since="2.8.13",
    summary="Returns a human-readable latency analysis report.",
    tips=latency.TIPS,
)
def latency_doctor(ctx: ReadContext) -> resp.Verbatim:
    return resp.Verbatim(_latency_report(ctx.server).encode("utf-8", "surrogateescape"))


def _latency_report(server: Server) -> str:
    monitor = server.latency
    events = monitor.latest()
    if not events and not monitor.threshold:
        return _DISABLED
    parts = [_SPIKES] if events else []
    for number, (event, _, _, worst) in enumerate(events, 1):
        parts.append(f"{number}. {event}: {_statistics(monitor.history(event), worst)}\n")
    advices = list(_advices(server, [event for event, *_ in events]))
    if advices:
        return "".join([*parts, _ADVICES, *advices])
    return "".join(parts) or _NO_SPIKE


def _statistics(samples: list[Sample], worst: int) -> str:
    """The samples in one line (analyzeLatencyForEvent)."""
    count = len(samples)
    average = sum(spike for _, spike in samples) // count
    deviation = sum(abs(average - spike) for _, spike in samples) // count
    period = max(int(time.time()) - samples[0][0], 1)
    return (
        f"{count} latency spikes (average {average}ms, mean deviation {deviation}ms, "
        f"period {period / count:.2f} sec). Worst all time event {worst}ms."
    )


def _advices(server: Server, events: list[str]) -> Iterator[str]:
    slow = "command" in events
    threshold = server.latency.threshold
    if slow:
        slower_than = server.config.get_int("slowlog-log-slower-than")
        if slower_than < 0 or not server.config.get_int("slowlog-max-len"):
            yield _ENABLE_SLOWLOG.format(threshold * 1000)
        elif slower_than // 1000 > threshold:
            yield _TUNE_SLOWLOG.format(threshold * 1000)
        yield _INSPECT_SLOWLOG
    if "fast-command" in events:
        yield _SCHEDULER
    if slow:
        yield _LARGE_OBJECTS
    if process.huge_page_bytes():
        yield _HUGE_PAGES


# -- MEMORY DOCTOR ---------------------------------------------------------------------------

#: With less memory in use nothing is looked for.
_LITTLE: Final = 5 << 20
#: What is wasted below this is no issue.
_WASTE: Final = 10 << 20
_CLIENT_BUFFERS: Final = 200 << 10
_SCRIPTS: Final = 1000

_EMPTY: Final = (
    "Hi Sam, this instance is empty or is using very little memory, my issues detector can't be "
    "used in these conditions. Please, leave for your mission on Earth and fill it with some data. "
    "The new Sam and I will be back to our programming as soon as I finished rebooting.\n"
)
_NO_ISSUE: Final = (
    "Hi Sam, I can't find any memory issue in your instance. I can only account for what occurs on "
    "this base.\n"
)
_ISSUES: Final = "Sam, I detected a few issues in this Redis instance memory implants:\n\n"
_END: Final = "I'm here to keep you safe, Sam. I want to help you.\n"
_PEAK: Final = (
    " * Peak memory: In the past this instance used more than 150% the memory that is currently "
    "using. The allocator is normally not able to release memory after a peak, so you can expect "
    "to see a big fragmentation ratio, however this is actually harmless and is only due to the "
    "memory peak, and if the Redis instance Resident Set Size (RSS) is currently bigger than "
    "expected, the memory will be used as soon as you fill the Redis instance with more data. If "
    "the memory peak was only occasional and you want to try to reclaim memory, please try the "
    "MEMORY PURGE command, otherwise the only other option is to shutdown and restart the "
    "instance.\n\n"
)
_FRAGMENTATION: Final = (
    " * High allocator fragmentation: This instance has an allocator external fragmentation "
    "greater than 1.1. This problem is usually due either to a large peak memory (check if there "
    "is a peak memory entry above in the report) or may result from a workload that causes the "
    "allocator to fragment memory a lot. You can try enabling 'activedefrag' config option.\n\n"
)
_CLIENTS: Final = (
    " * Big client buffers: The clients output buffers in this instance are greater than 200K per "
    "client (on average). This may result from different causes, like Pub/Sub clients subscribed "
    "to channels bot not receiving data fast enough, so that data piles on the Redis instance "
    "output buffer, or clients sending commands with large replies or very large sequences of "
    "commands in the same pipeline. Please use the CLIENT LIST command in order to investigate the "
    "issue if it causes problems in your instance, or to understand better why certain clients are "
    "using a big amount of memory.\n\n"
)
_MANY_SCRIPTS: Final = (
    " * Many scripts: There seem to be many cached scripts in this instance (more than 1000). This "
    "may be because scripts are generated and `EVAL`ed, instead of being parameterized (with KEYS "
    "and ARGV), `SCRIPT LOAD`ed and `EVALSHA`ed. Unless `SCRIPT FLUSH` is called periodically, the "
    "scripts' caches may end up consuming most of your memory.\n\n"
)


@command(
    "memory|doctor",
    2,
    0,
    group="server",
    since="4.0.0",
    summary="Outputs a memory problems report.",
    tips=memory.TIPS,
)
def memory_doctor(ctx: ReadContext) -> resp.Verbatim:
    server = ctx.server
    now = figures.usage(View(server))
    scripts = len(server.scripting.scripts)
    return resp.Verbatim(memory_report(now, len(server.sessions), scripts).encode())


def memory_report(now: figures.Usage, clients: int, scripts: int) -> str:
    """What may be wrong with the memory that is used now."""
    if now.used < _LITTLE:
        return _EMPTY
    issues = []
    if now.peak > 1.5 * now.used:
        issues.append(_PEAK)
    allocated, active = now.allocator
    if active > 1.1 * allocated and active - allocated > _WASTE:
        issues.append(_FRAGMENTATION)
    if now.clients > _CLIENT_BUFFERS * max(clients, 1):
        issues.append(_CLIENTS)
    if scripts > _SCRIPTS:
        issues.append(_MANY_SCRIPTS)
    return "".join([_ISSUES, *issues, _END]) if issues else _NO_ISSUE
