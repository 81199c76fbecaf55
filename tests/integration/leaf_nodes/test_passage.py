"""What passes the link between a control plane and its compute plane, and that nothing else does."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable
from dataclasses import dataclass

import nats
import nats.errors
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg
from tests.integration.leaf_nodes.conftest import Planes
from tests.nats_clients import settle
from tests.waiting import until

from servery_common.contracts import subjects
from servery_common.contracts.access import TokenGrant
from servery_common.contracts.permissions import inbox_prefix, of_replica
from servery_common.messaging.bus import connect_bus
from servery_common.settings import NatsSettings
from servery_common.tls import tls_context

MINE, THEIRS = "a1", "b2"
BELONGS_HERE = (
    subjects.controller_http(),
    subjects.controller_scale(),
    subjects.controller_find_token(),
    subjects.controller_issue_token(),
    subjects.controller_issue_model_token(),
    subjects.controller_model_environment(),
    subjects.scaler_explain(),
    subjects.builder_resolve(),
    subjects.worker_verify(),
    subjects.build_job("b1"),
    subjects.build_event("succeeded", "b1"),
    subjects.endpoints_changed(),
    subjects.gateway_load("gateway1"),
    subjects.gateway_wake("gateway1"),
    subjects.gateway_metrics("gateway1"),
    f"$KV.{subjects.ROUTES_BUCKET}.e1",
    f"$KV.{subjects.TOKENS_BUCKET}.e1",
    f"$JS.API.STREAM.DELETE.KV_{subjects.ROUTES_BUCKET}",
    f"{inbox_prefix('controller')}.x",
    f"{inbox_prefix('gateway')}.x",
    "_R_.x",
    "anything",
)
"""Neither sent from there nor to there."""
TO_THERE = (
    subjects.infer(MINE),
    subjects.worker_ensure(MINE),
    subjects.worker_stop(MINE),
    subjects.worker_log(MINE),
)
FROM_THERE = (
    subjects.replies("gateway1", MINE),
    subjects.worker_spans(MINE),
    subjects.worker_heartbeat(MINE),
    subjects.controller_renew_credentials(MINE),
)


@dataclass
class Someone:
    """A client, and what it was refused."""

    client: Client
    refusals: list[str]

    async def may(self, attempt: Awaitable[object]) -> bool:
        self.refusals.clear()
        await attempt
        await settle(self.client)
        return not self.refusals


@contextlib.asynccontextmanager
async def connected(settings: NatsSettings) -> AsyncIterator[Someone]:
    refusals: list[str] = []

    async def note(error: Exception) -> None:
        refusals.append(str(error))

    client = await nats.connect(
        settings.url,
        user_credentials=settings.credentials,
        inbox_prefix=settings.inbox_prefix,
        tls=tls_context(settings.tls_ca, settings.tls_cert, settings.tls_key),
        allow_reconnect=False,
        error_cb=note,
    )
    try:
        yield Someone(client, refusals)
    finally:
        await client.close()


@pytest.fixture
async def here(planes: Planes) -> AsyncIterator[Client]:
    """Somebody who may do everything in the control plane."""
    issued = planes.issued
    async with connected(issued.of_anyone("here", planes.here.url, issued.nats.account)) as one:
        yield one.client


@pytest.fixture
async def there(planes: Planes, here: Client) -> AsyncIterator[Client]:
    """Somebody who may do everything in the compute plane, as who took it over. The link stands."""
    issued = planes.issued
    async with connected(issued.of_anyone("there", planes.there.url, issued.plane)) as one:
        heard: list[str] = []
        watch = await here.subscribe(subjects.worker_heartbeat("link"), cb=noting(heard))
        await settle(here)
        while not heard:
            await one.client.publish(subjects.worker_heartbeat("link"))
            with contextlib.suppress(TimeoutError):
                await until(lambda: bool(heard), 0.1)
        await watch.unsubscribe()
        yield one.client


@pytest.fixture
async def replica(planes: Planes, there: Client) -> AsyncIterator[Someone]:
    """What a replica in the compute plane is let in with."""
    issued = planes.issued
    async with connected(issued.of_anyone(MINE, planes.there.url, issued.plane, of_replica(MINE))) as one:
        yield one


def noting(heard: list[str]):
    async def note(message: Msg) -> None:
        heard.append(message.subject)

    return note


async def pass_over(sender: Client, receiver: Client, subjects_: tuple[str, ...], last: str) -> list[str]:
    """Return which of these arrive; ``last``, which is sent behind them, does."""
    heard: list[str] = []
    await receiver.subscribe(">", cb=noting(heard))
    await settle(receiver)
    # What there is interest in is told from server to server: from when the last one passes, they know.
    async with asyncio.timeout(20):
        while last not in heard:
            await sender.publish(last)
            await settle(sender)
            with contextlib.suppress(TimeoutError):
                await until(lambda: last in heard, 0.1)
    heard.clear()
    for subject in subjects_:
        await sender.publish(subject)
    await sender.publish(last)
    await settle(sender)
    await until(lambda: last in heard)
    return [subject for subject in heard if subject != last and not subject.startswith("_INBOX.here")]


async def test_from_there_come_answers_heartbeats_and_spans_and_nothing_else(
    here: Client, there: Client
) -> None:
    sent = (*FROM_THERE, *BELONGS_HERE, *TO_THERE, subjects.replies("gateway1", THEIRS))
    heard = await pass_over(there, here, sent, subjects.worker_heartbeat("last"))
    assert heard == [*FROM_THERE, subjects.replies("gateway1", THEIRS)]


async def test_there_go_orders_and_requests_to_replicas_and_nothing_else(here: Client, there: Client) -> None:
    sent = (*TO_THERE, *BELONGS_HERE, *FROM_THERE)
    heard = await pass_over(here, there, sent, subjects.infer("last"))
    assert sorted(heard) == sorted(TO_THERE)


async def test_nobody_there_asks_the_control_plane_for_anything(
    planes: Planes, here: Client, there: Client
) -> None:
    asked: list[str] = []
    for subject in BELONGS_HERE:
        await here.subscribe(subject, cb=noting(asked))
    await settle(here)
    for subject in BELONGS_HERE[:9]:
        with pytest.raises(nats.errors.NoRespondersError):
            await there.request(subject, b"{}", timeout=5)
    assert asked == []


async def test_nobody_there_reads_or_writes_what_the_control_plane_keeps(
    planes: Planes, there: Client
) -> None:
    settings = planes.issued.of_service("controller", planes.here.url)
    token = TokenGrant(token_sha256="a" * 64, principal_id="p1", expires_at_ms=None)
    async with connect_bus(settings, name="controller") as controller:
        await controller.kv_put(subjects.TOKENS_BUCKET, token.token_sha256, token)
        stream = f"KV_{subjects.TOKENS_BUCKET}"
        for asked in (
            f"$JS.API.STREAM.INFO.{stream}",
            f"$JS.API.DIRECT.GET.{stream}.$KV.{subjects.TOKENS_BUCKET}.{token.token_sha256}",
            f"$JS.API.STREAM.MSG.GET.{stream}",
            f"$JS.API.CONSUMER.CREATE.{stream}",
            f"$JS.API.STREAM.PURGE.{stream}",
            "$JS.API.INFO",
            "$JS.API.STREAM.NAMES",
        ):
            with pytest.raises(nats.errors.NoRespondersError):
                await there.request(asked, b"{}", timeout=5)
        with pytest.raises(nats.errors.NoRespondersError):
            await there.request(f"$KV.{subjects.TOKENS_BUCKET}.mine", b"{}", timeout=5)
        assert await controller.kv_keys(subjects.TOKENS_BUCKET) == [token.token_sha256]


async def test_an_order_is_answered_in_parts_and_another_one_finds_nobody(
    here: Client, there: Client, replica: Someone
) -> None:
    async def answer(message: Msg) -> None:
        assert message.reply.startswith("_R_."), "the controller's inbox is nobody's business there"
        for part in (b"one", b"two"):
            await message.respond(part)

    assert await replica.may(replica.client.subscribe(subjects.worker_log(MINE), cb=answer))
    inbox = here.new_inbox()
    answers = await here.subscribe(inbox)
    async with asyncio.timeout(20):
        while True:
            await here.publish(subjects.worker_log(MINE), reply=inbox)
            first = await answers.next_msg(5)
            if first.data:  # before the servers have told each other, nobody is there
                break
    assert [first.data, (await answers.next_msg(5)).data] == [b"one", b"two"]
    with pytest.raises(nats.errors.NoRespondersError):
        await here.request(subjects.worker_log(THEIRS), b"", timeout=5)


@pytest.mark.parametrize(
    "subject", [subjects.infer(THEIRS), subjects.worker_ensure(THEIRS), "servery.infer.*", "_R_.>", ">"]
)
async def test_a_replica_there_reads_nobody_elses_requests(replica: Someone, subject: str) -> None:
    assert not await replica.may(replica.client.subscribe(subject))


@pytest.mark.parametrize(
    "subject",
    [
        subjects.worker_heartbeat(THEIRS),
        subjects.replies("gateway1", THEIRS),
        subjects.controller_http(),
        "_R_.x",
    ],
)
async def test_a_replica_there_speaks_for_nobody_else(replica: Someone, subject: str) -> None:
    assert not await replica.may(replica.client.publish(subject))


async def test_what_opens_the_control_plane_does_not_open_the_compute_plane(planes: Planes) -> None:
    settings = planes.issued.of_service("controller", planes.there.url)
    with pytest.raises(nats.errors.Error):
        async with connected(settings):
            raise AssertionError("it was let in")


async def test_the_links_credentials_make_no_client(planes: Planes) -> None:
    link = planes.issued.root / "nats" / "compute-plane" / "nats.creds"
    settings = planes.issued.of_service("controller", planes.there.url).model_copy(
        update={"credentials": link}
    )
    with pytest.raises(nats.errors.Error):
        async with connected(settings):
            raise AssertionError("it was let in")
