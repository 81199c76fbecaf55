"""The events of endpoints: written in the transaction of what they tell, read newest first.

Only the newest of each endpoint are kept, and of those about scaling as many again: a model that crashes again and
again must not fill the database.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from servery_common.contracts.access import Identity
from servery_common.postgres.pool import Connection, Pool
from servery_controller.domain.happenings import EndpointEvent, EventStatus, EventType
from servery_controller.domain.permissions import PermissionLevel
from servery_controller.endpoints import endpoint_access

KEPT_PER_ENDPOINT = 1000


@dataclass(frozen=True, slots=True)
class RecordedEvent:
    """An event and when it happened."""

    event: EndpointEvent
    happened_at: datetime


async def record(conn: Connection, endpoint_id: str, events: Iterable[EndpointEvent]) -> None:
    """Add events, oldest first, to the caller's transaction; those beyond the newest are dropped."""
    rows = [
        (endpoint_id, e.type, e.status, e.message, e.config_version, e.served_entity_name) for e in events
    ]
    if not rows:
        return
    await conn.executemany(
        """INSERT INTO endpoint_events (endpoint_id, event_type, status, message, config_version,
                                        served_entity_name)
           VALUES ($1, $2, $3, $4, $5, $6)""",
        rows,
    )
    # Those about scaling are counted apart: under changing load they would push out what else happened.
    for scaling in {row[1] is EventType.SCALING for row in rows}:
        await conn.execute(
            """DELETE FROM endpoint_events
               WHERE endpoint_id = $1 AND (event_type = $3) = $4 AND id <= (
                   SELECT id FROM endpoint_events WHERE endpoint_id = $1 AND (event_type = $3) = $4
                   ORDER BY id DESC OFFSET $2 LIMIT 1)""",
            endpoint_id,
            KEPT_PER_ENDPOINT,
            EventType.SCALING,
            scaling,
        )


async def begun(conn: Connection, endpoint_id: str, versions: Sequence[int]) -> dict[int, EventType]:
    """As what the deployments of these config versions began; without those whose beginning is kept no longer."""
    if not versions:
        return {}
    rows = await conn.fetch(
        """SELECT config_version, event_type FROM endpoint_events
           WHERE endpoint_id = $1 AND config_version = ANY($2) AND event_type = ANY($3) AND status = $4""",
        endpoint_id,
        versions,
        [EventType.ENDPOINT_UPDATE, EventType.ENDPOINT_START],
        EventStatus.IN_PROGRESS,
    )
    return {row["config_version"]: EventType(row["event_type"]) for row in rows}


class EventLog:
    """What people read."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def read(self, name: str, caller: Identity) -> list[RecordedEvent]:
        """Return the events of an endpoint, newest first. Raises NotFound."""
        endpoint_id = await endpoint_access.find(self._pool, name, caller, PermissionLevel.CAN_VIEW)
        rows = await self._pool.fetch(
            "SELECT * FROM endpoint_events WHERE endpoint_id = $1 ORDER BY id DESC", endpoint_id
        )
        return [
            RecordedEvent(
                EndpointEvent(
                    type=EventType(row["event_type"]),
                    status=EventStatus(row["status"]),
                    message=row["message"],
                    config_version=row["config_version"],
                    served_entity_name=row["served_entity_name"],
                ),
                row["happened_at"],
            )
            for row in rows
        ]
