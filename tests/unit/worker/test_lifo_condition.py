import asyncio
import threading

from tests.waiting import until

from servery_runner.lifo_condition import LifoCondition


class Sleepers:
    """Threads that began to wait one after the other, and which of them woke."""

    def __init__(self, condition: LifoCondition, count: int, timeout: float | None = None) -> None:
        self.woken: list[int] = []
        self._condition = condition
        for number in range(count):
            asleep = threading.Event()
            threading.Thread(target=self._sleep, args=(number, asleep, timeout), daemon=True).start()
            assert asleep.wait(10)
            with condition:  # It has let go of the lock: it waits.
                pass

    def _sleep(self, number: int, asleep: threading.Event, timeout: float | None) -> None:
        with self._condition:
            asleep.set()
            self._condition.wait(timeout)
            self.woken.append(number)


async def test_who_began_to_wait_last_is_woken_first() -> None:
    condition = LifoCondition()
    sleepers = Sleepers(condition, 4)
    for expected in ([3], [3, 2], [3, 2, 1], [3, 2, 1, 0]):
        with condition:
            condition.notify()
        await until(lambda expected=expected: sleepers.woken == expected)


async def test_so_many_are_woken_as_is_said_and_there_are() -> None:
    condition = LifoCondition()
    sleepers = Sleepers(condition, 3)
    with condition:
        condition.notify(2)
    await until(lambda: sorted(sleepers.woken) == [1, 2])
    with condition:
        condition.notify(5)
        condition.notify()
    await until(lambda: sorted(sleepers.woken) == [0, 1, 2])


async def test_a_wait_that_ended_by_itself_takes_nobodys_turn() -> None:
    condition = LifoCondition()
    waiting = Sleepers(condition, 1)
    ended = Sleepers(condition, 2, timeout=0.01)
    await until(lambda: len(ended.woken) == 2)
    with condition:
        condition.notify()
    await until(lambda: waiting.woken == [0])


async def test_nobody_is_woken_who_was_not_notified() -> None:
    condition = LifoCondition()
    sleepers = Sleepers(condition, 2)
    with condition:
        condition.notify()
    await until(lambda: sleepers.woken == [1])
    await asyncio.sleep(0.02)
    assert sleepers.woken == [1]
