"""A model that wants more memory than it may have: its request fails with the reason, everything else goes on."""

import asyncio
import os

import pytest
from tests.resilience.system import MEMORY, PATIENCE, System
from tests.waiting import until

from servery_common.contracts.states import ReplicaState
from servery_runner.limits import POOL_THREAD_BYTES, STACK_BYTES

LIMIT = "more than the 768 MiB of memory that a model's process may use"


@pytest.mark.parametrize("want", [f"allocate:{4 * MEMORY}", "fill"])
async def test_a_request_that_needs_too_much_memory_fails_with_the_reason_and_alone(
    system: System, want: str
):
    greedy = await system.deploy(0)
    before = await greedy.process()
    async with greedy.load(clients=2) as load:
        answer = await greedy.score(want)
        assert (answer.status, answer.body["error_code"]) == (400, "BAD_REQUEST")
        assert answer.message == f"The model needed {LIMIT}."
        await load.succeeded(10)
    after = await greedy.process()
    assert after["pid"] == before["pid"], "the process goes on"
    assert greedy.observed().restarts == 0
    # While memory is short another request of this model may fail for the same reason, and no other one.
    assert load.statuses() <= {200, 400}
    assert {one.message for one in load.of_status(400)} <= {answer.message}
    assert f"out of memory: The model needed {LIMIT}." in await greedy.log()


async def test_a_process_that_holds_too_much_shared_memory_is_replaced_and_its_request_told(system: System):
    greedy, other = await system.deploy(0), await system.deploy(0)
    before = await greedy.process()
    async with other.load(clients=2) as load:
        answer = await greedy.score(f"share:{MEMORY + MEMORY // 4}")
        assert (answer.status, answer.body["error_code"]) == (400, "BAD_REQUEST")
        assert LIMIT in answer.message
        worker, replica_id = greedy.replicas[0]
        await until(lambda: worker.reasons(replica_id) != [], PATIENCE)
        [reason] = worker.reasons(replica_id)
        assert reason == f"the model's process was ended because it used {LIMIT}"
        after = await greedy.process()
    assert after["pid"] != before["pid"]
    assert greedy.ran().count(answer.id) == 1
    assert load.statuses() == {200}
    assert other.observed().restarts == 0
    assert f"Servery: {reason}." in await greedy.log()


async def test_all_that_were_run_beside_a_request_that_took_too_much_are_told_why(system: System):
    greedy = await system.deploy(0)
    beside = greedy.begin("sleep:600", 2)
    await greedy.until_running(beside)
    answers = await asyncio.gather(greedy.score(f"share:{MEMORY + MEMORY // 4}"), *beside)
    # Any of them may have been the one: each may be sent again.
    assert {one.status for one in answers} == {503}
    [message] = {one.message for one in answers}
    assert LIMIT in message
    assert [greedy.ran().count(one.id) for one in answers] == [1, 1, 1]


async def test_a_model_that_needs_too_much_memory_to_load_fails_with_the_reason(system: System):
    greedy = system.endpoint()
    with pytest.raises(AssertionError, match=LIMIT):
        await greedy.add(system.orders[0], LOAD_BYTES=str(4 * MEMORY))
    assert greedy.observed().state is ReplicaState.FAILED


async def test_forked_processes_are_limited_and_the_first_to_go_when_the_machine_has_no_memory(
    system: System,
):
    endpoint = await system.deploy(0, slots=4)
    process = await endpoint.process()
    assert process["parent"] != system.processes.workers[0].pid, "it was forked from a warm parent"
    # A thread for each slot, and one for an input example that is not waited for.
    stacks = (4 + 1) * STACK_BYTES
    assert process["limit"] == MEMORY + stacks + (os.cpu_count() or 1) * POOL_THREAD_BYTES
    assert process["oom_score_adj"] > 0
