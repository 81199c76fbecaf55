from dataclasses import replace
from datetime import timedelta

import pytest
from tests.factories import ARTIFACTS, NOW, build, config, deployment, entity, observed, replica, seen

from servery_common.contracts.states import BuildState, ReplicaState
from servery_controller.domain import planning
from servery_controller.domain.endpoint import ConfigPhase, EntityPhase, Route
from servery_controller.domain.planning import (
    BUSY,
    SETTLED,
    Limits,
    Plan,
    with_environment_problem,
    with_placement_problem,
)

PATIENCE = timedelta(hours=2)
LIMITS = Limits(PATIENCE, longest_stream=timedelta(minutes=5))


def plan(world, observation, now) -> Plan:
    return planning.plan(world, observation, now, LIMITS)


def test_a_build_under_way_is_waited_for_and_its_step_shown():
    step = plan(
        deployment(config(), entity()), seen(build(state=BuildState.BUILDING, step="Installing")), NOW
    )
    assert [e.message for e in step.entities] == ["Building the model: Installing"]
    assert step.entities[0].phase is EntityPhase.BUILDING
    assert not step.configs
    assert step.look_again == BUSY


def test_a_finished_build_makes_the_entity_start_its_replicas():
    world = deployment(config(), entity(desired=2))
    step = plan(world, seen(build()), NOW)
    assert step.entities[0].phase is EntityPhase.STARTING
    assert step.entities[0].artifacts == ARTIFACTS
    assert [(e.id, count) for e, count in step.new_replicas] == [("e1", 2)]


def test_a_replica_that_is_not_there_is_ensured():
    world = deployment(config(), entity(phase=EntityPhase.STARTING), replica())
    assert [r.id for r, _ in plan(world, seen(), NOW).ensure] == ["r1"]


@pytest.mark.parametrize("state", [ReplicaState.STARTING, ReplicaState.READY, ReplicaState.RESTARTING])
def test_a_replica_that_is_there_is_left_alone(state):
    world = deployment(config(), entity(phase=EntityPhase.STARTING), replica())
    assert plan(world, seen(observed(state=state)), NOW).ensure == ()


def test_absence_proves_nothing_while_not_every_worker_was_heard():
    world = deployment(config(phase=ConfigPhase.ACTIVE), entity(phase=EntityPhase.READY), replica())
    step = plan(world, seen(complete=False), NOW)
    assert step.ensure == ()
    assert step.entities == ()
    assert step.route is None, "a published route must not be replaced by one without replicas"


def test_a_config_becomes_active_when_all_its_entities_are_ready():
    world = deployment(
        config(routes=(Route("a", 60), Route("b", 40))),
        entity("e1", name="a", phase=EntityPhase.STARTING),
        entity("e2", name="b", phase=EntityPhase.READY),
        replica("r1", "e1"),
        replica("r2", "e2"),
    )
    step = plan(world, seen(observed("r1"), observed("r2", entity_id="e2")), NOW)
    assert [c.phase for c in step.configs] == [ConfigPhase.ACTIVE]
    assert step.route is not None
    assert [(e.name, e.traffic_percentage, len(e.replicas)) for e in step.route.served_entities] == [
        ("a", 60, 1),
        ("b", 40, 1),
    ]


def test_a_config_waits_for_every_replica_it_promises():
    world = deployment(config(), entity(phase=EntityPhase.STARTING, desired=2), replica("r1"), replica("r2"))
    step = plan(world, seen(observed("r1"), observed("r2", ReplicaState.STARTING)), NOW)
    assert step.configs == ()


def update_under_way(*, new_phase=EntityPhase.STARTING):
    return (
        config(1, ConfigPhase.ACTIVE, (Route("old", 100),)),
        config(2, ConfigPhase.PENDING, (Route("new", 100),)),
        entity("e1", version=1, name="old", phase=EntityPhase.READY),
        entity("e2", version=2, name="new", phase=new_phase),
        replica("r1", "e1"),
        replica("r2", "e2"),
    )


def test_the_old_config_serves_until_the_new_one_is_ready():
    world = deployment(*update_under_way())
    step = plan(world, seen(observed("r1"), observed("r2", ReplicaState.STARTING, entity_id="e2")), NOW)
    assert step.configs == ()
    assert step.stopping == ()
    assert step.route is not None
    assert [e.name for e in step.route.served_entities] == ["old"]


def test_the_switch_retires_the_old_config_and_routes_to_the_new_one_in_the_same_step():
    world = deployment(*update_under_way())
    step = plan(world, seen(observed("r1"), observed("r2", entity_id="e2")), NOW)
    assert {c.version: c.phase for c in step.configs} == {1: ConfigPhase.RETIRED, 2: ConfigPhase.ACTIVE}
    assert step.route is not None
    assert [e.name for e in step.route.served_entities] == ["new"]
    assert step.stopping == ("r1",)
    assert step.stop == (), "the old replica is told to stop only after the route and the rows are written"


def test_a_failed_update_leaves_the_old_config_serving_and_says_why():
    world = deployment(*update_under_way(new_phase=EntityPhase.BUILDING))
    failed = build("builde2", BuildState.FAILED, reason="No package 'foo' exists.")
    step = plan(world, seen(observed("r1"), failed), NOW)
    assert {c.version: c.phase for c in step.configs} == {2: ConfigPhase.FAILED}
    assert {e.id: (e.phase, e.message) for e in step.entities} == {
        "e2": (EntityPhase.FAILED, "No package 'foo' exists.")
    }
    assert step.route is not None
    assert [e.name for e in step.route.served_entities] == ["old"]


def test_one_failed_entity_aborts_the_others_of_its_config():
    world = deployment(config(), entity("e1", name="a"), entity("e2", name="b", phase=EntityPhase.READY))
    step = plan(world, seen(build("builde1", BuildState.FAILED, reason="broken")), NOW)
    assert {e.id: e.phase for e in step.entities} == {"e1": EntityPhase.FAILED, "e2": EntityPhase.ABORTED}
    assert step.route is not None
    assert step.route.status == "failed"
    assert "broken" in step.route.message


def test_a_replica_that_cannot_load_the_model_fails_a_new_entity():
    world = deployment(config(), entity(phase=EntityPhase.STARTING), replica())
    step = plan(world, seen(observed(state=ReplicaState.FAILED, reason="ValueError: bad pickle")), NOW)
    assert step.entities[0].phase is EntityPhase.FAILED
    assert "ValueError: bad pickle" in step.entities[0].message


def test_one_replica_that_cannot_load_fails_a_new_entity_even_when_others_can():
    world = deployment(config(), entity(phase=EntityPhase.STARTING, desired=2), replica("r1"), replica("r2"))
    step = plan(world, seen(observed("r1"), observed("r2", ReplicaState.FAILED, reason="out of memory")), NOW)
    assert step.entities[0].phase is EntityPhase.FAILED


def test_a_replica_without_a_place_is_said_until_it_has_one():
    waiting = entity(phase=EntityPhase.STARTING)
    world = deployment(config(), waiting, replica())
    step = with_placement_problem(plan(world, seen(), NOW), waiting, "No worker has room.", running=0)
    assert [e.message for e in step.entities] == ["Waiting for a place for a replica. No worker has room."]
    told = deployment(config(), step.entities[0], replica())
    again = with_placement_problem(
        plan(told, seen(), NOW), step.entities[0], "No worker has room.", running=0
    )
    assert again.entities == (), "what has been said is not written again"
    placed = plan(told, seen(observed(state=ReplicaState.STARTING)), NOW)
    assert [e.message for e in placed.entities] == ["The model is built; starting replicas."]


def test_a_serving_entity_tells_how_many_replicas_it_has_until_it_has_all():
    serving = entity(phase=EntityPhase.READY, desired=2)
    active, replicas = config(phase=ConfigPhase.ACTIVE), (replica("r1"), replica("r2", node=None))
    step = plan(deployment(active, serving, *replicas), seen(observed("r1")), NOW)
    assert [r.id for r, _ in step.place] == ["r2"]
    step = with_placement_problem(step, serving, "No worker has room.", running=1)
    [told] = step.entities
    assert told.message == "Has 1 of 2 replicas. No worker has room."
    assert told.phase is EntityPhase.READY

    again = plan(deployment(active, told, *replicas), seen(observed("r1")), NOW)
    assert with_placement_problem(again, told, "No worker has room.", running=1).entities == ()
    found = (replica("r1"), replica("r2"))
    all_there = plan(deployment(active, told, *found), seen(observed("r1"), observed("r2")), NOW)
    assert [e.message for e in all_there.entities] == [""]


def test_a_secret_that_is_gone_is_said_of_a_serving_entity_until_all_its_replicas_are_there():
    serving = entity(phase=EntityPhase.READY, desired=2)
    replicas = (replica("r1"), replica("r2"))
    one_lost = seen(observed("r1"))
    step = plan(deployment(config(phase=ConfigPhase.ACTIVE), serving, *replicas), one_lost, NOW)
    assert [r.id for r, _ in step.ensure] == ["r2"]
    step = with_environment_problem(step, serving, "Environment variable 'KEY' refers to nothing.")
    [told] = step.entities
    assert told.message == "No replica can be started. Environment variable 'KEY' refers to nothing."
    assert told.phase is EntityPhase.READY

    world = deployment(config(phase=ConfigPhase.ACTIVE), told, *replicas)
    assert plan(world, one_lost, NOW).entities == (), "it stays as long as a replica is missing"
    assert plan(world, seen(complete=False), NOW).entities == ()
    [healed] = plan(world, seen(observed("r1"), observed("r2")), NOW).entities
    assert (healed.phase, healed.message) == (EntityPhase.READY, "")


def test_an_active_entity_recovers_and_never_fails():
    active = (config(phase=ConfigPhase.ACTIVE), entity(phase=EntityPhase.READY), replica())
    step = plan(deployment(*active), seen(observed(state=ReplicaState.FAILED, reason="out of memory")), NOW)
    assert step.entities[0].phase is EntityPhase.RECOVERING
    assert "out of memory" in step.entities[0].message
    assert [r.id for r, _ in step.ensure] == ["r1"]
    recovering = deployment(active[0], replace(active[1], phase=EntityPhase.RECOVERING), active[2])
    assert plan(recovering, seen(observed()), NOW).entities[0].phase is EntityPhase.READY


def test_a_recovering_entity_says_why_its_replica_ended_as_soon_as_it_is_known():
    world = deployment(config(phase=ConfigPhase.ACTIVE), entity(phase=EntityPhase.READY), replica())
    lost = plan(world, seen(), NOW).entities[0]
    assert (lost.phase, lost.message) == (
        EntityPhase.RECOVERING,
        "No replica takes requests; replacing.",
    )
    told = seen(observed(state=ReplicaState.FAILED, reason="It needed more than its 4 GiB."))
    [known] = plan(replace(world, entities=(lost,)), told, NOW).entities
    assert known.message == "No replica takes requests; replacing. It needed more than its 4 GiB."
    assert plan(replace(world, entities=(known,)), seen(), NOW).entities == (), "and keeps it until one works"
    [again] = plan(replace(world, entities=(known,)), seen(observed()), NOW).entities
    assert (again.phase, again.message) == (EntityPhase.READY, "")


def test_scaling_adds_replicas_and_takes_away_the_newest():
    active = config(phase=ConfigPhase.ACTIVE)
    up = deployment(active, entity(phase=EntityPhase.READY, desired=3), replica("r1"))
    assert [(e.id, count) for e, count in plan(up, seen(observed("r1")), NOW).new_replicas] == [("e1", 2)]
    down = deployment(active, entity(phase=EntityPhase.READY, desired=1), replica("r1"), replica("r2"))
    assert plan(down, seen(observed("r1"), observed("r2")), NOW).stopping == ("r2",)


def test_a_stopping_replica_is_stopped_until_it_is_gone_and_gets_no_requests():
    world = deployment(
        config(phase=ConfigPhase.ACTIVE),
        entity(phase=EntityPhase.READY),
        replica("r1"),
        replica("r2", stopping=True),
    )
    step = plan(world, seen(observed("r1"), observed("r2", ReplicaState.DRAINING)), NOW)
    assert [r.id for r in step.stop] == ["r2"]
    assert step.gone == ()
    assert step.route is not None
    assert [r.replica_id for r in step.route.served_entities[0].replicas] == ["r1"]
    assert plan(world, seen(observed("r1")), NOW).gone == ("r2",)
    assert plan(world, seen(observed("r1"), complete=False), NOW).gone == ()


def test_deleting_withdraws_the_route_drains_and_forgets_only_when_nothing_is_left():
    parts = (config(phase=ConfigPhase.ACTIVE), entity(phase=EntityPhase.READY))
    first = plan(deployment(*parts, replica(), deleted=True), seen(observed()), NOW)
    assert first.withdraw_route
    assert first.stopping == ("r1",)
    assert not first.forget_endpoint
    draining = deployment(*parts, replica(stopping=True), deleted=True)
    assert not plan(draining, seen(observed(state=ReplicaState.DRAINING)), NOW).forget_endpoint
    assert plan(draining, seen(), NOW).forget_endpoint


def test_a_replica_is_placed_before_it_is_ensured():
    world = deployment(config(), entity(phase=EntityPhase.STARTING), replica(node=None))
    step = plan(world, seen(), NOW)
    assert [r.id for r, _ in step.place] == ["r1"]
    assert step.ensure == ()


def test_a_replica_on_a_lost_node_is_given_up_and_another_one_takes_its_place():
    world = deployment(config(phase=ConfigPhase.ACTIVE), entity(phase=EntityPhase.READY), replica())
    step = plan(world, seen(nodes=["w2"]), NOW)
    assert step.ensure == (), "the lost node may come back with it: no id may answer twice"
    assert step.stopping == ("r1",)
    assert [(e.id, count) for e, count in step.new_replicas] == [("e1", 1)]
    assert plan(world, seen(nodes=["w2"], complete=False), NOW).stopping == ()


@pytest.mark.parametrize("phase", [EntityPhase.BUILDING, EntityPhase.STARTING, EntityPhase.RECOVERING])
def test_a_config_that_is_pending_for_too_long_fails_with_what_was_said_last(phase):
    world = deployment(config(), entity("e1", name="a", phase=phase, message="No room."), replica())
    assert plan(world, seen(), NOW + PATIENCE).configs == ()
    step = plan(world, seen(), NOW + PATIENCE + timedelta(seconds=1))
    assert [c.phase for c in step.configs] == [ConfigPhase.FAILED]
    assert "took too long" in step.entities[0].message
    assert "No room." in step.entities[0].message


def test_an_active_config_is_never_too_old():
    world = deployment(config(phase=ConfigPhase.ACTIVE), entity(phase=EntityPhase.RECOVERING), replica())
    assert plan(world, seen(), NOW + timedelta(days=9)).configs == ()


def test_a_build_nobody_knows_is_ordered_again_but_not_at_once():
    world = deployment(config(), entity())
    unknown = seen(build(state=None))
    assert plan(world, unknown, NOW + timedelta(seconds=5)).order_builds == ()
    assert [e.id for e in plan(world, unknown, NOW + timedelta(seconds=15)).order_builds] == ["e1"]
    assert plan(world, seen(), NOW + timedelta(hours=1)).order_builds == (), (
        "an unreachable builder proves nothing"
    )


def test_a_settled_endpoint_changes_nothing_and_is_left_alone():
    world = deployment(config(phase=ConfigPhase.ACTIVE), entity(phase=EntityPhase.READY), replica())
    step = plan(world, seen(observed()), NOW)
    assert (step.ensure, step.stop, step.entities, step.configs, step.new_replicas, step.stopping) == (
        (),
    ) * 6
    assert step.look_again == SETTLED


def test_an_endpoint_without_a_config_says_what_to_do():
    step = plan(deployment(), seen(), NOW)
    assert step.route is not None
    assert step.route.status == "failed"
    assert "no config" in step.route.message
