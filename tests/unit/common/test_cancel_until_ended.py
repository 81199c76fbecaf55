import asyncio

from servery_common.service import cancel_until_ended


async def test_a_task_that_loses_a_cancel_is_cancelled_again():
    lost: list[str] = []

    async def loses_one() -> None:
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                if lost:
                    raise
                lost.append("once")

    stubborn, obedient = asyncio.create_task(loses_one()), asyncio.create_task(asyncio.Event().wait())
    await asyncio.sleep(0)
    async with asyncio.timeout(10):
        await cancel_until_ended(stubborn, obedient, again_seconds=0.01)
    assert lost == ["once"]
    assert stubborn.cancelled()
    assert obedient.cancelled()


async def test_a_failure_is_left_to_whoever_made_the_task():
    async def fails() -> None:
        raise ValueError("on purpose")

    failed = asyncio.create_task(fails())
    await asyncio.wait({failed})
    await cancel_until_ended(failed)
    assert isinstance(failed.exception(), ValueError)
