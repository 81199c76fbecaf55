"""Who reads on next: a few in each turn of the event loop, in the order they came."""

import asyncio

from servery_gateway.reading_turns import READS_A_TURN, ReadingTurns


async def test_a_few_read_on_in_each_turn_in_the_order_they_came() -> None:
    turns, order = ReadingTurns(), list[int]()

    async def read(number: int) -> None:
        for _ in range(2):
            await turns.wait()
            order.append(number)

    readers = [asyncio.create_task(read(number)) for number in range(5)]
    most = 0
    while len(order) < 10:
        before = len(order)
        await asyncio.sleep(0)
        most = max(most, len(order) - before)
    await asyncio.gather(*readers)
    assert order == [0, 1, 2, 3, 4, 0, 1, 2, 3, 4]
    assert most <= READS_A_TURN


async def test_one_who_left_takes_nobodys_turn() -> None:
    turns = ReadingTurns()
    gone = [asyncio.create_task(turns.wait()) for _ in range(50)]
    stays = asyncio.create_task(turns.wait())
    await asyncio.sleep(0)
    for one in gone:
        one.cancel()
    # The first turn may have been given to some of them already, and its reader goes on in the turn after its own.
    for _ in range(4):
        await asyncio.sleep(0)
    assert stays.done()
    await asyncio.wait(gone)
