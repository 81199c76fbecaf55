from servery_common.contracts.scaling import EntityLoad, GatewayLoad
from servery_scaler.autoscaler import Demand, ScalingSpec, decide
from servery_scaler.collector import FORGOTTEN_SECONDS, TIDY_SECONDS, LoadCollector


def test_the_count_is_what_the_entity_is_promised():
    assert decide(ScalingSpec(2, 4, 4), Demand(100, 100)).desired_replicas == 2


def test_never_less_than_one_replica():
    assert decide(ScalingSpec(0, 1, 4), Demand(0, 0)).desired_replicas == 1


def test_missing_data_does_not_change_the_count_and_is_said():
    decision = decide(ScalingSpec(1, 4, 4), None)
    assert decision.desired_replicas == 1
    assert "no gateway reported" in decision.reason


def load(gateway, in_flight, queued):
    entity = EntityLoad(
        endpoint_id="ep", served_entity_id="e1", in_flight=in_flight, queued=queued, requests=1
    )
    return GatewayLoad(gateway_id=gateway, window_seconds=1, entities=(entity,))


async def test_the_newest_reports_of_all_gateways_are_summed():
    collector = LoadCollector(clock=lambda: 0.0)
    await collector.heard(load("g1", 9, 9))
    await collector.heard(load("g1", 1, 2))
    await collector.heard(load("g2", 3, 4))
    assert collector.demand("e1") == Demand(4, 6)
    assert collector.demand("other") is None


async def test_what_a_gateway_does_not_mention_is_as_it_was_while_it_reports():
    seconds = iter(range(10_000))
    collector = LoadCollector(clock=lambda: next(seconds))
    await collector.heard(load("g1", 1, 2))
    for _ in range(100):
        await collector.heard(GatewayLoad(gateway_id="g1", window_seconds=1))
    assert collector.demand("e1") == Demand(1, 2)
    await collector.heard(load("g1", 0, 0))
    assert collector.demand("e1") == Demand(0, 0)


async def test_the_messages_of_one_report_do_not_replace_each_other():
    collector = LoadCollector(clock=lambda: 0.0)
    await collector.heard(load("g1", 1, 2))
    await collector.heard(GatewayLoad(gateway_id="g1", window_seconds=1))
    assert collector.demand("e1") == Demand(1, 2)


async def test_a_served_entity_no_gateway_mentions_any_more_is_forgotten():
    now = 0.0
    collector = LoadCollector(clock=lambda: now)
    await collector.heard(load("g1", 1, 2))
    for _ in range(int(FORGOTTEN_SECONDS + 2 * TIDY_SECONDS)):
        now += 1.0
        await collector.heard(GatewayLoad(gateway_id="g1", window_seconds=1))
    assert collector.demand("e1") is None
    # Not merely left out: asked about an earlier moment, it is gone as well.
    now = 0.0
    assert collector.demand("e1") is None


async def test_a_silent_gateway_is_no_longer_counted():
    now = 0.0
    collector = LoadCollector(clock=lambda: now)
    await collector.heard(load("g1", 1, 1))
    now = 6.0
    assert collector.demand("e1") is None
