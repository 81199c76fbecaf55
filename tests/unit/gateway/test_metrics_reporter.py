"""Reports stay within what NATS carries."""

from servery_common.contracts.routes import EndpointRoute, ServedEntityRoute
from servery_gateway.dispatcher import Dispatcher, DispatchLimits
from servery_gateway.loop_lag import LoopLag
from servery_gateway.metrics_reporter import MAX_ENTITIES, take_metrics
from servery_gateway.rejections import Rejections
from servery_gateway.request_meter import RequestMeters
from servery_gateway.routing_table import Change
from servery_gateway.shadow_tally import ShadowTallies

MESSAGE_LIMIT = 1024 * 1024


def busy_meters(entities: int) -> RequestMeters:
    meters = RequestMeters()
    served = [
        ServedEntityRoute(served_entity_id=f"{number:032x}", name=str(number), traffic_percentage=0)
        for number in range(entities)
    ]
    route = EndpointRoute(
        endpoint_id="e", workspace_id="1", name="e", status="serving", served_entities=tuple(served)
    )
    meters.follow([Change("e", None, route)])
    for entity in served:
        meter = meters.of(entity.served_entity_id)
        assert meter is not None
        for exponent in range(18):
            meter.record(500, 2.0**exponent, queue_ms=2.0**exponent, predict_ms=2.0**exponent)
    return meters


async def test_many_served_entities_are_told_in_several_messages() -> None:
    dispatcher = Dispatcher(None, DispatchLimits(), lambda: 0.5)  # type: ignore[arg-type]
    reports = list(
        take_metrics(
            busy_meters(2 * MAX_ENTITIES + 1), Rejections(), ShadowTallies(), LoopLag(), dispatcher, "g1", 0.0
        )
    )
    assert [len(report.entities) for report in reports] == [MAX_ENTITIES, MAX_ENTITIES, 1]
    told = [one.served_entity_id for report in reports for one in report.entities]
    assert len(set(told)) == 2 * MAX_ENTITIES + 1
    # Ten digits more in each count would still fit.
    counts = 3 * 16 + 5
    assert len(reports[0].model_dump_json()) + MAX_ENTITIES * counts * 10 < MESSAGE_LIMIT


async def test_nothing_to_tell_is_no_message() -> None:
    dispatcher = Dispatcher(None, DispatchLimits(), lambda: 0.5)  # type: ignore[arg-type]
    assert (
        list(take_metrics(RequestMeters(), Rejections(), ShadowTallies(), LoopLag(), dispatcher, "g1", 0.0))
        == []
    )
