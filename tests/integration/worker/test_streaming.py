"""Streamed answers between a gateway and a replica: items at once, within a window, ended by END or CANCEL."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from tests.integration.worker.scoring_client import Call, ScoringClient
from tests.integration.worker.worker_process import WorkerOrders

from servery_common.contracts import frames
from servery_common.contracts.states import ReplicaState


@pytest.fixture
async def replica(orders: WorkerOrders, streaming: Path) -> AsyncIterator[str]:
    replica_id = await orders.launch(streaming, slots=2)
    yield replica_id
    await orders.stop(replica_id)


def body(prompt: str, **more: Any) -> bytes:
    return json.dumps({"prompt": prompt, **more}).encode()


async def stream(client: ScoringClient, replica: str, prompt: str, **more: Any) -> tuple[int, Call]:
    return await client.send(replica, body(prompt, stream=True, **more))


async def finished(client: ScoringClient, replica: str, prompt: str, **more: Any) -> Call:
    _, call = await stream(client, replica, prompt, **more)
    await asyncio.wait_for(call.done.wait(), 20)
    return call


async def predicted(client: ScoringClient, replica: str, prompt: str, **more: Any) -> Any:
    _, call = await client.send(replica, body(prompt, **more))
    await asyncio.wait_for(call.done.wait(), 20)
    assert call.refused is None
    return call.json


async def test_each_item_is_an_event_and_the_end_is_told(client: ScoringClient, replica: str) -> None:
    call = await finished(client, replica, "count:3")
    assert call.status == 200
    assert call.content_type == "text/event-stream"
    assert call.events == [{"number": 0}, {"number": 1}, {"number": 2}]
    assert call.end is not None
    assert "status" not in call.end
    assert call.end["p"] >= 0


async def test_a_stream_without_items_is_one_that_ends(client: ScoringClient, replica: str) -> None:
    call = await finished(client, replica, "nothing")
    assert (call.events, call.failure) == ([], b"")


async def test_an_item_comes_before_the_next_one_is_made(client: ScoringClient, replica: str) -> None:
    number, call = await stream(client, replica, "hang")
    await call.streamed(1)
    assert call.events == ["before"]
    assert not call.done.is_set()
    await client.cancel(number)


async def test_an_item_longer_than_the_window_arrives_whole(client: ScoringClient, replica: str) -> None:
    length = 3 * frames.STREAM_WINDOW_BYTES
    call = await finished(client, replica, f"big:{length}")
    assert call.events == ["y" * length]


async def test_a_client_that_takes_nothing_stops_the_model(client: ScoringClient, replica: str) -> None:
    number, call = await stream(client, replica, "endless:100000")
    call.takes = False
    await call.streamed(5)
    made = await still(client, replica)
    assert len(call.answer) <= frames.STREAM_WINDOW_BYTES
    await client.take(number, len(call.answer))
    await call.streamed(len(call.events) + 1)  # one that was made before

    async def made_more() -> bool:
        return len(await predicted(client, replica, "made")) > made

    await until(made_more)
    await client.cancel(number)


async def still(client: ScoringClient, replica: str) -> int:
    """Wait until the model makes no more items; return how many it made."""
    made = -1
    while made != (now := len(await predicted(client, replica, "made"))):
        made = now
        await asyncio.sleep(0.1)
    return made


async def test_a_cancelled_stream_is_closed_and_its_slot_is_free(client: ScoringClient, replica: str) -> None:
    for _ in range(3):
        calls = [await stream(client, replica, "endless:10") for _ in range(2)]
        for number, call in calls:
            await call.streamed(1)
            await client.cancel(number)
        await until(lambda: accepted(client, replica))
    assert "endless" in await predicted(client, replica, "closed")


async def accepted(client: ScoringClient, replica: str) -> bool:
    """Whether a request that comes now is taken and answered."""
    _, call = await client.send(replica, body("anything"))
    await asyncio.wait_for(call.done.wait(), 20)
    return call.refused is None and call.status == 200


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Return when the condition holds."""
    async with asyncio.timeout(20):
        while True:
            if await condition():
                return
            await asyncio.sleep(0.02)


async def test_a_cancelled_stream_with_a_full_window_ends_too(client: ScoringClient, replica: str) -> None:
    number, call = await stream(client, replica, "endless:100000")
    call.takes = False
    await call.streamed(5)
    await still(client, replica)
    await client.cancel(number)

    async def closed() -> bool:
        return "endless" in await predicted(client, replica, "closed")

    await until(closed)


async def test_what_fails_before_the_first_item_is_an_ordinary_error(
    client: ScoringClient, replica: str
) -> None:
    call = await finished(client, replica, "refuse:no such thing")
    assert not call.streaming
    assert call.status == 400
    assert call.json["error_code"] == "INVALID_PARAMETER_VALUE"
    assert "no such thing" in call.json["message"]


@pytest.mark.parametrize("prompt", ["fail:oh", "unserialisable"])
async def test_what_fails_later_ends_the_stream_with_the_error(
    client: ScoringClient, replica: str, prompt: str
) -> None:
    call = await finished(client, replica, prompt)
    assert call.events == ["before"]
    assert call.end is not None
    assert call.end["status"] == 400
    assert json.loads(call.failure)["error_code"] == "BAD_REQUEST"


async def test_a_process_that_dies_ends_the_stream_with_an_error(client: ScoringClient, replica: str) -> None:
    call = await finished(client, replica, "exit")
    assert call.events == ["before"]
    assert call.end is not None
    assert call.end["status"] == 400
    assert "ended its process" in json.loads(call.failure)["message"]


async def test_a_model_that_hangs_between_two_items_is_timed_out(
    client: ScoringClient, orders: WorkerOrders, streaming: Path
) -> None:
    replica = await orders.launch(streaming, timeout_seconds=1.0)
    call = await finished(client, replica, "hang")
    assert call.end is not None
    assert call.end["status"] == 504
    # Its process is ended after that, and replaced.
    await until(lambda: accepted(client, replica))
    await orders.stop(replica)


async def test_a_stream_outlives_the_order_to_stop_its_replica(
    client: ScoringClient, orders: WorkerOrders, streaming: Path
) -> None:
    replica = await orders.launch(streaming, slots=2, timeout_seconds=1.0)
    number, call = await stream(client, replica, "endless:10")
    await call.streamed(1)
    await orders.stop(replica, grace=600.0)
    await until(lambda: refused(client, replica))
    await call.streamed(len(call.events) + 100)
    assert not call.done.is_set()
    await client.cancel(number)
    await orders.until_state(replica, ReplicaState.STOPPED)


async def refused(client: ScoringClient, replica: str) -> bool:
    """Whether a request that comes now is refused because the replica finishes what it has."""
    _, call = await client.send(replica, body("anything"))
    await asyncio.wait_for(call.done.wait(), 20)
    return call.refused == "draining"


async def test_a_gateway_that_says_nothing_more_loses_its_stream(
    client: ScoringClient, orders: WorkerOrders, streaming: Path
) -> None:
    replica = await orders.launch(streaming, slots=1, timeout_seconds=1.0)
    _, call = await stream(client, replica, "endless:10")
    call.takes = False
    # The model goes on, far from the end of its window: the time is the gateway's.
    await asyncio.wait_for(call.done.wait(), 20)
    assert len(call.answer) < frames.STREAM_WINDOW_BYTES
    assert call.end is not None
    assert call.end["status"] == 504
    await until(lambda: accepted(client, replica))
    assert "endless" in await predicted(client, replica, "closed")
    await orders.stop(replica)


async def test_databricks_own_keys_do_not_reach_the_model(client: ScoringClient, replica: str) -> None:
    own = {"client_request_id": "a", "usage_context": {}, "databricks_options": {}}
    assert await predicted(client, replica, "x", temperature=1, **own) == ["x", ["prompt", "temperature"]]
    call = await finished(client, replica, "keys", temperature=1, **own)
    assert call.events == [["prompt", "temperature"]]


async def test_a_model_that_cannot_stream_says_so(
    client: ScoringClient, orders: WorkerOrders, obedient: Path
) -> None:
    replica_id = await orders.launch(obedient)
    content = {"dataframe_records": [{"do": "echo"}], "stream": True}
    _, call = await client.send(replica_id, json.dumps(content).encode())
    await asyncio.wait_for(call.done.wait(), 20)
    assert call.status == 400
    assert "cannot stream" in call.json["message"]
    await orders.stop(replica_id)
