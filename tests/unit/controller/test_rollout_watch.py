from tests.unit.controller.rollouts import update

from servery_common.contracts.metrics import EntityMetrics, GatewayMetrics, Histogram, RequestCounts
from servery_controller.domain.endpoint import ConfigPhase, EntityHealth
from servery_controller.domain.metrics_book import MetricsBook
from servery_controller.reconcile.rollout_watch import RolloutWatch


def told(gateway: str, entity_id: str, requests: int, errors: int, total_ms: float) -> GatewayMetrics:
    metrics = EntityMetrics(
        served_entity_id=entity_id,
        last_minute=RequestCounts(),
        answered=RequestCounts(requests=requests, client_errors=errors),
        in_flight=0,
        queued=0,
        latency=Histogram(sum_ms=total_ms),
        queue_time=Histogram(),
        prediction=Histogram(),
    )
    return GatewayMetrics(gateway_id=gateway, entities=(metrics,))


def test_only_what_came_since_the_step_began_is_judged():
    book = MetricsBook()
    now = [0.0]
    watch = RolloutWatch(book.answered, lambda: now[0])
    now[0] = 100.0
    book.hear(told("g1", "e1", 500, 50, 5000.0), 0.0)
    assert watch.health(update())["e1"] == EntityHealth()
    book.hear(told("g1", "e1", 520, 51, 5100.0), 2.0)
    book.hear(told("g2", "e1", 5, 1, 50.0), 2.0)
    assert watch.health(update())["e1"] == EntityHealth(requests=25, errors=2, total_ms=150.0)
    assert watch.health(update(step=1))["e1"] == EntityHealth(), "another step, another beginning"
    assert watch.health(update(phase=ConfigPhase.CANCELED)) == {}


def test_a_leader_that_has_just_begun_takes_a_gateway_it_had_not_heard_for_an_old_one():
    book = MetricsBook()
    now = [0.0]
    watch = RolloutWatch(book.answered, lambda: now[0])
    assert watch.health(update()) == {"e1": EntityHealth(), "e2": EntityHealth()}
    book.hear(told("g1", "e1", 1_000_000, 0, 10_000_000.0), 2.0)
    assert watch.health(update())["e1"] == EntityHealth(), "all that was before its term"
    book.hear(told("g1", "e1", 1_000_010, 1, 10_000_300.0), 4.0)
    assert watch.health(update())["e1"] == EntityHealth(requests=10, errors=1, total_ms=300.0)


def test_it_knows_for_how_long_it_counts_a_step_and_what_is_not_answered_yet():
    book = MetricsBook()
    now = [0.0]
    watch = RolloutWatch(book.answered, lambda: now[0])
    world = update()
    assert watch.counted_seconds(world.endpoint.id) == 0.0
    watch.health(world)
    now[0] = 7.0
    waiting = told("g1", "e1", 0, 0, 0.0)
    waiting = waiting.model_copy(
        update={
            "entities": tuple(e.model_copy(update={"in_flight": 2, "queued": 1}) for e in waiting.entities)
        }
    )
    book.hear(waiting, 7.0)
    assert watch.health(world)["e1"] == EntityHealth(in_flight=3)
    assert watch.counted_seconds(world.endpoint.id) == 7.0
    watch.health(update(step=1))
    assert watch.counted_seconds(world.endpoint.id) == 0.0
