"""Fixtures of the embedded stack's tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.integration.local.stand_in_stack import SERVICES, Stack


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    made = Stack(tmp_path)
    for service in SERVICES:
        made.write_stand_in(service)
    yield made
    made.servery("down")
    assert not made.processes(), "the test left processes behind"
