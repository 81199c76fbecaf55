"""deploy/compute-plane, without an engine: what must hold for a compute plane in another network."""

import re
from pathlib import Path
from typing import Any

import yaml

from servery_common.contracts.permissions import COMPUTE_PLANE, of_link, of_replica

ROOT = Path(__file__).parents[2]
FILES = ROOT / "deploy" / "compute-plane"
INSTALLATION = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
THERE = yaml.safe_load((FILES / "docker-compose.yml").read_text())
HERE = yaml.safe_load((FILES / "control-plane.yml").read_text())


def covers(pattern: str, subject: str) -> bool:
    """Whether all that ``subject`` stands for is in ``pattern``."""
    ours, theirs = pattern.split("."), subject.split(".")
    return len(ours) == len(theirs) and all(a in ("*", b) for a, b in zip(ours, theirs, strict=True))


def test_all_that_a_replica_may_do_passes_but_what_it_says_to_itself() -> None:
    rights = of_replica("r1")
    for subject in rights.publish:
        assert any(covers(passes, subject) for passes in (*COMPUTE_PLANE.outward, *COMPUTE_PLANE.asked)), (
            subject
        )
    for subject in rights.subscribe:
        known = (*COMPUTE_PLANE.orders, *COMPUTE_PLANE.inward)
        assert subject.startswith("_INBOX.r1.") or any(covers(passes, subject) for passes in known), subject


def test_nothing_passes_that_no_replica_needs() -> None:
    needed = (*of_replica("r1").publish, *of_replica("r1").subscribe)
    passage = COMPUTE_PLANE
    for passes in (*passage.orders, *passage.asked, *passage.inward, *passage.outward):
        assert any(covers(passes, subject) for subject in needed), passes


def test_the_link_may_send_what_goes_there_and_receive_what_comes_from_there() -> None:
    assert set(of_link().publish) == {*COMPUTE_PLANE.orders, *COMPUTE_PLANE.inward, "_INBOX.>"}
    assert set(of_link().subscribe) == {*COMPUTE_PLANE.outward, *COMPUTE_PLANE.asked, "_R_.>"}


def test_the_server_over_there_is_run_as_the_one_here() -> None:
    ours, theirs = INSTALLATION["services"]["nats"], THERE["services"]["nats"]
    ours = {**ours, "depends_on": None, "volumes": None, "networks": None, "command": None}
    differs = {name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name)}
    assert differs == {"command", "networks", "volumes", "ports"}
    assert list(THERE["services"]) == ["nats"]


def test_the_control_plane_knows_the_server_over_there_by_the_name_it_gets() -> None:
    name = HERE["services"]["controller"]["environment"]["SERVERY_CONTROLLER_DOCKER_NATS_CONTAINER"]
    assert name == f"{THERE['name']}-nats-1"
    assert THERE["volumes"]["credentials"] == {"name": THERE["name"], "external": True}
    variable, default = THERE["name"].removeprefix("${").removesuffix("}").split(":-")
    assert f"$(setting {variable} {default})" in (FILES / "up.sh").read_text()


def test_nothing_but_the_link_is_published_over_there() -> None:
    [port] = THERE["services"]["nats"]["ports"]
    assert port == "${SERVERY_COMPUTE_PLANE_BIND:-0.0.0.0}:${SERVERY_COMPUTE_PLANE_PORT:-7422}:7422"


def test_the_server_over_there_connects_to_nobody_and_stores_nothing() -> None:
    written = (FILES / "nats.conf").read_text()
    settings = re.sub(r"#.*", "", written)
    for word in ("remotes", "routes", "gateway", "cluster", "jetstream"):
        assert word not in settings, word


def test_nobody_here_has_the_socket_of_this_machines_engine() -> None:
    for name in ("controller", "builder"):
        base = mounted_at("/var/run/docker.sock", INSTALLATION["services"][name])
        assert "docker.sock" in base, f"{name} has it, without the override"
        # Compose replaces a mount by one with the same target.
        assert "docker.sock" not in mounted_at("/var/run/docker.sock", HERE["services"][name])
        assert HERE["services"][name]["environment"]["DOCKER_HOST"].startswith("unix:///var/run/docker.sock/")


def test_the_control_planes_nats_is_still_published_nowhere() -> None:
    for service in HERE["services"].values():
        assert "ports" not in service


def mounted_at(target: str, service: dict[str, Any]) -> str:
    [source] = [volume.removesuffix(f":{target}") for volume in service["volumes"] if volume.endswith(target)]
    return source


def test_every_mounted_file_and_volume_exists() -> None:
    for service in HERE["services"].values():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if source.startswith("./"):
                assert (ROOT / source).exists(), source
            elif not source.startswith("${"):
                assert source in HERE["volumes"], source
