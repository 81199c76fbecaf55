"""Each rule of the decision, with time as data; and what must hold for every demand."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from servery_scaler.autoscaler import Observation, ScalingPolicy, ScalingSpec, ScalingState, decide

POLICY = ScalingPolicy(stable_window=60.0)
SPEC = ScalingSpec(min_replicas=1, max_replicas=50, target_concurrency=4.0)
NOW = 1000.0
CALM = ScalingState()


def seen(desired: int, *loads: float, **more) -> Observation:
    """As many replicas are ready as are desired, watched for long, unless it is said otherwise."""
    given = {"ready_replicas": desired, "watched_seconds": 600.0, "running": loads[-1] if loads else 0.0}
    return Observation(desired_replicas=desired, loads=loads, **{**given, **more})


def steady(desired: int, load: float, **more) -> Observation:
    return seen(desired, *[load] * 60, **more)


def decided(observation: Observation, spec=SPEC, state=CALM, now=NOW, policy=POLICY):
    return decide(spec, policy, observation, state, now)


def test_up_at_once_to_what_the_last_seconds_need_and_room_for_chance():
    decision = decided(seen(1, *[1.0] * 55, *[16.0] * 5))
    # 16 at a time and 0.7 * sqrt(16 * 1.4) for chance are 19.3: five replicas of four.
    assert decision.desired_replicas == 5
    assert (
        "up from 1 to 5: 16.0 requests at a time (16.0 running, 0.0 waiting), 4 for each replica"
        in decision.reason
    )


def test_room_for_chance_grows_with_the_square_root_of_the_load():
    spec = replace(SPEC, max_replicas=10_000)
    small = decided(steady(1, 4.0), spec).desired_replicas * 4 / 4
    large = decided(steady(1, 4000.0), spec).desired_replicas * 4 / 4000
    assert small >= 1.4
    assert large <= 1.02


def test_more_room_is_kept_for_replicas_that_start_slowly():
    quick = decided(steady(1, 100.0, startup_seconds=1.0)).desired_replicas
    slow = decided(steady(1, 100.0, startup_seconds=60.0)).desired_replicas
    assert slow > quick


def test_a_sudden_demand_is_met_in_its_second_second_and_not_only_in_the_mean_of_five():
    decision = decided(seen(1, *[2.0] * 58, 100.0, 100.0))
    assert decision.desired_replicas >= 25
    assert decision.state.panic_until == NOW + POLICY.panic_hold


def test_a_chance_blip_is_not_panic():
    decision = decided(seen(2, *[5.0] * 59, 9.0))
    assert decision.desired_replicas == 2
    assert decision.state.panic_until is None


def test_requests_that_wait_count_by_the_work_they_are():
    held_up = {"waiting": 1000.0, "service_seconds": 0.006}
    # 1,000 requests of 6 ms are 6 s of work: room for 20 at a time does it in the 0.3 s aimed at.
    assert decided(steady(1, 4.0, **held_up)).desired_replicas == 7
    assert decided(steady(1, 4.0, waiting=1000.0)).desired_replicas == SPEC.max_replicas


def test_in_a_ramp_replicas_are_asked_for_before_they_are_needed():
    ramp = [10.0 * n for n in range(1, 11)]
    flat = decided(seen(30, *[100.0] * 10), now=NOW).seen["replicas_needed_now"]
    rising = decided(seen(30, *ramp))
    assert rising.seen["growth_per_second"] > 0
    assert rising.seen["replicas_needed_now"] > flat


def test_a_step_is_no_ramp():
    assert decided(seen(30, *[10.0] * 8, *[100.0] * 4)).seen["growth_per_second"] == 0


def test_down_only_when_the_busiest_seconds_of_the_whole_window_would_have_done_with_less():
    busy_a_minute_ago = seen(10, *[36.0] * 6, *[1.0] * 54)
    assert decided(busy_a_minute_ago).desired_replicas == 10
    assert decided(steady(10, 1.0)).desired_replicas == 9


def test_down_by_a_share_at_a_time_and_not_before_the_interval_is_over():
    first = decided(steady(40, 1.0))
    assert first.desired_replicas == 36
    held = decided(steady(36, 1.0), state=first.state, now=NOW + 1)
    assert held.desired_replicas == 36
    assert "on the way down to 1" in held.reason
    assert decided(steady(36, 1.0), state=held.state, now=NOW + 2).desired_replicas == 33


def test_no_way_down_while_panicking_and_for_a_while_after():
    panic = decided(seen(4, *[1.0] * 58, 60.0, 60.0))
    later = decided(steady(20, 1.0), state=panic.state, now=NOW + POLICY.panic_hold - 1)
    assert later.desired_replicas == 20
    assert "no way down for 1 s" in later.reason
    over = decided(steady(20, 1.0), state=later.state, now=NOW + POLICY.panic_hold)
    assert over.desired_replicas == 18
    assert over.state.panic_until is None


def test_without_data_the_count_stays_and_that_is_said():
    never = decided(Observation(desired_replicas=7, ready_replicas=7, heard_seconds_ago=None))
    assert (never.desired_replicas, "no gateway tells of it" in never.reason) == (7, True)
    silent = decided(steady(7, 0.0, heard_seconds_ago=9.0))
    assert (silent.desired_replicas, "no gateway was heard for 9 s" in silent.reason) == (7, True)


def test_no_way_down_for_a_whole_window_after_the_scaler_has_started():
    decision = decided(seen(5, *[0.5] * 59, watched_seconds=59.0))
    assert decision.desired_replicas == 5
    assert "watched for 59 s of the 60 s" in decision.reason
    assert decided(steady(5, 0.5, watched_seconds=60.0)).desired_replicas == 4


ZERO = ScalingSpec(min_replicas=0, max_replicas=4, target_concurrency=4.0, scale_to_zero_seconds=300.0)


def test_to_zero_only_after_the_time_set_without_a_request_and_only_when_zero_is_allowed():
    waits = decided(steady(1, 0.0, idle_seconds=299.0), ZERO)
    assert (waits.desired_replicas, "scaled to zero in 1 s" in waits.reason) == (1, True)
    zero = decided(steady(1, 0.0, idle_seconds=300.0), ZERO)
    assert (zero.desired_replicas, "no request for 300 s" in zero.reason) == (0, True)
    assert decided(steady(1, 0.0, idle_seconds=1e6), SPEC).desired_replicas == 1


def test_idle_replicas_go_one_after_the_other_and_the_last_one_only_when_its_time_has_come():
    assert decided(steady(3, 0.0, idle_seconds=100.0), ZERO).desired_replicas == 2
    assert decided(steady(1, 0.0, idle_seconds=100.0), ZERO).desired_replicas == 1


def test_a_time_to_zero_that_is_shorter_than_the_window_is_kept_to():
    brief = replace(ZERO, scale_to_zero_seconds=10.0)
    idle = seen(3, *[9.0] * 50, *[0.0] * 10, idle_seconds=10.0)
    assert decided(idle, brief).desired_replicas == 0
    assert decided(replace(idle, idle_seconds=9.0), brief).desired_replicas == 3


def test_a_restarted_scaler_scales_to_zero_what_it_has_watched_idle_for_the_time_set():
    """It counts as idle only what it watched itself."""
    brief = replace(ZERO, scale_to_zero_seconds=10.0)
    assert decided(steady(1, 0.0, idle_seconds=9.0, watched_seconds=9.0), brief).desired_replicas == 1
    assert decided(steady(1, 0.0, idle_seconds=10.0, watched_seconds=10.0), brief).desired_replicas == 0


def test_a_request_that_is_held_brings_the_first_replica_at_once_whatever_else_is_known():
    woken = Observation(desired_replicas=0, ready_replicas=0, waiting=1.0, heard_seconds_ago=None)
    assert decided(woken, ZERO).desired_replicas == 1


def test_many_held_requests_bring_as_many_replicas_as_they_need():
    woken = Observation(desired_replicas=0, ready_replicas=0, waiting=500.0, service_seconds=0.005)
    # 2.5 s of work in 0.3 s: 8.3 at a time, and room for chance.
    assert decided(woken, ZERO).desired_replicas == 3
    few = Observation(desired_replicas=0, ready_replicas=0, waiting=5.0, service_seconds=0.005)
    assert decided(few, ZERO).desired_replicas == 1


def test_at_zero_it_stays_at_zero_without_a_request():
    assert (
        decided(Observation(desired_replicas=0, ready_replicas=0, watched_seconds=5.0), ZERO).desired_replicas
        == 0
    )


def test_a_range_that_was_changed_is_kept_to_even_without_data():
    nothing = Observation(desired_replicas=9, ready_replicas=9, heard_seconds_ago=None)
    decision = decided(nothing, replace(SPEC, max_replicas=4))
    assert (decision.desired_replicas, decision.reason) == (4, "4 replicas: the range is 1 to 4")


def test_what_would_be_needed_beyond_the_range_is_said():
    assert "50 were needed" not in decided(steady(1, 100.0)).reason
    assert "are allowed" in decided(steady(1, 1000.0)).reason


def test_the_numbers_of_the_decision_are_told():
    numbers = decided(steady(2, 8.0, service_seconds=0.2)).seen
    assert numbers["load"] == 8.0
    assert numbers["target_concurrency"] == 4.0
    assert numbers["service_seconds"] == 0.2


loads = st.lists(st.floats(0, 1e5), max_size=60)
observations = st.builds(
    Observation,
    desired_replicas=st.integers(0, 60),
    ready_replicas=st.integers(0, 60),
    loads=loads,
    running=st.floats(0, 1e5),
    waiting=st.one_of(st.just(0.0), st.floats(0, 1e5)),
    service_seconds=st.one_of(st.just(0.0), st.floats(1e-4, 100)),
    heard_seconds_ago=st.one_of(st.none(), st.floats(0, 100)),
    watched_seconds=st.floats(0, 1e4),
    idle_seconds=st.floats(0, 1e4),
    startup_seconds=st.floats(0, 600),
)
specs = st.builds(
    lambda low, more, target, zero: ScalingSpec(low, max(1, low + more), target, zero),
    st.integers(0, 20),
    st.integers(0, 40),
    st.floats(0.5, 256),
    st.floats(1, 1e4),
)
states = st.builds(
    ScalingState,
    panic_until=st.one_of(st.none(), st.floats(900, 1100)),
    lowered_at=st.one_of(st.none(), st.floats(900, 1000)),
)


@given(spec=specs, observation=observations, state=states)
@settings(max_examples=300, deadline=None)
def test_never_outside_the_range(spec, observation, state):
    assert spec.min_replicas <= decided(observation, spec, state).desired_replicas <= spec.max_replicas


@given(spec=specs, observation=observations, state=states)
@settings(max_examples=300, deadline=None)
def test_missing_data_never_lowers(spec, observation, state):
    missing = replace(observation, heard_seconds_ago=None)
    within = min(max(observation.desired_replicas, spec.min_replicas), spec.max_replicas)
    assert decided(missing, spec, state).desired_replicas >= within


@given(spec=specs, observation=observations, state=states, more=st.floats(0, 1e5), waiting=st.floats(0, 1e5))
@settings(max_examples=300, deadline=None)
def test_more_demand_now_never_means_fewer_replicas(spec, observation, state, more, waiting):
    if not observation.loads:
        observation = replace(observation, loads=[0.0])
    higher = replace(
        observation,
        loads=[*observation.loads[:-1], observation.loads[-1] + more],
        waiting=observation.waiting + waiting,
    )
    before, after = decided(observation, spec, state), decided(higher, spec, state)
    assert after.desired_replicas >= before.desired_replicas


@given(spec=specs, observation=observations, state=states, factor=st.floats(1, 100))
@settings(max_examples=300, deadline=None)
def test_a_window_of_more_demand_never_means_fewer_replicas(spec, observation, state, factor):
    higher = replace(observation, loads=[load * factor for load in observation.loads])
    before, after = decided(observation, spec, state), decided(higher, spec, state)
    assert after.desired_replicas >= before.desired_replicas


@given(spec=specs, observation=observations, state=states)
@settings(max_examples=300, deadline=None)
def test_zero_takes_a_whole_time_without_a_request(spec, observation, state):
    decision = decided(observation, spec, state)
    if decision.desired_replicas == 0 and observation.desired_replicas > 0:
        assert spec.min_replicas == 0
        assert observation.idle_seconds >= spec.scale_to_zero_seconds
        assert observation.waiting == 0
        assert not any(observation.loads[-5:])


@pytest.mark.parametrize("count", [0, 1, 7])
def test_the_same_question_has_the_same_answer(count):
    assert decided(steady(count, 3.0)) == decided(steady(count, 3.0))
