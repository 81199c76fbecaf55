"""What the dispatcher itself costs per request, from ``submit`` over accept to result, on the services' event loop.

The transport does nothing, so neither NATS nor the codec of the frames is in it. Run it on a quiet machine:
``python -m tests.benchmarks.dispatching``.
"""

import asyncio
import random
import time

import uvloop

from servery_common.contracts.routes import EndpointRoute, ReplicaRoute, ServedEntityRoute
from servery_gateway.dispatch_limits import DispatchLimits
from servery_gateway.dispatcher import Dispatcher
from servery_gateway.entity_pool import ScoringRequest
from servery_gateway.request_trace import UNTRACED
from servery_gateway.routing_table import Change
from servery_gateway.transport import Outcome, ReplicaRequest

DONE = Outcome(200, "application/json", b"{}")
REPEATS = 5
REQUESTS = 5000


class Nowhere:
    """A transport that only remembers which attempts are to be answered."""

    connected = True

    def __init__(self) -> None:
        self.attempts: list[int] = []

    def send(self, replica_id: str, request: ReplicaRequest) -> None:
        self.attempts.append(request.id)

    def cancel(self, replica_id: str, id: int) -> None:
        pass

    def acknowledge(self, replica_id: str, id: int, count: int) -> None:
        pass

    def probe(self, replica_id: str) -> None:
        pass

    async def settle(self) -> None:
        pass


def route(replicas: int, slots: int) -> EndpointRoute:
    served = ServedEntityRoute(
        served_entity_id="s",
        name="s",
        traffic_percentage=100,
        replicas=tuple(ReplicaRoute(replica_id=str(number), slots=slots) for number in range(replicas)),
    )
    return EndpointRoute(
        endpoint_id="e",
        workspace_id="1",
        name="e",
        status="serving",
        max_queued=REQUESTS,
        served_entities=(served,),
    )


async def microseconds(replicas: int, slots: int, at_once: int) -> float:
    """Return the best of a few runs with so many requests in the dispatcher at once."""
    transport = Nowhere()
    dispatcher = Dispatcher(transport, DispatchLimits(), random.random)
    dispatcher.follow([Change("e", None, route(replicas, slots))])
    loop = asyncio.get_running_loop()
    best = float("inf")
    for _ in range(REPEATS):
        began = time.perf_counter()
        for _ in range(REQUESTS // at_once):
            deadline = loop.time() + 59.0
            tickets = [
                dispatcher.submit(ScoringRequest("s", "application/json", "r", b"{}", deadline, UNTRACED))
                for _ in range(at_once)
            ]
            while transport.attempts:
                attempts, transport.attempts = transport.attempts, []
                for attempt in attempts:
                    dispatcher.on_accept(attempt)
                for attempt in attempts:
                    dispatcher.on_result(attempt, DONE)
            for ticket in tickets:
                await ticket.outcome
        best = min(best, (time.perf_counter() - began) / REQUESTS * 1e6)
    return best


async def main() -> None:
    for replicas, slots, at_once in ((1, 128, 100), (1, 4, 100), (4, 4, 16), (16, 32, 100), (1, 4, 2500)):
        cost = await microseconds(replicas, slots, at_once)
        print(f"{replicas:3} replicas of {slots:3} slots, {at_once:4} requests at once: {cost:5.1f} us each")


if __name__ == "__main__":
    uvloop.run(main())
