"""A client that leaves takes its request along: one that waits never runs, one that runs frees its slot when done."""

import asyncio
from pathlib import Path

import pytest
from tests.resilience.system import PATIENCE, System
from tests.waiting import until


async def test_a_request_whose_client_left_while_it_waited_never_runs(system: System, tmp_path: Path):
    one = await system.deploy(0, slots=1)
    release = tmp_path / "release"
    first = one.begin(f"wait:{release}")
    await one.until_running(first)
    left, stays = one.begin("answer:1")[0], one.begin("answer:1")[0]
    await system.until_admitted(one, 3)
    left.cancel()
    with pytest.raises(asyncio.CancelledError):
        await left
    await system.until_admitted(one, 2)
    release.touch()
    assert [(await task).status for task in (*first, stays)] == [200, 200]
    # In the order they came: the one that left would have run before the last.
    assert one.ran() == [first[0].get_name(), stays.get_name()]


async def test_the_slot_of_a_client_that_left_is_free_when_its_request_is_done_and_not_before(
    system: System, tmp_path: Path
):
    one = await system.deploy(0, slots=1)
    release = tmp_path / "release"
    [left] = one.begin(f"wait:{release}")
    await one.until_running([left])
    left.cancel()
    with pytest.raises(asyncio.CancelledError):
        await left
    [next_one] = one.begin("answer:1")
    # The gateway offers it again and again; the worker refuses as long as the model is at work.
    await system.until_admitted(one, 1)
    assert one.ran() == [left.get_name()]
    release.touch()
    assert (await asyncio.wait_for(next_one, PATIENCE)).status == 200
    assert one.ran() == [left.get_name(), next_one.get_name()]
    await until(lambda: one.observed().in_flight == 0, PATIENCE)
    assert one.observed().restarts == 0
