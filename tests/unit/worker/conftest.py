"""An agent, and what it is connected with."""

import pytest
from tests.unit.worker.agents import LAUNCH, FakeRunner, Sent

from servery_worker.agent import Agent


@pytest.fixture
def sent() -> Sent:
    return Sent()


@pytest.fixture
async def agent(sent: Sent) -> Agent:
    return Agent(LAUNCH, sent, deadline_grace=2.0, on_overdue=lambda: None)  # type: ignore[arg-type]


@pytest.fixture
def runner(agent: Agent) -> FakeRunner:
    runner = FakeRunner()
    agent.attach(runner)  # type: ignore[arg-type]
    return runner
