"""Composition root of the scaler: load signals in, desired replicas out."""

from servery_common.contracts import subjects
from servery_common.contracts.scaling import GatewayLoad
from servery_common.messaging.bus import connect_bus
from servery_common.service import ServiceContext
from servery_common.settings import NatsSettings
from servery_scaler.collector import LoadCollector
from servery_scaler.settings import ScalerSettings
from servery_scaler.ticker import Ticker


async def main(context: ServiceContext) -> None:
    """Run until asked to stop."""
    settings = ScalerSettings()
    async with connect_bus(NatsSettings(), name="scaler") as bus:
        collector = LoadCollector()
        ticker = Ticker(bus, collector, settings.tick_seconds)
        await bus.on_signal(subjects.ALL_GATEWAY_LOADS, GatewayLoad, collector.heard)
        context.spawn("follow routes", ticker.follow_routes())
        context.spawn("ticker", ticker.run())
        await ticker.caught_up.wait()
        context.ready()
        await context.stopping.wait()
