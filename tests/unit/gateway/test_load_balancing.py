import collections
import random
from dataclasses import dataclass

import pytest

from servery_common.contracts.routes import ServedEntityRoute
from servery_gateway.load_balancing import TrafficPoints, choose_served_entity, power_of_two_choices


@dataclass
class Replica:
    name: str
    in_flight: int = 0
    slots: int = 1000

    def is_free(self, now: float) -> bool:
        return self.in_flight < self.slots


def weighted(**weights: int) -> list[ServedEntityRoute]:
    return [
        ServedEntityRoute(served_entity_id=name, name=name, traffic_percentage=weight)
        for name, weight in weights.items()
    ]


def chosen(entities, point: float) -> str | None:
    entity = choose_served_entity(entities, point)
    return entity.name if entity else None


def test_the_point_falls_on_an_entity_by_its_share() -> None:
    entities = weighted(a=20, none=0, b=80)
    assert [chosen(entities, point) for point in (0.0, 0.19, 0.2, 0.99)] == ["a", "a", "b", "b"]


def test_weights_need_not_add_up_to_100() -> None:
    assert [chosen(weighted(a=1, b=1), point) for point in (0.49, 0.51)] == ["a", "b"]


def test_without_a_weight_above_zero_nothing_is_chosen() -> None:
    assert chosen(weighted(a=0), 0.5) is None
    assert chosen([], 0.5) is None


def test_an_entity_of_weight_zero_is_never_chosen() -> None:
    assert {chosen(weighted(a=0, b=3, c=0), point / 100) for point in range(100)} == {"b"}


def test_the_less_loaded_of_two_different_replicas_is_taken() -> None:
    replicas = [Replica("a", 5), Replica("b", 1), Replica("c", 9)]
    draws = iter([0.0, 0.0])  # the first, and the first of the others
    assert power_of_two_choices(replicas, 0.0, lambda: next(draws)) is replicas[1]


def test_there_may_be_one_replica_or_none() -> None:
    only = Replica("a", 99)
    assert power_of_two_choices([only], 0.0, random.random) is only
    assert power_of_two_choices([], 0.0, random.random) is None


@pytest.mark.parametrize("draw", [0.0, 0.25, 0.5, 0.75, 0.999])
def test_whoever_is_free_is_found_wherever_the_draws_fall(draw: float) -> None:
    replicas = [Replica(str(number), in_flight=1, slots=1) for number in range(4)]
    assert power_of_two_choices(replicas, 0.0, lambda: draw) is None
    for free in replicas:
        free.slots = 2
        assert power_of_two_choices(replicas, 0.0, lambda: draw) is free
        free.slots = 1


def test_two_choices_keep_the_load_nearly_even() -> None:
    replicas = [Replica(str(number)) for number in range(10)]
    draw = random.Random(1).random
    for _ in range(1000):
        replica = power_of_two_choices(replicas, 0.0, draw)
        assert replica is not None
        replica.in_flight += 1
    assert max(r.in_flight for r in replicas) - min(r.in_flight for r in replicas) <= 6


def test_equal_replicas_are_all_drawn() -> None:
    replicas = [Replica(str(number)) for number in range(4)]
    draw = random.Random(1).random
    counts = collections.Counter(
        getattr(power_of_two_choices(replicas, 0.0, draw), "name", "") for _ in range(400)
    )
    assert min(counts.values()) > 60


@pytest.mark.parametrize("start", [0.0, 0.3, 0.999])
def test_each_served_entity_gets_its_share_of_any_2000_requests(start: float) -> None:
    entities = weighted(a=1, b=4, c=25, d=70)
    points = TrafficPoints(lambda: start)
    counts = collections.Counter(chosen(entities, points.next("e")) for _ in range(2000))
    assert all(abs(counts[entity.name] - 20 * entity.traffic_percentage) <= 4 for entity in entities)


def test_endpoints_are_split_each_for_itself() -> None:
    points = TrafficPoints(lambda: 0.0)
    mixed = [points.next(name) for name in ("a", "b") * 3]
    assert mixed[::2] == mixed[1::2]


def test_a_forgotten_endpoint_begins_anew() -> None:
    points = TrafficPoints(lambda: 0.25)
    begun = [points.next("a"), points.next("a")]
    points.forget("a")
    assert begun[1] != 0.25
    assert points.next("a") == begun[0] == 0.25
