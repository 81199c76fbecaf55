import pytest

from servery_local.deployment import (
    ModelReference,
    Outcome,
    abridge,
    config_for,
    is_starting,
    parse_assignments,
    parse_model_uri,
    served_entities,
    unseen,
    view,
)
from servery_local.errors import LocalError


@pytest.mark.parametrize(
    ("uri", "model"),
    [
        ("models:/iris/3", ModelReference("iris", "3")),
        ("models:/main.default.iris/12", ModelReference("main.default.iris", "12")),
        ("models:/iris@champion", ModelReference("iris", "@champion")),
    ],
)
def test_a_model_is_named_by_version_or_alias(uri: str, model: ModelReference) -> None:
    assert parse_model_uri(uri) == model


@pytest.mark.parametrize("uri", ["iris", "models:/iris", "models:/iris/latest", "runs:/1/model", ""])
def test_anything_else_is_refused_with_the_right_form(uri: str) -> None:
    with pytest.raises(LocalError, match="models:/NAME/VERSION"):
        parse_model_uri(uri)


def test_a_model_of_a_run_has_to_be_registered_first() -> None:
    with pytest.raises(LocalError, match=r"mlflow\.register_model\('runs:/1/model', NAME\)"):
        parse_model_uri("runs:/1/model")


def test_the_value_of_a_variable_may_be_empty_or_hold_an_equals_sign() -> None:
    assert parse_assignments("variable", ["A=", "B=x=y"]) == {"A": "", "B": "x=y"}


@pytest.mark.parametrize("text", ["A", "=x", ""])
def test_a_variable_without_name_or_equals_sign_is_refused(text: str) -> None:
    with pytest.raises(LocalError, match="KEY=VALUE"):
        parse_assignments("variable", [text])


def test_the_config_has_the_shape_of_the_api() -> None:
    model = ModelReference("iris", "@champion")
    assert config_for(model, "Small", scale_to_zero=True, variables={"A": "b"}) == {
        "served_entities": [
            {
                "entity_name": "iris",
                "entity_version": "@champion",
                "workload_size": "Small",
                "scale_to_zero_enabled": True,
                "environment_vars": {"A": "b"},
            }
        ]
    }


def entity(name: str, message: str) -> dict:
    return {"name": name, "state": {"deployment_state_message": message}}


@pytest.mark.parametrize(
    ("update", "outcome"),
    [
        ("IN_PROGRESS", Outcome.GOING_ON),
        ("NOT_UPDATING", Outcome.SUCCEEDED),
        ("UPDATE_FAILED", Outcome.FAILED),
        ("UPDATE_CANCELED", Outcome.FAILED),
    ],
)
def test_the_outcome_is_that_of_the_update(update: str, outcome: Outcome) -> None:
    assert view({"state": {"config_update": update}}).outcome is outcome


def test_the_pending_config_is_followed_before_the_active_one() -> None:
    seen = view(
        {
            "state": {"config_update": "IN_PROGRESS"},
            "config": {"served_entities": [entity("iris-1", "serving")]},
            "pending_config": {"served_entities": [entity("iris-2", "building")]},
        }
    )
    assert seen.messages == {"iris-2": "building"}


def test_only_the_new_part_of_a_growing_log_is_shown() -> None:
    assert unseen("one\n", "one\ntwo\n") == "two\n"
    assert unseen("one\n", "one\n") == ""


def test_a_log_that_began_anew_is_shown_whole() -> None:
    assert unseen("first build\n", "second build\n") == "second build\n"


def test_a_build_log_is_shown_without_its_packages() -> None:
    log = "[12:00] Resolved 2 packages in 1ms\n[12:00] Installed 2 packages in 1ms\n[12:00]  + a==1\n + b==2\ndone\n"
    assert abridge(log) == "[12:00] Installed 2 packages in 1ms\ndone\n"


def test_what_is_told_elsewhere_is_left_out_of_the_log() -> None:
    assert abridge("one\n[12:00] The build failed: No disk.\n", ["No disk."]) == "one\n"
    assert abridge("one\n", [""]) == "one\n"


@pytest.mark.parametrize(
    ("ready", "update", "starting"),
    [
        ("READY", "NOT_UPDATING", False),
        ("READY", "IN_PROGRESS", False),
        ("NOT_READY", "NOT_UPDATING", True),
        ("NOT_READY", "IN_PROGRESS", True),
        ("NOT_READY", "UPDATE_FAILED", False),
    ],
)
def test_an_endpoint_starts_unless_it_serves_or_was_given_up(ready, update, starting) -> None:
    assert is_starting({"state": {"ready": ready, "config_update": update}}) is starting


def test_each_served_entity_is_named_once() -> None:
    old, new = ({"served_entities": [{"name": name} for name in names]} for names in ("ab", "bc"))
    assert served_entities({"config": old, "pending_config": new}) == ["a", "b", "c"]
    assert served_entities({"config": None}) == []
