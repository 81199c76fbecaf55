"""The replicas of an endpoint: how many there are, how many there shall be, and the processes that hold models."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import psutil
from tests.end_to_end.client import ENDPOINTS, Client, describe, fine
from tests.end_to_end.deadlines import eventually

from servery_common.contracts import subjects
from servery_common.contracts.scaling import ScaleAnswer, ScaleRequest
from servery_common.messaging.bus import connect_bus
from servery_common.settings import NatsSettings
from servery_local.nats import NAME, USER


def scale(client: Client, endpoint: str, replicas: int) -> None:
    """Have an endpoint's only served entity get so many replicas, as the scaler would; does not wait."""
    described = client.get(endpoint)
    (served,) = entities(client, endpoint)
    request = ScaleRequest(
        endpoint_id=described["id"],
        served_entity_id=served["id"],
        desired_replicas=replicas,
        reason="A test wants it.",
    )
    answer = asyncio.run(_ask(client.stack.directory, request))
    assert (answer.accepted, answer.desired_replicas) == (True, replicas)


async def _ask(data: Path, request: ScaleRequest) -> ScaleAnswer:
    port = json.loads((data / "ports.json").read_text())[NAME]
    password = json.loads((data / "secrets.json").read_text())["nats_password"]
    settings = NatsSettings(url=f"nats://127.0.0.1:{port}", user=USER, password=password)
    async with connect_bus(settings, name="test-scaler") as bus:
        return await bus.request(subjects.controller_scale(), request, ScaleAnswer, timeout=30)


def entities(client: Client, endpoint: str) -> list[dict[str, Any]]:
    """The served entities with their replicas, as GET …/scaling tells; of the active config and a pending one."""
    answer = client.http.get(f"{ENDPOINTS}/{endpoint}/scaling")
    assert answer.status_code == 200, describe(answer)
    return answer.json()["served_entities"]


def await_counts(client: Client, endpoint: str, **counts: int) -> None:
    """Wait until the only served entity has so many replicas: ``ready``, ``stopping``, ``starting``."""

    def reached() -> bool:
        (served,) = entities(client, endpoint)
        assert {state: served[f"{state}_replicas"] for state in counts} == counts, served
        return True

    eventually(reached, within=60, what=f"{endpoint} has {counts} replicas")


def process_of(client: Client, endpoint: str, served: str) -> int:
    """The id of a process that holds the model of a served entity, which was never told apart by its traffic."""
    answer = client.http.post(
        f"/serving-endpoints/{endpoint}/served-models/{served}/invocations",
        content=fine().content,
        headers={"Content-Type": "application/json"},
    )
    assert answer.status_code == 200, describe(answer)
    return answer.json()["predictions"][0]["pid"]


def await_gone(pid: int) -> None:
    """Wait until a process has ended."""

    def gone() -> bool:
        assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
        return True

    eventually(gone, within=60, what=f"process {pid} ends")
