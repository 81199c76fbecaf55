"""When credentials are renewed, how often it is tried, and what happens when it never works: hours in no time."""

import base64
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from servery_common.contracts import subjects
from servery_common.contracts.permissions import of_replica
from servery_common.contracts.replicas import CredentialsRenewed, RenewCredentials
from servery_common.errors import Unavailable
from servery_common.messaging.testing import InMemoryBus
from servery_common.nats_credentials import Authority, KeyPair, lifetime_of, make_user, user_token
from servery_common.settings import NatsSettings
from servery_worker.credential_files import CredentialFiles
from servery_worker.renewal import LOOK_SECONDS, CredentialsEnd, Renewal

DAY = timedelta(days=1)
START = datetime(2026, 3, 1, tzinfo=UTC).timestamp()
ACCOUNT = Authority.make().account


class Enough(Exception):
    """Ends a test's renewal."""


class World:
    """A clock, a controller that answers or does not, and a worker's files."""

    def __init__(self, directory: Path, lifetime: timedelta = DAY) -> None:
        self.now = START
        self.lifetime = lifetime
        self.bus = InMemoryBus()
        self.asked: list[float] = []
        self.renewed: list[float] = []
        self.paused: list[float] = []
        self.fails: Callable[[], bool] = lambda: False
        self.reconnect_fails: Callable[[], bool] = lambda: False
        self.ends_at = START + 10 * 86400
        creds, tls = directory / "nats.creds", directory / "tls.pem"
        creds.write_text(make_user(ACCOUNT, "r1", of_replica("r1"), self.date, lifetime))
        tls.write_text("-----BEGIN PRIVATE KEY-----\nkey\n-----BEGIN CERTIFICATE-----\nold\n")
        self.files = CredentialFiles(NatsSettings(credentials=creds, tls_cert=tls, tls_key=tls))
        self.creds = creds
        self.tls = tls

    @property
    def date(self) -> datetime:
        return datetime.fromtimestamp(self.now, UTC)

    async def serve(self) -> None:
        async def renew(asked: RenewCredentials) -> CredentialsRenewed:
            self.asked.append(self.now)
            assert asked.certificate == "-----BEGIN CERTIFICATE-----\nold\n" or self.renewed
            if self.fails():
                raise Unavailable("The controller cannot.")
            token = user_token(ACCOUNT, asked.user_key, "r1", of_replica("r1"), self.date, self.lifetime)
            return CredentialsRenewed(
                token=token, certificate=f"-----BEGIN CERTIFICATE-----\n{len(self.asked)}\n"
            )

        await self.bus.serve(
            subjects.ALL_CREDENTIAL_RENEWALS, RenewCredentials, renew, sender=lambda asked: asked.replica_id
        )

    async def pause(self, seconds: float) -> None:
        self.paused.append(seconds)
        self.now += seconds
        if self.now > self.ends_at:
            raise Enough

    async def reconnect(self) -> None:
        if self.reconnect_fails():
            raise TimeoutError
        self.renewed.append(self.now)

    def renewal(self, draw: Callable[[float, float], float] = lambda low, high: (low + high) / 2) -> Renewal:
        lifetime = self.files.lifetime()
        assert lifetime is not None
        return Renewal(
            "r1",
            self.files,
            lifetime,
            lambda: self.bus,
            self.reconnect,
            now=lambda: self.now,
            pause=self.pause,
            draw=draw,
        )


@pytest.fixture
async def world(tmp_path: Path) -> World:
    world = World(tmp_path)
    await world.serve()
    return world


async def test_it_is_renewed_at_half_of_each_lifetime_for_ever(world: World) -> None:
    with pytest.raises(Enough):
        await world.renewal().run()
    assert len(world.renewed) == 20
    for earlier, later in zip([START, *world.renewed], world.renewed, strict=False):
        assert later - earlier == pytest.approx(43200, abs=1)


@pytest.mark.parametrize(("draw", "share"), [(min, 0.45), (max, 0.55)])
async def test_those_that_began_together_do_not_ask_together(
    world: World, draw: Callable[[float, float], float], share: float
) -> None:
    world.ends_at = START + 14 * 3600
    with pytest.raises(Enough):
        await world.renewal(draw).run()
    assert world.asked == [pytest.approx(START + share * 86400)]


async def test_a_machine_that_was_suspended_finds_out_soon(world: World) -> None:
    world.ends_at = START + 86400
    with pytest.raises(Enough):
        await world.renewal().run()
    assert max(world.paused) <= LOOK_SECONDS


async def test_each_renewal_is_for_a_key_of_its_own_and_the_certificates_key_stays(world: World) -> None:
    seeds: set[str] = set()
    reconnect = world.reconnect

    async def note() -> None:
        await reconnect()
        creds = world.creds.read_text()
        seed = creds.split("SEED-----\n")[1].split("\n")[0]
        assert f'"sub":"{KeyPair.of(seed).public}"' in _claims(creds)
        seeds.add(seed)

    world.reconnect = note
    with pytest.raises(Enough):
        await world.renewal().run()
    assert len(seeds) == len(world.renewed) == 20
    assert world.tls.read_text() == ("-----BEGIN PRIVATE KEY-----\nkey\n-----BEGIN CERTIFICATE-----\n20\n")


async def test_without_a_controller_it_asks_again_and_again_until_there_is_one(world: World) -> None:
    world.fails = lambda: world.now < START + 20 * 3600
    world.ends_at = START + 24 * 3600
    with pytest.raises(Enough):
        await world.renewal().run()
    assert START + 20 * 3600 <= world.renewed[0] <= START + 20 * 3600 + 60
    assert len(world.renewed) == 1
    # About every half minute: neither a storm nor a long silence.
    assert 8 * 60 <= len(world.asked) <= 8 * 60 * 4


async def test_connections_that_cannot_be_made_are_tried_again_and_the_old_ones_end_when_they_would(
    world: World,
) -> None:
    world.reconnect_fails = lambda: True
    renewal = world.renewal()
    with pytest.raises(CredentialsEnd):
        await renewal.run()
    # What is in the files is newer, but nothing is connected with it.
    assert world.now == START + 86400 - 30
    assert renewal.left() == pytest.approx(30 / 86400)
    newest = lifetime_of(world.creds.read_text())
    assert newest is not None
    assert newest.ends > START + 86400


async def test_what_could_not_be_renewed_is_told_in_time_with_the_last_reason(world: World) -> None:
    world.fails = lambda: True
    renewal = world.renewal()
    with pytest.raises(CredentialsEnd, match=r"end at 2026-03-02 00:00:00 UTC .*: The controller cannot\."):
        await renewal.run()
    assert world.now == START + 86400 - 30


async def test_a_short_lifetime_leaves_a_tenth_to_stop_in(tmp_path: Path) -> None:
    world = World(tmp_path, timedelta(seconds=100))
    with pytest.raises(CredentialsEnd, match="Nobody serves"):
        await world.renewal().run()
    assert world.now == START + 90


async def test_how_much_is_left_is_a_share_between_nothing_and_all(world: World) -> None:
    renewal = world.renewal()
    assert renewal.left() == 1
    world.now += 86400 / 4
    assert renewal.left() == 0.75
    world.now += 2 * 86400
    assert renewal.left() == 0
    world.now = START - 60
    assert renewal.left() == 1


def _claims(creds: str) -> str:
    body = creds.split("-----\n")[1].split("\n")[0].split(".")[1]
    return base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)).decode()
