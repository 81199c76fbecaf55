"""Fixtures of the embedded stack's tests."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.integration.local.stand_in_stack import SERVICES, Stack


@pytest.fixture
def stack() -> Iterator[Stack]:
    # Not pytest's own directory, which is closed: run by root, every test would leave a database elsewhere.
    home = Path(tempfile.mkdtemp(prefix="servery-test-"))
    home.chmod(0o711)
    made = Stack(home)
    for service in SERVICES:
        made.write_stand_in(service)
    yield made
    made.servery("down")
    assert not made.processes(), "the test left processes behind"
    shutil.rmtree(home)
