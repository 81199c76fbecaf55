"""Put what the controller tells its operator together; nothing of it runs where no metrics are served."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import httpx

from servery_common.contracts import subjects
from servery_common.contracts.replicas import WorkerHeartbeat
from servery_common.messaging.port import Bus
from servery_common.postgres.pool import OUTAGE, Pool, PoolMetrics
from servery_common.service import ServiceContext
from servery_common.settings import NatsSettings
from servery_common.survey import Survey, Surveys
from servery_controller.telemetry.census import Names, present_census, take_census
from servery_controller.telemetry.database import present_database, read_database
from servery_controller.telemetry.fleet import Fleet
from servery_controller.telemetry.nats_monitor import FAILURES, present_nats, read_nats


async def start_telemetry(
    context: ServiceContext, pool: Pool, bus: Bus, web: httpx.AsyncClient, nats: NatsSettings
) -> None:
    """Begin to look, and register what shows it."""
    if not context.is_measured:
        return
    census = Survey("census", partial(take_census, pool), present_census, OUTAGE)
    database = Survey("postgres", partial(read_database, pool), present_database, OUTAGE)

    def names() -> Mapping[str, Names]:
        return {} if census.last is None else census.last.replicas

    fleet = Fleet(names)
    await bus.on_signal(
        subjects.ALL_WORKER_HEARTBEATS, WorkerHeartbeat, fleet.heard, sender=lambda one: one.worker_id
    )
    surveys: list[Survey[Any]] = [census, database]
    if nats.monitoring_url is not None:
        read = partial(read_nats, web, nats.monitoring_url)
        surveys.append(Survey("nats", read, present_nats, FAILURES))
    context.metrics.register(PoolMetrics(pool))
    context.metrics.register(fleet)
    context.metrics.register(Surveys(surveys))
    for survey in surveys:
        context.spawn(f"survey of {survey.name}", survey.run())
