"""``SERVERY_GATEWAY_PROCESSES``: the service as an operator runs it, several processes behind one port."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import httpx
import psutil
import pytest
from tests.infrastructure import NatsServer, free_port
from tests.integration.gateway.conftest import TOKEN, World, eventually
from tests.integration.gateway.peers import Work, echo, endpoint, entity, identity

from servery_common.contracts import subjects
from servery_common.contracts.quotas import WorkspaceQuota
from servery_common.contracts.scaling import GatewayLoad
from servery_gateway.shared_quota import burst_of

PATIENCE = 30.0
PLENTY = WorkspaceQuota(workspace_id=identity().workspace_id, qps=100_000)


class Service:
    """``python -m servery_gateway``, and what it says."""

    def __init__(self, process: asyncio.subprocess.Process, port: int, supervisor: socket.socket) -> None:
        self.process = process
        self.port = port
        self.lines: list[dict] = []
        self._supervisor = supervisor

    async def told(self, state: bytes) -> None:
        """Return when the supervisor was told this next."""
        loop = asyncio.get_running_loop()
        assert await asyncio.wait_for(loop.sock_recv(self._supervisor, 64), PATIENCE) == state

    def told_ready(self) -> bool:
        """Whether the supervisor was told of readiness, or again."""
        with contextlib.suppress(BlockingIOError):
            while True:
                if self._supervisor.recv(64) == b"READY=1":
                    return True
        return False

    def said(self, event: str) -> list[dict]:
        return [line for line in self.lines if line["event"] == event]

    def children(self) -> dict[int, psutil.Process]:
        """The gateways by the number they have."""
        running = {child.pid: child for child in psutil.Process(self.process.pid).children()}
        started = {line["process"]: line["pid"] for line in self.said("gateway_process_started")}
        return {number: running[pid] for number, pid in started.items() if pid in running}

    def pid(self, number: int) -> int | None:
        """The process id of one gateway that runs."""
        child = self.children().get(number)
        return child.pid if child else None

    async def read(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            self.lines.append(json.loads(line))

    def client(self) -> httpx.AsyncClient:
        """Each request on a connection of its own, so that every process gets some."""
        return httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{self.port}",
            headers={"authorization": f"Bearer {TOKEN}"},
            timeout=20,
            limits=httpx.Limits(max_keepalive_connections=0),
        )


@asynccontextmanager
async def service(world: World, processes: int, port: int | None = None) -> AsyncIterator[Service]:
    port = port or free_port()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as supervisor:
        address = str(world.directory / f"notify-{port}")
        supervisor.bind(address)
        supervisor.setblocking(False)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "servery_gateway"),
            env={
                **os.environ,
                "NOTIFY_SOCKET": address,
                "SERVERY_GATEWAY_PROCESSES": str(processes),
                "SERVERY_GATEWAY_PORT": str(port),
                "SERVERY_NATS_URL": world.server.url,
                "SERVERY_DATA_DIR": str(world.directory / "data"),
            },
            stdout=asyncio.subprocess.PIPE,
            limit=2**20,
        )
        running = Service(process, port, supervisor)
        reading = asyncio.create_task(running.read())
        try:
            yield running
        finally:
            descendants = psutil.Process(process.pid).children() if process.returncode is None else []
            for one in descendants:
                one.kill()
            if process.returncode is None:
                process.kill()
            await process.wait()
            await reading


@pytest.fixture
async def peers(nats_server: NatsServer, tmp_path: Path) -> AsyncIterator[World]:
    """A controller and replicas, and no gateway."""
    async with AsyncExitStack() as stack:
        world = World(nats_server, tmp_path, stack)
        await world.connect_bus()
        await world.bus.kv_put(subjects.QUOTAS_BUCKET, PLENTY.workspace_id, PLENTY)
        yield world


async def publish(world: World, name: str, model: Callable = echo) -> None:
    replica = await world.replica(f"r{name}", model)
    route = endpoint(name, entity("m", replica.route(64)))
    await world.bus.kv_put(subjects.ROUTES_BUCKET, route.endpoint_id, route)


async def all_ready(running: Service) -> None:
    """Return when the service is ready and each process answers."""
    await running.told(b"READY=1")
    async with running.client() as http:
        good = 0
        async with asyncio.timeout(PATIENCE):
            while good < 20 * len(running.children()):
                good = good + 1 if (await http.get("/readyz")).status_code == 200 else 0


async def score(http: httpx.AsyncClient, name: str) -> httpx.Response:
    return await http.post(f"/serving-endpoints/{name}/invocations", content=b'{"inputs":[1]}')


async def gateways_heard(world: World) -> Counter[str]:
    """Loads that gateways report, by gateway."""
    heard: Counter[str] = Counter()

    async def take(load: GatewayLoad) -> None:
        heard[load.gateway_id] += 1

    await world.bus.on_signal(subjects.ALL_GATEWAY_LOADS, GatewayLoad, take)
    return heard


async def test_all_processes_answer_on_one_port_and_share_the_quota(peers: World) -> None:
    qps, seconds = 60, 4.0
    await publish(peers, "shared")
    heard = await gateways_heard(peers)
    async with service(peers, 2) as running, running.client() as http:
        await all_ready(running)
        assert not running.told_ready(), "one service is ready once"
        assert sorted(running.children()) == [1, 2]
        assert {line["process"] for line in running.said("gateway_listening")} == {1, 2}
        await eventually(lambda: len(heard) == 2, 10)

        quota = WorkspaceQuota(workspace_id=PLENTY.workspace_id, qps=qps)
        await peers.bus.kv_put(subjects.QUOTAS_BUCKET, quota.workspace_id, quota)
        loop = asyncio.get_running_loop()
        while (await score(http, "shared")).status_code == 200:
            pass  # until both know the quota and the burst is used up
        began = loop.time()
        seen: Counter[int] = Counter()

        async def client() -> None:
            while loop.time() < began + seconds:
                seen[(await score(http, "shared")).status_code] += 1

        await asyncio.gather(*(client() for _ in range(16)))
        took = loop.time() - began
        assert set(seen) == {200, 429}
        assert 0.8 * qps * took <= seen[200] <= burst_of(qps) + 1.05 * qps * took


async def test_a_killed_process_is_replaced_while_the_others_answer(peers: World) -> None:
    await publish(peers, "kept")
    async with service(peers, 2) as running, running.client() as http:
        await all_ready(running)
        before = running.children()
        answered: Counter[int | str] = Counter()
        stop = asyncio.Event()

        async def client() -> None:
            while not stop.is_set():
                try:
                    answered[(await score(http, "kept")).status_code] += 1
                except httpx.TransportError:
                    answered["reset"] += 1

        clients = [asyncio.create_task(client()) for _ in range(4)]
        await eventually(lambda: answered[200] > 50, PATIENCE)
        before[1].kill()
        await eventually(lambda: running.pid(1) not in (None, before[1].pid), PATIENCE)
        replaced_at = answered[200]
        await eventually(lambda: answered[200] > replaced_at + 100, PATIENCE)
        stop.set()
        await asyncio.gather(*clients)
        assert running.pid(2) == before[2].pid, "the other one went on"
        # Each of the four may have had a request in the process that was killed.
        assert answered["reset"] <= 4
        assert set(answered) <= {200, "reset"}
        [died] = running.said("gateway_process_died")
        assert (died["process"], died["code"]) == (1, -signal.SIGKILL)
        assert running.process.returncode is None
        await eventually(lambda: len(running.said("gateway_listening")) == 3, PATIENCE)


async def test_sigterm_lets_requests_in_flight_end_in_every_process(peers: World) -> None:
    release = asyncio.Event()
    began: list[str] = []

    async def slow(work: Work) -> tuple[int, bytes]:
        began.append(work.reply)
        await release.wait()
        return 200, b'"done"'

    await publish(peers, "slow", slow)
    async with service(peers, 2) as running, running.client() as http:
        await all_ready(running)
        children = running.children()
        requests = [asyncio.create_task(score(http, "slow")) for _ in range(24)]
        await eventually(lambda: len(began) == 24, PATIENCE)
        assert len(set(began)) == 2, "both processes have some"
        running.process.send_signal(signal.SIGTERM)
        await running.told(b"STOPPING=1")
        await eventually(lambda: len(running.said("gateway_draining")) == 2, PATIENCE)
        release.set()
        answers = await asyncio.gather(*requests)
        assert {(answer.status_code, answer.content) for answer in answers} == {(200, b'"done"')}
        assert await asyncio.wait_for(running.process.wait(), PATIENCE) == 0
        assert not [one for one in children.values() if one.is_running()]


async def test_nothing_is_left_when_the_parent_is_killed(peers: World) -> None:
    async with service(peers, 3) as running:
        await running.told(b"READY=1")
        children = list(running.children().values())
        assert len(children) == 3
        running.process.kill()
        await running.process.wait()
        gone, alive = await asyncio.to_thread(psutil.wait_procs, children, PATIENCE)
        assert not alive
        assert len(gone) == 3


async def test_one_process_is_no_more_than_that(peers: World) -> None:
    async with service(peers, 1) as running:
        await running.told(b"READY=1")
        assert psutil.Process(running.process.pid).children() == []
        running.process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(running.process.wait(), PATIENCE) == 0
        assert not [line for line in running.lines if "process" in line]


@pytest.mark.parametrize("processes", [1, 2])
async def test_a_port_that_somebody_has_is_said_so_even_if_they_would_share_it(
    peers: World, processes: int
) -> None:
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        async with service(peers, processes, taken.getsockname()[1]) as running:
            assert await asyncio.wait_for(running.process.wait(), PATIENCE) == 1
            assert not running.told_ready()
        assert running.said("service_failed") or running.said("task_died")


async def test_the_snapshot_that_all_write_can_be_read(peers: World) -> None:
    async with service(peers, 3) as running:
        await all_ready(running)
        for number in range(20):
            await publish(peers, f"n{number}")
        names = {f"en{number}" for number in range(20)}
        path = peers.directory / "data" / "routing-snapshot.json"

        def complete() -> bool:
            return path.exists() and names <= json.loads(path.read_text())["routes"].keys()

        await eventually(complete, PATIENCE)
        running.process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(running.process.wait(), PATIENCE) == 0
        assert complete()
        assert [one.name for one in path.parent.iterdir()] == [path.name]


async def test_a_process_that_fails_before_there_is_a_service_says_why(tmp_path: Path) -> None:
    failing = """
from servery_common.logging import configure_logging
from servery_gateway.processes import Processes

def fail(number, ready):
    raise RuntimeError("no loop")

configure_logging("gateway")
raise SystemExit(Processes(1, fail).run())
"""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", failing, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await asyncio.wait_for(process.communicate(), PATIENCE)
    assert process.returncode == 1
    lines = [json.loads(line) for line in out.splitlines()]
    [told] = [line for line in lines if line["event"] == "gateway_process_failed"]
    assert told["process"] == 1
    assert "RuntimeError: no loop" in json.dumps(told)
