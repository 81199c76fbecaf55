"""The scripts that bring up and take down installations mean the one that Compose means."""

import os
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
DOCKER = """#!/bin/sh
echo "$* [$SERVERY_COMPUTE_PLANE_BIND:$SERVERY_COMPUTE_PLANE_PORT]" >> "$CALLS"
case "$*" in "compose config") printf 'name: %s\\n' "$NAMED" ;; esac
"""
"""Plays Docker's part. Compose itself decides between the environment, `.env` and the file; what it says is $NAMED."""


def run(checkout: Path, script: str, *arguments: str, **environment: str) -> tuple[int, list[str]]:
    """Run a script of a copy of the deployment files; return how it ended and what it asked Docker for."""
    for folder in ("docker", "compute-plane"):
        shutil.copytree(ROOT / "deploy" / folder, checkout / "deploy" / folder, dirs_exist_ok=True)
    calls = checkout / "calls"
    docker = checkout / "bin" / "docker"
    docker.parent.mkdir(exist_ok=True)
    docker.write_text(DOCKER)
    docker.chmod(0o755)
    known = {"PATH": f"{docker.parent}:{os.environ['PATH']}", "CALLS": str(calls), "NAMED": ""}
    ended = subprocess.run(
        [str(checkout / script), *arguments],
        env={**known, **environment},
        capture_output=True,
        timeout=60,
        check=False,
    )
    return ended.returncode, calls.read_text().splitlines() if calls.exists() else []


@pytest.mark.parametrize(
    ("arguments", "project", "options"),
    [
        ((), "ours", ""),
        (("-v",), "ours", " -v"),
        (("other",), "other", ""),
        (("other", "-v"), "other", " -v"),
    ],
)
def test_down_takes_the_project_that_compose_means_unless_one_is_named(
    tmp_path: Path, arguments: tuple[str, ...], project: str, options: str
) -> None:
    code, calls = run(tmp_path, "deploy/docker/down.sh", *arguments, NAMED="ours")
    assert code == 0
    done = [call.removesuffix(" [:]") for call in calls if call.split()[:2] != ["compose", "config"]]
    assert done[0] == f"compose -p {project} down --timeout 30{options}"
    assert all(call.endswith(f"label=servery.installation={project}") for call in done[1:])
    assert any(call.startswith("images") for call in done) == ("-v" in arguments)


def test_down_takes_nothing_down_when_the_project_is_not_known(tmp_path: Path) -> None:
    code, calls = run(tmp_path, "deploy/docker/down.sh", "-v")
    assert code == 1
    assert [call.removesuffix(" [:]") for call in calls] == ["compose config"]


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    """The directory of a socket that leads to an engine."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "engine.sock"))
    return tmp_path


def test_a_compute_plane_is_what_the_file_beside_the_compose_file_says(tmp_path: Path, engine: Path) -> None:
    (tmp_path / ".env").write_text(
        f"SERVERY_COMPUTE_PLANE_ENGINE={engine}\n"
        "SERVERY_COMPUTE_PLANE_PROJECT='second'   # beside another one\n"
        "SERVERY_COMPUTE_PLANE_PORT=17422\n"
        "# SERVERY_COMPUTE_PLANE_BIND=192.0.2.1\n"
    )
    code, calls = run(tmp_path, "deploy/compute-plane/up.sh")
    assert code == 0
    there = f"-H unix://{engine}/engine.sock"
    assert f"{there} volume create second [0.0.0.0:17422]" in calls
    assert f"{there} kill --signal HUP second-nats-1 [0.0.0.0:17422]" in calls


def test_what_the_environment_says_of_a_compute_plane_counts_more(tmp_path: Path, engine: Path) -> None:
    (tmp_path / ".env").write_text(
        "SERVERY_COMPUTE_PLANE_ENGINE=/nowhere\nSERVERY_COMPUTE_PLANE_PROJECT=second\n"
    )
    said = {"SERVERY_COMPUTE_PLANE_ENGINE": str(engine), "SERVERY_COMPUTE_PLANE_BIND": "192.0.2.1"}
    code, calls = run(tmp_path, "deploy/compute-plane/up.sh", **said)
    assert code == 0
    assert f"-H unix://{engine}/engine.sock volume create second [192.0.2.1:7422]" in calls
