"""Composition root of the scaler: load signals in, desired replicas out."""

from servery_common.contracts import subjects
from servery_common.contracts.scaling import ExplainScaling, GatewayLoad, GatewayWake
from servery_common.messaging.bus import connect_bus
from servery_common.service import ServiceContext
from servery_common.settings import NatsSettings
from servery_scaler.collector import LoadCollector
from servery_scaler.operator_metrics import ScalerMetrics
from servery_scaler.scale_requests import ScaleRequests
from servery_scaler.settings import ScalerSettings
from servery_scaler.ticker import Ticker


async def main(context: ServiceContext) -> None:
    """Run until asked to stop."""
    settings = ScalerSettings()
    async with connect_bus(NatsSettings(), name="scaler", declare=False) as bus:
        collector = LoadCollector()
        requests = ScaleRequests(bus)
        ticker = Ticker(bus, collector, requests, settings.policy())
        context.metrics.register(ScalerMetrics(ticker.desired, collector.gateways))
        await bus.on_signal(subjects.ALL_GATEWAY_LOADS, GatewayLoad, collector.heard)
        await bus.on_signal(subjects.ALL_GATEWAY_WAKES, GatewayWake, ticker.woken)
        await bus.serve(
            subjects.scaler_explain(), ExplainScaling, ticker.explain, queue=subjects.SCALER_QUEUE
        )
        context.spawn("follow routes", ticker.follow_routes())
        context.spawn("scale requests", requests.run())
        context.spawn("ticker", ticker.run(settings.tick_seconds))
        await ticker.caught_up.wait()
        context.ready()
        await context.stopping.wait()
