"""Fixtures of the embedded stack's tests."""

import shutil
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.integration.local.stand_in_stack import SERVICES, Stack, StandInMlflow


@pytest.fixture
def tracking() -> Iterator[StandInMlflow]:
    server = StandInMlflow()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def stack(tracking: StandInMlflow) -> Iterator[Stack]:
    # Not pytest's own directory, which is closed: run by root, every test would leave a database elsewhere.
    home = Path(tempfile.mkdtemp(prefix="servery-test-"))
    home.chmod(0o711)
    made = Stack(home, external_mlflow=f"http://{tracking.address}")
    for service in SERVICES:
        made.write_stand_in(service)
    yield made
    made.servery("down")
    assert not made.processes(), "the test left processes behind"
    shutil.rmtree(home)
