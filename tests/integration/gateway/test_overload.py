"""Many times what an endpoint can take, over HTTP and NATS: counted, not timed.

How fast the answers come, and how long who is let in waits, is shown in simulated time (unit/gateway/test_overload).
"""

import asyncio
from collections import Counter

import httpx
import pytest
from tests.integration.gateway.conftest import World, eventually
from tests.integration.gateway.peers import Work, endpoint, entity, grant, identity

from servery_common.contracts import subjects
from servery_common.contracts.metrics import GatewayMetrics
from servery_gateway.loop_lag import IN_A_ROW

SLOTS, QUEUE = 4, 40
NEIGHBOUR = {"authorization": "Bearer neighbours-token"}


class Valve:
    """A model that answers when it is let."""

    def __init__(self) -> None:
        self.open = asyncio.Event()

    async def __call__(self, work: Work) -> tuple[int, bytes]:
        await self.open.wait()
        return 200, work.head["rid"].encode()


@pytest.mark.parametrize("factor", [2, 10])
async def test_every_request_has_one_answer_and_the_neighbours_notice_nothing(
    patient_world: World, factor: int
) -> None:
    world, valve, told = patient_world, Valve(), dict[str, dict[str, int]]()

    async def heard(report: GatewayMetrics) -> None:
        told.update({one.endpoint_id: one.counts for one in report.rejections})

    await world.bus.on_signal(subjects.ALL_GATEWAY_METRICS, GatewayMetrics, heard)
    busy, idle = await world.replica(f"busy{factor}", valve), await world.replica(f"idle{factor}")
    crowded = endpoint(f"crowded{factor}", entity("m-1", busy.route(SLOTS)), max_queued=QUEUE)
    beside = endpoint(f"beside{factor}", entity("m-1", idle.route(SLOTS)))
    elsewhere = endpoint(f"elsewhere{factor}", entity("m-1", idle.route(SLOTS)), workspace_id="8")
    for route in (crowded, beside, elsewhere.model_copy(update={"query_grantees": ("user:eve",)})):
        await world.publish(route)
    await world.admit(identity("eve", workspace_id="8"), grant("neighbours-token", "eve"))

    await world.allow("7", 100_000)

    capacity = SLOTS + QUEUE
    offered = factor * capacity
    answers: dict[str, httpx.Response] = {}

    async def call(number: int) -> None:
        name = f"n{number}"
        assert name not in answers
        answers[name] = await world.score(crowded.name, headers={"x-request-id": name})

    calls = [asyncio.create_task(call(number)) for number in range(offered)]
    # Connections are fewer than requests: as answers come, the next ones go out.
    await eventually(lambda: len(answers) == offered - capacity, 30)
    for _ in range(QUEUE):
        assert (await world.score(beside.name)).status_code == 200
        assert (await world.score(elsewhere.name, headers=NEIGHBOUR)).status_code == 200
    valve.open.set()
    await asyncio.gather(*calls)

    assert Counter(answer.status_code for answer in answers.values()) == {
        200: capacity,
        429: offered - capacity,
    }
    served = {name: answer for name, answer in answers.items() if answer.status_code == 200}
    assert sorted(busy.ran) == sorted(served)
    assert all(answer.text == name for name, answer in served.items())
    for answer in answers.values():
        if answer.status_code == 429:
            assert answer.json()["error_code"] == "RESOURCE_EXHAUSTED"
            assert 1 <= int(answer.headers["retry-after"]) <= 60
    refused = offered - capacity
    await eventually(lambda: sum(sum(counts.values()) for counts in told.values()) == refused, 10)
    assert told.keys() == {crowded.endpoint_id}
    assert told[crowded.endpoint_id].keys() <= {"queue_full", "queue_wait"}
    # It is over: as many as it has slots, again and again.
    for _ in range(5):
        after = await asyncio.gather(*(world.score(crowded.name) for _ in range(SLOTS)))
        assert {answer.status_code for answer in after} == {200}
    assert world.gateway.dispatcher.unfinished == 0
    assert world.gateway.bodies.held == 0


async def test_a_gateway_whose_event_loop_stays_late_refuses_on_headers(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    replica = await world.replica("late")
    await world.publish(endpoint("late", entity("m-1", replica.route())))
    lag = world.gateway.lag
    for _ in range(IN_A_ROW):
        lag.note(100.0)
    monkeypatch.setattr(lag, "note", lambda seconds: None)  # Nothing is measured for a while.
    answer = await world.score("late")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert answer.json()["error_code"] == "TEMPORARILY_UNAVAILABLE"
    monkeypatch.undo()
    await eventually(lambda: not lag.too_long)
    assert (await world.score("late")).status_code == 200
    assert len(replica.ran) == 1
