"""How the commands that Servery prints are called, with real files on a real path."""

import sys
from pathlib import Path

import pytest

from servery_local.invocation import command, eval_env


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    script = tmp_path / "venv" / "bin" / "servery"
    script.parent.mkdir(parents=True)
    script.touch(mode=0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["venv/bin/servery", "up"])
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("SERVERY_DATA_DIR", raising=False)
    return script


def test_a_command_that_is_not_on_the_path_is_named_by_its_own(script: Path) -> None:
    assert command(Path(".servery").resolve(), "up") == "venv/bin/servery up"


def test_a_command_on_the_path_is_named_alone(script: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(script.parent))
    assert command(Path(".servery").resolve(), "get", "a b") == "servery get 'a b'"


def test_another_command_of_that_name_on_the_path_is_not_taken_for_it(
    script: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other" / "servery"
    other.parent.mkdir()
    other.touch(mode=0o755)
    monkeypatch.setenv("PATH", str(other.parent))
    assert command(Path(".servery").resolve(), "up") == "venv/bin/servery up"


def test_a_module_is_named_as_the_script_beside_its_interpreter(
    script: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["/site-packages/servery_local/__main__.py"])
    monkeypatch.setattr(sys, "executable", str(script.with_name("python")))
    assert command(Path(".servery").resolve(), "up") == "venv/bin/servery up"
    script.unlink()
    assert command(Path(".servery").resolve(), "up") == "venv/bin/python -m servery_local up"


def test_a_directory_is_named_unless_it_is_found_without(
    script: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Path("other").resolve()
    monkeypatch.setenv("SERVERY_DATA_DIR", str(other))
    assert eval_env(other) == 'eval "$(venv/bin/servery env)"'


@pytest.mark.parametrize("variable", [None, "other"])
def test_a_directory_that_only_is_found_from_here_is_named_by_its_whole_path(
    script: Path, monkeypatch: pytest.MonkeyPatch, variable: str | None
) -> None:
    if variable is not None:
        monkeypatch.setenv("SERVERY_DATA_DIR", variable)
    other = Path("other").resolve()
    assert command(other, "status") == f"{script} status --data-dir {other}"
    monkeypatch.setenv("PATH", str(script.parent))
    assert eval_env(other) == f'eval "$(servery env --data-dir {other})"'
