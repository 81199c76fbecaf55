import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from servery_runner import effort
from servery_runner.effort import Effort, Meter


def compute(cpu_seconds: float) -> None:
    end = time.thread_time() + cpu_seconds
    while time.thread_time() < end:
        pass


@contextmanager
def processor_shared_with_another_process() -> Iterator[None]:
    before, one = os.sched_getaffinity(0), min(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {one})
    spinning = subprocess.Popen(
        [sys.executable, "-c", "print('spinning', flush=True)\nwhile True: pass"], stdout=subprocess.PIPE
    )
    try:
        assert spinning.stdout is not None
        spinning.stdout.readline()
        yield
    finally:
        spinning.kill()
        spinning.communicate()
        os.sched_setaffinity(0, before)


def test_who_waits_for_something_else_is_not_busy():
    meter = Meter()
    time.sleep(0.1)
    assert meter.read().busy < 0.5


def test_who_computes_in_threads_of_its_own_is_busy():
    meter = Meter()
    thread = threading.Thread(target=compute, args=(0.05,))
    thread.start()
    thread.join()
    assert meter.read().cpu >= 0.05


@pytest.mark.skipif(not Path(effort.SCHEDSTAT).exists(), reason="this kernel does not say who waits")
def test_who_computes_on_a_processor_others_have_too_is_busy_all_the_same():
    with processor_shared_with_another_process():
        meter = Meter()
        compute(0.2)
        taken = meter.read()
    assert taken.elapsed > 0.25, "it was alone"
    assert taken.queued > 0.05
    assert taken.busy > 0.8


def test_where_the_system_does_not_say_it_is_as_if_nobody_waited(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(effort, "SCHEDSTAT", "/nonexistent")
    meter = Meter()
    compute(0.01)
    taken = meter.read()
    assert taken.queued == 0
    assert taken.cpu >= 0.01


@pytest.mark.parametrize(
    ("taken", "busy"),
    [
        (Effort(elapsed=0.1, cpu=0.1, queued=0.0), 1.0),
        (Effort(elapsed=0.1, cpu=0.01, queued=0.0), 0.1),
        (Effort(elapsed=0.1, cpu=0.04, queued=0.06), 1.0),
        (Effort(elapsed=0.1, cpu=0.3, queued=0.0), 1.0),
        (Effort(elapsed=0.0, cpu=0.0, queued=0.0), 1.0),
    ],
)
def test_busy_is_a_share_of_what_it_could_have_had(taken: Effort, busy: float):
    assert taken.busy == pytest.approx(busy)
