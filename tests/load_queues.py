"""Job queues: producers put jobs in, consumers wait for them, and each job comes out exactly once.

It must not know which faults there are. Everybody asks for the primary, works until the connection
ends or is refused, and comes back. Invariants: a job is sent once, whatever becomes of it;
`settle`, called while nobody works, accounts for every job; a command that was not answered may
have happened.
"""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence

from harness import Conn, Server
from load_model import Failure, Tree, parse

Primary = Callable[[], Server | None]

CONNECT_SECONDS = 2.0
#: Longer than any fault lasts.
ANSWER_SECONDS = 60.0
BLOCK_SECONDS = 0.2
#: Between two jobs of a producer: there are others who write.
PAUSE_SECONDS = 0.003
#: Jobs in the queue from which on the producer waits.
ENOUGH = 200


class Lost(Exception):
    """The server refuses: what was asked for may have happened."""


class Worker:
    """A thread that works at whoever is the primary."""

    def __init__(self, primary: Primary, name: str) -> None:
        self.primary = primary
        self.name = name
        self.problem: BaseException | None = None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin, also again after `halt`."""
        self._stop.clear()
        self._thread = threading.Thread(target=self._run, name=self.name, daemon=True)
        self._thread.start()

    def halt(self) -> None:
        """End it; raises what went wrong."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(ANSWER_SECONDS + 10)
            assert not self._thread.is_alive(), f"{self.name} hangs"
        if self.problem is not None:
            raise self.problem

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                server = self.primary()
                if server is not None:
                    self._work_at(server)
                self._stop.wait(0.01)
        except BaseException as problem:
            self.problem = problem

    def _work_at(self, server: Server) -> None:
        try:
            address = ("127.0.0.1", server.port)
            with Conn(socket.create_connection(address, CONNECT_SECONDS)) as conn:
                conn.sock.settimeout(ANSWER_SECONDS)
                if not conn.ask("ROLE").startswith(b"*3\r\n$6\r\nmaster"):
                    return
                self.begin(conn)
                while not self._stop.is_set() and self.primary() is server:
                    self.work(conn)
        except (OSError, Lost):
            pass  # the server is gone, or not the primary any more

    def begin(self, conn: Conn) -> None:
        """A connection is new."""

    def work(self, conn: Conn) -> None:
        """One thing more."""
        raise NotImplementedError


def ask(conn: Conn, *words: bytes | str | int) -> Tree:
    """A reply; Lost if it is an error."""
    tree = parse(conn.ask(*words))
    if isinstance(tree, Failure):
        assert not tree.text.startswith((b"ERR", b"WRONGTYPE", b"NOGROUP")), (words, tree)
        raise Lost(tree)
    return tree


class Producer(Worker):
    """Puts 1, 2, 3 ... into a queue, each once."""

    def __init__(self, queue: Queue) -> None:
        super().__init__(queue.primary, f"producer of {queue.name}")
        self._queue = queue
        self.sent = 0
        self.acked: set[bytes] = set()

    def work(self, conn: Conn) -> None:
        self.sent += 1
        job = b"%d" % self.sent
        length = ask(conn, *self._queue.put(job))
        self.acked.add(job)
        crowded = isinstance(length, int) and length > ENOUGH
        self._stop.wait(PAUSE_SECONDS * (20 if crowded else 1))


class Consumer(Worker):
    """Takes jobs out of a queue, and knows which ones it has done, and may have done."""

    def __init__(self, queue: Queue, number: int) -> None:
        super().__init__(queue.primary, f"consumer {number} of {queue.name}")
        self.queue = queue
        self.id = b"%b-consumer-%d" % (queue.key, number)
        self.done: list[bytes] = []
        #: What is being removed, as long as there is no reply.
        self.finishing: bytes | None = None
        #: Commands that took a job out for good and were not answered.
        self.unanswered = 0

    def finish(self, conn: Conn, job: bytes, *words: bytes | str | int) -> Tree:
        """The job is done; `words` remove it."""
        self.finishing = job
        reply = ask(conn, *words)
        self.done.append(job)
        self.finishing = None
        return reply

    def resume(self, mine: Sequence[bytes]) -> None:
        """These are all that this consumer has taken and not removed: what it was removing is
        done, if it isn't among them."""
        if self.finishing is not None and self.finishing not in mine:
            self.done.append(self.finishing)
        self.finishing = None


class Queue:
    """A queue, its producer and its consumers."""

    def __init__(self, primary: Primary, name: str, consumers: int = 2) -> None:
        self.primary = primary
        self.name = name
        self.key = name.encode()
        self.producer = Producer(self)
        self.consumers = [self.consumer(number) for number in range(consumers)]

    def consumer(self, number: int) -> Consumer:
        """One of them."""
        raise NotImplementedError

    def put(self, job: bytes) -> Sequence[bytes | str]:
        """The command that puts a job into the queue."""
        return "RPUSH", self.key, job

    def left(self, conn: Conn) -> list[bytes]:
        """The jobs that the server holds."""
        raise NotImplementedError

    @property
    def workers(self) -> list[Worker]:
        return [self.producer, *self.consumers]

    @property
    def done(self) -> list[bytes]:
        return [job for consumer in self.consumers for job in consumer.done]

    @property
    def acked(self) -> int:
        """What was done so far."""
        return len(self.producer.acked) + len(self.done)

    def settle(self, conn: Conn) -> None:
        """Nobody works now: every job is done or here, once."""
        left = self.left(conn)
        counts = Counter([*self.done, *left])
        twice = [job for job, count in counts.items() if count > 1]
        assert not twice, f"{self.name}: there, or done, twice: {twice}"
        assert set(map(int, counts)) <= set(range(1, self.producer.sent + 1))
        lost = self.producer.acked - counts.keys()
        assert len(lost) <= self.may_lose(), f"{self.name}: lost {sorted(lost, key=int)}"

    def may_lose(self) -> int:
        """How many jobs may have been given to consumers who didn't get them."""
        return 0


# -- BLPOP -----------------------------------------------------------------------------------------


class PopConsumer(Consumer):
    """Takes a job out for good."""

    def work(self, conn: Conn) -> None:
        self.unanswered += 1
        verb = ("BLPOP", "BRPOP")[len(self.done) % 2]
        reply = ask(conn, verb, self.queue.key, self.queue.key + b"-other", str(BLOCK_SECONDS))
        self.unanswered -= 1
        if reply is not None:
            assert reply[0] == self.queue.key
            self.done.append(reply[1])


class PopQueue(Queue):
    """A list, and BLPOP: a job whose reply is lost is lost."""

    def consumer(self, number: int) -> Consumer:
        return PopConsumer(self, number)

    def left(self, conn: Conn) -> list[bytes]:
        found: list[bytes] = parse(conn.ask("LRANGE", self.key, 0, -1))
        return found

    def may_lose(self) -> int:
        return sum(consumer.unanswered for consumer in self.consumers)


# -- BLMOVE and LREM -------------------------------------------------------------------------------


class MoveConsumer(Consumer):
    """Moves a job to a list of its own, and removes it from there when it is done."""

    def begin(self, conn: Conn) -> None:
        mine = ask(conn, "LRANGE", self.id, 0, -1)
        self.resume(mine)
        for job in mine:
            self._finish(conn, job)

    def work(self, conn: Conn) -> None:
        job = ask(conn, "BLMOVE", self.queue.key, self.id, "LEFT", "RIGHT", str(BLOCK_SECONDS))
        if job is not None:
            self._finish(conn, job)

    def _finish(self, conn: Conn, job: bytes) -> None:
        assert self.finish(conn, job, "LREM", self.id, 1, job) == 1, f"{self.name}: {job!r} is gone"


class MoveQueue(Queue):
    """The reliable queue of Redis' documentation: none is lost."""

    def consumer(self, number: int) -> Consumer:
        return MoveConsumer(self, number)

    def left(self, conn: Conn) -> list[bytes]:
        found: list[bytes] = parse(conn.ask("LRANGE", self.key, 0, -1))
        for consumer in self.consumers:
            mine = parse(conn.ask("LRANGE", consumer.id, 0, -1))
            consumer.resume(mine)
            found += mine
        return found


# -- XREADGROUP and XACK ---------------------------------------------------------------------------

GROUP = "workers"


class GroupConsumer(Consumer):
    """Reads as a member of a group; acknowledging removes the entry as well."""

    def begin(self, conn: Conn) -> None:
        create = parse(conn.ask("XGROUP", "CREATE", self.queue.key, GROUP, "0", "MKSTREAM"))
        if isinstance(create, Failure) and not create.text.startswith(b"BUSYGROUP"):
            raise Lost(create)
        mine = entries(self._read(conn, "0"))
        self.resume([job for _, job in mine])
        for entry in mine:
            self._finish(conn, *entry)

    def work(self, conn: Conn) -> None:
        for entry in entries(self._read(conn, ">", "BLOCK", int(BLOCK_SECONDS * 1000))):
            self._finish(conn, *entry)

    def _read(self, conn: Conn, after: str, *options: str | int) -> Tree:
        words = ("XREADGROUP", "GROUP", GROUP, self.id, *options, "COUNT", 1, "STREAMS")
        return ask(conn, *words, self.queue.key, after)

    def _finish(self, conn: Conn, at: bytes, job: bytes) -> None:
        removed = self.finish(conn, job, "EVAL", _REMOVE, 1, self.queue.key, GROUP, at)
        assert removed == [1, 1], f"{self.name}: {job!r} {removed}"


_REMOVE = (
    "return {redis.call('XACK', KEYS[1], ARGV[1], ARGV[2]), redis.call('XDEL', KEYS[1], ARGV[2])}"
)


class GroupQueue(Queue):
    """A stream and a group of consumers."""

    def consumer(self, number: int) -> Consumer:
        return GroupConsumer(self, number)

    def put(self, job: bytes) -> Sequence[bytes | str]:
        return "XADD", self.key, "*", "job", job

    def left(self, conn: Conn) -> list[bytes]:
        found = {at: fields[1] for at, fields in parse(conn.ask("XRANGE", self.key, "-", "+"))}
        for consumer in self.consumers:
            words = ("XPENDING", self.key, GROUP, "-", "+", 1000, consumer.id)
            reply = parse(conn.ask(*words))
            pending = [] if isinstance(reply, Failure) else reply
            consumer.resume([found[row[0]] for row in pending])
        return list(found.values())


def entries(reply: Tree) -> list[tuple[bytes, bytes]]:
    """(id, job) of XREADGROUP's reply."""
    return [(at, fields[1]) for _, rows in reply or () for at, fields in rows]


# -- all of them -----------------------------------------------------------------------------------


class Queues:
    """Queues of every kind, at work together."""

    def __init__(self, primary: Primary) -> None:
        self.queues: list[Queue] = [
            PopQueue(primary, "pop-queue"),
            MoveQueue(primary, "move-queue"),
            GroupQueue(primary, "group-queue"),
        ]

    @property
    def _workers(self) -> list[Worker]:
        return [worker for queue in self.queues for worker in queue.workers]

    def start(self) -> None:
        """Begin, also again after `halt`."""
        for worker in self._workers:
            worker.start()

    def halt(self) -> None:
        """End them; raises what they noticed."""
        for worker in self._workers:
            worker.halt()

    def check(self) -> None:
        """Raise what a worker has noticed already."""
        for worker in self._workers:
            if worker.problem is not None:
                raise worker.problem

    def settle(self, conn: Conn) -> None:
        """Account for every job, while nobody works."""
        for queue in self.queues:
            queue.settle(conn)

    @property
    def acked(self) -> int:
        return sum(queue.acked for queue in self.queues)

    def report(self) -> str:
        """What was put in and came out."""
        return ", ".join(
            f"{queue.name}: {queue.producer.sent} sent, {len(queue.done)} done"
            for queue in self.queues
        )

    def await_done(self, count: int, timeout: float) -> None:
        """Wait until each queue has done so many jobs more."""
        goals = [len(queue.done) + count for queue in self.queues]
        deadline = time.monotonic() + timeout
        while any(len(q.done) < goal for q, goal in zip(self.queues, goals, strict=True)):
            self.check()
            assert time.monotonic() < deadline, f"queues stand still: {self.report()}"
            time.sleep(0.01)
