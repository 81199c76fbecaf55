import pytest

from servery_common.errors import InvalidParameter
from servery_controller.domain.endpoint import Route
from servery_controller.domain.request import (
    ConfigRequest,
    EntityRequest,
    check_config,
    check_endpoint_name,
    resolve_routes,
)


@pytest.mark.parametrize("name", ["a", "iris_2", "A-b-C", "x" * 63, "-x"])
def test_good_endpoint_names(name):
    check_endpoint_name(name)


@pytest.mark.parametrize(
    "name", ["", "a b", "a.b", "a/b", "a>b", "ü", "a\r\nb", "a\n", "x" * 64, "databricks-x"]
)
def test_bad_endpoint_names(name):
    with pytest.raises(InvalidParameter, match="Invalid endpoint name"):
        check_endpoint_name(name)


def entity(**changes):
    return EntityRequest(**({"entity_name": "main.ml.iris", "entity_version": "3"} | changes))


def check(*entities):
    check_config(ConfigRequest(entities=entities, routes=None))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"workload_size": "Gigantic"}, "Unknown workload_size 'Gigantic': use one of Small, Medium, Large"),
        ({"workload_type": "TPU"}, "Unknown workload_type"),
        ({"entity_version": "three"}, "Invalid entity_version"),
        ({"entity_version": ""}, "Invalid entity_version"),
        ({"entity_version": "9" * 19}, "Invalid entity_version"),
        ({"entity_name": ""}, "no 'entity_name'"),
        ({"name": "a b"}, "Invalid served entity name"),
        ({"workload_size": "Small", "min_provisioned_concurrency": 4}, "not both"),
        ({"min_provisioned_concurrency": 4}, "go together"),
        ({"min_provisioned_concurrency": 8, "max_provisioned_concurrency": 4}, "not a range"),
        ({"min_provisioned_concurrency": 0, "max_provisioned_concurrency": 0}, "not a range"),
        ({"environment_vars": {"A=B": "x"}}, "cannot name an environment variable"),
        ({"environment_vars": {"A": "x" * 70_000}}, "at most 65536"),
        ({"environment_vars": {"SERVERY_BATCHING": "yes"}}, "it may be auto, on, off"),
        ({"environment_vars": {"SERVERY_WARM_UP": "False"}}, "SERVERY_WARM_UP is 'False'; it may be on, off"),
        ({"environment_vars": {f"V{i}": "" for i in range(31)}}, "at most 30"),
    ],
)
def test_bad_served_entities(changes, message):
    with pytest.raises(InvalidParameter, match=message):
        check(entity(**changes))


@pytest.mark.parametrize(
    "variables", [{"SERVERY_WARM_UP": "on"}, {"SERVERY_WARM_UP": "off", "SERVERY_BATCHING": "auto"}, {}]
)
def test_servery_reads_variables_of_its_own(variables):
    check(entity(environment_vars=variables))


def test_the_number_of_served_entities_is_bounded():
    check(*[entity(name=f"e{i}") for i in range(10)])
    with pytest.raises(InvalidParameter, match="at most 10"):
        check(*[entity(name=f"e{i}") for i in range(11)])
    with pytest.raises(InvalidParameter, match="no served entity"):
        check()


def test_a_served_entity_is_named_after_the_last_part_of_its_model():
    assert entity().served_name("3") == "iris-3"
    assert entity(name="mine").served_name("3") == "mine"


def test_all_traffic_goes_to_an_only_entity():
    assert resolve_routes(["a"], None) == (Route("a", 100),)


@pytest.mark.parametrize(
    ("names", "routes", "message"),
    [
        (["a", "b"], None, "needs 'traffic_config.routes'"),
        (["a", "a"], [("a", 100)], "must be unique"),
        (["a"], [("x", 100)], "not a served entity"),
        (["a", "b"], [("a", 50), ("a", 50)], "twice"),
        (["a", "b"], [("a", 50), ("b", 49)], "sum to 99"),
        (["a", "b"], [("a", 101), ("b", -1)], "between 0 and 100"),
    ],
)
def test_bad_routes(names, routes, message):
    with pytest.raises(InvalidParameter, match=message):
        resolve_routes(names, tuple(Route(*r) for r in routes) if routes else None)
