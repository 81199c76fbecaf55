"""What every compute backend does, shown by each of them with real replicas."""

import asyncio

from tests.integration.compute.places import Place, eventually

from servery_common.contracts.states import ReplicaState


async def test_a_replica_asked_for_again_is_one_replica_and_answers(place: Place):
    launch = await place.make()
    node = next(iter(place.backend.observe().nodes))
    for _ in range(3):
        await place.backend.ensure(node, launch)
    call = await (await place.client()).ask(launch.replica_id, "echo")
    assert call.json == {"predictions": ["echo"]}
    assert list(place.backend.observe().replicas) == [launch.replica_id]
    assert launch.replica_id in place.backend.ready_replicas()


async def test_a_stop_lets_it_finish_and_leaves_nothing(place: Place):
    launch = await place.make()
    client = await place.client()
    _, call = await client.send(
        launch.replica_id, b'{"dataframe_split": {"columns": ["do"], "data": [["sleep:2"]]}}'
    )
    await asyncio.wait_for(call.accepted.wait(), 10)
    await place.stop(launch)
    await asyncio.wait_for(call.done.wait(), 10)
    assert call.json == {"predictions": ["slept"]}
    await place.until_nothing_is_left(launch.replica_id)
    await place.stop(launch)  # one that is gone is already stopped


async def test_what_the_model_printed_is_shown(place: Place):
    launch = await place.make()
    await (await place.client()).ask(launch.replica_id, "print:5")

    async def shown() -> bool:
        return "line 4" in await place.backend.logs(launch.replica_id, 100)

    await eventually(shown, 10)


async def test_a_new_controller_takes_over_what_runs_and_can_stop_it(place: Place):
    launch = await place.make()
    client = await place.client()
    before = (await client.ask(launch.replica_id, "pid")).json
    await place.end()
    await place.start()
    await place.until(lambda: place.state(launch.replica_id) is ReplicaState.READY)
    assert (await client.ask(launch.replica_id, "pid")).json == before, "nothing was started again"
    await place.stop(launch)  # nobody asked the new one for it: this is what the sweep does
    await place.until_nothing_is_left(launch.replica_id)
