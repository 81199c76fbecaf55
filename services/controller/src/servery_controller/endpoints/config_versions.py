"""Config versions in a use case's transaction: adding one with its build orders, clearing away ended ones."""

from collections.abc import Sequence

from servery_common.contracts import subjects
from servery_common.contracts.builds import BuildRequested
from servery_common.postgres import outbox
from servery_common.postgres.pool import Connection
from servery_controller.domain.endpoint import Config, ConfigPhase, Deployment, ServedEntity
from servery_controller.domain.lifecycle import ConfigEvent, advance_config
from servery_controller.endpoints import config_store


async def add(conn: Connection, endpoint_id: str, config: Config, entities: Sequence[ServedEntity]) -> None:
    """Add a config version and order the builds of its served entities, but for those that are built."""
    await config_store.insert_config(conn, endpoint_id, config, entities)
    for entity in entities:
        if entity.artifacts is not None:
            continue
        await outbox.append(conn, subjects.build_job(entity.build_id), build_order(endpoint_id, entity))


async def retire_ended(conn: Connection, deployment: Deployment) -> None:
    """Retire the updates that failed or were canceled: something newer takes their place."""
    for ended in deployment.configs:
        if ended.phase in (ConfigPhase.FAILED, ConfigPhase.CANCELED):
            retired = advance_config(ended.phase, ConfigEvent.REPLACED)
            await config_store.update_config_phase(conn, deployment.endpoint.id, ended.version, retired)


def build_order(endpoint_id: str, entity: ServedEntity) -> BuildRequested:
    """The work order for one served entity's build."""
    return BuildRequested(
        build_id=entity.build_id,
        endpoint_id=endpoint_id,
        served_entity_id=entity.id,
        model_name=entity.spec.entity_name,
        model_version=entity.spec.entity_version,
    )
