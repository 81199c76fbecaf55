"""A gateway that routes to 1, 100 and 10,000 endpoints: its memory, and what a request costs it."""

import asyncio
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import nats
import psutil
from tests.benchmarks.bench import Bench
from tests.benchmarks.load.client import Target, load
from tests.infrastructure import free_port, running_nats

from servery_common.contracts import frames, subjects
from servery_common.contracts.access import Identity, TokenGrant
from servery_common.contracts.quotas import WorkspaceQuota
from servery_common.contracts.routes import EndpointRoute, ReplicaRoute, ServedEntityRoute
from servery_common.messaging.bus import connect_bus
from servery_common.settings import NatsSettings

COUNTS = (1, 100, 10_000)
TOKEN = "benchmark-token"
ANSWER = b'{"predictions": [0]}'


def run(bench: Bench) -> dict[str, Any]:
    """The controller's part, writing routes, and the replica's, answering at once, are played here."""
    counts = COUNTS[:2] if bench.quick else COUNTS
    found = {str(count): asyncio.run(_measure(bench, count)) for count in counts}
    first, last = found[str(counts[0])], found[str(counts[-1])]
    bench.say(
        ", ".join(f"{n} endpoints {r['cpu_us']:.0f} µs, {r['memory_mib']:.0f} MiB" for n, r in found.items())
    )
    return {
        "endpoints": found,
        "targets": [
            Bench.target(
                f"gateway's CPU a request with {counts[-1]} endpoints, as a multiple of 1",
                last["cpu_us"] / first["cpu_us"],
                "<=",
                1.25,
            ),
            Bench.target(
                "memory for each endpoint, KiB",
                (last["memory_mib"] - first["memory_mib"]) * 1024 / counts[-1],
                "<=",
                16,
            ),
            Bench.target("errors", float(sum(r["errors"] for r in found.values())), "<=", 0),
        ],
    }


async def _measure(bench: Bench, count: int) -> dict[str, Any]:
    directory = bench.directory / f"endpoints-{count}"
    directory.mkdir()
    with running_nats() as server:
        async with connect_bus(NatsSettings(url=server.url), name="benchmark") as bus:
            await _publish(bus, count)
            replica = await _replica(server.url)
            with _gateway(server.url, directory) as (process, url):
                await _until_routed(url, count)
                target = Target(
                    "gateway",
                    url,
                    f"/serving-endpoints/e{count - 1}/invocations",
                    '{"inputs": [1]}',
                    {"Authorization": f"Bearer {TOKEN}"},
                    ANSWER.decode(),
                )
                await asyncio.to_thread(load, target, connections=32, seconds=1)
                before = sum(process.cpu_times()[:2])
                outcome = await asyncio.to_thread(load, target, connections=32, seconds=bench.seconds(5))
                used = sum(process.cpu_times()[:2]) - before
                memory = process.memory_info().rss / 2**20
            await replica.close()
    return {
        "per_second": round(outcome.per_second, 1),
        "p50_ms": round(outcome.percentile(50), 2),
        "cpu_us": round(used / max(1, outcome.ok) * 1e6, 1),
        "memory_mib": round(memory, 1),
        "errors": outcome.errors,
    }


async def _publish(bus: Any, count: int) -> None:
    identity = Identity(principal_id="p1", user_name="bench", workspace_id="1", admin=True)
    grant = TokenGrant(token_sha256=hashlib.sha256(TOKEN.encode()).hexdigest(), principal_id="p1")
    await bus.kv_put(subjects.PRINCIPALS_BUCKET, "p1", identity)
    await bus.kv_put(subjects.TOKENS_BUCKET, grant.token_sha256, grant)
    await bus.kv_put(subjects.QUOTAS_BUCKET, "1", WorkspaceQuota(workspace_id="1", qps=1_000_000))
    for at in range(0, count, 200):
        await asyncio.gather(*(_put_route(bus, number) for number in range(at, min(count, at + 200))))


async def _put_route(bus: Any, number: int) -> None:
    entity = ServedEntityRoute(
        served_entity_id=f"s{number}",
        name="m-1",
        traffic_percentage=100,
        replicas=(ReplicaRoute(replica_id="r1", slots=64),),
    )
    route = EndpointRoute(
        endpoint_id=f"id{number}",
        workspace_id="1",
        name=f"e{number}",
        status="serving",
        served_entities=(entity,),
    )
    await bus.kv_put(subjects.ROUTES_BUCKET, route.endpoint_id, route)


async def _replica(url: str) -> Any:
    client = await nats.connect(url)

    async def answer(message: Any) -> None:
        records = [
            frames.accepted([record.id]) + frames.encode(frames.RESULT, record.id, {"p": 1}, ANSWER)
            for record in frames.decode(message.data)
            if record.kind == frames.REQUEST
        ]
        if records:
            await client.publish(message.reply, b"".join(records))

    await client.subscribe(subjects.infer("r1"), cb=answer)
    await client.flush()
    return client


@contextmanager
def _gateway(nats_url: str, directory: Path) -> Iterator[tuple[psutil.Process, str]]:
    port = free_port()
    environment = {
        **os.environ,
        "SERVERY_NATS_URL": nats_url,
        "SERVERY_DATA_DIR": str(directory),
        "SERVERY_GATEWAY_PORT": str(port),
    }
    with subprocess.Popen(
        [sys.executable, "-m", "servery_gateway"],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            yield psutil.Process(process.pid), f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


async def _until_routed(url: str, count: int) -> None:
    ends = time.monotonic() + 60
    async with httpx.AsyncClient(base_url=url, headers={"Authorization": f"Bearer {TOKEN}"}) as client:
        while time.monotonic() < ends:
            try:
                answer = await client.post(
                    f"/serving-endpoints/e{count - 1}/invocations", content=json.dumps({"inputs": [1]})
                )
                if answer.status_code == 200:
                    return
            except httpx.HTTPError:
                pass
            await asyncio.sleep(0.1)
    raise SystemExit("the gateway did not route in time")
