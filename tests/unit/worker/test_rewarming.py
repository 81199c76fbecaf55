"""What is warmed in the background gives way to what was ordered. The parents are stood in for; nothing is started."""

import asyncio
import sys
from pathlib import Path
from typing import Any

from tests.waiting import until

from servery_common.contracts.builds import Artifacts
from servery_worker.remembered import Remembered, WarmList
from servery_worker.rewarming import Rewarming
from servery_worker.starts import Starts
from servery_worker.warm_parent import WarmParentFailed


class FakeParents:
    """Starts what is asked for when it is let."""

    def __init__(self, memory_bytes: int) -> None:
        self.memory_bytes = memory_bytes
        self.begun: list[str] = []
        self.there: dict[str, float] = {}
        self.abandoned: list[str] = []
        self.fails: set[str] = set()
        self.wanted: set[str] = set()
        """Those that something ordered waits for, too."""
        self.let = asyncio.Event()
        self._tasks: dict[str, asyncio.Future[None]] = {}

    def has(self, key: str) -> bool:
        return key in self.there

    async def prepare(self, artifacts: Artifacts, modules: tuple[str, ...], *, used_at: float) -> None:
        key = artifacts.environment_key
        self.begun.append(key)
        starting = self._tasks[key] = asyncio.ensure_future(self.let.wait())
        await starting
        if key in self.fails:
            raise WarmParentFailed("it cannot be imported")
        self.there[key] = used_at

    def abandon(self, key: str) -> bool:
        if key in self.wanted:
            return False
        self.abandoned.append(key)
        self._tasks[key].cancel()
        return True

    def keep_within_budget(self) -> None:
        return None

    def remembered(self) -> list[Remembered]:
        return [environment(key) for key in self.there]


def environment(key: str, python: str = sys.executable) -> Remembered:
    made_of = Artifacts(model_path="", environment_path="e", python=python, environment_key=key)
    return Remembered.of(made_of, (), 100)


class World:
    def __init__(self, path: Path, budget: int, *environments: Remembered) -> None:
        self.file = WarmList(path / "list.json")
        self.file.write(list(environments))
        self.parents = FakeParents(budget)
        self.starts = Starts()
        parents: Any = self.parents
        self.rewarming = Rewarming(parents, self.starts, self.file, quiet_seconds=0, clock=lambda: 50.0)


async def test_they_come_one_at_a_time_and_count_as_used_in_the_order_they_were(tmp_path: Path):
    world = World(tmp_path, 200, environment("last"), environment("before"), environment("too much"))
    restoring = asyncio.create_task(world.rewarming.restore())
    await until(lambda: world.parents.begun == ["last"])
    world.parents.let.set()
    await asyncio.wait_for(restoring, 10)
    assert world.parents.begun == ["last", "before"]
    assert world.parents.there == {"last": 50.0, "before": 49.0}


async def test_nothing_begins_while_something_ordered_is_being_started(tmp_path: Path):
    world = World(tmp_path, 200, environment("a"))
    world.parents.let.set()
    with world.starts.one():
        restoring = asyncio.create_task(world.rewarming.restore())
        for _ in range(20):
            await asyncio.sleep(0)
        assert world.parents.begun == []
    await asyncio.wait_for(restoring, 10)
    assert world.parents.begun == ["a"]


async def test_an_import_that_is_in_the_way_is_ended_and_begun_again_when_it_is_quiet(tmp_path: Path):
    world = World(tmp_path, 200, environment("a"))
    restoring = asyncio.create_task(world.rewarming.restore())
    await until(lambda: world.parents.begun == ["a"])
    with world.starts.one():
        await until(lambda: world.parents.abandoned == ["a"])
        for _ in range(20):
            await asyncio.sleep(0)
        assert world.parents.begun == ["a"]
    world.parents.let.set()
    await asyncio.wait_for(restoring, 10)
    assert world.parents.begun == ["a", "a"]
    assert world.parents.has("a")


async def test_an_import_that_the_order_needs_goes_on(tmp_path: Path):
    world = World(tmp_path, 200, environment("a"))
    world.parents.wanted.add("a")
    restoring = asyncio.create_task(world.rewarming.restore())
    await until(lambda: world.parents.begun == ["a"])
    with world.starts.one():
        for _ in range(20):
            await asyncio.sleep(0)
        world.parents.let.set()
        await asyncio.wait_for(restoring, 10)
    assert world.parents.begun == ["a"]
    assert world.parents.abandoned == []


async def test_one_that_fails_or_whose_environment_is_gone_does_not_keep_the_others_from_coming(
    tmp_path: Path,
):
    gone = environment("gone", python=str(tmp_path / "python"))
    world = World(tmp_path, 300, environment("broken"), gone, environment("fine"))
    world.parents.fails.add("broken")
    world.parents.let.set()
    await asyncio.wait_for(world.rewarming.restore(), 10)
    assert world.parents.begun == ["broken", "fine"]
    assert set(world.parents.there) == {"fine"}


async def test_what_is_still_to_come_is_not_forgotten(tmp_path: Path):
    world = World(tmp_path, 200, environment("a"), environment("b"))
    restoring = asyncio.create_task(world.rewarming.restore())
    keeping = asyncio.create_task(world.rewarming.keep())
    world.parents.there["b"] = 1.0
    await until(lambda: [one.environment_key for one in world.file.read()] == ["b", "a"])
    for task in (restoring, keeping):
        task.cancel()
    await asyncio.wait({restoring, keeping})
