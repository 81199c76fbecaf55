"""A gateway and two workers as processes of their own, on a real NATS, and a controller that the test plays.

There is no Postgres: what is shown here works without. What the model was given is read from the file it writes.
"""

import asyncio
import itertools
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
from tests.infrastructure import NatsServer, free_port
from tests.integration.gateway.peers import endpoint, entity, grant, identity
from tests.integration.worker.worker_process import WorkerOrders, WorkerProcess
from tests.waiting import until

from servery_common.contracts import subjects
from servery_common.contracts.quotas import WorkspaceQuota
from servery_common.contracts.replicas import ReadReplicaLog, ReplicaLog, ReplicaObservation
from servery_common.contracts.routes import EndpointRoute, ReplicaRoute
from servery_common.contracts.scaling import EntityLoad, GatewayLoad
from servery_common.contracts.states import ReplicaState
from servery_common.messaging.port import Bus

TOKEN = "good-token"
PATIENCE = 60.0
"""Seconds a loaded machine may need. What is awaited takes a fraction of it."""
AT_ONCE = 20.0
"""As above, for what must not wait for a deadline of ``LONG`` seconds."""
LONG = 120.0
MEMORY = 768 * 1024 * 1024
"""What a model's process may hold here."""
ANSWER = 1024 * 1024

GATEWAY = {
    # A worker that is only slow, on a machine that is busy, is no frozen one.
    "SERVERY_GATEWAY_ACCEPT_TIMEOUT": "1.0",
    "SERVERY_GATEWAY_ANSWER_MARGIN": "0.5",
    "SERVERY_GATEWAY_MAX_LOOP_LAG": "30",
    "SERVERY_GATEWAY_REPLICA_WAIT": str(PATIENCE),
    "SERVERY_GATEWAY_MAX_QUEUE_WAIT": str(PATIENCE),
    "SERVERY_GATEWAY_SNAPSHOT_DEBOUNCE": "0.05",
}
WORKER = {
    "SERVERY_WORKER_HEARTBEAT_SECONDS": "0.2",
    "SERVERY_WORKER_DEADLINE_GRACE_SECONDS": "0.3",
    "SERVERY_WORKER_MODEL_MEMORY_BYTES": str(MEMORY),
    "SERVERY_WORKER_MAX_ANSWER_BYTES": str(ANSWER),
}


class GatewayProcess:
    """``python -m servery_gateway``, started again on the same port and data directory."""

    def __init__(self, nats_url: str, directory: Path) -> None:
        directory.mkdir()
        self.port = free_port()
        self._log = directory / "gateway.log"
        self._environment = (
            os.environ
            | GATEWAY
            | {
                "SERVERY_NATS_URL": nats_url,
                "SERVERY_DATA_DIR": str(directory),
                "SERVERY_GATEWAY_PORT": str(self.port),
            }
        )
        self.start()

    def start(self) -> None:
        with self._log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "servery_gateway"], env=self._environment, stdout=output, stderr=output
            )

    def kill(self) -> None:
        """End it as a power failure would."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(PATIENCE)

    def said(self, event: str) -> list[dict[str, Any]]:
        """What it logged under this name."""
        lines = self._log.read_text().splitlines()
        return [line for line in map(_parsed, lines) if line.get("event") == event]


def _parsed(line: str) -> dict[str, Any]:
    try:
        return json.loads(line)
    except ValueError:
        return {}


@dataclass
class Processes:
    """What runs as long as the tests of this folder do; a test that ends one starts it again."""

    nats: NatsServer
    gateway: GatewayProcess
    workers: list[WorkerProcess]
    directory: Path
    model: Path
    numbers: itertools.count = field(default_factory=lambda: itertools.count(1))

    def start_worker(self) -> WorkerProcess:
        number = next(self.numbers)
        return WorkerProcess(self.nats.url, self.directory / f"worker-{number}", **WORKER)


@dataclass
class Scored:
    """One request and its answer."""

    id: str
    status: int
    body: Any

    @property
    def message(self) -> str:
        return self.body["message"]

    @property
    def prediction(self) -> Any:
        return self.body["predictions"][0]


class Endpoint:
    """Replicas of the model behind one name."""

    def __init__(self, system: "System", name: str) -> None:
        self._system = system
        self.name = name
        self.replicas: list[tuple[WorkerOrders, str]] = []
        self._ids = itertools.count(1)
        self._created = itertools.count(1)

    def ran(self, replica: int | None = None) -> list[str]:
        """Ids of the requests the model was given, in order; of one replica's, or of all."""
        numbers = range(len(self.replicas)) if replica is None else [replica]
        paths = [self._path(number) for number in numbers]
        return [line for path in paths if path.exists() for line in path.read_text().split()]

    async def add(self, worker: WorkerOrders, *, slots: int = 4, timeout: float = LONG, **env: str) -> str:
        """Have a worker start a replica; returns its id once it is ready. ``publish`` sends requests to it."""
        number = len(self.replicas)
        self.replicas.append((worker, ""))
        variables = {"RAN": str(self._path(number)), **env}
        replica_id = await worker.launch(
            self._system.processes.model,
            slots=slots,
            timeout_seconds=timeout,
            environment_vars=variables,
            wait=False,
        )
        self.replicas[number] = (worker, replica_id)
        await worker.until_state(replica_id, ReplicaState.READY)
        return replica_id

    async def publish(self, *, slots: int = 4, timeout: float = LONG, without: tuple[str, ...] = ()) -> None:
        """Tell the gateway of the replicas, and wait until it is heard."""
        routes = [ReplicaRoute(replica_id=one, slots=slots) for _, one in self.replicas if one not in without]
        route = endpoint(
            self.name,
            entity("m-1", *routes),
            created_at_ms=next(self._created),
            timeout_seconds=timeout,
            max_queued=200,
        )
        await self._system.publish(route)

    def new_id(self) -> str:
        """An id for a request."""
        return f"{self.name}-{next(self._ids)}"

    async def score(self, do: str = "answer:1", request_id: str | None = None) -> Scored:
        """Send one request."""
        request_id = request_id or self.new_id()
        answer = await self._system.http.post(
            f"/serving-endpoints/{self.name}/invocations",
            json={"dataframe_records": [{"id": request_id, "do": do}]},
            headers={"x-request-id": request_id},
        )
        return Scored(request_id, answer.status_code, answer.json())

    def begin(self, do: str, count: int = 1) -> list[asyncio.Task[Scored]]:
        """Send requests and do not wait for their answers."""
        ids = [self.new_id() for _ in range(count)]
        return [asyncio.create_task(self.score(do, one), name=one) for one in ids]

    async def until_running(self, tasks: list[asyncio.Task[Scored]]) -> None:
        """Wait until the model was given these."""
        await until(lambda: {task.get_name() for task in tasks} <= set(self.ran()), PATIENCE)

    async def process(self) -> dict[str, Any]:
        """What the model sees of the process it is in."""
        scored = await self.score("process")
        assert scored.status == 200, scored
        return scored.prediction

    def observed(self, replica: int = 0) -> ReplicaObservation:
        """The replica as its worker told last."""
        worker, replica_id = self.replicas[replica]
        assert worker.beat is not None
        return next(one for one in worker.beat.replicas if one.replica_id == replica_id)

    async def log(self, replica: int = 0) -> list[str]:
        """What the model of a replica printed last."""
        worker, replica_id = self.replicas[replica]
        order = ReadReplicaLog(replica_id=replica_id)
        answer = await self._system.bus.request(
            subjects.worker_log(worker.worker_id), order, ReplicaLog, timeout=PATIENCE
        )
        return answer.text.split("\n")

    @asynccontextmanager
    async def load(self, clients: int = 8, do: str = "sleep:0.02") -> AsyncIterator["Load"]:
        """Clients that send one request after the other while the block runs; then what is under way ends."""
        load = Load(self, do)
        tasks = [asyncio.create_task(load.client()) for _ in range(clients)]
        try:
            await load.succeeded(2 * clients)
            yield load
        finally:
            load.stopping = True
            async with asyncio.timeout(PATIENCE):
                await asyncio.gather(*tasks)

    def _path(self, replica: int) -> Path:
        return self._system.processes.directory / f"{self.name}-{replica}.ran"


class Load:
    """Requests of several clients, and their answers in the order they came."""

    def __init__(self, endpoint: Endpoint, do: str) -> None:
        self._endpoint = endpoint
        self._do = do
        self.stopping = False
        self.sent: list[str] = []
        self.scored: list[Scored] = []
        self.unreached = 0
        """Requests that found no gateway."""

    async def client(self) -> None:
        while not self.stopping:
            self.sent.append(self._endpoint.new_id())
            try:
                self.scored.append(await self._endpoint.score(self._do, self.sent[-1]))
            except httpx.TransportError:
                self.unreached += 1
                await asyncio.sleep(0.02)
                continue
            if self.scored[-1].status != 200:
                await asyncio.sleep(0.02)

    def of_status(self, status: int) -> list[Scored]:
        return [one for one in self.scored if one.status == status]

    def statuses(self) -> set[int]:
        return {one.status for one in self.scored}

    async def succeeded(self, more: int, within: float = PATIENCE) -> None:
        """Wait for so many more answers of status 200."""
        wanted = len(self.of_status(200)) + more
        await until(lambda: len(self.of_status(200)) >= wanted, within)

    def assert_run_once(self, ran: list[str]) -> None:
        """What was answered by the model was run once, and nothing twice."""
        counts = Counter(ran)
        assert [one for one, count in counts.items() if count > 1] == []
        assert [one.id for one in self.of_status(200) if counts[one.id] != 1] == []


class System:
    """What one test uses of the processes, and the controller's part of it."""

    def __init__(self, processes: Processes, bus: Bus, http: httpx.AsyncClient) -> None:
        self.processes = processes
        self.bus = bus
        self.http = http
        self.orders: list[WorkerOrders] = []
        self._endpoints: list[Endpoint] = []
        self._loads: dict[str, EntityLoad] = {}

    async def start(self) -> None:
        ann, token = identity(), grant(TOKEN)
        await self.bus.kv_put(subjects.PRINCIPALS_BUCKET, ann.principal_id, ann)
        await self.bus.kv_put(subjects.TOKENS_BUCKET, token.token_sha256, token)
        plenty = WorkspaceQuota(workspace_id=ann.workspace_id, qps=100_000)
        await self.bus.kv_put(subjects.QUOTAS_BUCKET, plenty.workspace_id, plenty)
        await self.bus.on_signal(subjects.ALL_GATEWAY_LOADS, GatewayLoad, self._on_load)
        for worker in self.processes.workers:
            await self.watch(worker)

    async def watch(self, worker: WorkerProcess) -> WorkerOrders:
        """Hear a worker's heartbeats, and be able to order it about."""
        orders = await WorkerOrders(self.bus, worker.id).start()
        self.orders.append(orders)
        return orders

    def endpoint(self) -> Endpoint:
        """A new one, without replicas."""
        made = Endpoint(self, f"e{next(self.processes.numbers)}")
        self._endpoints.append(made)
        return made

    async def deploy(self, *workers: int, slots: int = 4, timeout: float = LONG, **env: str) -> Endpoint:
        """An endpoint with a replica on each of these workers, which answers."""
        made = self.endpoint()
        adding = [made.add(self.orders[number], slots=slots, timeout=timeout, **env) for number in workers]
        await asyncio.gather(*adding)
        await made.publish(slots=slots, timeout=timeout)
        return made

    async def until_admitted(self, endpoint: Endpoint, count: int) -> None:
        """Wait until the gateway says that so many requests wait or are under way, for a whole second."""

        def said() -> bool:
            load = self._loads.get(f"e{endpoint.name}")
            return load is not None and abs(load.in_flight + load.queued - count) < 0.01

        await until(said, PATIENCE)

    async def publish(self, route: EndpointRoute) -> None:
        await self.bus.kv_put(subjects.ROUTES_BUCKET, route.endpoint_id, route)
        snapshot = self.processes.directory / "gateway" / "routing-snapshot.json"

        def known() -> bool:
            routes = json.loads(snapshot.read_text())["routes"] if snapshot.exists() else {}
            return routes.get(route.endpoint_id) == route.model_dump(mode="json")

        await until(known, PATIENCE)

    async def _on_load(self, load: GatewayLoad) -> None:
        self._loads.update((one.endpoint_id, one) for one in load.entities)

    async def clear(self) -> None:
        """Remove the endpoints and stop their replicas."""
        for made in self._endpoints:
            await self.bus.kv_delete(subjects.ROUTES_BUCKET, f"e{made.name}")
            for worker, replica_id in made.replicas:
                if worker in self.orders:
                    await worker.stop(replica_id, grace=0.0)
                    await worker.until_state(replica_id, ReplicaState.STOPPED, PATIENCE)


def resident(pid: int) -> int:
    """Memory of a process."""
    return psutil.Process(pid).memory_info().rss


@asynccontextmanager
async def highest(pid: int) -> AsyncIterator[list[int]]:
    """Watch the memory of a process while the block runs: the list's one item grows to the most that was seen."""
    most = [resident(pid)]

    async def watch() -> None:
        while True:
            most[0] = max(most[0], resident(pid))
            await asyncio.sleep(0.01)

    watching = asyncio.create_task(watch())
    try:
        yield most
    finally:
        watching.cancel()
        await asyncio.wait({watching})


@asynccontextmanager
async def frozen(*pids: int) -> AsyncIterator[None]:
    """Stop processes as a debugger would, and let them go on afterwards."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            if psutil.pid_exists(pid):
                os.kill(pid, signal.SIGCONT)
