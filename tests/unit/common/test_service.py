import asyncio
from datetime import timedelta

import pytest

from servery_common import service
from servery_common.service import ServiceContext, wait_any


async def test_the_first_of_several_things_ends_the_wait() -> None:
    event = asyncio.Event()
    event.set()
    await wait_any(event, timedelta(hours=1), 3600)
    await wait_any(asyncio.Event(), 0.0)


async def test_a_task_of_the_caller_is_not_cancelled() -> None:
    async def forever() -> None:
        await asyncio.Event().wait()

    mine = asyncio.create_task(forever())
    await wait_any(mine, 0.0)
    assert not mine.done()
    mine.cancel()


async def test_a_coroutine_that_lost_is_cancelled() -> None:
    cancelled = asyncio.Event()

    async def forever() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    await wait_any(forever(), 0.01)
    assert cancelled.is_set()


async def test_a_dead_task_stops_the_service() -> None:
    async def die() -> None:
        raise RuntimeError("x")

    async def end() -> None:
        pass

    context = ServiceContext("test")
    await asyncio.gather(context.spawn("fine", end()))
    await asyncio.sleep(0)
    assert not context.stopping.is_set()
    await asyncio.gather(context.spawn("doomed", die()), return_exceptions=True)
    await asyncio.sleep(0)
    assert context.stopping.is_set()
    assert context.failed


async def test_a_task_that_swallows_its_cancellation_is_cancelled_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(service, "CANCEL_SECONDS", 0.01)
    begun, swallowed = asyncio.Event(), []

    async def stubborn() -> None:
        while True:
            try:
                begun.set()
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                if swallowed:
                    raise
                swallowed.append(True)

    context = ServiceContext("test")
    context.spawn("stubborn", stubborn())
    await begun.wait()
    async with asyncio.timeout(10):
        await context.cancel_tasks()
    assert swallowed
