import asyncio
from datetime import timedelta

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
