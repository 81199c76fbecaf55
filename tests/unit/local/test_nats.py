from pathlib import Path

import pytest

from servery_local.nats import OLDEST_VERSION, configuration, parse_version


@pytest.mark.parametrize(
    ("answer", "version"),
    [
        ("nats-server: v2.15.1\n", (2, 15, 1)),
        ("nats-server: v2.14.0-RC.3\n", (2, 14, 0)),
        ("command not found", None),
        ("", None),
    ],
)
def test_the_version_is_read(answer: str, version: tuple[int, ...] | None) -> None:
    assert parse_version(answer) == version


def test_versions_are_compared_as_numbers() -> None:
    assert parse_version("v2.9.25") < OLDEST_VERSION < parse_version("v2.14.10")


def test_the_server_listens_on_the_loopback_interface_with_a_password() -> None:
    text = configuration(Path("/data/jet stream"), 4333, 4334, "secret")
    assert 'listen: "127.0.0.1:4333"' in text
    assert 'store_dir: "/data/jet stream"' in text
    assert 'password: "secret"' in text
    assert 'http: "127.0.0.1:4334"' in text
