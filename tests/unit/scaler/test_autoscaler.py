from servery_common.contracts.scaling import EntityLoad, GatewayLoad
from servery_scaler.autoscaler import Demand, ScalingSpec, decide
from servery_scaler.collector import LoadCollector


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
    assert collector.demand("other") == Demand(0, 0)


async def test_a_silent_gateway_is_no_longer_counted():
    now = 0.0
    collector = LoadCollector(clock=lambda: now)
    await collector.heard(load("g1", 1, 1))
    now = 6.0
    assert collector.demand("e1") is None
