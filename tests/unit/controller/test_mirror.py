"""The mirror of a bucket, and what happens when two controllers write to it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.waiting import until

from servery_common.contracts.access import TokenGrant
from servery_common.messaging.port import Bus
from servery_common.messaging.testing import InMemoryBus
from servery_controller.access.mirror import Mirror

BUCKET = "tokens"


def grant(key: str, principal: str = "ann") -> TokenGrant:
    return TokenGrant(token_sha256=key, principal_id=principal)


def everything(key: str, value: TokenGrant) -> bool:
    return True


@asynccontextmanager
async def following(bus: Bus) -> AsyncIterator[tuple[Mirror[TokenGrant], list[None]]]:
    changes: list[None] = []
    mirror = Mirror(bus, BUCKET, TokenGrant, lambda: changes.append(None))
    task = asyncio.create_task(mirror.follow())
    await mirror.caught_up.wait()
    yield mirror, changes
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_only_differences_are_written():
    bus = InMemoryBus()
    async with following(bus) as (mirror, _):
        wanted = {"a": grant("a"), "b": grant("b")}
        assert await mirror.write(mirror.snapshot(), wanted, everything)
        before = {key: mirror.snapshot().revision(key) for key in wanted}
        assert await mirror.write(mirror.snapshot(), wanted | {"b": grant("b", "bob")}, everything)
        after = mirror.snapshot()
        assert after.revision("a") == before["a"]
        assert after.revision("b") > before["b"]
        assert await mirror.write(mirror.snapshot(), {"a": grant("a")}, everything)
        assert set(bus.buckets[BUCKET]) == {"a"}


async def test_what_is_outside_the_part_stays():
    bus = InMemoryBus()
    async with following(bus) as (mirror, _):
        await mirror.write(mirror.snapshot(), {"a": grant("a"), "b": grant("b", "bob")}, everything)
        await mirror.write(mirror.snapshot(), {}, lambda key, value: value.principal_id == "bob")
        assert set(bus.buckets[BUCKET]) == {"a"}


async def test_a_writer_that_was_held_up_does_not_bring_back_what_another_removed():
    bus = InMemoryBus()
    async with following(bus) as (slow, _), following(bus) as (quick, _):
        before = slow.snapshot()
        read_long_ago = {"a": grant("a")}
        await quick.write(quick.snapshot(), read_long_ago, everything)
        await quick.delete("a")
        assert not await slow.write(before, read_long_ago, everything)
        assert "a" not in bus.buckets[BUCKET]


async def test_a_writer_that_was_held_up_does_not_remove_what_another_added():
    bus = InMemoryBus()
    async with following(bus) as (slow, _), following(bus) as (quick, _):
        before = slow.snapshot()
        await quick.write(quick.snapshot(), {"a": grant("a")}, everything)
        await until(lambda: slow.snapshot().value("a") is not None)
        await slow.write(before, {}, everything)
        assert "a" in bus.buckets[BUCKET]


async def test_a_writer_that_was_held_up_does_not_remove_what_another_put_anew():
    bus = InMemoryBus()
    async with following(bus) as (slow, _), following(bus) as (quick, _):
        await quick.write(quick.snapshot(), {"a": grant("a")}, everything)
        await until(lambda: slow.snapshot().value("a") is not None)
        before = slow.snapshot()
        await quick.write(quick.snapshot(), {"a": grant("a", "bob")}, everything)
        assert not await slow.write(before, {}, everything)
        assert bus.buckets[BUCKET] == {"a": grant("a", "bob")}


async def test_what_others_change_is_noticed_and_what_it_wrote_itself_is_not():
    bus = InMemoryBus()
    async with following(bus) as (mirror, changes):
        noticed = len(changes)
        await mirror.write(mirror.snapshot(), {"a": grant("a")}, everything)
        await bus.kv_put(BUCKET, "b", grant("b"))
        await until(lambda: mirror.snapshot().value("b") is not None)
        assert len(changes) == noticed + 1
