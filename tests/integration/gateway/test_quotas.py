"""Quotas and rate limits over two gateways that share them by NATS."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from tests.infrastructure import NatsServer
from tests.integration.gateway.conftest import World, eventually
from tests.integration.gateway.peers import endpoint, entity, identity

from servery_common.contracts import subjects
from servery_common.contracts.quotas import GatewayCalls, WorkspaceQuota
from servery_common.contracts.routes import RateLimit
from servery_common.messaging.bus import NatsBus
from servery_gateway.shared_quota import burst_of

WORKSPACE = identity().workspace_id
SECONDS = 4.0
CLIENTS = 8
"""Per gateway, each sending the next request when the last is answered: many times the quota."""


class Pair:
    """Two gateways on one NATS."""

    def __init__(self, *worlds: World) -> None:
        self.first, self.second = worlds

    async def choose(self, qps: int) -> None:
        """Tell both of the workspace's quota, and wait until they know."""
        quota = WorkspaceQuota(workspace_id=WORKSPACE, qps=qps)
        await self.first.bus.kv_put(subjects.QUOTAS_BUCKET, WORKSPACE, quota)
        for world in (self.first, self.second):
            await eventually(lambda w=world: w.gateway.table.snapshot.quotas.get(WORKSPACE) == quota)

    async def publish(self, name: str, **fields) -> None:
        """An endpoint with a replica, known to both."""
        replica = await self.first.replica(f"r{name}")
        route = endpoint(name, entity("m", replica.route(64)), **fields)
        await self.first.publish(route)
        await eventually(lambda: self.second.gateway.table.snapshot.routes.get(route.endpoint_id) == route)

    async def heard(self) -> None:
        """Return when both have what was sent to them before."""
        for world in (self.first, self.second):
            bus = world.gateway.bus
            assert isinstance(bus, NatsBus)
            await bus.nats.flush()

    async def flood(self, name: str, world: World, until: float) -> Counter[int]:
        """Send as much as is answered until then; return how many answers there were by status."""
        loop = asyncio.get_running_loop()
        seen: Counter[int] = Counter()

        async def client() -> None:
            while loop.time() < until:
                answer = await world.score(name)
                seen[answer.status_code] += 1

        await asyncio.gather(*(client() for _ in range(CLIENTS)))
        return seen


@pytest.fixture
async def pair(nats_server: NatsServer, tmp_path: Path) -> AsyncIterator[Pair]:
    async with AsyncExitStack() as stack:
        worlds = [World(nats_server, tmp_path / name, stack) for name in ("first", "second")]
        for world in worlds:
            await world.connect_bus()
            await world.start_gateway()
        for world in worlds:
            await eventually(lambda w=world: w.gateway.why_not_ready() is None)
        yield Pair(*worlds)
        for world in worlds:
            assert world.dead_tasks() == []
            await world.stop_gateway()


async def test_two_gateways_together_let_in_the_quota_and_no_more(pair: Pair) -> None:
    qps = 20
    await pair.publish("shared")
    await pair.choose(qps)
    loop = asyncio.get_running_loop()
    began = loop.time()
    both = await asyncio.gather(
        *(pair.flood("shared", world, began + SECONDS) for world in (pair.first, pair.second))
    )
    took = loop.time() - began
    admitted = sum(seen[200] for seen in both)
    refused = sum(seen[429] for seen in both)
    assert admitted + refused == sum(sum(seen.values()) for seen in both), both
    assert refused > admitted, "there was far more than the quota"
    assert admitted <= burst_of(qps) + 1.05 * qps * took
    # A busy machine may keep a gateway from its requests for moments, which do not come back.
    assert admitted >= 0.8 * qps * took
    assert min(seen[200] for seen in both) > 0.25 * admitted, "both get their part"


async def test_a_refusal_says_what_to_do_and_leaves_rate_limits_alone(pair: Pair) -> None:
    await pair.publish("limited", rate_limits=(RateLimit(calls=15),))
    await pair.choose(1)
    answers = [await pair.first.score("limited") for _ in range(14)]
    assert Counter(answer.status_code for answer in answers[:10]) == {200: 10}
    refused = answers[-1]
    assert refused.status_code == 429
    assert refused.json()["error_code"] == "REQUEST_LIMIT_EXCEEDED"
    for part in (f"Workspace {WORKSPACE}", "1 scoring requests per second", "servery quota set qps=N"):
        assert part in refused.json()["message"]
    assert 1 <= int(refused.headers["retry-after"]) <= 12
    await pair.choose(3000)
    counted = sum(answer.status_code == 200 for answer in answers)
    more = [(await pair.first.score("limited")).status_code for _ in range(15 - counted + 1)]
    assert more == [200] * (15 - counted) + [429], "what the quota refused was no call"


async def test_a_rate_limit_counts_the_calls_of_both_gateways(pair: Pair) -> None:
    await pair.publish("counted", rate_limits=(RateLimit(calls=6), RateLimit(calls=4, key="user")))
    told: Counter[str] = Counter()

    async def hear(calls: GatewayCalls) -> None:
        told.update({one.principal_id: one.calls for one in calls.counts})

    await pair.first.bus.on_signal(subjects.ALL_GATEWAY_CALLS, GatewayCalls, hear)
    for count, world in enumerate((pair.first, pair.second, pair.first, pair.second), start=1):
        assert (await world.score("counted")).status_code == 200
        await eventually(lambda n=count: told == {"": n, "pann": n})
        await pair.heard()
    for world in (pair.first, pair.second):
        answer = await world.score("counted")
        assert answer.status_code == 429
        assert "4 calls per minute from each caller" in answer.json()["message"]


async def test_what_a_request_refused_by_a_rate_limit_took_of_the_quota_is_given_back(pair: Pair) -> None:
    await pair.publish("never", rate_limits=(RateLimit(calls=0),))
    await pair.publish("always")
    await pair.choose(1)
    for _ in range(30):
        answer = await pair.first.score("never")
        assert answer.status_code == 429
        assert "calls per minute" in answer.json()["message"]
    assert (await pair.first.score("always")).status_code == 200


async def test_the_body_of_a_refused_request_is_not_read(pair: Pair) -> None:
    await pair.publish("refusing")
    await pair.choose(1)
    for _ in range(10):
        await pair.first.score("refusing")
    reader, writer = await asyncio.open_connection("127.0.0.1", pair.first.gateway.port)
    head = (
        "POST /serving-endpoints/refusing/invocations HTTP/1.1\r\nhost: x\r\n"
        f"authorization: {pair.first.http.headers['authorization']}\r\n"
        "content-type: application/json\r\ncontent-length: 1000000\r\n\r\n"
    )
    writer.write(head.encode())
    status = await asyncio.wait_for(reader.readline(), 20)
    assert b" 429 " in status
    writer.close()


async def test_a_quota_is_kept_for_a_start_without_nats(pair: Pair) -> None:
    await pair.publish("kept")
    await pair.choose(7)
    await pair.first.gateway.stop()
    kept = json.loads((pair.first.directory / "routing-snapshot.json").read_text())
    assert kept["quotas"][WORKSPACE]["qps"] == 7
