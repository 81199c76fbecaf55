"""What credentials allow, shown by trying on a server that knows nothing but the operator's key."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import nats.errors
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg
from tests.infrastructure import NatsServer
from tests.nats_clients import settle

from servery_common.contracts import permissions, subjects
from servery_common.contracts.builds import BuildRequested, BuildStarted
from servery_common.contracts.permissions import SERVICES, Permissions, inbox_prefix, of_replica
from servery_common.contracts.quotas import WorkspaceQuota
from servery_common.contracts.replicas import Done, StopReplica, WorkerHeartbeat
from servery_common.messaging.bus import connect_bus
from servery_common.nats_credentials import Authority, make_user
from servery_common.settings import NatsSettings

MINE, THEIRS = "a1", "b2"


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.make()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[NatsServer]:
    config = authority.server_config(datetime.now(UTC))
    server = NatsServer(tmp_path_factory.mktemp("nats"), config=config)
    server.start()
    yield server
    server.stop()


class Someone:
    """A client with certain rights, and what it was refused."""

    def __init__(self, client: Client, refusals: list[str]) -> None:
        self.client = client
        self.refusals = refusals
        self.lost = asyncio.Event()

    async def may_publish(self, subject: str, payload: bytes = b"") -> bool:
        return await self._allowed(self.client.publish(subject, payload))

    async def may_subscribe(self, subject: str) -> bool:
        return await self._allowed(self.client.subscribe(subject))

    async def _allowed(self, attempt) -> bool:
        self.refusals.clear()
        await attempt
        await settle(self.client)
        return not self.refusals


@contextlib.asynccontextmanager
async def someone(
    server: NatsServer,
    authority: Authority,
    directory: Path,
    identity: str,
    rights: Permissions | None,
    lifetime: timedelta | None = None,
) -> AsyncIterator[Someone]:
    file = directory / f"{identity}.creds"
    file.write_text(make_user(authority.account, identity, rights, datetime.now(UTC), lifetime))
    refusals: list[str] = []

    async def note(error: Exception) -> None:
        refusals.append(str(error))

    client = Client()
    one = Someone(client, refusals)

    async def lost() -> None:
        one.lost.set()

    await client.connect(
        server.url,
        user_credentials=file,
        inbox_prefix=inbox_prefix(identity),
        error_cb=note,
        disconnected_cb=lost,
        max_reconnect_attempts=1,
    )
    try:
        yield one
    finally:
        await client.close()


@pytest.fixture
async def replica(server: NatsServer, authority: Authority, tmp_path: Path) -> AsyncIterator[Someone]:
    async with someone(server, authority, tmp_path, MINE, of_replica(MINE)) as one:
        yield one


@pytest.fixture
async def anyone(server: NatsServer, authority: Authority, tmp_path: Path) -> AsyncIterator[Someone]:
    """May do everything."""
    async with someone(server, authority, tmp_path, "anyone", None) as one:
        yield one


async def test_a_replica_may_do_what_serving_takes(replica: Someone) -> None:
    for subject in (
        subjects.infer(MINE),
        subjects.worker_ensure(MINE),
        subjects.worker_stop(MINE),
        subjects.worker_log(MINE),
    ):
        assert await replica.may_subscribe(subject), subject
    assert await replica.may_publish(subjects.replies("gateway1", MINE))
    assert await replica.may_publish(subjects.worker_heartbeat(MINE))
    assert await replica.may_publish(subjects.controller_renew_credentials(MINE))


@pytest.mark.parametrize(
    "subject",
    [
        subjects.infer(THEIRS),
        "servery.infer.*",
        "servery.>",
        ">",
        "servery.replies.*.*",
        subjects.replies("gateway1", MINE),
        subjects.worker_ensure(THEIRS),
        subjects.worker_verify(),
        subjects.ALL_WORKER_HEARTBEATS,
        subjects.ALL_CREDENTIAL_RENEWALS,
        subjects.controller_renew_credentials(MINE),
        "servery.signals.gateway.>",
        subjects.controller_http(),
        f"$KV.{subjects.TOKENS_BUCKET}.>",
        f"{inbox_prefix('controller')}.>",
        "_INBOX.>",
        "$SYS.>",
    ],
)
async def test_a_replica_reads_nobody_elses_traffic(replica: Someone, subject: str) -> None:
    assert not await replica.may_subscribe(subject)


@pytest.mark.parametrize(
    "subject",
    [
        subjects.worker_heartbeat(THEIRS),
        subjects.replies("gateway1", THEIRS),
        subjects.infer(THEIRS),
        subjects.infer(MINE),
        subjects.worker_stop(THEIRS),
        subjects.controller_http(),
        subjects.controller_scale(),
        subjects.controller_find_token(),
        subjects.controller_issue_token(),
        subjects.controller_issue_model_token(),
        subjects.controller_renew_credentials(THEIRS),
        subjects.controller_model_environment(),
        subjects.builder_resolve(),
        subjects.build_job("b1"),
        subjects.build_event("succeeded", "b1"),
        subjects.endpoints_changed(),
        subjects.gateway_load("gateway1"),
        subjects.gateway_wake("gateway1"),
        f"$KV.{subjects.ROUTES_BUCKET}.e1",
        f"$KV.{subjects.TOKENS_BUCKET}.e1",
        f"$JS.API.STREAM.INFO.KV_{subjects.TOKENS_BUCKET}",
        f"$JS.API.STREAM.DELETE.KV_{subjects.ROUTES_BUCKET}",
        f"{inbox_prefix('controller')}.x",
        "$SYS.REQ.SERVER.PING",
    ],
)
async def test_a_replica_publishes_to_no_control_plane_and_for_nobody_else(
    replica: Someone, subject: str
) -> None:
    assert not await replica.may_publish(subject)


async def test_a_replica_answers_an_order_and_only_that(replica: Someone, anyone: Someone) -> None:
    async def answer(message: Msg) -> None:
        await message.respond(b"done")

    await replica.client.subscribe(subjects.worker_stop(MINE), cb=answer)
    await settle(replica.client)
    reply = await anyone.client.request(subjects.worker_stop(MINE), b"", timeout=30)
    assert reply.data == b"done"
    assert not await replica.may_publish(anyone.client.new_inbox())


async def test_credentials_that_have_ended_open_nothing(
    server: NatsServer, authority: Authority, tmp_path: Path
) -> None:
    with pytest.raises(nats.errors.Error):
        async with (
            asyncio.timeout(5),
            someone(server, authority, tmp_path, "late", of_replica("late"), timedelta(seconds=-1)),
        ):
            raise AssertionError("it was let in")


async def test_a_connection_ends_with_its_credentials(
    server: NatsServer, authority: Authority, tmp_path: Path
) -> None:
    async with someone(
        server, authority, tmp_path, "short", of_replica("short"), timedelta(seconds=2)
    ) as one:
        assert await one.may_publish(subjects.worker_heartbeat("short"))
        await asyncio.wait_for(one.lost.wait(), 10)


async def test_another_installations_credentials_open_nothing(server: NatsServer, tmp_path: Path) -> None:
    with pytest.raises(nats.errors.Error):
        async with (
            asyncio.timeout(5),
            someone(server, Authority.make(), tmp_path, "gateway", SERVICES["gateway"]),
        ):
            raise AssertionError("it was let in")


@contextlib.asynccontextmanager
async def service(server: NatsServer, authority: Authority, directory: Path, name: str):
    """The bus of a service as it connects itself."""
    file = directory / f"{name}.creds"
    file.write_text(make_user(authority.account, name, SERVICES[name], datetime.now(UTC)))
    settings = NatsSettings(url=server.url, credentials=file, inbox_prefix=inbox_prefix(name))
    async with asyncio.timeout(20), connect_bus(settings, name=name, declare=name in DECLARES) as bus:
        yield bus


DECLARES = ("controller", "builder")


async def test_services_do_their_work_with_their_rights(
    server: NatsServer, authority: Authority, tmp_path: Path, anyone: Someone
) -> None:
    async with (
        service(server, authority, tmp_path, "controller") as controller,
        service(server, authority, tmp_path, "builder") as builder,
        service(server, authority, tmp_path, "gateway") as gateway,
        service(server, authority, tmp_path, "worker") as worker,
    ):
        # What the controller publishes, gateways follow; an order reaches the worker and its answer comes back.
        await controller.kv_put(subjects.QUOTAS_BUCKET, "7", WorkspaceQuota(workspace_id="7", qps=5))
        async for change in gateway.kv_watch(subjects.QUOTAS_BUCKET, WorkspaceQuota):
            if change.value is not None:
                assert change.value.qps == 5
                break

        async def stop(order: StopReplica) -> Done:
            return Done()

        await worker.serve(subjects.worker_stop("w1"), StopReplica, stop)
        order = StopReplica(replica_id="r1", grace_seconds=1.0)
        assert await controller.request(subjects.worker_stop("w1"), order, Done, timeout=5) == Done()

        # Jobs go one way and facts the other.
        build = BuildRequested(
            build_id="b1", endpoint_id="e1", served_entity_id="s1", model_name="m", model_version="1"
        )
        heard: asyncio.Queue[str] = asyncio.Queue()

        async def job(message: BuildRequested) -> None:
            started = BuildStarted(build_id=message.build_id)
            await builder.publish(subjects.build_event("started", "b1"), started, event_id="started")

        async def fact(message: BuildStarted) -> None:
            heard.put_nowait(message.build_id)

        consuming = [
            asyncio.create_task(
                builder.consume(
                    subjects.JOBS_STREAM,
                    subjects.BUILDER_JOBS_DURABLE,
                    subjects.ALL_BUILD_JOBS,
                    {BuildRequested: job},
                )
            ),
            asyncio.create_task(
                controller.consume(
                    subjects.EVENTS_STREAM,
                    subjects.CONTROLLER_EVENTS_DURABLE,
                    subjects.ALL_BUILD_EVENTS,
                    {BuildStarted: fact},
                )
            ),
        ]
        await controller.publish(subjects.build_job("b1"), build, event_id="order")
        assert await asyncio.wait_for(heard.get(), 10) == "b1"
        for stream, durable in (
            (subjects.JOBS_STREAM, subjects.BUILDER_JOBS_DURABLE),
            (subjects.EVENTS_STREAM, subjects.CONTROLLER_EVENTS_DURABLE),
        ):
            for _ in range(100):
                consumer = await anyone.client.jetstream().consumer_info(stream, durable)
                if not consumer.num_ack_pending:
                    break
                await asyncio.sleep(0.1)
            assert consumer.num_ack_pending == 0, durable
        for task in consuming:
            task.cancel()
        await asyncio.gather(*consuming, return_exceptions=True)


async def test_a_gateway_may_not_write_what_it_follows(
    server: NatsServer, authority: Authority, tmp_path: Path
) -> None:
    async with someone(server, authority, tmp_path, "gateway", SERVICES["gateway"]) as gateway:
        assert not await gateway.may_publish(f"$KV.{subjects.TOKENS_BUCKET}.x")
        assert not await gateway.may_publish(subjects.worker_ensure("w1"))
        assert not await gateway.may_publish(subjects.controller_scale())
        assert not await gateway.may_subscribe(subjects.infer("r1"))
        assert not await gateway.may_subscribe(f"{inbox_prefix('controller')}.>")


def test_every_bucket_is_among_those_that_gateways_follow() -> None:
    declared = {name for key, name in vars(subjects).items() if key.endswith("_BUCKET")}
    assert set(permissions._BUCKETS) == declared


async def test_a_signal_in_anothers_name_is_dropped(
    server: NatsServer, authority: Authority, tmp_path: Path
) -> None:
    heard: list[str] = []

    async def take(heartbeat: WorkerHeartbeat) -> None:
        heard.append(heartbeat.worker_id)

    def own(worker_id: str) -> WorkerHeartbeat:
        return WorkerHeartbeat(worker_id=worker_id, incarnation="i", capacity_slots=4)

    async with (
        service(server, authority, tmp_path, "controller") as controller,
        service(server, authority, tmp_path, "worker") as worker,
    ):
        await controller.on_signal(
            subjects.ALL_WORKER_HEARTBEATS,
            WorkerHeartbeat,
            take,
            sender=lambda heartbeat: heartbeat.worker_id,
        )
        await worker.signal(subjects.worker_heartbeat(MINE), own(THEIRS))
        await worker.signal(subjects.worker_heartbeat(MINE), own(MINE))
        async with asyncio.timeout(10):
            while not heard:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
    assert heard == [MINE]
