"""Notifications, to a real mail server and a real webhook, from the commit that causes them to their arrival."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from email.message import EmailMessage
from email.parser import BytesParser
from email.policy import default

import asyncpg
import pytest
from aiosmtpd.smtp import SMTP
from tests.integration.controller.conftest import World
from tests.integration.controller.peers import entity
from tests.webhook import Webhook

ASKED = {"on_update_success": ["ann@example.com"], "on_update_failure": ["ops@example.com"]}


class Mailbox:
    """What an aiosmtpd server took; it refuses everything for now when ``down``."""

    def __init__(self) -> None:
        self.down = False
        self.mails: list[EmailMessage] = []
        self.recipients: list[list[str]] = []

    async def handle_DATA(self, server, session, envelope) -> str:  # noqa: N802
        if self.down:
            return "451 try again later"
        parsed = BytesParser(EmailMessage, policy=default).parsebytes(envelope.content)
        self.mails.append(parsed)
        self.recipients.append(envelope.rcpt_tos)
        return "250 taken"


@pytest.fixture
def webhook(monkeypatch: pytest.MonkeyPatch) -> Iterator[Webhook]:
    """A webhook that the controller is told of."""
    webhook = Webhook()
    monkeypatch.setenv("SERVERY_NOTIFICATIONS_WEBHOOK_URL", webhook.url)
    yield webhook
    webhook.close()


@pytest.fixture
async def mailbox(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Mailbox]:
    """A mail server that the controller is told of."""
    mailbox = Mailbox()
    server = await asyncio.get_running_loop().create_server(
        lambda: SMTP(mailbox, hostname="localhost"), "127.0.0.1", 0
    )
    port = server.sockets[0].getsockname()[1]
    monkeypatch.setenv(
        "SERVERY_NOTIFICATIONS_SMTP_URL", f"smtp://127.0.0.1:{port}?from=servery@example.com&starttls=never"
    )
    yield mailbox
    server.close()
    await server.wait_closed()


async def deploy(world: World) -> None:
    config = {"served_entities": [entity("1")]}
    await world.ok("POST", "", {"name": "iris", "config": config, "email_notifications": ASKED})
    assert await world.settled("iris") == ("READY", "NOT_UPDATING")


async def fail_to_update(world: World) -> None:
    world.builder.outcome = lambda order: "No package 'foo' exists." if order.model_version == "2" else None
    await world.ok("PUT", "/iris/config", {"served_entities": [entity("2")]})
    assert (await world.settled("iris"))[1] == "UPDATE_FAILED"


async def test_success_and_failure_are_told_to_those_who_asked(
    webhook: Webhook, mailbox: Mailbox, world: World
):
    await deploy(world)
    await fail_to_update(world)
    await world.until(lambda: len(webhook.taken) == 2 and len(mailbox.mails) == 2)

    succeeded, failed = sorted(webhook.taken, key=lambda told: told["config_version"])
    assert (succeeded["event"], succeeded["recipients"]) == ("endpoint.update_succeeded", ["ann@example.com"])
    assert (failed["event"], failed["recipients"]) == ("endpoint.update_failed", ["ops@example.com"])
    assert failed["endpoint"] == "iris"
    assert "No package 'foo' exists." in failed["message"]
    mails = {mail["Message-ID"]: mail for mail in mailbox.mails}
    mail = mails[f"<{failed['id']}@example.com>"]
    assert mail["To"] == "ops@example.com"
    assert "No package 'foo' exists." in mail.get_content()
    assert sorted(mailbox.recipients) == [["ann@example.com"], ["ops@example.com"]]


async def test_a_sink_that_is_down_gets_it_when_it_is_back_and_delays_no_other(
    webhook: Webhook, mailbox: Mailbox, world: World
):
    webhook.answer = 503
    await deploy(world)
    await world.until(lambda: webhook.refused and mailbox.mails)
    webhook.answer = 200
    await world.until(lambda: webhook.taken)
    assert {told["id"] for told in webhook.taken} == {told["id"] for told in webhook.refused}
    assert len(mailbox.mails) == 1


async def test_a_mail_server_that_is_down_gets_it_when_it_is_back(mailbox: Mailbox, world: World):
    mailbox.down = True
    await deploy(world)
    connection = await asyncpg.connect(world.postgres_url)
    try:

        async def tried() -> bool:
            return bool(
                await connection.fetchval("SELECT 1 FROM notifications WHERE last_error LIKE '%try again%'")
            )

        await world.until(tried)
        mailbox.down = False
        await world.until(lambda: mailbox.mails)

        async def forgotten() -> bool:
            return await connection.fetchval("SELECT count(*) FROM notifications") == 0

        await world.until(forgotten)
    finally:
        await connection.close()


async def test_a_controller_that_dies_before_it_told_tells_after_its_restart(webhook: Webhook, world: World):
    webhook.answer = 500
    await deploy(world)
    await world.until(lambda: webhook.refused)
    await world.crash_controller()
    # A claim that the dead controller may have left behind would run out by itself, later than a test waits.
    connection = await asyncpg.connect(world.postgres_url)
    await connection.execute("UPDATE notifications SET lock_expires_at = now() WHERE lock_token IS NOT NULL")
    await connection.close()
    webhook.answer = 200
    await world.start_controller()
    await world.until(lambda: webhook.taken)


async def test_a_day_in_vain_is_given_up_and_the_reason_kept(webhook: Webhook, world: World):
    webhook.answer = 500
    await deploy(world)
    await world.until(lambda: webhook.refused)
    connection = await asyncpg.connect(world.postgres_url)
    try:

        async def given_up() -> bool:
            await connection.execute(
                "UPDATE notifications SET created_at = now() - interval '2 days', next_attempt_at = now()"
            )
            return bool(
                await connection.fetchval("SELECT 1 FROM notifications WHERE given_up_at IS NOT NULL")
            )

        await world.until(given_up)
        assert await connection.fetchval("SELECT last_error FROM notifications") == "the webhook answered 500"
        webhook.answer = 200
        refused = len(webhook.refused)
        await fail_to_update(world)
        await world.until(lambda: webhook.taken)
        assert [told["event"] for told in webhook.taken] == ["endpoint.update_failed"]
        assert len(webhook.refused) == refused
    finally:
        await connection.close()


async def test_what_cannot_be_read_is_given_up_with_the_reason_and_delays_no_other(
    webhook: Webhook, world: World
):
    connection = await asyncpg.connect(world.postgres_url)
    try:
        unknown = ('"text"', "[]", '{"event": "endpoint.exploded"}')
        for number, notice in enumerate(unknown):
            await connection.execute(
                "INSERT INTO notifications (id, sink, notice) VALUES ($1, 'webhook', $2)", str(number), notice
            )
        await deploy(world)
        await world.until(lambda: webhook.taken)

        async def given_up() -> list[str]:
            rows = await connection.fetch(
                "SELECT last_error FROM notifications WHERE given_up_at IS NOT NULL"
            )
            return [row["last_error"] for row in rows] if len(rows) == len(unknown) else []

        for reason in await world.until(given_up):
            assert reason.startswith("not a notification this release can read")
    finally:
        await connection.close()


async def test_without_a_sink_nothing_is_kept_and_it_is_said_once(
    world: World, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
):
    with caplog.at_level(logging.WARNING):
        await deploy(world)
        await fail_to_update(world)
    connection = await asyncpg.connect(world.postgres_url)
    assert await connection.fetchval("SELECT count(*) FROM notifications") == 0
    await connection.close()
    said = capsys.readouterr().out + caplog.text
    assert said.count("notifications_not_configured") == 1
    assert (await world.ok("GET", "/iris"))["email_notifications"] == ASKED


async def test_recipients_are_replaced_answered_and_checked(world: World):
    await world.ok("POST", "", {"name": "iris", "email_notifications": ASKED})
    body = {"email_notifications": {"on_update_failure": ["ops@example.com", "ops@example.com"]}}
    stored = {"on_update_success": [], "on_update_failure": ["ops@example.com"]}
    assert await world.ok("PATCH", "/iris/notifications", body) == {
        "name": "iris",
        "email_notifications": stored,
    }
    assert (await world.ok("GET", "/iris"))["email_notifications"] == stored
    wrong = {"email_notifications": {"on_update_success": ["not an address"]}}
    status, code, message = await world.refused("PATCH", "/iris/notifications", wrong)
    assert (status, code) == (400, "INVALID_PARAMETER_VALUE")
    assert "'not an address' is not an e-mail address" in message
    assert (await world.refused("PATCH", "/none/notifications", body))[:2] == (
        404,
        "RESOURCE_DOES_NOT_EXIST",
    )
