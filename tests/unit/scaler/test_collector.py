"""What gateways say, summed: the newest word of each, for as long as it holds."""

from servery_common.contracts.scaling import EntityLoad, GatewayLoad, GatewayWake, HeldRequests
from servery_scaler.collector import (
    FORGOTTEN_SECONDS,
    HELD_SECONDS,
    STALE_SECONDS,
    TIDY_SECONDS,
    LoadCollector,
)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def load(
    gateway: str, in_flight: float, queued: float, requests: int = 1, service: float = 0.0
) -> GatewayLoad:
    entity = EntityLoad(
        endpoint_id="ep",
        served_entity_id="e1",
        in_flight=in_flight,
        queued=queued,
        requests=requests,
        service_seconds=service,
    )
    return GatewayLoad(gateway_id=gateway, window_seconds=1, entities=(entity,))


def nothing(gateway: str) -> GatewayLoad:
    return GatewayLoad(gateway_id=gateway, window_seconds=1)


def wake(gateway: str, held: int) -> GatewayWake:
    entity = HeldRequests(endpoint_id="ep", served_entity_id="e1", held=held)
    return GatewayWake(gateway_id=gateway, entities=(entity,))


def summed(collector: LoadCollector) -> tuple[float, float] | None:
    demand = collector.demand("e1")
    return None if demand is None else (demand.running, demand.waiting)


async def test_the_newest_reports_of_all_gateways_are_summed():
    collector = LoadCollector(Clock())
    await collector.heard(load("g1", 9, 9))
    await collector.heard(load("g1", 1, 2))
    await collector.heard(load("g2", 3, 4))
    assert summed(collector) == (4, 6)
    assert collector.demand("other") is None


async def test_the_mean_time_in_a_slot_is_that_of_all_requests_whose_time_was_told():
    collector = LoadCollector(Clock())
    await collector.heard(load("g1", 1, 0, requests=30, service=0.1))
    await collector.heard(load("g2", 1, 0, requests=10, service=0.5))
    await collector.heard(load("g3", 1, 0, requests=10))
    demand = collector.demand("e1")
    assert demand is not None
    assert round(demand.service_seconds, 6) == 0.2
    assert demand.ended == 50


async def test_what_a_gateway_does_not_mention_is_as_it_was_while_it_reports():
    clock = Clock()
    collector = LoadCollector(clock)
    await collector.heard(load("g1", 1, 2))
    for _ in range(100):
        clock.now += 1
        await collector.heard(nothing("g1"))
    assert summed(collector) == (1, 2)
    await collector.heard(load("g1", 0, 0))
    assert summed(collector) == (0, 0)


async def test_the_messages_of_one_report_do_not_replace_each_other():
    collector = LoadCollector(Clock())
    await collector.heard(load("g1", 1, 2))
    await collector.heard(nothing("g1"))
    assert summed(collector) == (1, 2)


async def test_a_served_entity_no_gateway_mentions_any_more_is_forgotten():
    clock = Clock()
    collector = LoadCollector(clock)
    await collector.heard(load("g1", 1, 2))
    for _ in range(int(FORGOTTEN_SECONDS + 2 * TIDY_SECONDS)):
        clock.now += 1
        await collector.heard(nothing("g1"))
    assert collector.demand("e1") is None
    # Not merely left out: asked about an earlier moment, it is gone as well.
    clock.now = 0.0
    assert collector.demand("e1") is None


async def test_a_silent_gateway_is_no_longer_counted():
    clock = Clock()
    collector = LoadCollector(clock)
    await collector.heard(load("g1", 1, 1))
    clock.now = STALE_SECONDS + 1
    assert collector.demand("e1") is None


async def test_held_requests_wait_and_are_not_counted_twice():
    clock = Clock()
    collector = LoadCollector(clock)
    collector.woken(wake("g1", 5))
    assert summed(collector) == (0, 5)
    await collector.heard(load("g1", 0, 5))
    await collector.heard(load("g2", 1, 0))
    assert summed(collector) == (1, 5)
    collector.woken(wake("g3", 2))
    assert summed(collector) == (1, 7)
    clock.now = HELD_SECONDS + 0.1
    assert summed(collector) == (1, 5)


async def test_what_a_gateway_reports_after_a_wake_counts_and_not_the_wake():
    clock = Clock()
    collector = LoadCollector(clock)
    collector.woken(wake("g1", 500))
    assert summed(collector) == (0, 500)
    clock.now = 1.0
    await collector.heard(load("g1", 4, 0))
    assert summed(collector) == (4, 0)


async def test_requests_that_ended_between_two_reports_count_as_activity():
    clock = Clock()
    collector = LoadCollector(clock)
    await collector.heard(load("g1", 0, 0, requests=0))
    assert (collector.active_at("e1"), collector.stirred()) == (None, set())
    clock.now = 7.0
    await collector.heard(load("g1", 0, 0, requests=1))
    assert (collector.active_at("e1"), collector.stirred()) == (7.0, {"e1"})
    assert collector.stirred() == set()


async def test_after_a_gap_nobody_was_idle_for_longer_than_since_then():
    clock = Clock()
    collector = LoadCollector(clock)
    await collector.heard(load("g1", 0, 0, requests=0))
    for seconds, resumed_at in ((1, 0), (STALE_SECONDS, 0), (STALE_SECONDS + 1, 2 * STALE_SECONDS + 2)):
        clock.now += seconds
        await collector.heard(nothing("g1"))
        demand = collector.demand("e1")
        assert demand is not None
        assert demand.resumed_at == resumed_at
