"""``kill -9`` under load: what was lost is told at once, nothing runs twice, everything comes back."""

import asyncio
import os
import signal
from pathlib import Path

from tests.resilience.system import AT_ONCE, Endpoint, Load, Scored, System
from tests.waiting import until

SLOTS = 4


async def lost_at_once(tasks: list[asyncio.Task[Scored]], endpoint: Endpoint, reason: str) -> None:
    """They are answered long before their deadline, with 503 and the reason, and were run once."""
    async with asyncio.timeout(AT_ONCE):
        answers = await asyncio.gather(*tasks)
    assert [one.status for one in answers] == [503] * len(tasks)
    assert {one.body["error_code"] for one in answers} == {"TEMPORARILY_UNAVAILABLE"}
    assert all(reason in one.message for one in answers)
    assert [endpoint.ran().count(one.id) for one in answers] == [1] * len(tasks)


def only_what_was_accepted_is_lost(load: Load, endpoint: Endpoint) -> None:
    """At most a request for each slot; the others did not notice."""
    assert load.statuses() <= {200, 503}
    assert len(load.of_status(503)) <= SLOTS
    load.assert_run_once(endpoint.ran())


async def test_a_killed_runner_loses_what_it_worked_on_and_nothing_else(system: System, tmp_path: Path):
    one = await system.deploy(0, slots=SLOTS)
    before = await one.process()
    lost = one.begin(f"wait:{tmp_path / 'never'}", 2)
    await one.until_running(lost)
    async with one.load() as load:
        os.kill(before["pid"], signal.SIGKILL)
        await lost_at_once(lost, one, "The model's process was killed by SIGKILL")
        await load.succeeded(50)
    only_what_was_accepted_is_lost(load, one)
    assert (await one.process())["pid"] != before["pid"]
    await until(lambda: one.observed().restarts == 1)
    assert "SIGKILL" in "\n".join(await one.log()), "the model's log says how its process ended"


async def test_a_killed_worker_loses_what_it_worked_on_and_its_successor_takes_over(
    system: System, tmp_path: Path
):
    processes = system.processes
    only = await system.deploy(0)
    both = await system.deploy(0, 1)
    lost = only.begin(f"wait:{tmp_path / 'never'}", SLOTS)
    await only.until_running(lost)
    async with both.load() as load:
        processes.workers[0].process.kill()
        processes.workers[0].process.wait()
        await lost_at_once(lost, only, "The replica died while it worked on the request.")
        await load.succeeded(50)
        # What the supervisor and the controller do about it.
        processes.workers[0] = processes.start_worker()
        orders = await system.watch(processes.workers[0])
        gone = system.orders[0]
        replacement = await both.add(orders)
        await both.publish(without=(both.replicas[0][1],))
        await until(lambda: len(both.ran(2)) > 10)
    system.orders.remove(gone)
    assert replacement != both.replicas[0][1]
    only_what_was_accepted_is_lost(load, both)


async def test_a_killed_gateway_scores_again_by_what_it_knew_without_controller_and_postgres(system: System):
    """Also without what NATS had stored: the routes come from the gateway's own file."""
    both = await system.deploy(0, 1)
    gateway, nats = system.processes.gateway, system.processes.nats
    async with both.load() as load:
        gateway.kill()
        await until(lambda: load.unreached > 0)
        nats.restart(lose_data=True)
        gateway.start()
        await load.succeeded(50)
    assert load.statuses() <= {200, 503}
    load.assert_run_once(both.ran())
