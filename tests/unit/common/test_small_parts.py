"""Backoff, redelivery, migrations, the YAML writer: functions from values to values."""

import itertools
from pathlib import Path

import pytest
import yaml
from nats.aio.msg import Msg
from tests.messages import Other

from servery_common.backoff import full_jitter
from servery_common.contracts.builds import BuildRequested, BuildStarted
from servery_common.contracts.catalogue import only_producer
from servery_common.messaging.client import headers_size
from servery_common.messaging.consumer import MAX_DELIVERIES, redelivery_delay
from servery_common.messaging.serving import expired
from servery_common.postgres.migrate import Migration, MigrationError, pending, read_migrations
from servery_common.schemas.yaml import to_yaml
from servery_common.settings import NatsSettings, PostgresSettings


def test_delays_double_up_to_the_cap() -> None:
    bounds = itertools.islice(full_jitter(1, 5, draw=lambda _, high: high), 5)
    assert list(bounds) == [1, 2, 4, 5, 5]


def test_delays_are_spread_over_the_whole_range() -> None:
    lows = itertools.islice(full_jitter(1, 5, draw=lambda low, _: low), 3)
    assert list(lows) == [0, 0, 0]


def test_a_failing_message_is_tried_for_about_an_hour() -> None:
    delays = [redelivery_delay(deliveries) for deliveries in range(1, MAX_DELIVERIES + 1)]
    assert delays[:3] == [0.5, 1.0, 2.0]
    assert max(delays) == 60
    assert 3000 < sum(delays) < 4500


def test_the_size_of_headers_is_that_on_the_wire() -> None:
    wire = b"NATS/1.0\r\na: b\r\nlonger: \xc3\xa4\r\n\r\n"
    assert headers_size({"a": "b", "longer": "ä"}) == len(wire)


@pytest.mark.parametrize(
    ("headers", "waited", "gone"),
    [
        ({"servery-timeout-ms": "1000"}, 0.9, False),
        ({"servery-timeout-ms": "1000"}, 1.0, True),
        ({"servery-timeout-ms": "soon"}, 9.0, False),
        (None, 9.0, False),
    ],
)
def test_a_request_expires_with_its_callers_patience(
    headers: dict[str, str] | None, waited: float, gone: bool
) -> None:
    assert expired(Msg(_client=None, headers=headers), waited) is gone  # type: ignore[arg-type]


def test_migrations_are_applied_in_order_and_once() -> None:
    first, second, third = (Migration(f"000{n}_x.sql", str(n)) for n in (1, 2, 3))
    assert pending([first, second, third], {second.name: second.checksum}) == [first, third]
    assert pending([first], {first.name: first.checksum, "0009_newer.sql": "x"}) == []


def test_an_applied_migration_must_not_change() -> None:
    with pytest.raises(MigrationError):
        pending([Migration("0001_x.sql", "new")], {"0001_x.sql": Migration("0001_x.sql", "old").checksum})


def test_a_migration_number_is_used_once(tmp_path: Path) -> None:
    for name in ("0001_a.sql", "0001_b.sql"):
        (tmp_path / name).write_text("SELECT 1")
    with pytest.raises(MigrationError, match="0001"):
        read_migrations(tmp_path)


def test_an_outbox_message_belongs_to_its_only_producer() -> None:
    assert (only_producer(BuildRequested), only_producer(BuildStarted)) == ("controller", "builder")
    with pytest.raises(ValueError, match=r"test\.other\.v1"):
        only_producer(Other)


def test_yaml_is_read_as_it_was_meant() -> None:
    document = {
        "plain": "text",
        "tricky": ["yes", "1.0", "a: b", "# no comment", 'quote " ä', "", "line\nbreak"],
        "nested": [{"a": [1, None, True, 1.5], "b": {}}, [], [["deep"]]],
        "$ref": "#/x/y",
        "1.5": "a key that is no identifier",
    }
    assert yaml.safe_load(to_yaml(document)) == document


def test_settings_do_not_show_passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVERY_NATS_URL", "nats://user:secret@host:4222")
    monkeypatch.setenv("SERVERY_NATS_PASSWORD", "secret")
    monkeypatch.setenv("SERVERY_POSTGRES_URL", "postgresql://user:secret@host/db")
    assert "secret" not in repr(NatsSettings())
    assert "secret" not in repr(PostgresSettings())  # type: ignore[call-arg]


def test_postgres_with_tls_needs_an_authority_and_nothing_but_on_and_off_is_taken() -> None:
    url = "postgresql://host/db"
    with pytest.raises(ValueError, match="SERVERY_POSTGRES_TLS_CA"):
        PostgresSettings(url=url, tls="on")
    with pytest.raises(ValueError, match="'on' or 'off'"):
        PostgresSettings(url=url, tls="yes")  # type: ignore[arg-type]
    assert PostgresSettings(url=url).tls == "off"
