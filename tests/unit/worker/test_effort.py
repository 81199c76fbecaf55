import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from servery_runner import effort
from servery_runner.effort import Effort, Meter

POOL = ThreadPoolExecutor(1)


def compute(cpu_seconds: float) -> None:
    end = time.thread_time() + cpu_seconds
    while time.thread_time() < end:
        pass


def compute_in_a_pool(cpu_seconds: float) -> None:
    POOL.submit(compute, cpu_seconds).result()


def measured(act: Callable[[], object]) -> Effort:
    meter = Meter()
    meter.start()
    act()
    taken = meter.read()
    assert taken is not None, "the first is always measured"
    return taken


@contextmanager
def processor_shared_with_another_process() -> Iterator[None]:
    before, one = os.sched_getaffinity(0), min(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {one})
    code = "import time\nprint('spinning', flush=True)\nwhile time.process_time() < 20: pass"
    spinning = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    try:
        assert spinning.stdout is not None
        spinning.stdout.readline()
        yield
    finally:
        spinning.kill()
        spinning.communicate()
        os.sched_setaffinity(0, before)


def test_who_waits_for_something_else_is_not_busy():
    assert measured(lambda: time.sleep(0.2)).busy < 0.5


@pytest.mark.parametrize("computing", [compute, compute_in_a_pool])
def test_who_computes_is_busy_wherever_and_though_others_have_the_processor(
    computing: Callable[[float], None],
):
    with processor_shared_with_another_process():
        computing(0.001)  # threads inherit where they may run
        taken = measured(lambda: computing(0.2))
    if not taken.queued and not taken.others_queued:
        pytest.skip("this kernel does not say who waits for a processor")
    assert taken.elapsed > 0.25, "it had one for itself"
    assert taken.cpu / taken.elapsed < 0.8
    assert taken.busy > 0.8


def test_where_the_system_does_not_say_it_is_as_if_nobody_waited(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(effort, "TASKS", "/nonexistent")
    taken = measured(lambda: compute(0.01))
    assert (taken.queued, taken.others_queued) == (0, 0)
    assert taken.cpu >= 0.01


def test_looking_takes_a_small_part_of_the_time():
    meter = Meter()
    looks = 0
    began = time.monotonic()
    while time.monotonic() - began < 0.2:
        meter.start()
        looks += meter.read() is not None
    assert 1 <= looks < 200


@pytest.mark.parametrize(
    ("taken", "busy"),
    [
        (Effort(elapsed=0.1, cpu=0.1, queued=0.0, others_queued=0.0), 1.0),
        (Effort(elapsed=0.1, cpu=0.01, queued=0.0, others_queued=0.0), 0.1),
        (Effort(elapsed=0.1, cpu=0.04, queued=0.06, others_queued=0.0), 1.0),
        (Effort(elapsed=0.1, cpu=0.04, queued=0.0, others_queued=0.05), 0.9),
        (Effort(elapsed=0.1, cpu=0.3, queued=0.0, others_queued=0.0), 1.0),
        (Effort(elapsed=0.0, cpu=0.0, queued=0.0, others_queued=0.0), 1.0),
    ],
)
def test_busy_is_a_share_of_what_it_could_have_had(taken: Effort, busy: float):
    assert taken.busy == pytest.approx(busy)
