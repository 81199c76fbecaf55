import pytest

from servery_controller.domain.endpoint import ConfigPhase, EntityPhase
from servery_controller.domain.lifecycle import (
    CONFIG_TRANSITIONS,
    CONFIG_UPDATE,
    DEPLOYMENT_STATE,
    ENTITY_TRANSITIONS,
    ConfigEvent,
    EntityEvent,
    IllegalTransition,
    advance_config,
    advance_entity,
)


def test_every_phase_stands_in_its_table_and_has_an_answer():
    assert set(CONFIG_TRANSITIONS) == set(CONFIG_UPDATE) == set(ConfigPhase)
    assert set(ENTITY_TRANSITIONS) == set(DEPLOYMENT_STATE) == set(EntityPhase)


def test_every_phase_can_be_reached():
    assert {p for row in CONFIG_TRANSITIONS.values() for p in row.values()} == set(ConfigPhase) - {
        ConfigPhase.PENDING
    }
    assert {p for row in ENTITY_TRANSITIONS.values() for p in row.values()} == set(EntityPhase) - {
        EntityPhase.BUILDING
    }


def test_illegal_events_raise_and_change_nothing():
    for phase in ConfigPhase:
        for event in set(ConfigEvent) - set(CONFIG_TRANSITIONS[phase]):
            with pytest.raises(IllegalTransition):
                advance_config(phase, event)
    for phase in EntityPhase:
        for event in set(EntityEvent) - set(ENTITY_TRANSITIONS[phase]):
            with pytest.raises(IllegalTransition):
                advance_entity(phase, event)


def test_only_time_or_a_rollout_makes_a_served_entity_fail_that_was_ready():
    into_failure = {
        event
        for phase in (EntityPhase.READY, EntityPhase.RECOVERING)
        for event, after in ENTITY_TRANSITIONS[phase].items()
        if after is EntityPhase.FAILED
    }
    assert into_failure == {EntityEvent.TIMED_OUT, EntityEvent.REGRESSED}
