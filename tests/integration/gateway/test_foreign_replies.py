"""A replica may say what became of its own requests, and of no others."""

import asyncio

import pytest
from tests.integration.gateway.conftest import World
from tests.integration.gateway.peers import Work, endpoint, entity

from servery_common.contracts import frames

FORGED = b'{"predictions":["forged"]}'


@pytest.mark.parametrize(
    "record",
    [
        lambda work: frames.encode(frames.RESULT, work.id, {"status": 200}, FORGED),
        lambda work: frames.encode(frames.REFUSE, work.id, {"reason": "draining"}),
        lambda work: frames.encode(frames.RESULT, work.id, {"status": "no number"}, FORGED),
        lambda work: frames.encode(frames.RESULT, work.id, {"status": 200}, FORGED, flags=frames.STREAM),
    ],
    ids=["an answer", "a refusal", "nonsense", "a stream"],
)
async def test_what_another_replica_says_of_a_request_is_ignored(world: World, record) -> None:
    begun, release = asyncio.Event(), asyncio.Event()
    seen: list[Work] = []

    async def honest(work: Work) -> tuple[int, bytes]:
        seen.append(work)
        begun.set()
        await release.wait()
        return 200, b'{"predictions":["honest"]}'

    replica = await world.replica("honest", honest)
    await world.publish(endpoint("trusted", entity("m-1", replica.route())))
    answer = asyncio.create_task(world.score("trusted"))
    await begun.wait()
    work = seen[0]
    assert work.reply.endswith(".honest")
    own = work.reply.removesuffix("honest") + "other"
    await replica.client.publish(own, record(work))
    # The honest answer goes out behind it on the same connection, so the gateway reads the forged one first.
    release.set()
    response = await answer
    assert (response.status_code, response.json()) == (200, {"predictions": ["honest"]})
    assert len(seen) == 1
