import os
from pathlib import Path

import psutil

from servery_worker.usage import Limits, UsageMeter, read_limits


def test_limits_of_a_control_group_are_taken(tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text("50000 100000\n")
    (tmp_path / "memory.max").write_text("1048576\n")
    assert read_limits(tmp_path) == Limits(0.5, 1048576)


def test_without_limits_it_is_the_machine_that_limits(tmp_path: Path) -> None:
    bare = read_limits(tmp_path)
    (tmp_path / "cpu.max").write_text("max 100000\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert read_limits(tmp_path) == bare
    assert bare.processors >= 1
    assert bare.memory_bytes == psutil.virtual_memory().total


async def test_a_process_has_memory_at_once_and_processor_time_from_the_second_look() -> None:
    meter = UsageMeter(lambda: {"r1": os.getpid()}, Limits(1e-6, 2**40), _never)
    assert meter.of("r1") is None
    await meter.measure()
    first = meter.of("r1")
    assert first is not None
    assert first.cpu_percent is None
    assert first.memory_bytes > 1024 * 1024
    assert first.memory_limit_bytes == 2**40
    began = psutil.Process().cpu_times().user
    while psutil.Process().cpu_times().user - began < 0.05:
        pass
    await meter.measure()
    second = meter.of("r1")
    assert second is not None
    # Of a millionth of a processor: more than all of it, told as 100.
    assert second.cpu_percent == 100.0


async def test_processes_that_are_gone_are_not_told_of() -> None:
    pids = {"r1": os.getpid(), "r2": 2**30}
    meter = UsageMeter(lambda: pids, Limits(1, 2**40), _never)
    await meter.measure()
    assert meter.of("r1") is not None
    assert meter.of("r2") is None
    pids.clear()
    await meter.measure()
    assert meter.of("r1") is None


async def test_each_process_that_holds_more_than_it_may_is_told_of() -> None:
    told: list[tuple[str, int]] = []
    mine, gone = os.getpid(), 2**30
    meter = UsageMeter(
        lambda: {"r1": mine, "r2": gone},
        Limits(1, 10),
        lambda replica_id, pid: told.append((replica_id, pid)),
    )
    await meter.measure()
    assert told == [("r1", mine)]


def _never(replica_id: str, pid: int) -> None:
    raise AssertionError(f"{replica_id} does not hold too much")
