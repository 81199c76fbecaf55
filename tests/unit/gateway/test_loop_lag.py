import asyncio

from servery_gateway.loop_lag import IN_A_ROW, LoopLag


def test_a_loop_that_is_late_once_is_not_overloaded() -> None:
    lag = LoopLag()
    for seconds in (0.001, 5.0, 0.001, 5.0, 5.0, 0.001):
        lag.note(seconds)
        assert not lag.too_long


def test_a_loop_that_stays_late_is_overloaded_until_it_is_in_time_again() -> None:
    lag = LoopLag(0.1)
    seen = []
    for seconds in (*[0.11] * IN_A_ROW, 0.11, 0.0):
        lag.note(seconds)
        seen.append(lag.too_long)
    assert seen == [*[False] * (IN_A_ROW - 1), True, True, False]


def test_the_longest_lag_is_told_once() -> None:
    lag = LoopLag()
    for seconds in (0.1, 0.3, 0.2):
        lag.note(seconds)
    assert [lag.take(), lag.take()] == [0.3, 0.0]


async def test_lag_is_measured_on_the_running_loop() -> None:
    lag, measured = LoopLag(), asyncio.Event()
    note = lag.note

    def noted(seconds: float) -> None:
        note(seconds)
        measured.set()

    lag.note = noted  # type: ignore[method-assign]
    task = asyncio.create_task(lag.run())
    await asyncio.wait_for(measured.wait(), 10)
    task.cancel()
    assert lag.take() >= 0.0
