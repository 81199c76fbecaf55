"""Reading identities of a large directory."""

from collections.abc import AsyncIterator

import pytest

from servery_common.postgres import Pool, create_pool, migrate
from servery_common.settings import PostgresSettings
from servery_controller.access.identity_store import Identities

USERS = 10_000


@pytest.fixture
async def pool(postgres_url: str) -> AsyncIterator[Pool]:
    pool = await create_pool(PostgresSettings(url=postgres_url))
    await migrate(pool)
    yield pool
    await pool.close()


async def test_thousands_of_users_with_groups_are_read_within_the_time_a_statement_has(pool: Pool):
    """Each has six groups, one of them through another: a read whose time grows with their square is canceled."""
    await pool.execute("INSERT INTO workspaces (id, name) VALUES ('1', 'one')")
    await pool.execute(
        "INSERT INTO principals (id, workspace_id, kind, name)"
        " SELECT 'p' || n, '1', 'user', 'user' || n FROM generate_series(1, $1) n",
        USERS,
    )
    await pool.execute(
        "INSERT INTO groups (workspace_id, name) SELECT '1', 'g' || n FROM generate_series(1, 6) n"
    )
    await pool.execute(
        "INSERT INTO memberships (group_number, principal_number)"
        " SELECT g.number, p.number FROM groups g, principals p WHERE g.name <> 'g6'"
    )
    await pool.execute(
        "INSERT INTO memberships (group_number, subgroup_number)"
        " SELECT outside.number, inside.number FROM groups outside, groups inside"
        " WHERE (outside.name, inside.name) = ('g6', 'g1')"
    )
    await pool.execute(
        "INSERT INTO principals (id, workspace_id, kind, name) VALUES ('x', '1', 'user', 'alone')"
    )
    everybody = await Identities().all(pool)
    assert len(everybody) == USERS + 1
    assert everybody["p1"].groups == everybody[f"p{USERS}"].groups == ("g1", "g2", "g3", "g4", "g5", "g6")
    assert everybody["x"].groups == ()
