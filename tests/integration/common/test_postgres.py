"""Migrations, outbox and leases against a real Postgres."""

import asyncio
import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest
from structlog.testing import capture_logs
from tests.infrastructure import PostgresServer
from tests.integration.common.certificates import CertificateAuthority
from tests.waiting import until

from servery_common.contracts.builds import BuildRequested, BuildStarted
from servery_common.errors import BadRequest, Unavailable
from servery_common.messaging.envelope import Event
from servery_common.messaging.testing import InMemoryBus
from servery_common.postgres import OUTAGE, MigrationError, Pool, create_pool, leases, migrate, outbox
from servery_common.settings import PostgresSettings

FIRST_RELEASE = Path(__file__).parent / "first_release_migrations"
"""The migrations as they were released first, byte for byte: they never change."""
JOB = BuildRequested(
    build_id="b1", endpoint_id="e1", served_entity_id="s1", model_name="m", model_version="1"
)


async def test_two_services_may_migrate_at_once(postgres_url: str) -> None:
    settings = PostgresSettings(url=postgres_url)
    pools = await asyncio.gather(*(create_pool(settings) for _ in range(3)))
    applied = await asyncio.gather(*(migrate(pool) for pool in pools))
    names = [row["name"] for row in await pools[0].fetch("SELECT name FROM schema_migrations ORDER BY name")]
    assert sorted(name for names in applied for name in names) == names
    assert "0001_common.sql" in names
    await asyncio.gather(*(pool.close() for pool in pools))


async def test_a_changed_migration_is_refused_and_changes_nothing(empty_pool: Pool, tmp_path: Path) -> None:
    first = tmp_path / "0001_first.sql"
    first.write_text("CREATE TABLE one (id int);")
    assert await migrate(empty_pool, tmp_path) == ["0001_first.sql"]
    assert await migrate(empty_pool, tmp_path) == []
    first.write_text("CREATE TABLE one (id bigint);")
    (tmp_path / "0002_second.sql").write_text("CREATE TABLE two (id int);")
    with pytest.raises(MigrationError, match=r"0001_first\.sql"):
        await migrate(empty_pool, tmp_path)
    assert await empty_pool.fetchval("SELECT to_regclass('two')") is None


async def test_a_broken_migration_leaves_nothing_behind(empty_pool: Pool, tmp_path: Path) -> None:
    (tmp_path / "0001_first.sql").write_text("CREATE TABLE one (id int);")
    (tmp_path / "0002_second.sql").write_text("CREATE TABLE two (id int); SELECT 1/0;")
    with pytest.raises(asyncpg.PostgresError):
        await migrate(empty_pool, tmp_path)
    assert await empty_pool.fetchval("SELECT to_regclass('one')") is None


async def test_a_database_of_the_first_release_is_brought_up_to_date_and_forgets_variables_of_builds(
    empty_pool: Pool,
) -> None:
    released = await migrate(empty_pool, FIRST_RELEASE)
    assert released == ["0001_common.sql", "0010_builder.sql", "0020_controller.sql"]
    await empty_pool.execute(
        """INSERT INTO builds (build_id, endpoint_id, served_entity_id, model_name, model_version, environment_vars)
           VALUES ('b1', 'e1', 's1', 'm', '1', '{"KEY": "secret"}')"""
    )
    await empty_pool.execute(
        """INSERT INTO builds (build_id, endpoint_id, served_entity_id, model_name, model_version, state, code)
           VALUES ('b2', 'e1', 's1', 'm', '1', 'FAILED', 'CODE')"""
    )
    applied = await migrate(empty_pool)
    assert "0025_builder_environment.sql" in applied
    assert not set(released) & set(applied)
    assert [row[0] for row in await empty_pool.fetch("SELECT environment_vars FROM builds")] == [{}, {}]


async def test_json_columns_take_and_give_values(empty_pool: Pool) -> None:
    value = {"a": [1, None, "x"]}
    assert await empty_pool.fetchval("SELECT $1::jsonb", value) == value


async def test_nothing_waits_for_ever(empty_pool: Pool) -> None:
    with pytest.raises((asyncpg.QueryCanceledError, TimeoutError)):
        await asyncio.wait_for(empty_pool.fetchval("SELECT pg_sleep(30)"), 8)
    held = [await empty_pool.acquire() for _ in range(10)]
    try:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(empty_pool.fetchval("SELECT 1"), 4)
    finally:
        for connection in held:
            await empty_pool.release(connection)


@pytest.fixture
def own_postgres() -> Iterator[PostgresServer]:
    """A server that is not started yet, and may be stopped."""
    with tempfile.TemporaryDirectory(prefix="servery-postgres-", ignore_cleanup_errors=True) as directory:
        server = PostgresServer(Path(directory))
        yield server
        server.stop()


async def test_a_service_may_start_before_postgres(own_postgres: PostgresServer) -> None:
    connecting = asyncio.create_task(create_pool(PostgresSettings(url=own_postgres.url)))
    await asyncio.sleep(0.3)
    assert not connecting.done()
    await asyncio.to_thread(own_postgres.start)
    pool = await asyncio.wait_for(connecting, 10)
    assert await pool.fetchval("SELECT 1") == 1
    await asyncio.wait_for(pool.close(), 5)


async def test_a_service_with_tls_does_not_talk_to_a_server_without_it(
    own_postgres: PostgresServer, tmp_path: Path
) -> None:
    await asyncio.to_thread(own_postgres.start)
    ca = CertificateAuthority(tmp_path).file
    with capture_logs() as lines:
        connecting = asyncio.create_task(
            create_pool(PostgresSettings(url=own_postgres.url, tls="on", tls_ca=ca))
        )
        await until(lambda: bool(lines))
        assert not connecting.done()
        connecting.cancel()
    assert "this service does not talk to it in plain text" in lines[0]["error"]


async def test_a_crash_of_postgres_shows_as_an_outage_and_heals(own_postgres: PostgresServer) -> None:
    await asyncio.to_thread(own_postgres.start)
    pool = await create_pool(PostgresSettings(url=own_postgres.url))

    async def crash_in_a_transaction() -> None:
        async with pool.acquire() as connection, connection.transaction():
            await asyncio.to_thread(own_postgres.stop)
            await connection.execute("SELECT 1")

    with pytest.raises(OUTAGE):
        await crash_in_a_transaction()
    with pytest.raises(OUTAGE):
        await pool.fetchval("SELECT 1")
    await asyncio.to_thread(own_postgres.start)
    assert await pool.fetchval("SELECT 1") == 1
    await asyncio.wait_for(pool.close(), 5)


async def test_a_message_is_published_if_and_only_if_its_transaction_commits(pool: Pool) -> None:
    bus = InMemoryBus()
    async with pool.acquire() as connection, connection.transaction():
        await outbox.append(connection, "servery.jobs.build.b1", JOB, "committed")
    with contextlib.suppress(ZeroDivisionError):
        async with pool.acquire() as connection, connection.transaction():
            await outbox.append(connection, "servery.jobs.build.b1", JOB, "rolled-back")
            raise ZeroDivisionError
    assert await outbox.relay_once(pool, bus, "controller") == 1
    assert [event.id for event in bus.events] == ["committed"]
    assert bus.events[0].body == JOB.model_dump_json().encode()
    assert await outbox.relay_once(pool, bus, "controller") == 0


async def test_a_crash_between_publishing_and_deleting_publishes_the_same_id_again(pool: Pool) -> None:
    class Crash(Exception):
        pass

    class CrashingBus:
        def __init__(self) -> None:
            self.published: list[Event] = []

        async def publish_event(self, event: Event) -> None:
            self.published.append(event)
            if len(self.published) == 2:
                raise Crash

    for number in ("1", "2", "3"):
        await outbox.append(pool, "servery.jobs.build.b1", JOB, number)
    bus = CrashingBus()
    with pytest.raises(Crash):
        await outbox.relay_once(pool, bus, "controller")
    await outbox.relay_once(pool, bus, "controller")
    assert [event.id for event in bus.published] == ["1", "2", "2", "3"]


async def test_each_owner_relays_its_own_messages(pool: Pool) -> None:
    bus = InMemoryBus()
    await outbox.append(pool, "servery.jobs.build.b1", JOB, "job")
    await outbox.append(pool, "servery.events.build.started.b1", BuildStarted(build_id="b1"), "fact")
    await outbox.relay_once(pool, bus, "builder")
    assert [event.id for event in bus.events] == ["fact"]


async def test_a_message_that_could_never_be_sent_is_refused(pool: Pool) -> None:
    huge = JOB.model_copy(update={"model_name": "x" * 1_000_000})
    with pytest.raises(BadRequest):
        await outbox.append(pool, "servery.jobs.build.b1", huge)


async def test_the_relay_outlives_a_bus_that_is_away(pool: Pool) -> None:
    bus, hint = InMemoryBus(), asyncio.Event()
    bus.fail()
    relaying = asyncio.create_task(outbox.relay(pool, bus, hint, "controller"))
    try:
        await outbox.append(pool, "servery.jobs.build.b1", JOB, "1")
        hint.set()
        await asyncio.sleep(0.3)
        assert bus.events == []
        bus.fail(False)
        await until(lambda: bool(bus.events), 5)
    finally:
        relaying.cancel()
        await asyncio.gather(relaying, return_exceptions=True)


async def test_a_second_candidate_waits_until_the_leader_lets_go(pool: Pool) -> None:
    async with leases.leadership(pool, "main", "one", seconds=5) as first:
        second = leases.LeaderLease(pool, "main", "two", 5)
        assert not await second.try_acquire()
        assert first.epoch == 1
    assert await second.try_acquire()
    assert second.epoch == 2


async def test_a_vanished_leader_is_replaced_and_can_write_no_more(pool: Pool) -> None:
    paused = leases.LeaderLease(pool, "main", "paused", 0.5)
    await paused.acquire()
    async with leases.leadership(pool, "main", "next", seconds=0.5) as current:
        assert current.epoch == paused.epoch + 1
        async with pool.acquire() as connection, connection.transaction():
            await current.guard(connection)
        with pytest.raises(leases.StaleLeader):
            async with pool.acquire() as connection, connection.transaction():
                await paused.guard(connection)
        assert paused.lost.is_set()
        await asyncio.sleep(1.2)
        assert not current.lost.is_set()
        assert not await paused.try_acquire()


async def test_a_takeover_waits_for_the_transaction_of_the_old_leader(pool: Pool) -> None:
    old, new = (leases.LeaderLease(pool, "main", name, 0.2) for name in ("old", "new"))
    await old.acquire()
    async with pool.acquire() as connection, connection.transaction():
        await old.guard(connection)
        await asyncio.sleep(0.4)
        takeover = asyncio.create_task(new.try_acquire())
        await asyncio.sleep(0.2)
        assert not takeover.done()
    assert await takeover


async def test_a_leader_that_cannot_renew_knows_it_in_time(pool: Pool) -> None:
    lease = leases.LeaderLease(pool, "main", "one", 0.6)
    await lease.acquire()
    renewing = asyncio.create_task(lease.renew())
    await asyncio.sleep(0.3)
    assert not lease.lost.is_set()
    await pool.execute("UPDATE leases SET epoch = epoch + 1, holder = 'two'")
    await asyncio.wait_for(lease.lost.wait(), 2)
    await renewing


async def test_the_relay_reports_nothing_as_published_that_was_not(pool: Pool) -> None:
    bus = InMemoryBus()
    bus.fail()
    await outbox.append(pool, "servery.jobs.build.b1", JOB, "1")
    with pytest.raises(Unavailable):
        await outbox.relay_once(pool, bus, "controller")
    assert await pool.fetchval("SELECT count(*) FROM outbox") == 1


async def test_whatever_a_query_raises_when_the_server_is_killed_is_an_outage() -> None:
    """Also what hides the first error: who answers a call says that it may be tried again."""
    with tempfile.TemporaryDirectory(prefix="servery-postgres-", ignore_cleanup_errors=True) as directory:
        server = PostgresServer(Path(directory))
        server.start()
        pool = await create_pool(PostgresSettings(url=server.url, pool_size=10))
        asked = 0

        async def ask() -> None:
            nonlocal asked
            while True:
                async with pool.acquire() as connection, connection.transaction():
                    await connection.fetch("SELECT generate_series(1, $1::int)", 500)
                asked += 1

        try:
            for _ in range(5):
                asking = [asyncio.create_task(ask()) for _ in range(10)]
                before = asked
                await until(lambda: asked > before + 50)  # noqa: B023
                await asyncio.to_thread(server.kill)
                raised = await asyncio.gather(*asking, return_exceptions=True)
                assert [error for error in raised if not isinstance(error, OUTAGE)] == []
                await asyncio.to_thread(server.start)
        finally:
            pool.terminate()
            server.stop()
