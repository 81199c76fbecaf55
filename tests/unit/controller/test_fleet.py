from prometheus_client import CollectorRegistry

from servery_common.contracts.replicas import WorkerHeartbeat
from servery_controller.telemetry.fleet import Fleet


def heartbeat(worker_id: str, access_left: float | None) -> WorkerHeartbeat:
    return WorkerHeartbeat(worker_id=worker_id, incarnation="i", capacity_slots=4, access_left=access_left)


async def test_what_is_left_of_credentials_is_shown_of_workers_whose_credentials_end():
    registry, fleet = CollectorRegistry(), Fleet(dict)
    registry.register(fleet)
    await fleet.heard(heartbeat("container", 0.4))
    await fleet.heard(heartbeat("machine", None))
    name = "servery_worker_credentials_left_ratio"
    assert registry.get_sample_value(name, {"worker": "container"}) == 0.4
    assert registry.get_sample_value(name, {"worker": "machine"}) is None
