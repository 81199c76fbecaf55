"""deploy/compute-plane with real containers: replicas beside a NATS that the installation's connects to.

Both planes are on one engine here, in networks of their own; it is reached through another socket, as
docs/leaf-nodes.md says.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import mlflow
import pandas as pd
import pytest
from tests.containers.engine import address_of_bridge, postgres_with_tls, why_no_engine
from tests.end_to_end.compose.engine_socket import EngineSocket
from tests.end_to_end.compose.installation import ROOT, Installation
from tests.end_to_end.compose.test_compose import (
    DEPLOYS_WITHIN,
    ENDPOINTS,
    NAME,
    config,
    score,
    settled,
)
from tests.end_to_end.deadlines import eventually
from tests.infrastructure import free_port
from tests.models import zoo

pytestmark = [
    pytest.mark.docker,
    pytest.mark.skipif(why_no_engine() is not None, reason=f"needs a Docker engine: {why_no_engine()}"),
]
FILES = ROOT / "deploy" / "compute-plane"


class BothPlanes(Installation):
    """An installation whose replicas are elsewhere."""

    def __init__(self, override: Path) -> None:
        super().__init__(FILES / "control-plane.yml")
        self.elsewhere = f"{self.project}-elsewhere"
        self.server = f"{self.elsewhere}-nats-1"
        # Short: the path of a socket may have 107 characters.
        self.engine = EngineSocket(Path(tempfile.mkdtemp(prefix="servery-")))
        bridge = address_of_bridge()
        self.environment |= {
            "COMPOSE_FILE": f"{self.environment['COMPOSE_FILE']}{os.pathsep}{override}",
            "SERVERY_COMPUTE_PLANE_HOST": bridge,
            "SERVERY_COMPUTE_PLANE_BIND": bridge,
            "SERVERY_COMPUTE_PLANE_PORT": str(free_port()),
            "SERVERY_COMPUTE_PLANE_PROJECT": self.elsewhere,
            "SERVERY_COMPUTE_PLANE_ENGINE": str(self.engine.directory),
        }

    def up(self) -> None:
        self.engine.open()
        self.compose("up", "--detach", "--build", "--wait", "--wait-timeout", "300", "credentials")
        self._run(str(FILES / "up.sh"))
        super().up()

    def down(self, *options: str) -> None:
        there = ("--project-name", self.elsewhere, "--file", str(FILES / "docker-compose.yml"))
        self.compose(*there, "down")
        self.docker("volume", "rm", "--force", self.elsewhere)
        super().down(*options)
        self.engine.end()
        shutil.rmtree(self.engine.directory)

    def networks(self, container: str) -> set[str]:
        return set(self.inspect(container)["NetworkSettings"]["Networks"])


@pytest.fixture(scope="module")
def planes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BothPlanes]:
    with postgres_with_tls() as postgres:
        override = tmp_path_factory.mktemp("compose") / "override.yml"
        override.write_text(json.dumps({"services": {"postgres": {"image": postgres}}}))
        planes = BothPlanes(override)
        try:
            planes.up()
            yield planes
        finally:
            planes.down("-v")
    left = planes.left()
    assert left == {"containers": [], "networks": [], "volumes": [], "images": []}, left


@pytest.fixture(scope="module")
def client(planes: BothPlanes) -> Iterator[httpx.Client]:
    with planes.client() as client:
        yield client


def scores(client: httpx.Client) -> bool:
    answer = score(client, 40.0)
    assert (answer.status_code, answer.json()) == (200, {"predictions": [41.0]})
    return True


def test_a_model_is_built_and_served_over_there(planes: BothPlanes, client: httpx.Client) -> None:
    with zoo.using(planes.mlflow), mlflow.start_run():
        logged = mlflow.pyfunc.log_model(
            name="model",
            python_model=str(Path(__file__).with_name("adder.py")),
            model_config={"number": 1},
            input_example=pd.DataFrame({"x": [1.0]}),
            registered_model_name=NAME,
            pip_requirements=[f"mlflow=={mlflow.__version__}", "pandas"],
        )
    version = str(logged.registered_model_version)
    client.post(ENDPOINTS, json={"name": NAME, "config": config(version)}).raise_for_status()
    eventually(
        settled(client, version), within=DEPLOYS_WITHIN, what="the endpoint serves", explain=planes.logs
    )
    assert scores(client)


def test_replicas_and_the_control_plane_share_no_network(planes: BothPlanes, client: httpx.Client) -> None:
    [replica] = planes.replicas()
    [network] = planes.networks(replica)
    inside = json.loads(planes.docker("network", "inspect", network))[0]["Containers"]
    assert {one["Name"] for one in inside.values()} == {replica, planes.server}
    own = planes.networks(planes.compose("ps", "-q", "nats").strip())
    assert not own & planes.networks(planes.server)


def test_no_service_has_the_socket_of_the_control_planes_engine(planes: BothPlanes) -> None:
    for name in ("controller", "builder"):
        told = planes.inspect(planes.compose("ps", "-q", name).strip())
        mounted = {mount["Source"] for mount in told["Mounts"] if mount["Type"] == "bind"}
        assert mounted == {str(planes.engine.directory)}


def test_scoring_goes_on_without_the_way_to_the_engine_and_replicas_are_made_when_it_is_back(
    planes: BothPlanes, client: httpx.Client
) -> None:
    [before] = planes.replicas()
    planes.engine.close()
    assert scores(client)
    planes.docker("kill", before)
    planes.engine.open()

    def answered_by_another() -> bool:
        assert scores(client)
        [now] = planes.replicas()
        assert now != before
        return True

    eventually(answered_by_another, within=120, what="another replica answers", explain=planes.logs)


def test_the_link_comes_back_by_itself(planes: BothPlanes, client: httpx.Client) -> None:
    replicas = planes.replicas()
    way, nats = f"{planes.project}_compute-plane", planes.compose("ps", "-q", "nats").strip()
    planes.docker("network", "disconnect", way, nats)
    try:
        answer = score(client, 1.0, timeout=2.0)
    except httpx.ReadTimeout:
        pass  # it waits for the link
    else:
        assert answer.status_code == 503
    finally:
        planes.docker("network", "connect", way, nats)
    eventually(lambda: scores(client), within=60, what="scoring goes on", explain=planes.logs)
    assert planes.replicas() == replicas


def test_what_is_there_already_is_left_as_it_is(planes: BothPlanes, client: httpx.Client) -> None:
    before = planes.inspect(planes.server)
    planes._run(str(FILES / "up.sh"))
    after = planes.inspect(planes.server)
    assert (after["Id"], after["State"]["StartedAt"]) == (before["Id"], before["State"]["StartedAt"])
    assert scores(client)
