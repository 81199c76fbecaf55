"""A leader frozen in the middle of a step while another takes over: what it decided before is refused, and counted."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
from tests.infrastructure import free_port, running_nats
from tests.integration.controller.peers import entity
from tests.resilience.controllers import PATIENCE, ControllerProcess, Peers, peers
from tests.scraping import scrape, total
from tests.waiting import until

from servery_common.contracts.replicas import EnsureReplica, StopReplica

STALE = "servery_stale_writes_refused_total"
Order = EnsureReplica | StopReplica
STEPS = {
    "create": (("POST", "", {"name": "new", "config": {"served_entities": [entity("1")]}}), EnsureReplica),
    "update": (("PUT", "/old/config", {"served_entities": [entity("2")]}), EnsureReplica),
    "replace": (("PUT", "/new/config", {"served_entities": [entity("3")]}), StopReplica),
    "stop": (("POST", "/old/config:stop", None), StopReplica),
    "delete": (("DELETE", "/new", None), StopReplica),
}
"""What is asked for, and the order in whose step the leader is frozen."""


async def database(postgres_url: str, query: str) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(postgres_url)
    try:
        return await connection.fetch(query)
    finally:
        await connection.close()


def freeze_at_the_next(kind: type[Order], around: Peers, leader: ControllerProcess) -> list[str]:
    """Stop the leader while it waits for a worker's answer; returns a list that gets the replica of the order."""
    ordered: list[str] = []

    def freeze(order: Order) -> None:
        if isinstance(order, kind):
            around.worker.on_order = None
            leader.freeze()
            ordered.append(order.launch.replica_id if isinstance(order, EnsureReplica) else order.replica_id)

    around.worker.on_order = freeze
    return ordered


async def assert_each_replica_runs_once(around: Peers, postgres_url: str) -> None:
    """All that was asked for is done, the worker holds what the rows want, and took no order of an earlier leader.

    Asks no controller: calls may be given to a frozen one.
    """

    async def as_wanted() -> bool:
        [left] = await database(
            postgres_url,
            """SELECT (SELECT count(*) FROM endpoint_configs WHERE phase = 'PENDING')
                      + (SELECT count(*) FROM endpoints WHERE deleted_at IS NOT NULL) AS count""",
        )
        rows = await database(postgres_url, "SELECT id FROM replicas")
        return left["count"] == 0 and {row["id"] for row in rows} == set(around.worker.replicas)

    await around.until(as_wanted)
    assert around.worker.epochs == sorted(around.worker.epochs)


def routed_to(around: Peers, name: str) -> list[str]:
    """The replicas that gateways were told of."""
    route = around.gateway.route(name)
    entities = route.served_entities if route is not None else ()
    return [replica.replica_id for one in entities for replica in one.replicas]


async def end_lease(postgres_url: str) -> None:
    """Its holder does not notice: by its own clock it leads."""
    await database(postgres_url, "UPDATE leases SET expires_at = '-infinity' WHERE name = 'reconciler'")


@asynccontextmanager
async def leader_and_standby(
    nats_url: str, postgres_url: str, directory: Path, metrics_port: int, around: Peers
) -> AsyncIterator[tuple[ControllerProcess, ControllerProcess]]:
    """A leader that goes on by its own clock, and one that takes over as soon as it may. The first serves its metrics.

    The freeze is short then: nothing of the leader's runs into a time limit, which would end its term, too.
    """
    with ExitStack() as ended:
        old = ControllerProcess(
            nats_url,
            postgres_url,
            directory / "old.log",
            SERVERY_LEASE_SECONDS="300",
            SERVERY_METRICS_PORT=str(metrics_port),
        )
        ended.callback(old.kill)
        await until(lambda: last_epoch(old) == 1, PATIENCE)
        new = ControllerProcess(nats_url, postgres_url, directory / "new.log")
        ended.callback(new.kill)
        await until(lambda: bool(new.said("service_ready")), PATIENCE)
        await around.until(around.answers)
        yield old, new


async def test_what_a_woken_leader_still_wants_to_write_is_refused_and_counted(
    postgres_url: str, tmp_path: Path
):
    port = free_port()

    async def counted() -> float:
        # In a thread: the workers and gateways of the test are on this loop, and must not fall silent.
        return total(await asyncio.to_thread(scrape, port), STALE, fence="lease")

    with running_nats() as nats:
        async with (
            peers(nats.url) as around,
            leader_and_standby(nats.url, postgres_url, tmp_path, port, around) as (old, new),
        ):
            assert await counted() == 0
            ordered = freeze_at_the_next(EnsureReplica, around, old)
            body = {"name": "iris", "config": {"served_entities": [entity()]}}
            calling = asyncio.create_task(around.call("POST", "", body))
            await until(lambda: bool(ordered), PATIENCE)
            await end_lease(postgres_url)
            await until(lambda: last_epoch(new) == 2, PATIENCE)
            old.thaw()
            await calling
            await around.until(counted)
            await around.until(around.ready, "iris")
            await assert_each_replica_runs_once(around, postgres_url)
            await until(lambda: routed_to(around, "iris") == ordered, PATIENCE)
            assert new.said("reconcile_failed") == old.said("reconcile_failed") == []


async def test_leaders_frozen_past_their_lease_again_and_again(postgres_url: str, tmp_path: Path):
    """Each time in the middle of a step, of every kind that gives orders. The lease is a second."""
    with running_nats() as nats, ExitStack() as ended:
        async with peers(nats.url) as around:
            both = [
                ControllerProcess(nats.url, postgres_url, tmp_path / f"{name}.log") for name in ("one", "two")
            ]
            for one in both:
                ended.callback(one.kill)
            await around.until(around.answers)
            await around.ok("POST", "", {"name": "old", "config": {"served_entities": [entity("1")]}})
            await around.until(around.ready, "old")
            for call, kind in STEPS.values():
                await freeze_the_leader_in_the_step_of(call, kind, around, both, postgres_url)
                await assert_each_replica_runs_once(around, postgres_url)
            assert around.worker.replicas == {}, "what was stopped and deleted has ended"
            assert [said for one in both for said in one.said("reconcile_failed")] == []
            assert_no_route_goes_back(around)


async def freeze_the_leader_in_the_step_of(
    call: tuple[str, str, Any],
    kind: type[Order],
    around: Peers,
    both: list[ControllerProcess],
    postgres_url: str,
) -> None:
    """Make a call, freeze who carries it out, wait until the other one has, and let the first one go on."""
    leading = max(both, key=last_epoch)
    other = next(one for one in both if one is not leading)
    epoch = last_epoch(leading)
    ordered = freeze_at_the_next(kind, around, leading)
    calling = asyncio.create_task(around.call(*call))  # both take calls: its answer may be frozen, too
    await until(lambda: bool(ordered), PATIENCE)
    await until(lambda: last_epoch(other) > epoch, PATIENCE)
    await assert_each_replica_runs_once(around, postgres_url)
    leading.thaw()
    await calling
    await around.until(around.answers)


def assert_no_route_goes_back(around: Peers) -> None:
    """A replica that gateways were told to use no more is never routed to again."""
    routed: dict[str, set[str]] = {}
    left: set[str] = set()
    for route in around.gateway.history:
        now = {replica.replica_id for one in route.served_entities for replica in one.replicas}
        assert not now & left, route
        left |= routed.get(route.endpoint_id, set()) - now
        routed[route.endpoint_id] = now
    assert left, "there were replicas that were replaced"


def last_epoch(controller: ControllerProcess) -> int:
    """The epoch of its last term as leader; 0 without one."""
    return max((said["epoch"] for said in controller.said("leadership_taken")), default=0)
