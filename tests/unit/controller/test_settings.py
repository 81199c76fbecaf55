"""The controller's settings, from the environment."""

import pytest
from pydantic import ValidationError

from servery_controller.settings import ControllerSettings


@pytest.fixture(autouse=True)
def required(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVERY_ADMIN_TOKEN", "dapi-test")
    monkeypatch.setenv("SERVERY_ENCRYPTION_KEY", "key")


def settings() -> ControllerSettings:
    return ControllerSettings()  # pyright: ignore[reportCallIssue]


def test_compute_is_not_limited_unless_told_so():
    assert (settings().workspace_compute_slots, settings().region_compute_slots) == (None, {})
    assert settings().scale_to_zero_seconds == 1800.0


def test_compute_and_idle_time_are_read(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SERVERY_CONTROLLER_WORKSPACE_COMPUTE_SLOTS", "64")
    monkeypatch.setenv("SERVERY_CONTROLLER_REGION_COMPUTE_SLOTS", " eu-west-1=64, us = 32,")
    monkeypatch.setenv("SERVERY_CONTROLLER_SCALE_TO_ZERO_SECONDS", "2.5")
    assert settings().workspace_compute_slots == 64
    assert settings().region_compute_slots == {"eu-west-1": 64, "us": 32}
    assert settings().scale_to_zero_seconds == 2.5


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("eu", "'eu' is not a region and its slots: write it as eu-west-1=64"),
        ("=4", "write it as eu-west-1=64"),
        ("eu=", "write it as eu-west-1=64"),
        ("eu=-4", "write it as eu-west-1=64"),
        ("eu=4.5", "write it as eu-west-1=64"),
        ("eu=1,eu=2", "the region 'eu' is given twice"),
    ],
)
def test_what_is_no_list_of_regions_is_refused(monkeypatch: pytest.MonkeyPatch, written: str, said: str):
    monkeypatch.setenv("SERVERY_CONTROLLER_REGION_COMPUTE_SLOTS", written)
    with pytest.raises(ValidationError, match=said):
        settings()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SERVERY_CONTROLLER_WORKSPACE_COMPUTE_SLOTS", "-1"),
        ("SERVERY_CONTROLLER_WORKSPACE_COMPUTE_SLOTS", "many"),
        ("SERVERY_CONTROLLER_SCALE_TO_ZERO_SECONDS", "0"),
    ],
)
def test_wrong_numbers_are_refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str):
    monkeypatch.setenv(name, value)
    with pytest.raises(ValidationError, match=name):
        settings()
