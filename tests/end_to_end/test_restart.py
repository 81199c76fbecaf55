"""``kill -9`` anything: the stack heals itself and the endpoint answers again."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from tests.end_to_end.client import Client, describe, entity, fine, registrar
from tests.end_to_end.deadlines import eventually
from tests.end_to_end.stack import SERVICES, Stack, run_stack
from tests.models import zoo

ENDPOINT = "survivor"
MEMORY = 1024 * 1024 * 1024
"""What a model's process may hold."""


@pytest.fixture(scope="module")
def own_stack() -> Iterator[Stack]:
    """A stack whose services may be killed, with two gateways and one endpoint."""
    for stack in run_stack(
        {"SERVERY_GATEWAY_PROCESSES": "2", "SERVERY_WORKER_MODEL_MEMORY_BYTES": str(MEMORY)}
    ):
        client = Client(stack)
        client.deploy(ENDPOINT, "misbehaves", registrar(client)(zoo.misbehaves()))
        client.close()
        yield stack


@pytest.fixture
def survivor(own_stack: Stack) -> Iterator[Client]:
    """A client of that stack."""
    client = Client(own_stack)
    yield client
    client.close()


def eventually_ready(client: Client) -> dict[str, Any]:
    """The endpoint once it says that it is ready, which is a moment after it answers."""

    def ready() -> dict[str, Any]:
        described = client.get(ENDPOINT)
        assert described["state"]["ready"] == "READY", described["state"]
        return described

    return eventually(ready, within=30, what="the endpoint is ready")


def await_answer(client: Client) -> None:
    """Wait until the endpoint answers."""

    def answers() -> bool:
        answer = client.score(ENDPOINT, fine())
        assert answer.status_code == 200, describe(answer)
        return True

    eventually(answers, within=60, what="the endpoint answers")


@pytest.mark.parametrize("service", SERVICES)
def test_service_killed(survivor: Client, service: str):
    await_answer(survivor)
    stack = survivor.stack
    killed = stack.kill(service)
    stack.await_recovery(service, killed)
    await_answer(survivor)
    described = survivor.await_ready(ENDPOINT)
    assert described["config"]["config_version"] == 1, "nothing was deployed again"


@pytest.mark.parametrize("service", ["controller", "builder", "scaler"])
def test_scoring_does_not_notice_the_loss_of_a_service_it_does_not_need(survivor: Client, service: str):
    await_answer(survivor)
    killed = survivor.stack.kill(service)
    for _ in range(50):
        assert survivor.predictions(ENDPOINT, fine())
    survivor.stack.await_recovery(service, killed)


def test_requests_a_killed_worker_worked_on_are_answered_soon(survivor: Client):
    await_answer(survivor)
    with ThreadPoolExecutor(4) as threads:
        lost = [threads.submit(survivor.score, ENDPOINT, fine("sleep:45")) for _ in range(4)]
        time.sleep(0.5)  # they are being worked on, or just about to be: both must end soon
        killed = survivor.stack.kill("worker")
        answers = [one.result(timeout=30) for one in lost]
    for answer in answers:
        survivor.assert_error(answer, "TEMPORARILY_UNAVAILABLE", guard=30)
    survivor.stack.await_recovery("worker", killed)
    await_answer(survivor)


def test_a_model_that_takes_too_much_memory_is_told_of_where_people_look(survivor: Client):
    """In the answer to the request and in the endpoint's events. The services do not notice."""
    await_answer(survivor)
    limit = "more than the 1 GiB of memory that a model's process may use"
    before = {each["name"]: each["pid"] for each in survivor.stack.status()["components"]}

    def told() -> bool:
        # At first the process is replaced faster than anybody looks; the more often, the later.
        answer = survivor.score(ENDPOINT, fine(f"share:{MEMORY + MEMORY // 4}"))
        survivor.assert_error(answer, "BAD_REQUEST", "TEMPORARILY_UNAVAILABLE", guard=30)
        if answer.status_code == 400:
            assert limit in answer.json()["message"]
        events = survivor.http.get(f"/api/2.0/serving-endpoints/{ENDPOINT}/events").json()["events"]
        assert any(limit in event["message"] for event in events), [event["message"] for event in events]
        return True

    eventually(told, within=60, what="the endpoint's events say why its model's process was replaced")
    await_answer(survivor)
    assert {each["name"]: each["pid"] for each in survivor.stack.status()["components"]} == before


@pytest.mark.parametrize("store", ["nats", "postgres", "mlflow"])
def test_store_killed_and_the_endpoint_updated_afterwards(survivor: Client, store: str):
    await_answer(survivor)
    before = survivor.await_ready(ENDPOINT)["config"]
    killed = survivor.stack.kill(store)
    survivor.stack.await_recovery(store, killed)
    await_answer(survivor)

    def updated() -> bool:
        (served,) = before["served_entities"]
        answer = survivor.update(ENDPOINT, [entity("misbehaves", served["entity_version"])])
        assert answer.status_code == 200, describe(answer)
        return True

    eventually(updated, within=30, what="the endpoint can be updated")
    assert survivor.await_ready(ENDPOINT)["config"]["config_version"] > before["config_version"]
    await_answer(survivor)


def test_supervisor_killed_and_started_again(survivor: Client):
    """The last test of this stack: everything goes down at once, and comes back with the same data directory."""
    await_answer(survivor)
    before = eventually_ready(survivor)
    survivor.stack.kill_supervisor()
    survivor.stack.up()
    again = Client(survivor.stack)
    await_answer(again)
    after = eventually_ready(again)
    del survivor.stack.access
    assert survivor.stack.access == survivor.access
    assert after["config"] == before["config"], "nothing was deployed again"
    again.close()
