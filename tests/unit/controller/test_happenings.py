from datetime import timedelta

import pytest
from tests.factories import NOW, build, config, deployment, entity, observed, replica, seen

from servery_common.contracts.states import BuildState, ReplicaState
from servery_controller.domain.endpoint import ConfigPhase, EmailNotifications, EntityPhase
from servery_controller.domain.happenings import EventStatus, EventType, events_of, notices_of
from servery_controller.domain.planning import Limits, plan

RECIPIENTS = EmailNotifications(("ann@example.com",), ("ops@example.com",))


def told(world, observation):
    return [(e.type, e.status, e.message) for e in events_of(world, step(world, observation))]


def step(world, observation):
    return plan(world, observation, NOW, Limits(timedelta(hours=1), timedelta(minutes=5)))


def ready_to_serve(**changes):
    return deployment(config(), entity(phase=EntityPhase.STARTING), replica(), **changes), seen(observed())


def failing_build(**changes):
    failed = seen(build(state=BuildState.FAILED, reason="No package 'foo' exists."))
    return deployment(config(), entity(), **changes), failed


def test_a_finished_build_is_told_in_databricks_words():
    world, observation = deployment(config(), entity()), seen(build())
    assert told(world, observation) == [
        (EventType.CONTAINER, EventStatus.SUCCEEDED, "Container image creation finished successfully.")
    ]


def test_a_failed_build_is_told_with_its_reason_and_fails_the_update():
    first, second = told(*failing_build())
    assert first == (
        EventType.CONTAINER,
        EventStatus.FAILED,
        "Container image creation failed. No package 'foo' exists.",
    )
    assert second[:2] == (EventType.ENDPOINT_UPDATE, EventStatus.FAILED)
    assert second[2].endswith("iris-1: No package 'foo' exists.")


def test_a_config_that_becomes_active_is_told_after_its_entities():
    assert [t[:2] for t in told(*ready_to_serve())] == [
        (EventType.SERVED_ENTITY, EventStatus.SUCCEEDED),
        (EventType.ENDPOINT_UPDATE, EventStatus.SUCCEEDED),
    ]


def test_a_start_ends_as_a_start():
    begun = {1: EventType.ENDPOINT_START}
    for (world, observation), status in (
        (ready_to_serve(), EventStatus.SUCCEEDED),
        (failing_build(), EventStatus.FAILED),
    ):
        *_, last = events_of(world, step(world, observation), begun)
        assert (last.type, last.status) == (EventType.ENDPOINT_START, status)
    assert last.message.startswith("The start with config version 1 failed.")


def test_lost_replicas_and_their_recovery_are_told():
    lost = deployment(config(phase=ConfigPhase.ACTIVE), entity(phase=EntityPhase.READY), replica())
    down = seen(observed(state=ReplicaState.RESTARTING, reason="It crashed."))
    ((kind, status, message),) = told(lost, down)
    assert (kind, status) == (EventType.SERVED_ENTITY, EventStatus.IN_PROGRESS)
    assert "It crashed." in message
    back = deployment(config(phase=ConfigPhase.ACTIVE), entity(phase=EntityPhase.RECOVERING), replica())
    ((kind, status, message),) = told(back, seen(observed()))
    assert (kind, status) == (EventType.SERVED_ENTITY, EventStatus.SUCCEEDED)
    assert "recovered" in message


def test_progress_within_a_phase_is_no_event():
    world = deployment(config(), entity())
    assert told(world, seen(build(state=BuildState.BUILDING, step="Installing"))) == []


@pytest.mark.parametrize(
    ("happened", "event", "state", "recipients"),
    [
        (ready_to_serve, "endpoint.update_succeeded", "NOT_UPDATING", ("ann@example.com",)),
        (failing_build, "endpoint.update_failed", "UPDATE_FAILED", ("ops@example.com",)),
    ],
)
def test_those_who_asked_are_told_how_the_update_ended(happened, event, state, recipients):
    world, observation = happened(email_notifications=RECIPIENTS)
    (notice,) = notices_of(world, step(world, observation))
    assert (notice.event, notice.state, notice.recipients) == (event, state, recipients)
    assert (notice.endpoint, notice.config_version) == ("iris", 1)
    world, observation = happened()
    assert notices_of(world, step(world, observation)) == (), "nobody asked"


def test_a_step_in_which_no_update_ends_tells_nobody():
    world = deployment(config(), entity(), email_notifications=RECIPIENTS)
    assert notices_of(world, step(world, seen(build()))) == ()
