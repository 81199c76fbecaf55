"""Following a bucket, also while NATS dies, hangs and forgets."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from structlog.testing import capture_logs
from tests.infrastructure import NatsServer, running_nats
from tests.messages import Ask, Other

from servery_common.contracts.subjects import ROUTES_BUCKET
from servery_common.errors import Conflict, Unavailable
from servery_common.messaging.bus import KvChange, NatsBus, connect_bus
from servery_common.settings import NatsSettings


class Follower:
    """Collects changes in the background."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}
        self.changes: list[KvChange[Ask]] = []
        self.caught_up: list[KvChange[Ask]] = []
        self._changed = asyncio.Condition()

    async def follow(self, bus: NatsBus) -> None:
        async for change in bus.kv_watch(ROUTES_BUCKET, Ask):
            async with self._changed:
                self.changes.append(change)
                if change.caught_up:
                    self.caught_up.append(change)
                elif change.value is not None:
                    self.values[change.key] = change.value.text
                else:
                    del self.values[change.key]
                self._changed.notify_all()

    async def until(self, values: dict[str, str], *, caught_up: int = 1) -> None:
        async with asyncio.timeout(20), self._changed:
            await self._changed.wait_for(lambda: self.values == values and len(self.caught_up) >= caught_up)


@asynccontextmanager
async def following(bus: NatsBus) -> AsyncIterator[Follower]:
    follower = Follower()
    task = asyncio.create_task(follower.follow(bus))
    try:
        yield follower
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def clear(bus: NatsBus) -> None:
    for key in await bus.kv_keys(ROUTES_BUCKET):
        await bus.kv_delete(ROUTES_BUCKET, key)


async def put_when_possible(bus: NatsBus, key: str, text: str) -> None:
    async with asyncio.timeout(20):
        while True:
            try:
                await bus.kv_put(ROUTES_BUCKET, key, Ask(text=text))
                return
            except Unavailable:
                await asyncio.sleep(0.1)


async def test_present_values_come_before_caught_up_and_changes_after(
    bus: NatsBus, other_bus: NatsBus
) -> None:
    await clear(bus)
    await bus.kv_put(ROUTES_BUCKET, "a", Ask(text="1"))
    await bus.kv_put(ROUTES_BUCKET, "b", Ask(text="1"))
    await bus.kv_delete(ROUTES_BUCKET, "b")
    async with following(other_bus) as follower:
        await follower.until({"a": "1"})
        assert [change.kind for change in follower.changes] == ["put", "caught_up"]
        await bus.kv_put(ROUTES_BUCKET, "a", Ask(text="2"))
        await bus.kv_put(ROUTES_BUCKET, "c", Ask(text="3"))
        await bus.kv_delete(ROUTES_BUCKET, "a")
        await follower.until({"c": "3"})
    assert await bus.kv_keys(ROUTES_BUCKET) == ["c"]


async def test_a_value_that_cannot_be_read_does_not_hide_the_others(bus: NatsBus, other_bus: NatsBus) -> None:
    await clear(bus)
    await bus.kv_put(ROUTES_BUCKET, "a", Other(number=1))
    await bus.kv_put(ROUTES_BUCKET, "b", Ask(text="1"))
    async with following(other_bus) as follower:
        await follower.until({"b": "1"})


async def test_revisions_grow(bus: NatsBus) -> None:
    first = await bus.kv_put(ROUTES_BUCKET, "a", Ask(text="1"))
    assert await bus.kv_put(ROUTES_BUCKET, "a", Ask(text="1")) > first


async def test_changes_made_across_a_crash_of_nats_are_seen(
    bus: NatsBus, other_bus: NatsBus, nats_server: NatsServer
) -> None:
    await clear(bus)
    await bus.kv_put(ROUTES_BUCKET, "a", Ask(text="1"))
    await bus.kv_put(ROUTES_BUCKET, "b", Ask(text="1"))
    async with following(other_bus) as follower:
        await follower.until({"a": "1", "b": "1"})
        nats_server.restart()
        await put_when_possible(bus, "a", "2")
        await bus.kv_delete(ROUTES_BUCKET, "b")
        await follower.until({"a": "2"}, caught_up=2)
        assert follower.caught_up[0].incarnation == follower.caught_up[-1].incarnation
        assert follower.caught_up[-1].missing == frozenset()


async def test_a_bucket_that_is_not_there_yet_is_awaited_without_a_warning() -> None:
    """As at the very first start, where the gateway may come before those who declare the buckets."""
    with running_nats() as server, capture_logs() as lines:
        settings = NatsSettings(url=server.url)

        def interruptions() -> set[str]:
            return {one["log_level"] for one in lines if one["event"] == "bucket_watch_interrupted"}

        async def interrupted(level: str) -> None:
            async with asyncio.timeout(20):
                while True:
                    if level in interruptions():
                        return
                    await asyncio.sleep(0.01)

        async with connect_bus(settings, name="gateway", declare=False) as bus, following(bus) as follower:
            await interrupted("debug")
            async with connect_bus(settings, name="controller") as other:
                await follower.until({})
                await other.kv_put(ROUTES_BUCKET, "a", Ask(text="1"))
                await follower.until({"a": "1"})
            assert {one["log_level"] for one in lines if one["event"] == "bucket_watch_interrupted"} == {
                "debug"
            }
            server.restart(lose_data=True)
            await interrupted("warning")


async def test_keys_lost_with_the_disk_are_missing_and_not_deleted(
    bus: NatsBus, other_bus: NatsBus, nats_server: NatsServer
) -> None:
    await clear(bus)
    await bus.kv_put(ROUTES_BUCKET, "a", Ask(text="1"))
    await bus.kv_put(ROUTES_BUCKET, "b", Ask(text="1"))
    async with following(other_bus) as follower:
        await follower.until({"a": "1", "b": "1"})
        nats_server.restart(lose_data=True)
        await follower.until({"a": "1", "b": "1"}, caught_up=2)
        assert follower.caught_up[-1].missing == {"a", "b"}
        assert follower.caught_up[-1].incarnation != follower.caught_up[0].incarnation
        await put_when_possible(bus, "a", "2")
        await follower.until({"a": "2", "b": "1"})
        nats_server.restart()
        await follower.until({"a": "2", "b": "1"}, caught_up=3)
        assert follower.caught_up[-1].missing == {"b"}
        assert not any(change.deleted for change in follower.changes)


async def test_following_goes_on_after_nats_hung(
    bus: NatsBus, other_bus: NatsBus, nats_server: NatsServer
) -> None:
    await clear(bus)
    async with following(other_bus) as follower:
        await follower.until({})
        nats_server.pause()
        await asyncio.sleep(6)
        nats_server.resume()
        await put_when_possible(bus, "a", "1")
        await follower.until({"a": "1"})


async def test_a_value_is_stored_and_deleted_only_over_the_revision_it_was_made_for(bus: NatsBus) -> None:
    await clear(bus)
    first = await bus.kv_put(ROUTES_BUCKET, "fenced", Ask(text="1"), expected=0)
    with pytest.raises(Conflict):
        await bus.kv_put(ROUTES_BUCKET, "fenced", Ask(text="stale"), expected=0)
    second = await bus.kv_put(ROUTES_BUCKET, "fenced", Ask(text="2"), expected=first)
    with pytest.raises(Conflict):
        await bus.kv_put(ROUTES_BUCKET, "fenced", Ask(text="stale"), expected=first)
    with pytest.raises(Conflict):
        await bus.kv_delete(ROUTES_BUCKET, "fenced", expected=first)
    async with following(bus) as follower:
        await follower.until({"fenced": "2"})
        assert second > first
        await bus.kv_delete(ROUTES_BUCKET, "fenced", expected=second)
        await follower.until({})
