"""Decisions about replica counts, as they are kept and told; and wakes that come again and again."""

import pytest

from servery_common.contracts.scaling import GatewayWake, HeldRequests
from servery_controller.domain.happenings import EventStatus, EventType
from servery_controller.domain.scaling import DecidedBy, ScalingDecision, clamp, event_of, woken_because
from servery_controller.scaling.consumers import WAKE_PAUSE_SECONDS, Wakes


@pytest.mark.parametrize(
    ("wanted", "allowed", "reason"),
    [
        (3, 3, "load"),
        (0, 1, "load (0 wanted; the range is 1 to 4)"),
        (9, 4, "load (9 wanted; the range is 1 to 4)"),
    ],
)
def test_what_is_wanted_beyond_the_range_is_said(wanted: int, allowed: int, reason: str):
    assert clamp(wanted, 1, 4, "load") == (allowed, reason)


def test_a_decision_is_an_event_in_words():
    decision = ScalingDecision("e1", "iris-1", 2, 0, 1, woken_because(12), DecidedBy.WAKE)
    event = event_of(decision)
    assert event.message == "Scaled from 0 to 1 replica: woken: 12 requests are held"
    assert (event.type, event.status) == (EventType.SCALING, EventStatus.SUCCEEDED)
    assert (event.config_version, event.served_entity_name) == (2, "iris-1")
    assert woken_because(1) == "woken: 1 request is held"


class Recorded:
    """Stands where the use case is."""

    def __init__(self) -> None:
        self.woken: list[str] = []
        self.outage = False

    async def wake(self, asked: HeldRequests) -> bool:
        self.woken.append(asked.served_entity_id)
        if self.outage:
            raise TimeoutError
        return True


def wake(gateway: str, *entities: str) -> GatewayWake:
    held = [HeldRequests(endpoint_id="ep1", served_entity_id=e, held=3) for e in entities]
    return GatewayWake(gateway_id=gateway, entities=tuple(held))


async def test_wakes_of_many_gateways_are_one_look_at_postgres_a_moment():
    now, recorded = 0.0, Recorded()
    wakes = Wakes(recorded, lambda: now)  # pyright: ignore[reportArgumentType]
    for gateway in range(50):
        await wakes.heard(wake(f"g{gateway}", "e1"))
    assert recorded.woken == ["e1"]
    await wakes.heard(wake("g0", "e1", "e2"))
    assert recorded.woken == ["e1", "e2"], "another one is not held up"
    now += WAKE_PAUSE_SECONDS
    await wakes.heard(wake("g0", "e1", "e2"))
    assert recorded.woken == ["e1", "e2", "e1", "e2"]


async def test_without_postgres_wakes_are_tried_again_but_do_not_pile_up():
    now, recorded = 0.0, Recorded()
    wakes = Wakes(recorded, lambda: now)  # pyright: ignore[reportArgumentType]
    recorded.outage = True
    for gateway in range(20):
        await wakes.heard(wake(f"g{gateway}", "e1"))
    assert recorded.woken == ["e1"]
    recorded.outage = False
    now += WAKE_PAUSE_SECONDS
    await wakes.heard(wake("g1", "e1"))
    assert recorded.woken == ["e1", "e1"]
