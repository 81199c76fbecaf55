"""The start script of the compose file's Postgres, with a build that has no TLS: the one from PyPI."""

import os
import subprocess
from pathlib import Path

import pytest
from tests.infrastructure import postgres_programs

SCRIPT = Path(__file__).parents[3] / "deploy" / "postgres" / "start.sh"


def start(**environment: str) -> subprocess.CompletedProcess[str]:
    path = f"{postgres_programs()}:{os.environ['PATH']}"
    return subprocess.run(
        ["sh", str(SCRIPT), "postgres"],
        env={"PATH": path, **environment},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_a_build_without_tls_does_not_start_with_it_and_says_what_to_do() -> None:
    ended = start(SERVERY_POSTGRES_TLS="on")
    assert ended.returncode == 1
    assert "This build of Postgres (postgres (PostgreSQL)" in ended.stderr
    assert "cannot do TLS, and SERVERY_POSTGRES_TLS is on" in ended.stderr
    assert "set SERVERY_POSTGRES_TLS=off (in .env)" in ended.stderr


@pytest.mark.parametrize("chosen", [{}, {"SERVERY_POSTGRES_TLS": ""}, {"SERVERY_POSTGRES_TLS": "no"}])
def test_what_is_neither_on_nor_off_is_not_guessed(chosen: dict[str, str]) -> None:
    ended = start(**chosen)
    assert ended.returncode == 1
    assert "set it to on or off" in ended.stderr
