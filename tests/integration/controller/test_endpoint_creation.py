"""Creating an endpoint while its creator, or the whole workspace, is being deleted."""

import asyncio
from collections.abc import AsyncIterator, Mapping

import pytest

from servery_common.contracts.access import Identity
from servery_common.contracts.builds import ModelResolved
from servery_common.errors import Unauthenticated
from servery_common.postgres import Pool, create_pool, migrate
from servery_common.settings import PostgresSettings
from servery_controller.access import directory_store
from servery_controller.domain.request import ConfigRequest, EntityRequest
from servery_controller.endpoints.endpoint_service import CreateRequest, EndpointService

ANN = Identity(principal_id="a", user_name="ann", workspace_id="1")
CONFIG = ConfigRequest(
    entities=(EntityRequest(entity_name="iris", entity_version="1", workload_size="Small"),), routes=()
)

WAITING = """SELECT count(*) FROM pg_stat_activity
             WHERE datname = current_database() AND wait_event_type = 'Lock'"""


class Registry:
    """Resolves every model, and does something meanwhile."""

    def __init__(self, pool: Pool, meanwhile: str = "SELECT 1") -> None:
        self._pool = pool
        self._meanwhile = meanwhile

    async def resolve(self, name: str, version: str) -> ModelResolved:
        await self._pool.execute(self._meanwhile)
        return ModelResolved(name=name, version=version)


class NoSecrets:
    async def check(self, variables: Mapping[str, str], caller: Identity) -> None: ...


async def unpublished(generations: Mapping[str, int]) -> None: ...


def service(pool: Pool, meanwhile: str = "SELECT 1") -> EndpointService:
    registry = Registry(pool, meanwhile)
    return EndpointService(pool, registry, NoSecrets(), lambda endpoint_id: None, unpublished, 60, 10)


@pytest.fixture
async def pool(postgres_url: str) -> AsyncIterator[Pool]:
    pool = await create_pool(PostgresSettings(url=postgres_url))
    await migrate(pool)
    await pool.execute("INSERT INTO workspaces (id, name) VALUES ('1', 'one')")
    await pool.execute(
        "INSERT INTO principals (id, workspace_id, kind, name) VALUES ('a', '1', 'user', 'ann')"
    )
    yield pool
    await pool.close()


@pytest.mark.parametrize("gone", ["workspaces", "principals"])
async def test_nobody_creates_an_endpoint_who_was_deleted_while_its_model_was_looked_up(
    pool: Pool, gone: str
):
    with pytest.raises(Unauthenticated, match="deleted"):
        await service(pool, f"DELETE FROM {gone}").create(CreateRequest("iris", CONFIG), ANN)
    assert await pool.fetchval("SELECT count(*) FROM endpoints") == 0


async def test_creation_waits_for_a_deletion_of_the_workspace_that_is_under_way(pool: Pool):
    async with pool.acquire() as conn, conn.transaction():
        assert await directory_store.lock_workspace(conn, "1")
        creation = asyncio.create_task(service(pool).create(CreateRequest("iris", CONFIG), ANN))
        async with asyncio.timeout(10):
            waiting = 0
            while not waiting:
                waiting = await pool.fetchval(WAITING)
                await asyncio.sleep(0.01)
        assert await directory_store.count_remaining_endpoints(conn, "1") == 0
        await directory_store.delete_workspace(conn, "1")
    with pytest.raises(Unauthenticated, match="deleted"):
        await creation
    assert await pool.fetchval("SELECT count(*) FROM endpoints") == 0
