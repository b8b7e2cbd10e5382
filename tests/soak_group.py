"""Four nodes for the soak: a primary, two replicas and a chained one, each behind a proxy of its
own by which the others reach it. What can be done to them, and who is the primary now.

It must not know the load, nor when what is done. Invariants: every method leaves every process
running and pointed at somebody; a promoted node had all that was acknowledged (with a quorum).
"""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import redis
from group import LOOPBACK, Fields, connect, info
from harness import Conn, Directive, Server, wait_until
from proxy import Proxy

#: What a diverged replica does to keys of the load: databases, and commands.
SPOILS: tuple[tuple[Sequence[int], Sequence[str]], ...] = (
    (
        (0,),
        (
            "SET w{m}:{n} spoilt",
            "SET w{m}:{n} spoilt PX 50",
            "SET w{m}:{n} spoilt PX 100000",
            "DEL w{m}:{n}",
            "APPEND once:{n} spoilt,",
            "SWAPDB 5 0",
            "SWAPDB 5 6",
        ),
    ),
    (
        (0,),
        (
            "DEL move-queue",
            "RPUSH move-queue spoilt",
            "LPOP pop-queue 10",
            "LTRIM pop-queue 3 5",
            "XREADGROUP GROUP workers spoilt STREAMS group-queue >",
            "XGROUP DESTROY group-queue workers",
            "FUNCTION FLUSH",
            "FLUSHALL",
        ),
    ),
    (
        range(8, 14),
        (
            "HSET h{n} f{m} spoilt f1 spoilt m1{m} spoilt",
            "HDEL h{n} f0 f1 f2 f3 f4 f5 f6 f7 counter",
            "HPEXPIRE h{n} 30 FIELDS 2 f{m} f1",
            "LPUSH l{n} spoilt v{m} spoilt",
            "LTRIM l{n} 3 5",
            "LREM l{n} 0 v{m}",
            "LINSERT l{n} AFTER v{m} spoilt",
            "SADD s{n} spoilt f{m} m1{m}",
            "SPOP s{n} 100",
            "SUNIONSTORE s{n} s0 s1 s2",
            "ZADD z{n} 5 f{m} 6 spoilt",
            "ZREMRANGEBYRANK z{n} 0 -1",
            "ZREMRANGEBYSCORE z{n} -3 3",
            "XADD x{n} * n spoilt",
            "XTRIM x{n} MAXLEN {m}",
            "XREADGROUP GROUP g0 alice STREAMS x{n} >",
            "XGROUP DESTROY x{n} g0",
            "SETBIT b{n} {m}000000 1",
            "SETBIT b{n} 3{m} 1",
        ),
    ),
    (
        range(8, 14),
        (
            "DEL h{n} l{n} s{n} z{n} x{n} b{n}",
            "RENAME h{n} z1",
            "RENAME l{n} h0",
            "RENAME x0 x1",
            "COPY z{n} s0 REPLACE",
            "MOVE h{n} 9",
            "PEXPIRE l{n} 20",
            "PERSIST z{n}",
            "SWAPDB 8 11",
            "FLUSHDB",
        ),
    ),
)
PATIENCE_SECONDS = 60.0
FAILOVER_MS = 3000


class Node:
    """A server and the proxy in front of it."""

    def __init__(self, directory: Path, name: str, directives: dict[str, Directive]) -> None:
        self.name = name
        self.proxy = Proxy(lambda: self.server.port).start()
        self._port = str(self.proxy.port)
        announced = {"replica-announce-ip": LOOPBACK, "replica-announce-port": self._port}
        self.server = Server(directory / name, {**directives, **announced})

    def __repr__(self) -> str:
        return self.name

    def follow(self, other: Node) -> None:
        """REPLICAOF, through the other's proxy."""
        self._ask("REPLICAOF", LOOPBACK, other._port)

    def promote(self) -> None:
        """REPLICAOF NO ONE, which is refused while a full sync's data set is put in place."""
        wait_until(self._promoted, PATIENCE_SECONDS, f"{self} can be promoted")

    def _promoted(self) -> bool:
        try:
            self._ask("REPLICAOF", "NO", "ONE")
        except redis.ResponseError as error:
            assert "try again soon" in str(error), error
            return False
        return True

    def _ask(self, *words: str) -> None:
        client = self.server.client()
        try:
            client.execute_command(*words)
        finally:
            client.close()

    def restart(self, other: Node | None) -> None:
        """Start as a replica of `other`, or as a primary."""
        self.server.directives.pop("replicaof", None)
        if other is not None:
            self.server.directives["replicaof"] = [LOOPBACK, other._port]
        self.server.start()

    def info(self) -> Fields:
        return info(self.server)

    @property
    def position(self) -> int:
        return int(self.info().get("master_repl_offset", -1))

    def close(self) -> None:
        self.server.close()
        self.proxy.close()


class SoakGroup:
    """The nodes, their roles, and faults. `primary` is None while there is none to write to."""

    def __init__(self, directory: Path, rng: random.Random, count: int = 4) -> None:
        directives: dict[str, Directive] = {
            "replica-ack-quorum": 1,
            "replica-ack-timeout": 0,  # or a write that was read could be lost
            "rocksdb.write_buffer_size": 1,
            "replication-snapshot-max-age": 0,
        }
        self._rng = rng
        self.nodes = [Node(directory, f"node-{n}", directives) for n in range(count)]
        self.primary: Node | None = self.nodes[0]
        self.done: Counter[str] = Counter()

    @property
    def writable(self) -> Server | None:
        """Where to write."""
        primary = self.primary
        return primary.server if primary is not None else None

    @property
    def leader(self) -> Node:
        """The primary; between faults there always is one."""
        assert self.primary is not None
        return self.primary

    @property
    def others(self) -> list[Node]:
        """All but the primary."""
        return [node for node in self.nodes if node is not self.primary]

    def start(self) -> None:
        for node in self.nodes:
            node.server.start()
        self.wire()

    def close(self) -> None:
        for node in self.nodes:
            node.close()

    def wire(self) -> None:
        """Point everybody at the primary, and often one at another replica instead."""
        others = self.others
        self._rng.shuffle(others)
        chained = self._rng.random() < 0.7
        for node in others[chained:]:
            node.follow(self.leader)
        if chained:
            others[0].follow(others[1])

    def await_links(self) -> None:
        """Wait until everybody's link is up, and every data set consistent."""
        for node in self.others:
            wait_until(lambda n=node: _is_well(n.info()), PATIENCE_SECONDS, f"{node} is well")

    # -- planned -----------------------------------------------------------------------------

    def failover(self) -> None:
        """FAILOVER to a direct replica, by hand or by the command line."""
        self.await_links()
        old = self.leader
        direct = [n for n in self.others if n.info().get("master_port") == old._port]
        if not direct:
            return
        target = self._rng.choice(direct)
        by_hand = self._rng.random() < 0.7
        switched = self._by_hand(old, target) if by_hand else self._by_command(old, target)
        self.done["failover" if switched else "failover called off"] += 1
        if switched:
            self.primary = target
            self.wire()

    def _by_hand(self, old: Node, target: Node) -> bool:
        client = old.server.client()
        words = ("FAILOVER", "TO", LOOPBACK, target._port, "TIMEOUT", str(FAILOVER_MS))
        try:
            client.execute_command(*words)
        except redis.ResponseError:
            return False  # the target has just lost its link
        finally:
            client.close()

        def is_over() -> bool:
            return old.info().get("master_failover_state") == "no-failover"

        wait_until(is_over, PATIENCE_SECONDS, "the failover is over")
        return old.info()["role"] == "slave"

    def _by_command(self, old: Node, target: Node) -> bool:
        words = [sys.executable, "-m", "kvserver", "failover"]
        words += ["--from", f"{LOOPBACK}:{old._port}", "--to", f"{LOOPBACK}:{target._port}"]
        words += ["--sync-timeout-ms", str(FAILOVER_MS), "--pause-timeout-ms", "5000"]
        done = subprocess.run(words, capture_output=True, text=True, timeout=120)
        assert done.returncode in (0, 1, 3), done.stdout + done.stderr
        return done.returncode != 1

    def restart_cleanly(self) -> None:
        """SIGTERM somebody, and start again in the same role."""
        node = self._rng.choice(self.nodes)
        node.server.terminate()
        self._restart(node)
        self.done["clean restart"] += 1

    # -- kills -------------------------------------------------------------------------------

    def kill_primary(self) -> None:
        """kill -9, promote the most advanced of the others, let the old one return."""
        self.await_links()
        old, replid = self._leave_primary()
        old.server.kill9()
        self._promote_best(old, replid)
        old.restart(self.primary if self._rng.random() < 0.5 else None)
        self.wire()
        self.done["primary killed"] += 1

    def kill_and_restart_primary(self) -> None:
        """kill -9, and the same node is the primary again, in a new era."""
        self.leader.server.kill9()
        self._restart(self.leader)
        self.done["primary killed, restarted"] += 1

    def kill_replica(self) -> None:
        """kill -9, and start again."""
        node = self._rng.choice(self.others)
        node.server.kill9()
        self._restart(node)
        self.done["replica killed"] += 1

    def wipe(self) -> None:
        """A replica loses its disk: it needs a full sync, under load."""
        node = self._rng.choice(self.others)
        node.server.kill9()
        shutil.rmtree(node.server.directory)
        self._restart(node)
        self.done["wiped"] += 1

    def _restart(self, node: Node) -> None:
        node.restart(None if node is self.primary else self.leader)

    # -- links and clocks --------------------------------------------------------------------

    def stop_for_a_while(self) -> None:
        """SIGSTOP somebody."""
        node = self._rng.choice(self.nodes)
        node.server.process.send_signal(signal.SIGSTOP)
        try:
            time.sleep(self._rng.uniform(0.1, 1.5))
        finally:
            node.server.process.send_signal(signal.SIGCONT)
        self.done["stopped"] += 1

    def disturb_links(self) -> None:
        """Cut the links to somebody, or hold up what is on them."""
        node = self._rng.choice([self.leader, *self.nodes])
        choice = self._rng.choice(["cut", "held", "refused", "held, then cut"])
        if choice == "refused":
            node.proxy.refuse(True)
        elif choice != "cut":
            downwards = self._rng.random() < 0.7
            node.proxy.hold(downwards=downwards, upwards=not downwards or self._rng.random() < 0.3)
        if choice != "cut":
            time.sleep(self._rng.uniform(0.05, 1.5))
        if "cut" in choice:
            node.proxy.cut()
        node.proxy.refuse(False)
        node.proxy.resume()
        self.done[f"links {choice}"] += 1

    # -- divergence --------------------------------------------------------------------------

    def diverge(self) -> None:
        """A replica takes writes of its own for a while; they must be taken back."""
        node = self._rng.choice(self.others)
        node.promote()
        client = node.server.client()
        client.config_set("replica-ack-quorum", 0)
        with connect(node.server) as conn:
            for _ in range(self._rng.randint(1, 200)):
                self._spoil(conn)
        client.config_set("replica-ack-quorum", 1)
        client.close()
        node.follow(self.leader)
        self.wire()
        self.done["diverged"] += 1

    def _spoil(self, conn: Conn) -> None:
        db, scripts = self._rng.choice(SPOILS)
        conn.ask("SELECT", self._rng.choice(db))
        script = self._rng.choice(scripts).format(
            n=self._rng.randrange(2), m=self._rng.randrange(5)
        )
        reply = conn.ask(*script.split())
        assert not reply.startswith(b"-ERR internal"), (script, reply)

    def partition(self) -> None:
        """The primary loses its replicas and goes on, alone; another is promoted."""
        self.await_links()
        old, replid = self._leave_primary()
        old.proxy.refuse(True)
        wait_until(lambda: old.info().get("connected_slaves") == "0", PATIENCE_SECONDS, "alone")
        self._promote_best(old, replid)
        time.sleep(self._rng.uniform(0.0, 0.5))
        # First: a replica that found the old primary again would acknowledge its writes.
        self.wire()
        old.proxy.refuse(False)
        self.done["partitioned"] += 1

    def _leave_primary(self) -> tuple[Node, str]:
        """From now on there is none; who it was, and the replication id."""
        old = self.leader
        replid = old.info()["master_replid"]
        self.primary = None
        return old, replid

    def _promote_best(self, old: Node, replid: str) -> None:
        """Promote the most advanced node of this lineage: it has what was acknowledged."""
        others = [(node, node.info()) for node in self.nodes if node is not old]
        able = [
            (int(fields["master_repl_offset"]), node)
            for node, fields in others
            if fields["master_replid"] == replid and fields["dataset_consistent"] == "yes"
        ]
        assert able, f"nobody has the era {replid}: {others}"
        best = max(able, key=lambda pair: pair[0])[1]
        best.promote()
        wait_until(lambda: best.info().get("role") == "master", PATIENCE_SECONDS, "promoted")
        self.primary = best


def _is_well(fields: Fields) -> bool:
    return fields.get("master_link_status") == "up" and fields.get("dataset_consistent") == "yes"
