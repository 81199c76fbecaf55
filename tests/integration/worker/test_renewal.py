"""What lets a replica into NATS is renewed while it serves: a real worker, a server that knows the operator's key and
two authorities, and the controller's half of it."""

import asyncio
import contextlib
import itertools
import json
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from nats.aio.client import Client
from tests.infrastructure import NatsServer
from tests.integration.worker.issued import Issued
from tests.integration.worker.scoring_client import Call, ScoringClient, do_body
from tests.integration.worker.worker_process import WorkerOrders, WorkerProcess
from tests.nats_clients import settle
from tests.waiting import until

from servery_common.contracts import subjects
from servery_common.contracts.permissions import inbox_prefix
from servery_common.contracts.replicas import CredentialsRenewed, RenewCredentials
from servery_common.errors import InvalidParameter, PermissionDenied, Unavailable
from servery_common.messaging.bus import connect_bus
from servery_common.messaging.port import Bus
from servery_common.nats_credentials import lifetime_of, make_user_key
from servery_common.tls import tls_context
from servery_controller.compute.container_spec import verdict
from servery_controller.compute.docker_wiring import serve_renewals


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Issued]:
    """Everything that is issued, and a server that has its part of it."""
    issued = Issued(tmp_path_factory.mktemp("credentials"))
    own = issued.root / "nats"
    server = NatsServer(
        issued.root,
        config=f'include "{Path("nats/accounts.conf")}"\n'
        f'tls {{ cert_file: "{own}/tls.pem", key_file: "{own}/tls.pem", ca_file: "{own}/ca.crt", verify: true }}',
    )
    issued.url = server.url.replace("127.0.0.1", "localhost")
    server.start()
    yield issued
    server.stop()


@contextlib.asynccontextmanager
async def controller(
    installation: Issued, lifetime: timedelta | None, runs: Callable[[str], bool] = lambda _: True
) -> AsyncIterator[Bus]:
    """A controller's bus; with a lifetime it renews."""
    async with connect_bus(installation.settings("controller"), name="controller") as bus:
        await serve_renewals(bus, installation.credentials(lifetime) if lifetime else None, runs)
        yield bus


class Worker:
    """A worker of one replica, as it runs in a container."""

    def __init__(self, installation: Issued, lifetime: timedelta, directory: Path) -> None:
        self.id = uuid4().hex
        settings = installation.issue(self.id, lifetime)
        self.creds = settings.credentials
        self.tls = settings.tls_cert
        environment = {
            "SERVERY_NATS_CREDENTIALS": settings.credentials,
            "SERVERY_NATS_INBOX_PREFIX": settings.inbox_prefix,
            "SERVERY_NATS_TLS_CA": settings.tls_ca,
            "SERVERY_NATS_TLS_CERT": settings.tls_cert,
            "SERVERY_NATS_TLS_KEY": settings.tls_key,
            "SERVERY_WORKER_ID": self.id,
            "SERVERY_WORKER_SERVES_ONE": "true",
            "SERVERY_WORKER_WARM_MEMORY_BYTES": "0",
            "SERVERY_WORKER_MODEL_MEMORY_BYTES": str(1024**3),
        }
        self.process = WorkerProcess(
            installation.url, directory, **{k: str(v) for k, v in environment.items()}
        )

    def seen(self, event: str) -> int:
        """How often its log tells of an event."""
        return self.process.log_path.read_text().count(f'"event": "{event}"')

    async def happened(self, event: str, times: int = 1, within: float = 60.0) -> None:
        def enough() -> bool:
            assert self.process.process.poll() is None, self.process.log_path.read_text()[-3000:]
            return self.seen(event) >= times

        await until(enough, within)


@pytest.fixture
def start(installation: Issued, tmp_path: Path) -> Iterator[Callable[[timedelta], Worker]]:
    """Starts workers that end with the test."""
    workers: list[Worker] = []

    def one(lifetime: timedelta) -> Worker:
        worker = Worker(installation, lifetime, tmp_path / f"worker-{len(workers)}")
        workers.append(worker)
        return worker

    yield one
    for worker in workers:
        worker.process.stop()


@contextlib.asynccontextmanager
async def gateway(installation: Issued, replica_id: str) -> AsyncIterator[ScoringClient]:
    settings = installation.settings("gateway")
    client = Client()
    await client.connect(
        settings.url,
        user_credentials=settings.credentials,
        inbox_prefix=settings.inbox_prefix,
        tls=tls_context(settings.tls_ca, settings.tls_cert, settings.tls_key),
    )
    try:
        yield await ScoringClient(client, replica_id).start()
    finally:
        await client.close()


ASKERS = 4
"""As many as the replica has slots."""


class Load:
    """A steady stream of requests: short ones that the model notes down, and long ones, both ways, in equal pieces."""

    def __init__(self, client: ScoringClient, replica_id: str, notes: Path) -> None:
        self._client = client
        self._replica_id = replica_id
        self._notes = notes
        self.sent = 0
        self.failed: list[str] = []
        self.over = asyncio.Event()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as askers:
            for number in range(ASKERS):
                askers.create_task(self._ask(number))

    def noted(self) -> list[str]:
        return self._notes.read_text().split()

    async def _ask(self, number: int) -> None:
        for turn in itertools.count():
            if self.over.is_set():
                return
            name = f"{number}-{turn}"
            if number == 0 and turn % 20 == 0:
                await self._expect(do_body("length:" + "x" * 2_000_000), [2_000_000])
            elif number == 0 and turn % 20 == 10:
                await self._expect(do_body("big:2000000"), ["x" * 2_000_000])
            else:
                await self._expect(do_body(f"note:{self._notes}={name}"), [name])

    async def _expect(self, body: bytes, predictions: list) -> None:
        self.sent += 1
        _, call = await self._client.send(self._replica_id, body)
        try:
            await asyncio.wait_for(call.done.wait(), 10)
        except TimeoutError:
            self.failed.append(f"not answered: {body[:100]!r}, accepted: {call.accepted.is_set()}")
            return
        if call.refused or call.status != 200 or call.json != {"predictions": predictions}:
            self.failed.append(_said(call))


def _said(call: Call) -> str:
    return call.refused or f"{call.status}: {bytes(call.answer[:200])!r}"


async def test_credentials_are_renewed_again_and_again_and_no_request_notices(
    installation: Issued, start: Callable[[timedelta], Worker], obedient: Path, tmp_path: Path
) -> None:
    lifetime = timedelta(seconds=8)
    async with controller(installation, lifetime) as bus:
        worker = start(lifetime)
        first_creds, first_certificate = worker.creds.read_text(), worker.tls.read_text()
        orders = await WorkerOrders(bus, worker.id).start()
        await orders.launch(obedient, replica_id=worker.id)
        async with gateway(installation, worker.id) as client:
            load = Load(client, worker.id, tmp_path / "notes")
            loading = asyncio.create_task(load.run())
            # Longer than what it came in with, and the next, were good for.
            before = worker.seen("credentials_renewed")
            await worker.happened("credentials_renewed", times=before + 5)
            load.over.set()
            await loading
        assert load.failed == []
        assert load.sent > 100
        noted = load.noted()
        assert len(noted) == len(set(noted))
        assert worker.seen("inference_connection_lost") == 0
        assert worker.seen("nats_connection_lost") == 0
        # The key of the certificate stays, everything else is new.
        key = first_certificate.split("-----BEGIN CERTIFICATE-----")[0]
        assert worker.tls.read_text().startswith(key)
        assert worker.tls.read_text() != first_certificate
        assert worker.creds.read_text().split("SEED")[1] != first_creds.split("SEED")[1]
        assert worker.creds.stat().st_mode & 0o077 == 0
        assert orders.beat is not None
        assert 0.3 < (orders.beat.access_left or 0) <= 1
        await orders.stop(worker.id)


async def test_a_stream_goes_on_in_order_over_several_connections(
    installation: Issued, start: Callable[[timedelta], Worker], streaming: Path
) -> None:
    lifetime = timedelta(seconds=6)
    async with controller(installation, lifetime) as bus:
        worker = start(lifetime)
        orders = await WorkerOrders(bus, worker.id).start()
        await orders.launch(streaming, replica_id=worker.id)
        async with gateway(installation, worker.id) as client:
            before = worker.seen("credentials_renewed")
            body = json.dumps({"prompt": "tick:1500", "stream": True}).encode()
            _, call = await client.send(worker.id, body)
            await asyncio.wait_for(call.done.wait(), 60)
            assert call.events == list(range(1500))
            assert call.end is not None
            assert "status" not in call.end
            assert worker.seen("credentials_renewed") > before


async def test_a_controller_that_was_away_is_asked_until_it_is_back(
    installation: Issued, start: Callable[[timedelta], Worker]
) -> None:
    lifetime = timedelta(seconds=20)
    worker = start(lifetime)
    await worker.happened("credentials_not_renewed", times=2)
    assert worker.seen("credentials_renewed") == 0
    async with controller(installation, lifetime):
        await worker.happened("credentials_renewed", within=10)


async def test_a_replica_that_could_not_renew_stops_and_says_why(
    installation: Issued, start: Callable[[timedelta], Worker], obedient: Path
) -> None:
    lifetime, renewed = timedelta(seconds=10), True
    async with controller(installation, lifetime, runs=lambda _: renewed) as bus:
        worker = start(lifetime)
        orders = await WorkerOrders(bus, worker.id).start()
        await orders.launch(obedient, replica_id=worker.id)
        renewed = False
        ended = asyncio.create_task(asyncio.to_thread(worker.process.process.wait, 60))
        async with gateway(installation, worker.id) as client:
            calls: list[Call] = []
            while not ended.done():
                _, call = await client.send(worker.id, do_body("sleep:0.1"))
                calls.append(call)
                done = asyncio.create_task(call.done.wait())
                await asyncio.wait({ended, done}, return_when="FIRST_COMPLETED")
                done.cancel()
            assert await ended == 1
    # What it had accepted is answered.
    accepted = [call for call in calls if call.accepted.is_set()]
    assert len(accepted) > 5
    assert [_said(call) for call in accepted if call.refused or call.status != 200] == []
    # A container's last lines, as the controller tells people.
    reason = verdict({"ExitCode": 1}, 0, worker.process.log_path.read_text())
    assert "The replica's credentials end at" in reason
    assert reason.endswith("could not be renewed: There is no such replica, or it has ended.")


@contextlib.asynccontextmanager
async def replica(installation: Issued) -> AsyncIterator[tuple[str, Bus, Client]]:
    """The bus of a replica, with its rights, and the connection itself."""
    replica_id = uuid4().hex
    settings = installation.issue(replica_id, timedelta(minutes=5))
    async with connect_bus(settings, name="replica", declare=False) as bus:
        yield replica_id, bus, bus.nats


def asking(replica_id: str, **changed: str) -> RenewCredentials:
    return RenewCredentials(**({"replica_id": replica_id, "user_key": make_user_key().public} | changed))


async def test_a_replica_gets_its_own_credentials_and_nobody_elses(installation: Issued) -> None:
    async with (
        controller(installation, timedelta(hours=1)),
        replica(installation) as (own, bus, _),
        replica(installation) as (other, _, _),
    ):
        subject = subjects.controller_renew_credentials(own)

        # In another's name, where only it may ask.
        with pytest.raises(PermissionDenied):
            await bus.request(subject, asking(other), CredentialsRenewed, timeout=5)
        # Where only another may ask: the server does not pass it on.
        theirs = subjects.controller_renew_credentials(other)
        with pytest.raises(Unavailable):
            await bus.request(theirs, asking(other), CredentialsRenewed, timeout=1)
        # For the certificate of another one.
        shown = installation.settings(other).tls_cert.read_text()
        with pytest.raises(InvalidParameter, match="of somebody else"):
            await bus.request(subject, asking(own, certificate=shown), CredentialsRenewed, timeout=5)
        shown = installation.settings("gateway").tls_cert.read_text()
        with pytest.raises(InvalidParameter, match="another authority"):
            await bus.request(subject, asking(own, certificate=shown), CredentialsRenewed, timeout=5)
        with pytest.raises(InvalidParameter, match="user_key"):
            await bus.request(subject, asking(own, user_key="UABC"), CredentialsRenewed, timeout=5)

        certificate = installation.settings(own).tls_cert.read_text().split("PRIVATE KEY-----\n")[-1]
        renewed = await bus.request(
            subject, asking(own, certificate=certificate), CredentialsRenewed, timeout=5
        )
        assert renewed.certificate.startswith("-----BEGIN CERTIFICATE-----")
        lifetime = lifetime_of(f"-----\n{renewed.token}\n------END")
        assert lifetime is not None
        assert lifetime.seconds == 3600
        # Again and again, to keep the controller from its work.
        with pytest.raises(Unavailable, match="a moment ago"):
            await bus.request(subject, asking(own, certificate=certificate), CredentialsRenewed, timeout=5)


async def test_a_replica_that_has_ended_gets_none(installation: Issued) -> None:
    async with (
        controller(installation, timedelta(hours=1), runs=lambda _: False),
        replica(installation) as (own, bus, _),
    ):
        with pytest.raises(PermissionDenied, match="ended"):
            await bus.request(
                subjects.controller_renew_credentials(own), asking(own), CredentialsRenewed, timeout=5
            )


async def test_the_answer_goes_to_who_asked_and_nowhere_else(installation: Issued) -> None:
    async with (
        controller(installation, timedelta(hours=1)) as bus,
        replica(installation) as (own, asks, connection),
    ):
        heard: list[bytes] = []

        async def note(message) -> None:
            heard.append(message.data)

        # The controller may publish there as an answer to anything; a replica may not.
        await bus.nats.subscribe(f"{inbox_prefix('controller')}.forged", cb=note)
        await settle(bus.nats)
        subject = subjects.controller_renew_credentials(own)
        headers = {"servery-type": RenewCredentials.message_type}
        await connection.publish(
            subject,
            asking(own).model_dump_json().encode(),
            reply=f"{inbox_prefix('controller')}.forged",
            headers=headers,
        )
        # Behind it on the same connection: when this one is answered, that one would have been.
        await asks.request(subject, asking(own), CredentialsRenewed, timeout=5)
        await settle(bus.nats)
        assert heard == []
