from pathlib import Path

import pytest

from servery_local.commands.stack import format_uptime
from servery_local.postgres import url
from servery_local.stack import StackOptions, gateway_url


def test_the_socket_directory_is_quoted_in_the_database_url() -> None:
    assert url(Path("/a b/run")) == "postgresql://servery@/servery?host=%2Fa%20b%2Frun"


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", "http://127.0.0.1:9000"),
        ("0.0.0.0", "http://127.0.0.1:9000"),
        ("::1", "http://[::1]:9000"),
        ("serving.example", "http://serving.example:9000"),
    ],
)
def test_the_gateway_url_can_be_called_from_this_machine(host: str, expected: str) -> None:
    assert gateway_url(StackOptions(host, 9000)) == expected


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(None, "-"), (7.9, "7s"), (61, "1m 01s"), (3 * 3600 + 300, "3h 05m"), (90_000, "1d 01h")],
)
def test_an_uptime_is_shown_in_its_two_largest_units(seconds: float | None, expected: str) -> None:
    assert format_uptime(seconds) == expected
