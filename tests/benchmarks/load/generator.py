"""Send the load described by JSON on stdin, print what came of it as JSON: ``python -m
tests.benchmarks.load.generator``.

Closed loop: each connection sends its next request when it has its answer. Open loop: requests are due at given times
whatever the server does, and latency counts from when a request was due, so that a server that stalls is not
asked less (coordinated omission). A request that finds no connection free waits for one, and its wait counts.
"""

import asyncio
import gc
import json
import sys
import time
from array import array
from collections import Counter, deque
from collections.abc import Iterator
from typing import Any

import uvloop
from tests.benchmarks.load import schedule
from tests.benchmarks.load.alarm import Alarm
from tests.benchmarks.load.answers import AnswerParser, HttpAnswer

OK = 200
PRECISE_UP_TO = 1000
QUANTUM_SECONDS = 0.001
"""Above so many requests a second the generator wakes up once in so long: what is due meanwhile is sent then, late by
half of it on average, which counts as latency. Waking up for each would take a third of a processor."""
LAST_ANSWERS_SECONDS = 30.0
"""How long answers are waited for after the last request was due; what is not answered by then is lost."""
RECONNECT_SECONDS = 0.05


class Load:
    """What is asked for, and what came of it."""

    def __init__(self, wanted: dict[str, Any]) -> None:
        body = wanted["body"].encode() if isinstance(wanted["body"], str) else b"x" * wanted["body"]
        head = [f"POST {wanted['path']} HTTP/1.1", f"Host: {wanted['host']}:{wanted['port']}"]
        head += [f"{name}: {value}" for name, value in wanted["headers"].items()]
        head.append(f"Content-Length: {len(body)}")
        self.request = "\r\n".join(head).encode() + b"\r\n\r\n" + body
        self.expected = None if wanted.get("expected") is None else wanted["expected"].encode()
        self.statuses: Counter[int] = Counter()
        self.wrong = 0
        self.lost = 0
        self.without_retry_after = 0
        self.done_at = array("d")
        """When each right answer came, in seconds from the start."""
        self.latencies = array("d")
        self.rejected_at = array("d")
        """When everything else came."""
        self.rejections = array("d")
        self.began = 0.0
        self.cpu_began = 0.0

    def answered(self, answer: HttpAnswer, due: float) -> None:
        """An answer came to a request that was due at ``due``."""
        now = time.perf_counter()
        self.statuses[answer.status] += 1
        if answer.status == OK:
            if self.expected is not None and answer.body != self.expected:
                self.wrong += 1
            else:
                self.latencies.append(now - due)
                self.done_at.append(now - self.began)
        else:
            self.rejections.append(now - due)
            self.rejected_at.append(now - self.began)
            if answer.status in (429, 503) and not answer.retry_after:
                self.without_retry_after += 1

    def report(self, seconds: float, unsent: int) -> dict[str, Any]:
        """As it is printed; latencies in milliseconds."""
        cpu_seconds = time.process_time() - self.cpu_began
        return {
            "began": self.began,
            "seconds": seconds,
            "in_time": sum(at <= seconds for at in self.done_at),
            "statuses": {str(status): count for status, count in sorted(self.statuses.items())},
            "wrong": self.wrong,
            "lost": self.lost,
            "unsent": unsent,
            "without_retry_after": self.without_retry_after,
            "latencies_ms": [round(value * 1000, 3) for value in self.latencies],
            "done_at": [round(value, 3) for value in self.done_at],
            "rejections_ms": [round(value * 1000, 3) for value in self.rejections],
            "rejected_at": [round(value, 3) for value in self.rejected_at],
            "cpu_seconds": cpu_seconds,
        }


class Connection(asyncio.Protocol):
    """One kept-alive connection with at most one request under way."""

    def __init__(self, load: Load, pool: "Pool") -> None:
        self._load = load
        self._pool = pool
        self._parser = AnswerParser()
        self._due: float | None = None
        self.transport: asyncio.Transport | None = None

    def send(self, due: float) -> None:
        """Send a request; latency counts from ``due``."""
        self._due = due
        assert self.transport is not None
        self.transport.write(self._load.request)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        for answer in self._parser.feed(data):
            due, self._due = self._due, None
            if due is not None:
                self._load.answered(answer, due)
                self._pool.free(self)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._due is not None:
            self._load.lost += 1
        self._pool.gone(self)


class Pool:
    """The connections, and requests that wait for one."""

    def __init__(self, load: Load, wanted: dict[str, Any]) -> None:
        self._load = load
        self._wanted = wanted
        self._idle: list[Connection] = []
        self._waiting: deque[float] = deque()
        self._opening: set[asyncio.Task[None]] = set()
        self.busy = 0
        self.closed_loop = "rate" not in wanted
        self.running = False
        """Whether requests are being sent; connections are opened before."""
        self.open = True

    async def connect(self, count: int) -> None:
        """Open connections, a few at a time: a backlog that overflows would be measured otherwise."""
        for at in range(0, count, 64):
            await asyncio.gather(*(self._connect() for _ in range(min(64, count - at))))

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        make = lambda: Connection(self._load, self)  # noqa: E731
        _, connection = await loop.create_connection(make, self._wanted["host"], self._wanted["port"])
        self._use(connection)

    async def _replace(self) -> None:
        """Open a connection in the place of one that the server closed, as soon as it takes one."""
        while self.open:
            try:
                await self._connect()
            except OSError:
                await asyncio.sleep(RECONNECT_SECONDS)
            else:
                break

    def _use(self, connection: Connection) -> None:
        if self._waiting:
            connection.send(self._waiting.popleft())
        elif self.closed_loop and self.running and self.open:
            self.busy += 1
            connection.send(time.perf_counter())
        else:
            self._idle.append(connection)

    def submit(self, due: float) -> None:
        """Send a request now, or as soon as a connection is free."""
        self.busy += 1
        if self._idle:
            self._idle.pop().send(due)
        else:
            self._waiting.append(due)

    def free(self, connection: Connection) -> None:
        """Its answer is there."""
        self.busy -= 1
        self._use(connection)

    def gone(self, connection: Connection) -> None:
        """The server closed it: open another one."""
        if connection in self._idle:
            self._idle.remove(connection)
        else:
            self.busy -= 1
        if self.open:
            task = asyncio.ensure_future(self._replace())
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)

    @property
    def unsent(self) -> int:
        """Requests that never got a connection."""
        return len(self._waiting)

    @property
    def unanswered(self) -> int:
        """Requests that were sent and not answered yet."""
        return self.busy - len(self._waiting)


async def run(wanted: dict[str, Any]) -> dict[str, Any]:
    """Make the load; return the report."""
    load = Load(wanted)
    pool = Pool(load, wanted)
    await pool.connect(wanted["connections"])
    gc.disable()
    pool.running = True
    load.began, load.cpu_began = time.perf_counter(), time.process_time()
    if pool.closed_loop:
        for _ in range(wanted["connections"]):
            pool.submit(time.perf_counter())
        await asyncio.sleep(wanted["seconds"])
    else:
        quantum = QUANTUM_SECONDS if wanted["rate"] > PRECISE_UP_TO else 0.0
        await _send_on_time(pool, load.began, _due_times(wanted), quantum)
    pool.open = False
    seconds = time.perf_counter() - load.began
    ends = time.perf_counter() + wanted.get("patience", LAST_ANSWERS_SECONDS)
    while pool.busy > 0 and time.perf_counter() < ends:  # noqa: ASYNC110 - its answers are many events
        await asyncio.sleep(0.02)
    load.lost += pool.unanswered
    return load.report(seconds, pool.unsent)


def _due_times(wanted: dict[str, Any]) -> Iterator[float]:
    if wanted.get("arrivals") == "poisson":
        return schedule.poisson(wanted["rate"], wanted["seconds"], wanted.get("seed", 1))
    return schedule.constant(wanted["rate"], wanted["seconds"])


async def _send_on_time(pool: Pool, began: float, due_times: Iterator[float], quantum: float) -> None:
    alarm, woke = Alarm(), began
    for offset in due_times:
        due = began + offset
        if due > time.perf_counter():
            await alarm.until(max(due, woke + quantum))
            woke = time.perf_counter()
        pool.submit(due)
    alarm.close()


def main() -> None:
    """Read the order, make the load, print the report."""
    wanted = json.loads(sys.stdin.read())
    write_whole(sys.stdout.fileno(), json.dumps(uvloop.run(run(wanted))).encode())


def write_whole(descriptor: int, data: bytes) -> None:
    """Write all of it. With PYTHONUNBUFFERED ``print`` loses what is left when a signal interrupts a long write."""
    with open(descriptor, "wb", closefd=False) as out:
        out.write(data)


if __name__ == "__main__":
    main()
