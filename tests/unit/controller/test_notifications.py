from datetime import UTC, datetime, timedelta

import pytest

from servery_common.contracts.states import ConfigUpdate
from servery_controller.domain.happenings import Notice
from servery_controller.notifications.delivery import GIVE_UP_AFTER, LONGEST_PAUSE_SECONDS, pause_after
from servery_controller.notifications.notification_sinks import SmtpServer, body_of, message_of

WHEN = datetime(2026, 1, 1, tzinfo=UTC)
NOTICE = Notice(
    event="endpoint.update_failed",
    workspace_id="1",
    endpoint_id="ep1",
    endpoint="iris",
    config_version=3,
    state=ConfigUpdate.UPDATE_FAILED,
    message="iris-1: No package 'foo' exists.",
    recipients=("ann@example.com", "ops@example.com"),
)


def test_a_mail_server_is_read_from_its_address():
    server = SmtpServer.parse("smtp://us%40er:p%2Fss@mail.example:2525?from=servery@example.com")
    assert (server.host, server.port, server.user, server.password) == (
        "mail.example",
        2525,
        "us@er",
        "p/ss",
    )
    assert (server.tls, server.start_tls) == (False, None)


@pytest.mark.parametrize(
    ("url", "port", "tls", "start_tls"),
    [
        ("smtp://m?from=a@b.c", 587, False, None),
        ("smtp://m?from=a@b.c&starttls=always", 587, False, True),
        ("smtp://m?from=a@b.c&starttls=never", 587, False, False),
        ("smtps://m?from=a@b.c", 465, True, False),
    ],
)
def test_how_the_connection_is_secured(url, port, tls, start_tls):
    server = SmtpServer.parse(url)
    assert (server.port, server.tls, server.start_tls, server.user) == (port, tls, start_tls, None)


@pytest.mark.parametrize(
    "url",
    [
        "http://user:hush@m?from=a@b.c",
        "smtp://?from=a@b.c",
        "smtp://user:hush@m",
        "smtp://user:hush@m?from=a@b.c&starttls=maybe",
    ],
)
def test_a_wrong_address_is_refused_without_its_password(url):
    with pytest.raises(ValueError, match="must") as refused:
        SmtpServer.parse(url)
    assert "hush" not in str(refused.value)


def test_a_webhook_gets_all_there_is_to_know():
    assert body_of("n1", NOTICE, WHEN) == {
        "id": "n1",
        "event": "endpoint.update_failed",
        "timestamp": 1767225600000,
        "workspace_id": "1",
        "endpoint_id": "ep1",
        "endpoint": "iris",
        "config_version": 3,
        "state": "UPDATE_FAILED",
        "message": "iris-1: No package 'foo' exists.",
        "recipients": ["ann@example.com", "ops@example.com"],
    }


def test_a_mail_says_what_failed_and_is_the_same_mail_when_it_is_sent_again():
    mail = message_of("n1", NOTICE, WHEN, "servery@example.com")
    assert mail["To"] == "ann@example.com, ops@example.com"
    assert mail["Subject"] == "Servery: update of endpoint iris failed"
    assert mail["Message-ID"] == "<n1@example.com>"
    assert "No package 'foo' exists." in mail.get_content()


def test_pauses_grow_to_a_bound_and_end_after_a_day():
    early = [pause_after(1, timedelta(0)) for _ in range(50)]
    late = [pause_after(1000, timedelta(hours=23)) for _ in range(50)]
    assert all(pause is not None and pause <= 2.0 for pause in early)
    assert all(pause is not None and pause <= LONGEST_PAUSE_SECONDS for pause in late)
    assert max(pause for pause in late if pause is not None) > 2.0
    assert pause_after(1, GIVE_UP_AFTER) is None
