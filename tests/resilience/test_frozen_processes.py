"""SIGSTOP under load: a frozen process costs a request one try, runs nothing twice and comes back cleanly."""

import asyncio
import time
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path

from tests.resilience.system import PATIENCE, System, frozen
from tests.waiting import until

from servery_common.contracts.states import ReplicaState

SLOTS = 4


async def test_a_frozen_worker_costs_a_request_one_try_and_comes_back(system: System, tmp_path: Path):
    gateway, workers = system.processes.gateway, system.processes.workers
    both = await system.deploy(0, 1, slots=32)
    release = tmp_path / "release"

    def given_up() -> list[str]:
        return [line["request_id"] for line in gateway.said("request_not_accepted")]

    before = len(given_up())
    async with both.load(clients=4) as load:
        await until(lambda: len(both.ran(0)) > 10 and len(both.ran(1)) > 10, PATIENCE)
        async with frozen(workers[0].pid):
            # So many that the other one has more to do than the frozen one, which is tried then.
            waiting = both.begin(f"wait:{release}", 24)
            await until(lambda: len(given_up()) > before, PATIENCE)
            await both.until_running(waiting)
            assert {task.get_name() for task in waiting} <= set(both.ran(1)), "the other one has them all"
            release.touch()
            answers = await asyncio.gather(*waiting)
        thawed = len(both.ran(0))
        await until(lambda: len(both.ran(0)) > thawed + 20, PATIENCE)
    assert {one.status for one in answers} == load.statuses() == {200}
    again = Counter(given_up()[before:])
    assert set(again.values()) == {1}, "one try more, and then the other replica has it"
    assert {task.get_name() for task in waiting} & set(again)
    load.assert_run_once(both.ran())
    assert both.observed(0).restarts == both.observed(1).restarts == 0


async def test_what_piled_up_for_a_worker_frozen_before_it_knew_its_gateway_runs_once(system: System):
    gateway, workers = system.processes.gateway, system.processes.workers
    both = await system.deploy(0, 1)
    before = len(gateway.said("request_not_accepted"))
    async with AsyncExitStack() as ice:
        await ice.enter_async_context(frozen(workers[0].pid))
        async with both.load() as load:
            await until(lambda: len(gateway.said("request_not_accepted")) > before + 1, PATIENCE)
            await load.succeeded(50)
            assert both.ran(0) == []
            await ice.aclose()
            await until(lambda: len(both.ran(0)) > 20, PATIENCE)
    assert load.statuses() == {200}
    load.assert_run_once(both.ran())


async def test_the_requests_of_a_frozen_runner_end_at_their_deadline_and_it_is_replaced(system: System):
    timeout = 4.0
    both = await system.deploy(0, 1, timeout=timeout)
    pid = (await both.process())["pid"]
    [victim] = [number for number in (0, 1) if both.ran(number)]
    async with both.load() as load:
        async with frozen(pid):
            began = time.monotonic()
            await until(lambda: both.observed(victim).restarts == 1, PATIENCE)
            assert time.monotonic() - began > timeout / 2, "nothing says so before the deadline"
        await load.succeeded(50)
        replaced = len(both.ran(victim))
        await until(lambda: len(both.ran(victim)) > replaced + 10, PATIENCE)
    failed = [one for one in load.scored if one.status != 200]
    assert 0 < len(failed) <= SLOTS, "only those it had"
    assert {one.status for one in failed} <= {504, 503}
    assert 504 in load.statuses()
    load.assert_run_once(both.ran())
    assert "computed past its deadline" in "\n".join(await both.log(victim))
    worker, replica_id = both.replicas[victim]
    assert worker.states[replica_id][-2:] == [ReplicaState.RESTARTING, ReplicaState.READY]


async def test_a_model_that_hangs_ends_at_its_deadline_and_others_do_not_notice(system: System):
    hanging = await system.deploy(0, slots=1, timeout=2.0)
    other = await system.deploy(0)
    before = await hanging.process()
    async with other.load(clients=4) as load:
        hung, queued = hanging.begin("hang"), []
        await hanging.until_running(hung)
        queued = hanging.begin("answer:1")
        [answer] = await asyncio.gather(*hung)
        assert (answer.status, answer.body["error_code"]) == (504, "DEADLINE_EXCEEDED")
        assert answer.message.startswith("Timed out while evaluating the model.")
        await until(lambda: hanging.observed().restarts == 1, PATIENCE)
        after = await hanging.process()
        await asyncio.gather(*queued)
    assert after["pid"] != before["pid"]
    assert hanging.ran().count(answer.id) == 1
    assert load.statuses() == {200}
    assert other.observed().restarts == 0
