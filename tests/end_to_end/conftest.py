"""One stack for the whole session, and what tests need to talk to it.

The session's stack sends its traces to a receiver of the tests. Tests that kill services start a stack of
their own.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.end_to_end.client import Client, Registered, registrar
from tests.end_to_end.otlp_receiver import OtlpReceiver
from tests.end_to_end.stack import Stack, run_stack, running
from tests.end_to_end.working import Working
from tests.models import zoo
from tests.webhook import Webhook


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, None]:
    """Add to each failure what the services and the builds had to say."""
    outcome = yield
    report = outcome.get_result()
    # A fixture that failed fails all of its tests with the same exception; once is enough.
    error = call.excinfo.value if call.excinfo else None
    if report.failed and error not in _reported:
        _reported.append(error)
        for stack in running:
            report.sections += [*stack.report(), ("endpoints that do not serve", _unsettled(stack))]


def _unsettled(stack: Stack) -> str:
    client = Client(stack)
    try:
        return client.unsettled()
    except Exception as error:  # the report must not hide the failure it belongs to
        return repr(error)
    finally:
        client.close()


_numbers = itertools.count(1)
_reported: list[BaseException | None] = []


@pytest.fixture(scope="session")
def receiver() -> Iterator[OtlpReceiver]:
    """Takes the spans of the session's stack."""
    receiver = OtlpReceiver()
    yield receiver
    receiver.close()


@pytest.fixture(scope="session")
def webhook() -> Iterator[Webhook]:
    """Takes the notifications of the session's stack."""
    webhook = Webhook()
    yield webhook
    webhook.close()


@pytest.fixture(scope="session")
def stack(receiver: OtlpReceiver, webhook: Webhook) -> Iterator[Stack]:
    """The session's stack. Leave it as you found it: other tests use it too."""
    stacks = run_stack(
        {
            "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint,
            "OTEL_TRACES_SAMPLER": "always_on",
            "OTEL_BSP_SCHEDULE_DELAY": "500",
            "SERVERY_NOTIFICATIONS_WEBHOOK_URL": webhook.url,
            "SERVERY_WORKER_CAPACITY_SLOTS": "160",  # the whole model zoo at once
        }
    )
    for stack in stacks:
        yield stack
        stack.assert_nothing_crashed()


@pytest.fixture(scope="session")
def client(stack: Stack) -> Iterator[Client]:
    """Administrator of the session's stack."""
    client = Client(stack)
    yield client
    client.close()


@pytest.fixture(scope="session")
def register(client: Client) -> Registered:
    """Registers models with the session's stack."""
    return registrar(client)


@pytest.fixture
def new_name(client: Client) -> Iterator[Callable[[], str]]:
    """Makes endpoint names nobody uses; their endpoints are deleted after the test."""
    names: list[str] = []

    def make() -> str:
        names.append(f"e2e-{next(_numbers)}")
        return names[-1]

    yield make
    for name in names:
        client.delete(name)


@pytest.fixture(scope="session")
def steady() -> Iterator[Client]:
    """Administrator of a stack whose scaler decides nothing: tests choose the replica counts. They may kill there."""
    for stack in run_stack(
        {
            "SERVERY_SCALER_TICK_SECONDS": "86400",
            "SERVERY_WORKER_CAPACITY_SLOTS": "160",
            # A worker that was killed imports the model's packages anew, on a busy machine for most of a minute.
            "SERVERY_MODEL_TIMEOUT_SECONDS": "170",
        }
    ):
        client = Client(stack)
        client.http.timeout = 180
        yield client
        client.close()


@pytest.fixture(scope="session")
def version(steady: Client) -> Callable[..., str]:
    """Registers versions of the model ``misbehaves`` with that stack, each once; returns the version's number."""
    register = registrar(steady)

    def make(version: str = "1", **habits: str) -> str:
        return register(zoo.misbehaves(version, **habits), variant=f"{version} {habits}")

    return make


@pytest.fixture
def name(steady: Client) -> Iterator[str]:
    """Of an endpoint of that stack, which is deleted after the test."""
    name = f"e2e-{next(_numbers)}"
    yield name
    steady.delete(name)


@pytest.fixture
def figure(request: pytest.FixtureRequest) -> Callable[[str, object], None]:
    """Tells what was measured along the way, which decides nothing: ``pytest -rP`` shows it."""

    def tell(what: str, value: object) -> None:
        print(f"{request.node.name}: {what}: {value}")

    return tell


@pytest.fixture
def work(steady: Client, name: str, tmp_path: Path) -> Iterator[Callable[..., Working]]:
    """Starts so many requests at that endpoint, which the model works on until the test lets them go on."""
    started: list[Working] = []

    def start(count: int) -> Working:
        started.append(Working(steady, name, tmp_path, count))
        return started[-1]

    yield start
    for working in started:
        working.release()


@pytest.fixture(scope="module")
def misbehaving(client: Client, register: Registered) -> Iterator[str]:
    """An endpoint of the model that sleeps, raises or exits when told so."""
    name = f"e2e-misbehaving-{next(_numbers)}"
    client.deploy(name, "misbehaves", register(zoo.misbehaves()))
    yield name
    client.delete(name)
