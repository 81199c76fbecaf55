"""A model gets the Python it was logged with, or the nearest of the same minor version."""

import pytest
from packaging.version import Version

from servery_builder.domain.build import BuildError
from servery_builder.domain.interpreter import Interpreter, choose, not_available, wanted_version

INSTALLED = [Interpreter(version, f"/bin/{version}") for version in ("3.11.2", "3.11.9", "3.11.7", "3.12.1")]


def test_the_exact_version_wins() -> None:
    assert choose(Version("3.11.7"), INSTALLED) == INSTALLED[2]


def test_the_newest_patch_of_the_same_minor_version_stands_in() -> None:
    assert choose(Version("3.11.4"), INSTALLED) == INSTALLED[1]


def test_another_minor_version_never_stands_in() -> None:
    assert choose(Version("3.10.4"), INSTALLED) is None


def test_what_is_missing_and_what_is_there_are_both_named() -> None:
    reason = not_available(Version("3.10.4"), INSTALLED).failure.reason
    assert "needs Python 3.10.4" in reason
    assert "installed: 3.11.2, 3.11.7, 3.11.9, 3.12.1" in reason


@pytest.mark.parametrize("version", ["3.8.18", "2.7", "three"])
def test_a_python_the_runner_does_not_support_is_refused(version: str) -> None:
    with pytest.raises(BuildError) as caught:
        wanted_version(version, "3.11.7")
    assert caught.value.failure.code == "PYTHON_NOT_AVAILABLE"


def test_a_model_that_does_not_say_gets_the_platforms_version() -> None:
    assert wanted_version(None, "3.11.7") == Version("3.11.7")
