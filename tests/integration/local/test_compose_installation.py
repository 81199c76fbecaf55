"""`servery status`, `env`, `logs`, `down`: where none of `servery up` runs, and an installation in containers may."""

import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from servery_local.compose_installation import ComposeInstallation, parse

IMAGE = "python:3.11-slim-bookworm"


def docker(*arguments: str) -> str:
    done = subprocess.run(("docker", *arguments), capture_output=True, text=True, timeout=120, check=True)
    return done.stdout.strip()


def servery(directory: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    env = {"PATH": os.environ["PATH"], "SERVERY_DATA_DIR": str(directory)} | variables
    command = (sys.executable, "-m", "servery_local", *arguments)
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def project() -> Iterator[str]:
    """A compose project with a container of the gateway's image, as the engine sees it."""
    if shutil.which("docker") is None or subprocess.run(("docker", "info"), capture_output=True).returncode:
        pytest.skip("no Docker engine")
    own = f"found-{uuid.uuid4().hex[:8]}"
    image = f"servery-gateway:{own}"
    docker("tag", IMAGE, image)
    label = f"com.docker.compose.project={own}"
    try:
        published = ("--publish", "127.0.0.1::8080")
        docker(
            "run", "--detach", "--init", "--name", own, "--label", label, *published, image, "sleep", "600"
        )
        yield own
    finally:
        subprocess.run(("docker", "rm", "--force", own), capture_output=True, check=False)
        docker("rmi", image)


@pytest.mark.docker
def test_an_installation_in_containers_is_told_of_with_the_variables_for_it(
    project: str, tmp_path: Path
) -> None:
    url = f"http://{docker('port', project, '8080').splitlines()[0]}"
    for command, code, stream, why in (
        ("status", 3, "stdout", "Servery does not run on"),
        ("env", 3, "stderr", "Servery does not run on"),
        ("logs", 1, "stderr", "error: there are no logs: Servery never ran on"),
        ("down", 0, "stdout", "Servery does not run on"),
    ):
        result = servery(tmp_path / "none", command)
        assert result.returncode == code
        told = getattr(result, stream)
        assert told.startswith(f"{why} {tmp_path / 'none'}")
        compose = f"docker compose -p {project}"
        assert f"as the compose project {project}. `{compose} ps` shows its services, `{compose} logs" in told
        assert f"`deploy/docker/down.sh {project}` takes it down" in told
        assert f"export DATABRICKS_HOST={url}\n" in told
        assert f"export DATABRICKS_TOKEN=$(docker compose -p {project} exec -T credentials cat /" in told
    assert servery(tmp_path / "none", "env").stdout == "", "a shell evaluates it"


@pytest.mark.parametrize("variables", [{"PATH": "/nowhere"}, {"DOCKER_HOST": "unix:///nowhere.sock"}])
def test_without_an_engine_nothing_is_said_of_containers(tmp_path: Path, variables: dict[str, str]) -> None:
    result = servery(tmp_path / "none", "status", **variables)
    assert (result.returncode, result.stderr) == (3, "")
    assert result.stdout == f"Servery does not run on {tmp_path / 'none'}.\n"


def test_installations_are_found_by_the_images_of_their_containers() -> None:
    told = (
        "one\tservery-gateway:0.1.0\t0.0.0.0:8080->8080/tcp, :::8080->8080/tcp",
        "one\texample.com/servery-mlflow:0.1.0\t127.0.0.1:5000->5000/tcp",
        "one\tpostgres:18.1\t5432/tcp",
        "two\tservery-gateway:0.1.0\t8080/tcp",
        "blog\tnginx\t0.0.0.0:80->80/tcp",
    )
    assert parse(told) == [
        ComposeInstallation("one", "http://127.0.0.1:8080", "http://127.0.0.1:5000"),
        ComposeInstallation("two"),
    ]
