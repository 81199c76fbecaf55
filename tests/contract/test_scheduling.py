"""What tests/scheduling.py says of the tests is so."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.scheduling import APART, TOGETHER, unit_of

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("path", [*TOGETHER, *APART])
def test_what_is_listed_is_there(path: str):
    assert (ROOT / path).exists()


@pytest.mark.parametrize(
    ("test", "unit"),
    [
        ("tests/unit/worker/test_rows.py::test_a[1::2]", "tests/unit/worker/test_rows.py"),
        ("tests/end_to_end/clients/test_curl.py::test_a", "tests/end_to_end/"),
        ("tests/end_to_end/compose/test_compose.py::test_a", "tests/end_to_end/compose/"),
        ("tests/end_to_end/test_restart.py::test_a", "tests/end_to_end/test_restart.py"),
    ],
)
def test_a_test_is_run_with_its_file_or_with_a_folder_that_shares_something(test: str, unit: str):
    assert unit_of(test) == unit
