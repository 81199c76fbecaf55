"""The real dispatcher in simulated time, before replicas that work as long as they are told: hours in milliseconds.

A discrete-event simulation: the loop's clock stands until everything due has run, then jumps to what comes next.
"""

import asyncio
import heapq
import itertools
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from servery_common.contracts.routes import EndpointRoute, ReplicaRoute, ServedEntityRoute
from servery_common.errors import ServeryError
from servery_gateway.dispatch_limits import DispatchLimits
from servery_gateway.dispatcher import Dispatcher
from servery_gateway.entity_pool import ScoringRequest
from servery_gateway.request_trace import UNTRACED
from servery_gateway.routing_table import Change
from servery_gateway.transport import Outcome, ReplicaRequest

DONE = Outcome(200, "application/json", b"{}")


class Later:
    """A callback that may be cancelled."""

    def __init__(self, callback: Callable, arguments: tuple) -> None:
        self.callback = callback
        self.arguments = arguments
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class SimulatedLoop(asyncio.AbstractEventLoop):
    """As much of an event loop as the dispatcher and its futures use."""

    def __init__(self) -> None:
        self._now = 0.0
        self._events: list[tuple[float, int, Later]] = []
        self._order = itertools.count()

    def time(self) -> float:
        return self._now

    def call_at(self, when, callback, *args, context=None):
        later = Later(callback, args)
        heapq.heappush(self._events, (max(when, self._now), next(self._order), later))
        return later

    def call_later(self, delay, callback, *args, context=None):
        return self.call_at(self._now + delay, callback, *args)

    def call_soon(self, callback, *args, context=None):
        return self.call_at(self._now, callback, *args)

    def create_future(self):
        return asyncio.Future(loop=self)

    def get_debug(self):
        return False

    def run(self, until: float) -> None:
        """Let time pass."""
        while self._events and self._events[0][0] <= until:
            self._now, _, later = heapq.heappop(self._events)
            if not later.cancelled:
                later.callback(*later.arguments)
        self._now = until


class OneByOne:
    """A replica that takes ``seconds`` for each request, as many at a time as it has slots."""

    def __init__(self, slots: int, seconds: float) -> None:
        self.slots = slots
        self.seconds = seconds
        self.capacity = slots / seconds

    def take(self, loop: SimulatedLoop, answer: Callable[[int], None], attempt: int) -> None:
        loop.call_later(self.seconds, answer, attempt)


class Batching:
    """A replica that takes all that wait, up to ``size`` of them, in one batch, and one batch after the other."""

    def __init__(self, slots: int, size: int, seconds: float) -> None:
        self.slots = slots
        self.size = size
        self.seconds = seconds
        # Half of the slots wait for the next batch while the others are in one.
        self.capacity = min(size, slots / 2) / seconds
        self._waiting: list[int] = []
        self._busy = False

    def take(self, loop: SimulatedLoop, answer: Callable[[int], None], attempt: int) -> None:
        self._waiting.append(attempt)
        if not self._busy:
            self._busy = True
            loop.call_soon(self._begin, loop, answer)

    def _begin(self, loop: SimulatedLoop, answer: Callable[[int], None]) -> None:
        batch, self._waiting = self._waiting[: self.size], self._waiting[self.size :]
        self._busy = bool(batch)
        if batch:
            loop.call_later(self.seconds, self._end, loop, answer, batch)

    def _end(self, loop: SimulatedLoop, answer: Callable[[int], None], batch: list[int]) -> None:
        for attempt in batch:
            answer(attempt)
        self._begin(loop, answer)


class SimulatedTransport:
    """Brings requests to the replica and its answers back, at once."""

    connected = True

    def __init__(self, loop: SimulatedLoop, replica: OneByOne | Batching) -> None:
        self._loop = loop
        self._replica = replica
        self.dispatcher: Dispatcher
        self.ran: list[str] = []
        """Request ids, in the order they began."""

    def send(self, replica_id: str, request: ReplicaRequest) -> None:
        self.ran.append(request.request_id)
        self._loop.call_soon(self._accept, request.id)

    def _accept(self, attempt: int) -> None:
        self.dispatcher.on_accept(attempt)
        self._replica.take(self._loop, self._answer, attempt)

    def _answer(self, attempt: int) -> None:
        self.dispatcher.on_result(attempt, DONE)

    def cancel(self, replica_id: str, id: int) -> None:
        raise AssertionError("nothing is given up here")

    def acknowledge(self, replica_id: str, id: int, count: int) -> None:
        raise AssertionError("nothing is streamed here")

    def probe(self, replica_id: str) -> None:
        pass

    def is_waiting(self, replica_id: str, id: int) -> bool:
        return False

    async def settle(self) -> None:
        pass


@dataclass
class Tally:
    """What became of the requests that came in one phase."""

    offered: int = 0
    waits: list[float] = field(default_factory=list)
    """Seconds to the answer, of those that were served."""
    refused: Counter[str] = field(default_factory=Counter)
    retry_after: list[int] = field(default_factory=list)

    @property
    def served(self) -> int:
        return len(self.waits)

    def percentile(self, share: float) -> float:
        return sorted(self.waits)[int(share * (len(self.waits) - 1))]


class Simulation:
    """One endpoint with one replica."""

    def __init__(self, replica: OneByOne | Batching, *, max_queued: int = 40) -> None:
        self.loop = SimulatedLoop()
        self.replica = replica
        self.transport = SimulatedTransport(self.loop, replica)
        self.dispatcher = Dispatcher(
            self.transport, DispatchLimits(), random.Random(1).random, _loop=self.loop
        )
        self.transport.dispatcher = self.dispatcher
        self._numbers = itertools.count()
        served = ServedEntityRoute(
            served_entity_id="s",
            name="s",
            traffic_percentage=100,
            replicas=(ReplicaRoute(replica_id="r", slots=replica.slots),),
        )
        self.dispatcher.follow(
            [
                Change(
                    "e",
                    None,
                    EndpointRoute(
                        endpoint_id="e",
                        workspace_id="1",
                        name="e",
                        status="serving",
                        max_queued=max_queued,
                        served_entities=(served,),
                    ),
                )
            ]
        )

    def request(self, tally: Tally, seconds: float = 59.0, then: Callable[[], None] | None = None) -> None:
        """One request comes now. ``then`` is called when it has an answer of any kind."""
        came = self.loop.time()
        tally.offered += 1
        try:
            ticket = self.dispatcher.submit(
                ScoringRequest(
                    "s", "application/json", str(next(self._numbers)), b"{}", came + seconds, UNTRACED
                )
            )
        except ServeryError as error:
            tally.refused[error.reason or ""] += 1
            tally.retry_after.append(error.retry_after or 0)
            if then is not None:
                self.loop.call_soon(then)
            return

        def answered(outcome: asyncio.Future) -> None:
            assert outcome.result() == DONE
            tally.waits.append(self.loop.time() - came)
            if then is not None:
                then()

        ticket.outcome.add_done_callback(answered)

    def offer(self, per_second: float, seconds: float, *, random: random.Random) -> Tally:
        """Let requests come at random times (a Poisson process), and time pass; return what became of them."""
        tally = Tally()
        end = self.loop.time() + seconds

        def come() -> None:
            self.request(tally)
            self.loop.call_later(random.expovariate(per_second), come) if self.loop.time() < end else None

        self.loop.call_later(random.expovariate(per_second), come)
        self.loop.run(end)
        return tally

    def clients(self, count: int, seconds: float, *, within: float = 0.0) -> Tally:
        """Let clients call, each again as soon as it is answered; return what became of their requests.

        They begin one after the other, all of them ``within`` so many seconds, and stop once one was refused.
        """
        tally = Tally()
        end = self.loop.time() + seconds

        def call() -> None:
            if self.loop.time() < end and not tally.refused:
                self.request(tally, then=call)

        for number in range(count):
            self.loop.call_later(within * number / count, call)
        self.loop.run(end)
        return tally
