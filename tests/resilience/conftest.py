"""A small Servery for the tests of this folder, and what each of them needs to use it."""

from collections.abc import AsyncIterator, Iterator

import httpx
import pytest
from tests.infrastructure import running_nats
from tests.resilience import model
from tests.resilience.system import LONG, TOKEN, GatewayProcess, Processes, System

from servery_common.messaging.bus import connect_bus
from servery_common.settings import NatsSettings


@pytest.fixture(scope="session")
def processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Processes]:
    directory = tmp_path_factory.mktemp("resilience")
    with running_nats() as nats:
        gateway = GatewayProcess(nats.url, directory / "gateway")
        made = Processes(nats, gateway, [], directory, model.save(directory))
        made.workers += [made.start_worker(), made.start_worker()]
        try:
            yield made
        finally:
            codes = [worker.stop() for worker in made.workers]
            codes.append(gateway.stop())
        assert codes == [0, 0, 0]


@pytest.fixture
async def system(processes: Processes) -> AsyncIterator[System]:
    limits = httpx.Limits(max_connections=100)
    async with (
        connect_bus(NatsSettings(url=processes.nats.url), name="test-controller") as bus,
        httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{processes.gateway.port}",
            headers={"authorization": f"Bearer {TOKEN}"},
            timeout=LONG,
            limits=limits,
        ) as http,
    ):
        system = System(processes, bus, http)
        await system.start()
        yield system
        await system.clear()
