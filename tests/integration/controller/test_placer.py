"""Places within quotas and the workers' room, and who makes room: the placer against a real Postgres."""

from collections.abc import AsyncIterator

import pytest
from tests.factories import config, endpoint, entity, observed, replica

from servery_common.contracts import subjects
from servery_common.contracts.replicas import WorkerHeartbeat
from servery_common.errors import ResourceExhausted, Unavailable
from servery_common.messaging.testing import InMemoryBus
from servery_common.postgres.migrate import migrate
from servery_common.postgres.pool import Connection, Pool, create_pool
from servery_common.settings import PostgresSettings
from servery_controller.compute.placer import ComputeQuotas, Placer
from servery_controller.compute.process import ProcessBackend
from servery_controller.domain.capacity import DRAIN_PATIENCE, Room
from servery_controller.domain.endpoint import ConfigPhase, EntityPhase
from servery_controller.endpoints import config_store, store
from servery_controller.scaling import scaling_store


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        self.now += 0.001  # time goes on between any two looks at it
        return self.now


class Installation:
    """A database, one worker and a placer."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.clock = Clock()
        self.bus = InMemoryBus()
        self.backend = ProcessBackend(self.bus, settle_seconds=0.0, clock=self.clock)
        self.placer = Placer(pool, self.backend, ComputeQuotas(workspace=64), self.clock)

    async def worker(self, capacity_slots: int, *replica_ids: str) -> None:
        """A heartbeat of the worker, which has just these replicas."""
        heartbeat = WorkerHeartbeat(
            worker_id="w1",
            incarnation="i",
            capacity_slots=capacity_slots,
            replicas=tuple(observed(r) for r in replica_ids),
        )
        await self.bus.signal(subjects.worker_heartbeat("w1"), heartbeat)

    async def endpoint(self, name: str, workspace_id: str = "1") -> None:
        """An endpoint that serves, with one served entity and no replica. Its id is its name."""
        async with self.pool.acquire() as conn, conn.transaction():
            await conn.execute(
                "INSERT INTO workspaces (id, name) VALUES ($1, $1) ON CONFLICT DO NOTHING", workspace_id
            )
            await store.insert_endpoint(conn, endpoint(id=name, name=name, workspace_id=workspace_id))
            served = entity(f"{name}-1", name=f"{name}-1", phase=EntityPhase.READY)
            await config_store.insert_config(conn, name, config(phase=ConfigPhase.ACTIVE), [served])

    async def write(self, replica_id: str, name: str, node: str | None) -> None:
        """The row that a reconcile step writes."""
        await self.pool.execute(
            """INSERT INTO replicas (id, served_entity_id, node, created_at)
               VALUES ($1, $2, $3, clock_timestamp())""",
            replica_id,
            f"{name}-1",
            node,
        )

    async def place(self, replica_id: str, name: str) -> str:
        """Place a replica as a step does that writes nothing."""
        await self.placer.look(name)
        deployment = (await store.load_deployments(self.pool, [name]))[name]
        wanted = replica(replica_id, f"{name}-1", node=None)
        return self.placer.place(deployment, wanted, deployment.entities[0])

    async def give_back(self) -> list[str]:
        async def leads(conn: Connection) -> None:
            """It does."""

        return [*await self.placer.give_back(leads)]

    async def stopping(self) -> list[str]:
        rows = await self.pool.fetch("SELECT id FROM replicas WHERE stopping ORDER BY id")
        return [row["id"] for row in rows]


@pytest.fixture
async def here(postgres_url: str) -> AsyncIterator[Installation]:
    pool = await create_pool(PostgresSettings(url=postgres_url))
    await migrate(pool)
    installation = Installation(pool)
    await installation.backend.start()
    yield installation
    await pool.close()


async def big_and_small(here: Installation, extras: int = 3, small_workspace: str = "1") -> None:
    """A worker that ``big`` has filled, and ``small``, which has nothing."""
    await here.endpoint("big")
    await here.endpoint("small", small_workspace)
    names = [f"b{n}" for n in range(1 + extras)]
    for name in names:
        await here.write(name, "big", "w1/i")
    await here.worker(4 * len(names), *names)


async def test_what_was_placed_counts_before_postgres_shows_it(here: Installation):
    await here.worker(64)
    await here.pool.execute("INSERT INTO workspaces (id, name, quota_compute_slots) VALUES ('1', '1', 8)")
    for name in ("a", "b", "c"):
        await here.endpoint(name)
    for name in ("a", "b"):
        assert await here.place(f"r-{name}", name) == "w1/i"
    with pytest.raises(ResourceExhausted, match="8 of 8 slots are used"):
        await here.place("r-c", "c")
    await here.write("r-a", "a", "w1/i")
    with pytest.raises(ResourceExhausted, match="8 of 8 slots are used"):
        await here.place("r-c", "c")


async def test_a_placement_that_was_never_written_is_forgotten_with_the_next_step(here: Installation):
    await here.worker(4)
    await here.endpoint("a")
    await here.place("dropped", "a")
    assert here.backend.room(4) == Room(4, 4)
    assert await here.place("again", "a") == "w1/i"


async def test_a_first_replica_that_finds_no_room_has_one_extra_given_back(here: Installation):
    await big_and_small(here)
    for _ in range(5):
        with pytest.raises(Unavailable, match="No worker has room"):
            await here.place("s1", "small")
        await here.give_back()
    assert await here.stopping() == ["b3"], "one, and the youngest"
    assert here.placer.waiting() == ["small"]
    [kept] = await scaling_store.newest(here.pool, "big", 10)
    assert (kept.decision.before, kept.decision.after) == (4, 3)
    assert "'small-1' of endpoint 'small'" in kept.decision.reason

    await here.pool.execute("DELETE FROM replicas WHERE id = 'b3'")
    await here.worker(16, "b0", "b1", "b2")
    await here.write("b4", "big", None)
    with pytest.raises(ResourceExhausted, match="kept for served entities that have no replica"):
        await here.place("b4", "big")  # the replacement does not take the room back
    assert await here.place("s1", "small") == "w1/i"
    assert here.placer.waiting() == []


async def test_another_extra_is_given_back_when_the_first_does_not_go(here: Installation):
    await big_and_small(here)
    for expected in (["b3"], ["b3"], ["b2", "b3"]):
        with pytest.raises(Unavailable):
            await here.place("s1", "small")
        await here.give_back()
        assert await here.stopping() == expected
        here.clock.now += DRAIN_PATIENCE / 2
        await here.worker(16, "b0", "b1", "b2", "b3")


async def test_an_extra_makes_nobody_give_room(here: Installation):
    await big_and_small(here)
    with pytest.raises(Unavailable):
        await here.place("b4", "big")
    assert await here.give_back() == []


async def test_the_last_replica_of_an_endpoint_stays(here: Installation):
    await big_and_small(here, extras=0)
    with pytest.raises(Unavailable):
        await here.place("s1", "small")
    assert await here.give_back() == []


async def test_while_no_worker_is_there_nobody_gives_room(here: Installation):
    await big_and_small(here)
    here.clock.now += 5.0
    with pytest.raises(Unavailable):
        await here.place("s1", "small")
    assert await here.give_back() == []
    assert await here.stopping() == []


async def test_room_is_made_within_the_quota_that_is_used_up(here: Installation):
    await big_and_small(here)
    await here.endpoint("neighbour", "2")
    for n in range(9):
        await here.write(f"n{n}", "neighbour", "w1/i")
    await here.pool.execute("UPDATE workspaces SET quota_compute_slots = 16 WHERE id = '1'")
    await here.worker(256, "b0", "b1", "b2", "b3")
    with pytest.raises(ResourceExhausted, match="16 of 16 slots"):
        await here.place("s1", "small")
    assert await here.give_back() == ["big"], "the neighbour has more, but no part in this quota"


async def test_nobody_is_told_of_another_workspaces_endpoints(here: Installation):
    await big_and_small(here, small_workspace="2")
    with pytest.raises(Unavailable):
        await here.place("s1", "small")
    await here.give_back()
    [kept] = await scaling_store.newest(here.pool, "big", 10)
    assert "small" not in kept.decision.reason
    assert "another workspace" in kept.decision.reason
