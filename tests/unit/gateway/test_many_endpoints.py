"""What a change, a request and a report cost with very many endpoints: counted in what is touched, not in time."""

from collections.abc import Mapping, Sequence

import pytest
from tests.unit.gateway.simulation import DONE, SimulatedLoop

from servery_common.contracts.metrics import EntityMetrics
from servery_common.contracts.routes import EndpointRoute, ReplicaRoute, ServedEntityRoute
from servery_common.contracts.scaling import EntityLoad
from servery_common.messaging.port import KvChange
from servery_gateway.dispatch_limits import DispatchLimits
from servery_gateway.dispatcher import IDLE_ROUNDS, Dispatcher
from servery_gateway.entity_pool import EntityPool, EntityWithdrawn, ScoringRequest
from servery_gateway.load_reporter import LoadReports
from servery_gateway.loop_lag import LoopLag
from servery_gateway.metrics_reporter import take_metrics
from servery_gateway.rejections import Rejections
from servery_gateway.request_meter import IDLE_ROUNDS as IDLE_METRICS_ROUNDS
from servery_gateway.request_meter import WINDOW_SECONDS, RequestMeters
from servery_gateway.request_trace import UNTRACED
from servery_gateway.routing_table import Change, RoutingTable, Snapshot
from servery_gateway.shadow_tally import ShadowTallies
from servery_gateway.transport import ReplicaRequest

MANY = 2_000


def route(number: int, slots: int = 4) -> EndpointRoute:
    return EndpointRoute(
        endpoint_id=f"e{number}",
        workspace_id="1",
        name=f"name-{number}",
        status="serving",
        served_entities=(
            ServedEntityRoute(
                served_entity_id=f"s{number}",
                name="m-1",
                traffic_percentage=100,
                replicas=(ReplicaRoute(replica_id=f"r{number}", slots=slots),),
            ),
        ),
    )


ROUTES = [route(number) for number in range(MANY)]


class Answering:
    """A transport whose replicas answer when they are told to."""

    connected = True

    def __init__(self) -> None:
        self.attempts: list[int] = []

    def send(self, replica_id: str, request: ReplicaRequest) -> None:
        self.attempts.append(request.id)

    def probe(self, replica_id: str) -> None:
        pass


class Gateway:
    """The parts that keep something for each endpoint."""

    def __init__(self) -> None:
        self.loop = SimulatedLoop()
        self.transport = Answering()
        self.dispatcher = Dispatcher(self.transport, DispatchLimits(), lambda: 0.0, _loop=self.loop)  # type: ignore[arg-type]
        self.meters = RequestMeters()
        self.table = RoutingTable(Snapshot(routes={one.endpoint_id: one for one in ROUTES}), absence_grace=60)
        self.changes: list[Sequence[Change[EndpointRoute]]] = []
        self.table.follow_routes(self.dispatcher.follow)
        self.table.follow_routes(self.meters.follow)
        self.table.follow_routes(self.changes.append)
        for one in ROUTES:
            self.table.apply("routes", KvChange("put", one.endpoint_id, one), 0.0)
        self.table.apply("routes", KvChange("caught_up", incarnation="one"), 0.0)
        self.reports = LoadReports(self.dispatcher, "g1", 0.0)

    def load(self, now: float) -> dict[str, EntityLoad]:
        told = [one for report in self.reports.take(now) for one in report.entities]
        assert len({one.served_entity_id for one in told}) == len(told)
        return {one.served_entity_id: one for one in told}

    def metrics(self, now: float) -> dict[str, EntityMetrics]:
        told = [
            one
            for each in take_metrics(
                self.meters, Rejections(), ShadowTallies(), LoopLag(), self.dispatcher, "g1", now
            )
            for one in each.entities
        ]
        assert len({one.served_entity_id for one in told}) == len(told)
        return {one.served_entity_id: one for one in told}

    def request(self, number: int) -> None:
        self.dispatcher.submit(
            ScoringRequest(f"s{number}", "application/json", "r", b"{}", self.loop.time() + 59.0, UNTRACED)
        )
        for attempt in self.transport.attempts:
            self.dispatcher.on_accept(attempt)

    def answer(self, number: int) -> None:
        attempts, self.transport.attempts = self.transport.attempts, []
        for attempt in attempts:
            self.dispatcher.on_result(attempt, DONE)
            meter = self.meters.of(f"s{number}")
            assert meter is not None
            meter.record(200, 1.0)


@pytest.fixture
def gateway() -> Gateway:
    return Gateway()


def test_what_was_known_and_is_listed_again_is_no_change(gateway: Gateway) -> None:
    assert [len(changes) for changes in gateway.changes] == [MANY]


def test_a_change_of_a_route_touches_that_endpoint_only(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    updated: list[str] = []

    class Watched(EntityPool):
        def update(self, endpoint: EndpointRoute, entity: ServedEntityRoute, known: Mapping) -> None:
            updated.append(entity.served_entity_id)
            super().update(endpoint, entity, known)

    monkeypatch.setattr("servery_gateway.entity_pools.EntityPool", Watched)
    before = gateway.table.snapshot
    meter, other = gateway.meters.of("s7"), gateway.dispatcher.pool("s8")
    gateway.changes.clear()
    gateway.table.apply("routes", KvChange("put", "e7", route(7, slots=9)), 0.0)
    gateway.table.apply("routes", KvChange("put", "new", route(MANY)), 0.0)
    gateway.table.apply("routes", KvChange("delete", "e9"), 0.0)
    assert [[change.key for change in changes] for changes in gateway.changes] == [["e7"], ["new"], ["e9"]]
    assert updated == [f"s{MANY}"]  # The pool of s7 was made before and is no watched one.
    pool = gateway.dispatcher.pool("s7")
    assert pool is not None
    assert pool.policy.slots == 9
    assert gateway.meters.of("s7") is meter
    assert gateway.dispatcher.pool("s8") is other
    assert gateway.dispatcher.pool("s9") is gateway.meters.of("s9") is None
    with pytest.raises(EntityWithdrawn):
        gateway.request(9)
    now = gateway.table.snapshot
    assert (before.routes["e7"], len(before.routes)) == (ROUTES[7], MANY)  # Who reads the old one still may.
    assert now.by_name[("1", "name-7")].served_entities[0].replicas[0].slots == 9
    assert ("1", "name-9") not in now.by_name
    assert ("1", "name-9") in before.by_name


def test_a_name_that_was_given_again_is_found_when_the_younger_endpoint_goes(gateway: Gateway) -> None:
    younger = route(1).model_copy(update={"endpoint_id": "young", "created_at_ms": 5, "served_entities": ()})
    gateway.table.apply("routes", KvChange("put", "young", younger), 0.0)
    assert gateway.table.snapshot.by_name[("1", "name-1")] == younger
    gateway.table.apply("routes", KvChange("delete", "young"), 0.0)
    assert gateway.table.snapshot.by_name[("1", "name-1")] == ROUTES[1]


def test_reports_tell_of_those_that_were_active_and_of_a_few_others(gateway: Gateway) -> None:
    assert len(gateway.load(1.0)) == MANY  # Nobody knows them yet.
    few = -(-MANY // IDLE_ROUNDS)
    assert len(gateway.load(2.0)) == few
    gateway.loop.run(2.0)
    gateway.request(1500)
    gateway.loop.run(2.5)
    gateway.answer(1500)
    told = gateway.load(3.0)
    # It may have its turn among the others just now.
    assert len(told.keys() - {"s1500"}) in (few - 1, few)
    assert (told["s1500"].in_flight, told["s1500"].requests) == (0.5, 1)
    told = gateway.load(4.0)
    assert (told["s1500"].in_flight, told["s1500"].requests) == (0.0, 0)  # Idle again, which is news.
    assert len(told.keys() - {"s1500"}) in (few - 1, few)
    assert len(gateway.load(5.0)) == few


def test_each_idle_served_entity_has_its_turn(gateway: Gateway) -> None:
    gateway.load(1.0)
    gateway.metrics(1.0)
    loads: set[str] = set()
    for number in range(IDLE_ROUNDS):
        loads |= gateway.load(2.0 + number).keys()
    metrics: set[str] = set()
    for number in range(IDLE_METRICS_ROUNDS):
        metrics |= gateway.metrics(2.0 + 2 * number).keys()
    assert len(loads) == len(metrics) == MANY


def test_who_had_a_request_is_told_of_until_the_last_minute_is_empty(gateway: Gateway) -> None:
    gateway.metrics(0.0)
    few = -(-MANY // IDLE_METRICS_ROUNDS)
    gateway.request(1500)
    now = 2.0
    # As long as it is worked on it is told of, though nothing was counted yet.
    assert gateway.metrics(now)["s1500"].in_flight == 1
    gateway.answer(1500)
    counted: list[int] = []
    while True:
        now += 2.0
        told = gateway.metrics(now)
        assert len(told) <= few + 1
        if "s1500" not in told:
            break
        counted.append(told["s1500"].last_minute.requests)
    busy = counted.count(1)
    # Told idle once, and a second time if its turn among the idle ones comes just then.
    assert counted in ([1] * busy + [0], [1] * busy + [0, 0])
    assert len(counted) >= WINDOW_SECONDS / 2


def test_a_replica_that_is_gone_is_found_without_looking_at_all_served_entities(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = gateway.dispatcher.pool("s3")
    assert pool is not None
    monkeypatch.setattr(gateway.dispatcher, "_pools", {})
    gateway.dispatcher.on_gone("r3")
    assert pool.replicas["r3"].gone
