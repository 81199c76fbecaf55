"""Where notifications go: a mail server, a webhook. Each sink is configured for the whole installation by its URL."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from email.message import EmailMessage
from email.utils import format_datetime
from typing import Any, Protocol
from urllib.parse import parse_qs, unquote, urlsplit

import aiosmtplib
import httpx
import structlog

from servery_controller.domain.happenings import Notice

log = structlog.get_logger()

SEND_SECONDS = 20.0
"""Longest a sink may take for one notification; shorter than the claim on it."""
SUBMISSION_PORT, SUBMISSIONS_PORT = 587, 465


class DeliveryFailed(Exception):
    """The sink did not take the notification; the message says why, without credentials."""


class Sink(Protocol):
    """Takes a notification. The id is the same when it is sent again."""

    async def send(self, id: str, notice: Notice, happened_at: datetime) -> None:
        """Deliver it. Raises DeliveryFailed."""
        ...


@dataclass(frozen=True, slots=True)
class SmtpServer:
    """A mail server, from ``smtp://user:password@host:port?from=address`` or ``smtps://…``.

    ``smtps`` speaks TLS from the start. ``smtp`` takes up STARTTLS when the server offers it; ``starttls=always``
    refuses to go on without, ``starttls=never`` does not try.
    """

    host: str
    port: int
    user: str | None
    password: str | None
    sender: str
    tls: bool
    start_tls: bool | None
    """None: when offered."""

    @staticmethod
    def parse(url: str) -> "SmtpServer":
        """Return the server. Raises ValueError, without the URL's password in the message."""
        parts = urlsplit(url)
        query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        if parts.scheme not in ("smtp", "smtps") or not parts.hostname:
            raise ValueError("must look like smtp://user:password@host:port?from=address, or smtps://…")
        if "@" not in query.get("from", ""):
            raise ValueError("must name the sender: …?from=address")
        start_tls = {"always": True, "never": False, "offered": None}
        if query.get("starttls", "offered") not in start_tls:
            raise ValueError(f"starttls must be one of {', '.join(start_tls)}")
        tls = parts.scheme == "smtps"
        return SmtpServer(
            host=parts.hostname,
            port=parts.port or (SUBMISSIONS_PORT if tls else SUBMISSION_PORT),
            user=unquote(parts.username) if parts.username else None,
            password=unquote(parts.password) if parts.password else None,
            sender=query["from"],
            tls=tls,
            start_tls=False if tls else start_tls[query.get("starttls", "offered")],
        )


class EmailSink:
    """Sends one message to all recipients."""

    def __init__(self, server: SmtpServer) -> None:
        self._server = server

    async def send(self, id: str, notice: Notice, happened_at: datetime) -> None:
        server = self._server
        try:
            refused, _ = await aiosmtplib.send(
                message_of(id, notice, happened_at, server.sender),
                sender=server.sender,
                recipients=list(notice.recipients),
                hostname=server.host,
                port=server.port,
                username=server.user,
                password=server.password,
                use_tls=server.tls,
                start_tls=server.start_tls,
                timeout=SEND_SECONDS,
            )
        except (aiosmtplib.SMTPException, OSError, TimeoutError) as error:
            raise DeliveryFailed(f"the mail server did not take it: {error!r}") from error
        if refused:
            # The others have it: sending it again would tell them twice.
            log.warning("recipients_refused", notification_id=id, recipients=sorted(refused))


class WebhookSink:
    """POSTs JSON. ``Idempotency-Key`` and ``id`` tell repetitions."""

    def __init__(self, url: str, client: httpx.AsyncClient) -> None:
        self._url = url
        self._client = client

    async def send(self, id: str, notice: Notice, happened_at: datetime) -> None:
        try:
            answer = await self._client.post(
                self._url, json=body_of(id, notice, happened_at), headers={"Idempotency-Key": id}
            )
        except httpx.HTTPError as error:
            raise DeliveryFailed(f"the webhook cannot be reached: {error!r}") from error
        if not answer.is_success:
            raise DeliveryFailed(f"the webhook answered {answer.status_code}")


def body_of(id: str, notice: Notice, happened_at: datetime) -> Mapping[str, Any]:
    """The JSON that a webhook gets."""
    return {
        "id": id,
        "event": notice.event,
        "timestamp": int(happened_at.timestamp() * 1000),
        "workspace_id": notice.workspace_id,
        "endpoint_id": notice.endpoint_id,
        "endpoint": notice.endpoint,
        "config_version": notice.config_version,
        "state": notice.state,
        "message": notice.message,
        "recipients": list(notice.recipients),
    }


def message_of(id: str, notice: Notice, happened_at: datetime, sender: str) -> EmailMessage:
    """The mail that recipients get."""
    outcome = "succeeded" if notice.event.endswith("succeeded") else "failed"
    mail = EmailMessage()
    mail["From"] = sender
    mail["To"] = ", ".join(notice.recipients)
    mail["Subject"] = f"Servery: update of endpoint {notice.endpoint} {outcome}"
    mail["Date"] = format_datetime(happened_at)
    mail["Message-ID"] = f"<{id}@{sender.rsplit('@', 1)[1]}>"
    mail["Auto-Submitted"] = "auto-generated"
    mail.set_content(
        f"The update of endpoint {notice.endpoint} (workspace {notice.workspace_id}) to config version "
        f"{notice.config_version} {outcome}.\n\n{notice.message}\n"
    )
    return mail
