from pathlib import Path

import pytest

from servery_common.contracts import frames
from servery_runner.begun import BegunTable
from servery_worker.runner import Runner


@pytest.fixture
async def runner(tmp_path: Path) -> Runner:
    return Runner(tmp_path, BegunTable(tmp_path, 1), answer_bytes=1000)


NONSENSE = {
    "no record": b"\xff" * frames.HEADER.size,
    "a result": frames.encode(frames.RESULT, 1, {}),
    "ready twice": frames.encode(frames.READY, 1, {}) * 2,
}


@pytest.mark.parametrize("data", NONSENSE.values(), ids=NONSENSE)
async def test_a_runner_that_speaks_nonsense_is_ended(runner: Runner, data: bytes) -> None:
    def handle(record: frames.RawRecord) -> None:
        raise OverflowError("cannot convert float infinity to integer")

    runner.on_result = handle
    runner.data_received(data)
    assert runner.dead.is_set()
