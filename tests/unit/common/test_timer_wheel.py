import asyncio

from servery_common.timer_wheel import TimerWheel


async def test_a_limit_is_never_early_and_at_most_a_granularity_late() -> None:
    loop = asyncio.get_running_loop()
    wheel: TimerWheel[float] = TimerWheel(loop, 0.01, lambda _: None)
    for _ in range(50):
        when = loop.time() + 1000.0
        number = int(when / 0.01) + 1
        wheel.add(when, when)
        assert when <= number * 0.01 <= when + 0.01 + 1e-6


async def test_items_whose_time_has_come_are_handed_over_and_others_taken_back() -> None:
    handed: list[str] = []
    done = asyncio.Event()
    loop = asyncio.get_running_loop()

    def expired(item: str) -> None:
        handed.append(item)
        done.set()

    wheel: TimerWheel[str] = TimerWheel(loop, 0.01, expired)
    now = loop.time()
    wheel.add("taken back", now).discard("taken back")
    wheel.add("later", now + 3600.0)
    wheel.add("now", now)
    await asyncio.wait_for(done.wait(), 10)
    assert handed == ["now"]


async def test_many_limits_share_a_timer() -> None:
    loop = asyncio.get_running_loop()
    wheel: TimerWheel[int] = TimerWheel(loop, 1.0, lambda _: None)
    when = int(loop.time()) + 1000.25
    slots = {id(wheel.add(number, when)) for number in range(1000)}
    assert len(slots) == 1
