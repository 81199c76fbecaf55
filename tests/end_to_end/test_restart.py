"""``kill -9`` anything: the stack heals itself and the endpoint answers again."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.end_to_end.client import Client, describe, fine, registrar
from tests.end_to_end.deadlines import eventually
from tests.end_to_end.stack import SERVICES, Stack, run_stack
from tests.models import zoo

ENDPOINT = "survivor"


@pytest.fixture(scope="module")
def own_stack() -> Iterator[Stack]:
    """A stack whose services may be killed, with one endpoint deployed."""
    for stack in run_stack():
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


def test_supervisor_killed_and_started_again(survivor: Client):
    """The last test of this stack: everything goes down at once, and comes back with the same data directory."""
    await_answer(survivor)
    before = survivor.get(ENDPOINT)
    survivor.stack.kill_supervisor()
    survivor.stack.up()
    again = Client(survivor.stack)
    await_answer(again)
    after = again.get(ENDPOINT)
    del survivor.stack.access
    assert survivor.stack.access == survivor.access
    assert after["config"] == before["config"], "nothing was deployed again"
    again.close()
