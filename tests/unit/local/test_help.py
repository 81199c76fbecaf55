from collections.abc import Iterator

import click
import pytest
from typer.main import get_command
from typer.testing import CliRunner

from servery_local.cli import app
from servery_local.commands.deploy import DEPLOYMENT_TIMEOUT, require_seconds


def _commands(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield path
    for name, child in getattr(command, "commands", {}).items():
        yield from _commands(child, (*path, name))


@pytest.mark.parametrize("path", list(_commands(get_command(app))), ids=" ".join)
def test_no_help_is_cut_in_a_terminal_of_80_columns(
    path: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    shown = CliRunner().invoke(app, [*path, "--help"])
    assert shown.exit_code == 0
    assert "Usage:" in shown.output
    assert "…" not in shown.output, shown.output


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "soon", ""])
def test_a_time_to_wait_is_a_whole_number_of_seconds(text: str) -> None:
    refused = CliRunner().invoke(app, ["deploy", "models:/m/1", "--name", "e", "--timeout", text])
    assert refused.exit_code == 2
    assert "Invalid value for '--timeout'" in refused.output


def test_the_default_is_one() -> None:
    assert require_seconds(DEPLOYMENT_TIMEOUT) == DEPLOYMENT_TIMEOUT
