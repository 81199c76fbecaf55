"""Servery's own options among the tags of an endpoint."""

from datetime import timedelta

import pytest
from tests.factories import config, deployment, entity, seen

from servery_common.errors import InvalidParameter
from servery_controller.domain.endpoint import ConfigPhase, EntityPhase, Route
from servery_controller.domain.endpoint_options import (
    KEYS,
    EndpointOptions,
    RolloutOptions,
    check_options,
    check_shadow_names,
    options_of,
)
from servery_controller.domain.routing import route_of
from servery_controller.domain.settings_rules import merge_tags

ALL = (
    ("team", "forecasting"),
    ("servery.scale_to_zero_seconds", "90.5"),
    ("servery.target_concurrency", "2.5"),
    ("servery.shadow", "iris-2=10, iris-3=0"),
    ("servery.rollout", "guarded"),
    ("servery.rollout_steps", "1, 10,50"),
    ("servery.rollout_step_seconds", "30"),
    ("servery.rollout_max_error_increase", "0.5"),
    ("servery.rollout_max_latency_ratio", "2"),
    ("servery.rollout_min_requests", "200"),
)


def test_every_option_is_read():
    assert {key for key, _ in ALL} - {"team"} == set(KEYS), "a new option belongs here, too"
    check_options(ALL)
    assert options_of(ALL) == EndpointOptions(
        scale_to_zero_seconds=90.5,
        target_concurrency=2.5,
        shadows=(("iris-2", 10), ("iris-3", 0)),
        rollout=RolloutOptions("guarded", (1, 10, 50), 30.0, 0.5, 2.0, 200),
    )


def test_without_tags_everything_is_as_the_installation_says():
    assert options_of(()) == options_of((("team", "a"),)) == EndpointOptions()


@pytest.mark.parametrize(
    ("key", "values", "right"),
    [
        (
            "servery.scale_to_zero_seconds",
            ["", "0", "0.9", "604801", "-5", "30m", "1_000", "nan", "inf", "1e400", "\u0661"],
            "1 to 604800",
        ),
        ("servery.target_concurrency", ["", "0", "-1", "1001", "auto", "nan"], "0.01 to 1000"),
        (
            "servery.shadow",
            ["", "iris-2", "iris-2=", "=5", "iris-2=101", "iris-2=-1", "iris-2=1.5", "a=1,a=2", "a=1,"],
            "iris-2=10",
        ),
        ("servery.rollout", ["", "Guarded", "canary"], "'immediate' or 'guarded'"),
        (
            "servery.rollout_steps",
            ["", "0", "100", "5,5", "50,5", "5;25", "5,,25", ",".join(map(str, range(1, 23)))],
            "5,25,50",
        ),
        ("servery.rollout_step_seconds", ["0", "86401", "x"], "1 to 86400"),
        ("servery.rollout_max_error_increase", ["-0.1", "100.1", "5%"], "0 to 100"),
        ("servery.rollout_max_latency_ratio", ["0.99", "101", "x"], "1 to 100"),
        ("servery.rollout_min_requests", ["-1", "1.5", "1000001"], "0 to 1000000"),
    ],
)
def test_a_wrong_value_is_refused_with_key_value_and_what_would_be_right(key, values, right):
    for value in values:
        with pytest.raises(InvalidParameter) as refused:
            check_options([(key, value)])
        message = refused.value.message
        assert f"'{key}' cannot be '{value[:100]}'" in message
        assert right in message
        assert options_of([(key, value)]) == EndpointOptions(), "stored before it meant anything: not set"


@pytest.mark.parametrize("key", ["servery.", "servery.scale_to_zero", "Servery.shadow", "SERVERY.ROLLOUT"])
def test_an_unknown_option_is_refused_with_those_there_are(key):
    with pytest.raises(InvalidParameter) as refused:
        merge_tags((), [(key, "1")], [])
    assert key in refused.value.message
    assert all(known in refused.value.message for known in KEYS)


def test_an_unknown_option_of_an_older_release_can_be_deleted():
    assert merge_tags((("servery.old", "1"), ("team", "a")), [], ["servery.old"]) == (("team", "a"),)


def test_a_shadow_is_of_a_served_entity():
    tags = [("servery.shadow", "iris-2=10")]
    check_shadow_names(tags, ["iris-1", "iris-2"])
    check_shadow_names([], ["iris-1"])
    check_shadow_names(tags, [])  # an endpoint without a config: nothing is known yet
    with pytest.raises(InvalidParameter, match=r"'iris-2'; there are: iris-1\."):
        check_shadow_names(tags, ["iris-1"])


def test_gateways_and_scaler_are_told_by_the_route():
    def route(*tags):
        world = deployment(
            config(phase=ConfigPhase.ACTIVE, routes=(Route("a", 100), Route("b", 0))),
            entity("e1", name="a", phase=EntityPhase.READY),
            entity("e2", name="b", phase=EntityPhase.READY),
            tags=tags,
        )
        made = route_of(world, seen(), timedelta(minutes=10), timedelta(seconds=60))
        assert made is not None
        return [
            (e.scale_to_zero_seconds, e.target_concurrency, e.shadow_percentage) for e in made.served_entities
        ]

    assert route() == [(60.0, None, 0), (60.0, None, 0)]
    chosen = (
        ("servery.scale_to_zero_seconds", "5"),
        ("servery.target_concurrency", "3"),
        ("servery.shadow", "b=20"),
    )
    assert route(*chosen) == [(5.0, 3.0, 0), (5.0, 3.0, 20)]
