"""The compose file's core services with real containers: a model deployed, scored, updated, scaled to zero, gone.

One story in order: each step begins where the one before has ended.
"""

from __future__ import annotations

import json
import re
import socket
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import mlflow
import pandas as pd
import pytest
from tests.containers.engine import address_of_bridge, postgres_with_tls, why_no_engine
from tests.end_to_end.compose.installation import ROOT, Installation
from tests.end_to_end.deadlines import eventually
from tests.models import zoo

pytestmark = [
    pytest.mark.docker,
    pytest.mark.skipif(why_no_engine() is not None, reason=f"needs a Docker engine: {why_no_engine()}"),
]
ENDPOINTS = "/api/2.0/serving-endpoints"
NAME = "adder"
DEPLOYS_WITHIN = 400
"""The first build installs the model's packages and makes an image of them."""


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with postgres_with_tls() as postgres:
        override = tmp_path_factory.mktemp("compose") / "override.yml"
        override.write_text(json.dumps({"services": {"postgres": {"image": postgres}}}))
        installation = Installation(override)
        try:
            installation.up()
            yield installation
        finally:
            installation.down("-v")
    left = installation.left()
    assert left == {"containers": [], "networks": [], "volumes": [], "images": []}, left


@pytest.fixture(scope="module")
def client(installation: Installation) -> Iterator[httpx.Client]:
    with installation.client() as client:
        yield client


@pytest.fixture(scope="module")
def versions(installation: Installation) -> list[str]:
    """Two versions of one model, logged through the published port of MLflow."""
    made: list[str] = []
    with zoo.using(installation.mlflow):
        for number in (1, 2):
            with mlflow.start_run():
                logged = mlflow.pyfunc.log_model(
                    name="model",
                    python_model=str(Path(__file__).with_name("adder.py")),
                    model_config={"number": number},
                    input_example=pd.DataFrame({"x": [1.0]}),
                    registered_model_name=NAME,
                    pip_requirements=[f"mlflow=={mlflow.__version__}", "pandas"],
                )
            made.append(str(logged.registered_model_version))
    return made


def config(version: str) -> dict[str, Any]:
    return {
        "served_entities": [
            {
                "name": "model",
                "entity_name": NAME,
                "entity_version": version,
                "workload_size": "Small",
                "scale_to_zero_enabled": True,
            }
        ]
    }


def score(client: httpx.Client, x: float, **kwargs: Any) -> httpx.Response:
    body = {"dataframe_split": {"columns": ["x"], "data": [[x]]}}
    return client.post(f"/serving-endpoints/{NAME}/invocations", json=body, **kwargs)


def described(client: httpx.Client) -> dict[str, Any]:
    answer = client.get(f"{ENDPOINTS}/{NAME}")
    if answer.status_code != 200:  # not an assertion: whoever waits for a state would ask again
        raise RuntimeError(f"{answer.status_code} {answer.text}")
    return answer.json()


def settled(client: httpx.Client, version: str) -> Callable[[], bool]:
    def look() -> bool:
        endpoint = described(client)
        if endpoint["state"]["config_update"] == "UPDATE_FAILED":
            raise RuntimeError(json.dumps(endpoint, indent=1))
        assert endpoint["state"]["config_update"] == "NOT_UPDATING", endpoint
        assert endpoint["state"]["ready"] == "READY", endpoint
        assert endpoint["config"]["served_entities"][0]["entity_version"] == version, endpoint
        return True

    return look


def test_a_model_is_built_into_an_image_and_served_from_a_container(
    installation: Installation, client: httpx.Client, versions: list[str]
) -> None:
    body = {"name": NAME, "config": config(versions[0])}
    client.post(ENDPOINTS, json=body).raise_for_status()
    eventually(
        settled(client, versions[0]),
        within=DEPLOYS_WITHIN,
        what="the endpoint serves",
        explain=installation.logs,
    )
    answer = score(client, 40.0)
    assert (answer.status_code, answer.json()) == (200, {"predictions": [41.0]})
    [replica] = installation.replicas()
    told = installation.inspect(replica)
    image = client.get(f"{ENDPOINTS}/{NAME}/served-models/model/build-logs").json()["logs"]
    assert told["Image"] in image, "it runs what was verified"
    assert "[internal]" not in image


def test_a_replica_is_confined(installation: Installation, client: httpx.Client) -> None:
    [replica] = installation.replicas()
    host = installation.inspect(replica)["HostConfig"]
    assert host["ReadonlyRootfs"]
    assert host["CapDrop"] == ["ALL"]
    assert "no-new-privileges:true" in host["SecurityOpt"]
    assert host["Memory"] == host["MemorySwap"] > 0
    assert host["PidsLimit"] > 0
    seen = installation.inside(
        replica,
        "import json, os, re\n"
        "status = open('/proc/self/status').read()\n"
        "try:\n  open('/anywhere', 'w'); writes = True\n"
        "except OSError: writes = False\n"
        "print(json.dumps({'uid': os.getuid(), 'writes': writes,"
        " 'capabilities': re.search(r'CapEff:\\s*(\\S+)', status)[1],"
        " 'no_new': re.search(r'NoNewPrivs:\\s*(\\d)', status)[1]}))",
    )
    assert seen == {"uid": 10001, "writes": False, "capabilities": "0" * 16, "no_new": "1"}


def test_a_replica_reaches_nats_and_nothing_else(installation: Installation, client: httpx.Client) -> None:
    [replica] = installation.replicas()
    gateway = installation.inspect(installation.compose("ps", "-q", "gateway").strip())
    addresses = [one["IPAddress"] for one in gateway["NetworkSettings"]["Networks"].values()]
    targets = [("nats", 4222), ("nats", 8222), ("postgres", 5432), ("gateway", 8080), ("mlflow", 5000)]
    targets += [(address, 8080) for address in addresses] + [(address_of_bridge(), 22), ("192.0.2.1", 80)]
    reached = installation.inside(
        replica,
        "import json, socket\n"
        "from concurrent.futures import ThreadPoolExecutor\n"
        "def reach(host, port):\n"
        "  try: socket.create_connection((host, port), 2).close()\n"
        "  except ConnectionRefusedError: return host != 'nats'\n"  # an answer, from where there should be none
        "  except OSError: return False\n"
        "  return True\n"
        f"targets = {targets!r}\n"
        "reached = list(ThreadPoolExecutor(16).map(lambda target: reach(*target), targets))\n"
        "print(json.dumps([target for target, yes in zip(targets, reached) if yes]))",
    )
    assert reached == [["nats", 4222]]
    assert installation.replica_networks() == {replica: {replica, f"{installation.project}-nats-1"}}


def test_everybody_talks_to_postgres_with_tls(installation: Installation, client: httpx.Client) -> None:
    query = (
        "SELECT usename, bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)"
        " WHERE client_addr IS NOT NULL GROUP BY usename ORDER BY usename"
    )
    psql = (
        "exec",
        "-T",
        "postgres",
        "psql",
        "-U",
        "postgres",
        "-h",
        "/var/run/postgresql",
        "-At",
        "-c",
        query,
    )
    assert installation.compose(*psql).split() == ["mlflow|t", "servery|t"]
    environment = installation.compose("exec", "-T", "mlflow", "cat", "/proc/1/environ").split("\0")
    assert "PGSSLMODE=verify-full" in environment
    assert "PGSSLROOTCERT=/run/servery/credentials/ca.crt" in environment


def test_what_is_left_of_a_replicas_credentials_is_measured(
    installation: Installation, client: httpx.Client
) -> None:
    [told] = installation.inside(
        installation.compose("ps", "-q", "controller").strip(),
        "import json, urllib.request\n"
        "lines = urllib.request.urlopen('http://127.0.0.1:9464/metrics').read().decode().splitlines()\n"
        "print(json.dumps([l for l in lines if l.startswith('servery_worker_credentials_left_ratio{')]))",
    )
    assert 0.5 < float(told.split()[-1]) <= 1.0


def test_a_trace_goes_from_admission_to_the_model(installation: Installation, client: httpx.Client) -> None:
    collector = installation.start_collector()
    trace = uuid.uuid4().hex
    answer = score(client, 1.0, headers={"traceparent": f"00-{trace}-00f067aa0ba902b7-01"})
    assert answer.status_code == 200

    def whole() -> bool:
        told = [json.loads(line) for line in installation.docker("logs", collector).splitlines()]
        spans = {(span["service"], span["name"]) for span in told if span["trace"] == trace}
        assert {
            ("servery-gateway", "admit"),
            ("servery-worker", "serve"),
            ("servery-worker", "predict"),
        } <= spans, spans
        return True

    eventually(whole, within=60, what="the whole trace at the collector", explain=installation.logs)


def test_what_the_model_prints_is_in_its_log(installation: Installation, client: httpx.Client) -> None:
    assert score(client, -2.0).status_code == 200

    def printed() -> bool:
        logs = client.get(f"{ENDPOINTS}/{NAME}/served-models/model/logs").json()["logs"]
        assert "the model was here" in logs, logs
        return True

    eventually(printed, within=30, what="what the model printed")


def test_an_update_under_load_loses_no_request(
    installation: Installation, client: httpx.Client, versions: list[str]
) -> None:
    answers: list[tuple[int, float]] = []
    going = True

    def load() -> None:
        while going:
            answer = score(client, 1.0)
            answers.append((answer.status_code, answer.json().get("predictions", [0])[0]))
            time.sleep(0.04)  # below the quota of 200 a second

    with ThreadPoolExecutor(4) as threads:
        running = [threads.submit(load) for _ in range(4)]
        try:
            client.put(f"{ENDPOINTS}/{NAME}/config", json=config(versions[1])).raise_for_status()
            eventually(
                settled(client, versions[1]),
                within=DEPLOYS_WITHIN,
                what="version 2 serves",
                explain=installation.logs,
            )
        finally:
            going = False
        for one in running:
            one.result()
    assert {status for status, _ in answers} == {200}
    assert {value for _, value in answers} == {2.0, 3.0}
    eventually(lambda: len(installation.replicas()) == 1, within=60, what="the old replica is gone")


def test_a_killed_container_is_replaced_and_named(installation: Installation, client: httpx.Client) -> None:
    [replica] = installation.replicas()
    installation.docker("kill", replica)

    def answered_by_another() -> bool:
        assert score(client, 1.0).status_code == 200
        [now] = installation.replicas()
        assert now != replica
        return True

    eventually(answered_by_another, within=90, what="another replica answers", explain=installation.logs)


def test_a_controller_that_was_killed_finds_the_replicas_it_made(
    installation: Installation, client: httpx.Client
) -> None:
    before = installation.replicas()
    installation.docker("kill", installation.compose("ps", "-q", "controller").strip())
    assert score(client, 1.0).status_code == 200
    installation.compose("up", "--detach", "--wait", "gateway")

    def manages_again() -> bool:
        client.patch(
            f"{ENDPOINTS}/{NAME}/tags", json={"add_tags": [{"key": "seen", "value": "1"}]}
        ).raise_for_status()
        assert described(client)["state"]["ready"] == "READY"
        return True

    eventually(manages_again, within=60, what="the controller is back", explain=installation.logs)
    time.sleep(5)  # more than two looks at the engine: nothing may be made or removed
    assert installation.replicas() == before


def test_nats_made_anew_is_found_by_all(installation: Installation, client: httpx.Client) -> None:
    installation.compose("up", "--detach", "--wait", "--force-recreate", "--no-deps", "nats")

    def scores() -> bool:
        assert score(client, 1.0).status_code == 200
        return True

    eventually(scores, within=90, what="scoring goes on", explain=installation.logs)


def test_to_zero_and_back(installation: Installation, client: httpx.Client) -> None:
    tag = {"add_tags": [{"key": "servery.scale_to_zero_seconds", "value": "5"}]}
    client.patch(f"{ENDPOINTS}/{NAME}/tags", json=tag).raise_for_status()
    eventually(
        lambda: installation.replicas() == [], within=90, what="no replica is left", explain=installation.logs
    )
    answer = score(client, 7.0)
    assert (answer.status_code, answer.json()) == (200, {"predictions": [9.0]})
    assert len(installation.replicas()) == 1


def test_an_image_deleted_at_zero_is_built_again_and_the_endpoint_says_so(
    installation: Installation, client: httpx.Client
) -> None:
    eventually(
        lambda: installation.replicas() == [], within=90, what="no replica is left", explain=installation.logs
    )
    ours = (
        "--filter",
        f"label=servery.installation={installation.project}",
        "--filter",
        "label=servery.build",
    )
    installation.docker("rmi", "--force", *installation.docker("images", "--quiet", *ours).split())
    said: set[str] = set()

    def says_so() -> bool:
        said.add(described(client)["config"]["served_entities"][0]["state"]["deployment_state_message"])
        assert any("gone, and built again" in message for message in said), said
        return True

    with ThreadPoolExecutor(1) as threads:
        answer = threads.submit(score, client, 7.0, timeout=180)
        eventually(says_so, within=120, what="it says that it is built again", explain=installation.logs)
        assert (answer.result().status_code, answer.result().json()) == (200, {"predictions": [9.0]})


def test_a_container_out_of_memory_is_replaced_and_the_endpoint_says_why(
    installation: Installation, client: httpx.Client
) -> None:
    tag = {"add_tags": [{"key": "servery.scale_to_zero_seconds", "value": "600"}]}
    client.patch(f"{ENDPOINTS}/{NAME}/tags", json=tag).raise_for_status()
    assert score(client, 7.0).status_code == 200
    [replica] = installation.replicas()
    installation.docker("update", "--memory", "768m", "--memory-swap", "768m", replica)
    # Memory nobody can give back: files on tmpfs stay when whoever wrote them was ended.
    fill = "while :; do head -c 1000000000 /dev/zero >/tmp/full; done"
    installation.docker("exec", "--detach", replica, "sh", "-c", fill)
    said: set[str] = set()

    def says_why() -> bool:
        said.add(described(client)["config"]["served_entities"][0]["state"]["deployment_state_message"])
        assert any("needed more than its 0.8 GiB" in message for message in said), said
        return True

    eventually(says_why, within=90, what="the endpoint says why", explain=installation.logs)
    eventually(
        settled(client, described(client)["config"]["served_entities"][0]["entity_version"]),
        within=90,
        what="another one serves",
        explain=installation.logs,
    )


def test_a_port_that_is_taken_is_named(installation: Installation, client: httpx.Client) -> None:
    up = ["docker", "compose", "up", "--detach", "--no-deps", "gateway"]
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        environment = installation.environment | {"SERVERY_GATEWAY_PORT": str(port)}
        done = subprocess.run(
            up, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=120
        )
    assert done.returncode != 0
    # The table in docs/compose.md has these words.
    assert re.search(rf"{port}.*(address already in use|port is already allocated)", done.stderr), done.stderr
    installation.compose(*up[2:], "--wait")
    assert score(client, 7.0).status_code == 200


def test_what_was_there_is_there_after_down_and_up(installation: Installation, client: httpx.Client) -> None:
    installation.down()
    assert installation.replicas() == []
    installation.up()

    def scores() -> bool:
        assert score(client, 1.0).json() == {"predictions": [3.0]}
        return True

    eventually(scores, within=120, what="the endpoint serves again", explain=installation.logs)


def test_a_deleted_endpoint_leaves_no_container_and_no_network(
    installation: Installation, client: httpx.Client
) -> None:
    client.delete(f"{ENDPOINTS}/{NAME}").raise_for_status()
    eventually(
        lambda: installation.replicas() == [] and installation.replica_networks() == {},
        within=90,
        what="no replica is left",
        explain=installation.logs,
    )
