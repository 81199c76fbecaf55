from tests.factories import observed

from servery_common.contracts.replicas import WorkerHeartbeat
from servery_controller.compute.placement import WorkerView, choose_worker, node_name, room_for, worker_of
from servery_controller.domain.capacity import Room


def worker(id, *, capacity=16, replicas=(), warm=(), heard_at=100.0):
    heartbeat = WorkerHeartbeat(
        worker_id=id,
        incarnation="i",
        capacity_slots=capacity,
        replicas=tuple(observed(r) for r in replicas),
        warm_environments=tuple(warm),
    )
    return WorkerView.of(heartbeat, heard_at)


def choose(*workers, placements=None):
    return choose_worker(workers, placements or {}, slots=4, environment_key="k1", heard_since=97.0)


def test_a_warm_worker_is_preferred_over_an_empty_one():
    assert choose(worker("cold"), worker("warm", replicas=["r1"], warm=["k1"])) == "warm/i"


def test_among_equals_the_least_used_share_wins():
    assert choose(worker("a", replicas=["r1"]), worker("b")) == "b/i"
    assert (
        choose(worker("a", capacity=64, replicas=["r1", "r2"]), worker("b", capacity=8, replicas=["r3"]))
        == "a/i"
    )


def test_a_full_worker_gets_nothing_even_when_warm():
    full = worker("full", capacity=4, replicas=["r1"], warm=["k1"])
    assert choose(full) is None
    assert choose(full, worker("b")) == "b/i"


def test_orders_no_heartbeat_shows_yet_take_room():
    assert choose(worker("a", capacity=4), placements={"r9": "a/i"}) is None


def test_a_silent_worker_gets_nothing():
    assert choose(worker("a", heard_at=96.0)) is None


def test_a_worker_that_was_restarted_is_another_node_of_the_same_worker():
    assert node_name("w1", "a") != node_name("w1", "b")
    assert worker_of(node_name("w1", "a")) == worker_of(node_name("w1", "b")) == "w1"


def test_room_is_counted_in_whole_replicas():
    workers = [worker("w1", capacity=10), worker("w2", capacity=3), worker("w3", capacity=8)]
    assert room_for(workers, {"r1": "w3/i"}, slots=4, heard_since=0) == Room(16, 4)
