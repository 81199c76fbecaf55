import asyncio
import itertools
import json
import threading
import time
from collections.abc import Callable
from functools import partial
from random import Random

import pytest
from tests.waiting import until

from servery_runner import batch_proof, rows
from servery_runner.backlog import Backlog, Request
from servery_runner.batch_proof import FORCED, OFF, Proof

NUMBERS = itertools.count(1)
CHEAP = FORCED._replace(seconds=tuple((count, 0.002 + count * 1e-6) for count in (1, 2, 8, 32, 64, 128)))
"""Proven row-wise; rows cost next to nothing."""
FOREVER = 1e9


def request(value: object = 1.5, *, until: float = FOREVER, **more: bool) -> Request:
    body = json.dumps({"inputs": [value]}).encode()
    return Request(next(NUMBERS), "application/json", body, until=until, **more)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def backlog(proof: Proof = CHEAP, clock: Callable[[], float] | None = None) -> Backlog:
    return Backlog(proof, partial(rows.read, floats=()), clock or Clock())


def in_thread(act: Callable[[], object]) -> tuple[threading.Thread, list[object]]:
    """Run something that may block; the list gets what it returned."""
    results: list[object] = []
    thread = threading.Thread(target=lambda: results.append(act()), daemon=True)
    thread.start()
    return thread, results


def test_what_waits_is_taken_together_in_order():
    waiting = backlog()
    requests = [request() for _ in range(5)]
    waiting.put(requests)
    assert waiting.take().batch == requests


def test_nothing_is_joined_that_was_not_shown_to_be_row_wise():
    waiting = backlog(OFF)
    requests = [request(), request()]
    waiting.put(requests)
    assert waiting.take().batch == requests[:1]
    waiting.done(None, 0.002, 1.0)
    assert waiting.take().batch == requests[1:]


def test_formats_that_were_not_shown_to_be_row_wise_go_alone():
    waiting = backlog(CHEAP._replace(formats=("dataframe_split",)))
    waiting.put([request(), request()])
    assert len(waiting.take().batch) == 1


def test_kinds_that_were_not_shown_to_be_row_wise_go_alone():
    known = rows.read(request().body)
    assert known is not None
    waiting = backlog(CHEAP._replace(kinds={batch_proof.key(known): 2}))
    floats, words = [request() for _ in range(3)], [request("x"), request("y")]
    waiting.put([words[0], *floats, words[1]])
    batches = []
    for _ in range(4):
        batches.append(waiting.take().batch)
        waiting.done(None, 0.002, 1.0)
    assert batches == [words[:1], floats[:2], floats[2:], words[1:]]


def test_what_comes_with_params_goes_alone():
    waiting = backlog()
    body = b'{"inputs": [1.5], "params": {"t": 1}}'
    waiting.put([Request(next(NUMBERS), "application/json", body, until=FOREVER) for _ in range(2)])
    assert len(waiting.take().batch) == 1


@pytest.mark.parametrize("depth", [*range(100, 1100, 50), 20_000])
def test_a_body_that_is_nested_too_deep_keeps_nobody_from_taking(depth: int):
    body = b'{"inputs": ' + b"[" * depth + b"1" + b"]" * depth + b"}"
    for proof in (CHEAP, CHEAP._replace(kinds={})):
        waiting = backlog(proof)
        deep = [Request(next(NUMBERS), "application/json", body, until=FOREVER) for _ in range(2)]
        waiting.put(deep)
        assert waiting.take().batch[0] is deep[0]


def test_requests_of_other_kinds_wait_their_turn():
    waiting = backlog()
    floats, word = [request(), request()], request("x")
    waiting.put([floats[0], word, floats[1]])
    assert waiting.take().batch == floats
    waiting.done(2, 0.002, 1.0)
    assert waiting.take().batch == [word]


def test_a_body_that_is_not_read_as_rows_goes_alone():
    waiting = backlog()
    csv = Request(next(NUMBERS), "text/csv", b"a\n1\n", until=FOREVER)
    other = request()
    waiting.put([csv, other])
    assert waiting.take().batch == [csv]
    waiting.done(0, 0.0, 0.0)
    assert waiting.take().batch == [other]


def test_no_more_rows_are_joined_than_were_shown_to_agree():
    waiting = backlog(CHEAP._replace(max_rows=3))
    requests = [request() for _ in range(4)]
    waiting.put(requests)
    assert waiting.take().batch == requests[:3]


def test_a_model_whose_time_is_in_its_rows_gets_them_one_by_one():
    slow = CHEAP._replace(seconds=tuple((count, 0.05 * count) for count in (1, 2, 8)))
    waiting = backlog(slow)
    requests = [request(), request()]
    waiting.put(requests)
    assert waiting.take().batch == requests[:1]


def test_a_cancelled_request_is_never_taken():
    waiting = backlog()
    first, second, third = requests = [request() for _ in range(3)]
    waiting.put(requests)
    assert waiting.cancel(second.id)
    assert waiting.cancel(first.id)
    assert waiting.take().batch == [third]
    assert not waiting.cancel(third.id)


def test_a_request_whose_time_has_passed_is_given_out_as_such():
    clock = Clock()
    waiting = backlog(clock=clock)
    late, fine = request(until=clock.now), request(until=clock.now + 1)
    waiting.put([late, fine])
    taken = waiting.take()
    assert (taken.batch, taken.expired) == ([fine], [late])


def test_what_failed_together_is_repeated_one_by_one_before_what_came_later():
    waiting = backlog()
    together, later = [request(), request()], request()
    waiting.put(together)
    batch = waiting.take().batch
    waiting.put([later])
    waiting.put_back(batch)
    waiting.done(0, 0.0, 0.0)
    taken = []
    for _ in range(3):
        taken.append(waiting.take().batch)
        waiting.done(0, 0.0, 0.0)
    assert taken == [[together[0]], [together[1]], [later]]


def test_while_a_prediction_runs_what_comes_is_collected():
    clock = Clock()
    waiting = backlog(clock=clock)
    waiting.put([request()])
    waiting.take()
    thread, results = in_thread(waiting.take)
    collected = [request() for _ in range(3)]
    for one in collected:
        waiting.put([one])
    thread.join(0.2)
    assert results == []
    waiting.done(1, 0.002, 1.0)
    thread.join(10)
    assert [taken.batch for taken in results] == [collected]


def test_a_prediction_that_takes_far_longer_than_usual_holds_up_nobody():
    clock = Clock()
    waiting = backlog(clock=clock)
    waiting.put([request()])
    waiting.take()
    clock.now += 1.0
    other = request()
    waiting.put([other])
    thread, results = in_thread(waiting.take)
    thread.join(10)
    assert [taken.batch for taken in results] == [[other]]


def test_predictions_of_a_model_that_only_waits_run_side_by_side():
    waiting = backlog()
    for _ in range(10):
        waiting.put([request()])
        waiting.take()
        waiting.done(1, 0.02, 0.0)
    waiting.put([request()])
    waiting.take()
    waiting.put([request()])
    thread, results = in_thread(waiting.take)
    thread.join(10)
    assert len(results) == 1


def test_the_forced_proof_begins_carefully():
    waiting = backlog(batch_proof.FORCED)
    waiting.put([request() for _ in range(10)])
    assert len(waiting.take().batch) == 2


async def test_however_many_take_far_longer_than_usual_the_next_has_a_thread():
    clock = Clock()
    waiting = backlog(OFF, clock)
    waiting.put([request()])
    waiting.take()
    taken = list[Request]()
    for _ in range(2):
        in_thread(lambda: taken.extend(waiting.take().batch))
    await until(lambda: len(waiting._changed._waiters) == 2)
    slow = [request(), request()]
    waiting.put(slow)
    clock.now += 1.0
    await until(lambda: taken == slow[:1])
    clock.now += 1.0
    await until(lambda: taken == slow)


async def test_one_that_takes_for_ever_slows_down_no_other():
    clock = Clock()
    waiting = backlog(OFF, clock)
    waiting.put([request()])
    taken, over = threading.Event(), threading.Event()

    def hang() -> None:
        waiting.take()
        taken.set()
        over.wait(60)

    in_thread(hang)
    assert taken.wait(10)
    clock.now += 1.0
    others = [request() for _ in range(3)]
    waiting.put(others)

    def answer() -> list[Request]:
        answered = list[Request]()
        for _ in others:
            answered += waiting.take().batch
            waiting.done(1, 0.002, 1.0)
        return answered

    thread, results = in_thread(answer)
    thread.join(10)
    over.set()
    assert results == [others], "each had to wait for the patience with the one before, which had ended"


async def test_who_watches_the_clock_hears_when_the_usual_gets_shorter():
    clock = Clock()
    waiting = backlog(OFF._replace(seconds=((1, 100.0),)), clock)  # so it would look after minutes
    waiting.put([request()])
    waiting.take()
    waiting.put([request() for _ in range(150)])
    taken = list[Request]()
    in_thread(lambda: taken.extend(waiting.take().batch))
    await until(lambda: len(waiting._watched) == 1)
    for _ in range(150):
        waiting.done(1, 0.002, 1.0)
        waiting.take()  # The last of them takes for ever.
    last = request()
    waiting.put([last])
    clock.now += 1.0
    await until(lambda: taken == [last])


def test_one_that_ran_beside_another_is_not_judged_by_what_both_used():
    clock = Clock()
    waiting = backlog(OFF, clock)
    for _ in range(20):
        waiting.put([request()])
        waiting.take()
        waiting.done(1, 0.02, 0.2)
    assert waiting.waits
    beside, over = threading.Event(), threading.Event()

    def long() -> None:
        waiting.take()
        beside.set()
        over.wait(10)
        waiting.done(1, 1.0, 1.0)

    waiting.put([request()])
    thread, _ = in_thread(long)
    assert beside.wait(10)
    for _ in range(20):
        waiting.put([request()])
        waiting.take()
        waiting.done(1, 0.02, 1.0)
    over.set()
    thread.join(10)
    assert waiting.waits
    for _ in range(20):
        waiting.put([request()])
        waiting.take()
        waiting.done(1, 0.02, 1.0)
    assert not waiting.waits


async def test_what_is_left_is_seen_to_while_bodies_are_read():
    read = threading.Event()
    waiting = Backlog(FORCED, lambda _: read.wait(60) and None, Clock())
    for _ in range(10):
        waiting.put([request(solo=True)])
        waiting.take()
        waiting.done(1, 0.02, 0.0)  # It waits for something else: predictions run side by side.
    taken = list[Request]()
    for _ in range(2):
        in_thread(lambda: taken.extend(waiting.take().batch))
    await until(lambda: len(waiting._changed._waiters) == 2)
    first, joined, other = request(), request(), request(solo=True)
    waiting.put([first, joined, other])
    await until(lambda: taken == [other])
    read.set()


async def test_what_comes_while_somebody_watches_the_clock_is_predicted_when_the_model_is_free():
    waiting = backlog(OFF._replace(seconds=((1, 100.0),)))  # so its patience is longer than the test's
    waiting.put([request()])
    waiting.take()
    waiting.put([request()])
    taken = list[Request]()
    in_thread(lambda: taken.extend(waiting.take().batch))
    await until(lambda: len(waiting._watched) == 1)
    waiting.done(1, 0.002, 1.0)
    waiting.take()  # by the thread that was done, as it was quicker
    waiting.done(1, 0.002, 1.0)
    last = request()
    waiting.put([last])
    await until(lambda: taken == [last])


async def test_with_little_to_do_it_is_the_same_thread_that_does_it():
    waiting = backlog()
    busy, stop = list[int](), request()

    def work() -> None:
        while stop not in (batch := waiting.take().batch):
            busy.append(threading.get_ident())
            waiting.done(len(batch), 0.002, 1.0)

    for _ in range(4):
        threading.Thread(target=work, daemon=True).start()
    for count in range(20):
        await until(lambda count=count: len(busy) == count and len(waiting._changed._waiters) == 4)
        waiting.put([request()])
    await until(lambda: len(busy) == 20)
    waiting.put([stop])
    assert len(set(busy)) == 1


@pytest.mark.parametrize("proof", [OFF, CHEAP], ids=["alone", "together"])
@pytest.mark.parametrize("waits", [False, True], ids=["computes", "waits"])
@pytest.mark.parametrize("seed", range(3))
async def test_whatever_comes_when_each_is_taken_once(proof: Proof, waits: bool, seed: int):
    chance = Random(seed)
    # With such a patience nobody begins beside another one, and who is forgotten is for good.
    waiting = backlog(proof._replace(seconds=((1, 1000.0),)), time.monotonic)
    taken = list[Request]()

    def work() -> None:
        while True:
            batch = waiting.take().batch
            taken.extend(batch)
            pause = chance.choice((0.0, 0.0, 0.0003, 0.002))
            time.sleep(pause)
            if len(batch) > 1 and chance.random() < 0.1:
                for one in batch:
                    taken.remove(one)
                waiting.put_back(batch)
            waiting.done(len(batch), 1000.0, 0.0 if waits else 1.0)

    for _ in range(4):
        threading.Thread(target=work, daemon=True).start()
    canceled = set[int]()
    sent = list[Request]()
    for _ in range(200):
        some = [request() for _ in range(chance.choice((1, 1, 1, 2, 8)))]
        sent += some
        waiting.put(some)
        if chance.random() < 0.1 and waiting.cancel(some[-1].id):
            canceled.add(some[-1].id)
        if chance.random() < 0.1:
            wanted = sorted(one.id for one in sent if one.id not in canceled)
            await until(lambda wanted=wanted: sorted(one.id for one in taken) == wanted)
        else:
            await asyncio.sleep(chance.choice((0.0, 0.0, 0.001, 0.003)))
    wanted = sorted(one.id for one in sent if one.id not in canceled)
    await until(lambda: sorted(one.id for one in taken) == wanted)
