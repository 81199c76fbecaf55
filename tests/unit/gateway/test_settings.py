import sys

import pytest
from pydantic import ValidationError

from servery_common.service import STOP_SECONDS
from servery_gateway.settings import GatewaySettings


def test_the_defaults_fit_together() -> None:
    settings = GatewaySettings()
    assert settings.stop_delay + settings.stop_grace < STOP_SECONDS


def test_a_gateway_cannot_be_told_to_stop_later_than_its_process_is_ended() -> None:
    assert GatewaySettings(stop_delay=10, stop_grace=49)
    for delay, grace in ((0, 60), (10, 58), (-1, 5)):
        with pytest.raises(ValidationError):
            GatewaySettings(stop_delay=delay, stop_grace=grace)


def test_there_is_one_process_unless_more_are_asked_for() -> None:
    assert GatewaySettings().processes == 1
    for processes in (0, -1, 129, "many"):
        with pytest.raises(ValidationError, match="processes"):
            GatewaySettings(processes=processes)


def test_several_processes_need_a_kernel_that_divides_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert GatewaySettings(processes=1)
    with pytest.raises(ValidationError, match="Linux"):
        GatewaySettings(processes=2)


def test_the_longest_request_always_fits_into_the_budget() -> None:
    with pytest.raises(ValidationError, match="max_held_body_bytes"):
        GatewaySettings(max_body_bytes=10, max_held_body_bytes=9)
