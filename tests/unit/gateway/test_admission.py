import pytest

from servery_common.contracts.access import Identity
from servery_common.contracts.routes import EndpointRoute
from servery_common.errors import BadRequest, EndpointNotFound, PermissionDenied, Unavailable
from servery_gateway.admission import content_type_of, find_route, find_served_entity, time_budget
from servery_gateway.exchange import Target
from servery_gateway.http import header_value, request_id_of
from servery_gateway.paths import scoring_target
from servery_gateway.routing_table import Snapshot

ANN = Identity(principal_id="p", user_name="ann", workspace_id="1", groups=("data", "users"))


def snapshot(
    status: str, message: str = "", workspace_id: str = "1", grantees: tuple[str, ...] = ("user:ann",)
) -> Snapshot:
    route = EndpointRoute.model_validate(
        {
            "endpoint_id": "e",
            "workspace_id": workspace_id,
            "name": "e",
            "created_at_ms": 1,
            "status": status,
            "message": message,
            "query_grantees": grantees,
        }
    )
    return Snapshot(routes={"e": route})


def test_an_endpoint_of_another_workspace_does_not_exist() -> None:
    with pytest.raises(EndpointNotFound):
        find_route(snapshot("serving", workspace_id="2"), ANN, "e")


def test_a_region_that_is_not_served_says_what_to_do() -> None:
    elsewhere = ANN.model_copy(update={"supported": False})
    with pytest.raises(BadRequest, match=r"Your workspace is not currently supported.*ask its operator"):
        find_route(snapshot("serving"), elsewhere, "e")


@pytest.mark.parametrize(
    "grantees", [(), ("user:bob", "group:other"), ("service_principal:ann", "group:ann")]
)
def test_who_was_not_granted_to_query_may_not(grantees: tuple[str, ...]) -> None:
    with pytest.raises(
        PermissionDenied, match="User 'ann' does not have CAN_QUERY permission on endpoint 'e'"
    ):
        find_route(snapshot("serving", grantees=grantees), ANN, "e")


def test_a_grant_to_the_caller_or_a_group_of_theirs_is_enough() -> None:
    for grantee in ("user:ann", "group:users"):
        assert find_route(snapshot("serving", grantees=(grantee,)), ANN, "e").name == "e"
    program = Identity(principal_id="s", kind="service_principal", user_name="app", workspace_id="1")
    assert find_route(snapshot("serving", grantees=("service_principal:app",)), program, "e").name == "e"


def test_an_administrator_may_query_without_a_grant() -> None:
    admin = ANN.model_copy(update={"admin": True})
    assert find_route(snapshot("serving", grantees=()), admin, "e").name == "e"


def test_who_may_not_query_does_not_learn_why_it_does_not_serve() -> None:
    with pytest.raises(PermissionDenied):
        find_route(snapshot("failed", "because of this", grantees=()), ANN, "e")


@pytest.mark.parametrize(
    ("status", "error"), [("stopped", BadRequest), ("failed", BadRequest), ("deploying", Unavailable)]
)
def test_what_does_not_serve_says_why(status: str, error: type[Exception]) -> None:
    with pytest.raises(error, match="because of this"):
        find_route(snapshot(status, "because of this"), ANN, "e")


def test_an_endpoint_without_traffic_is_unavailable() -> None:
    with pytest.raises(Unavailable):
        find_served_entity(find_route(snapshot("serving"), ANN, "e"), None, 0.5)


def test_no_content_type_and_a_form_mean_json() -> None:
    assert content_type_of({}) == "application/json"
    assert content_type_of({b"content-type": b"application/x-www-form-urlencoded; x=y"}) == "application/json"
    assert content_type_of({b"content-type": b"text/csv"}) == "text/csv"


def test_the_answer_is_out_before_the_client_stops_waiting() -> None:
    assert time_budget(60.0, 1.0) == 59.0
    assert time_budget(1.0, 1.0) == pytest.approx(0.95)


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("/serving-endpoints/a/invocations", Target("a")),
        ("/serving-endpoints/a/invocations/", Target("a")),
        ("/serving-endpoints/a/served-models/b/invocations", Target("a", "b")),
        ("/serving-endpoints/a", None),
        ("/x/serving-endpoints/a/invocations", None),
        ("/serving-endpoints/a/other/b/invocations", None),
    ],
)
def test_scoring_paths_are_told_from_others(path: str, target: Target | None) -> None:
    assert scoring_target(path) == target


def test_a_header_value_has_no_line_breaks() -> None:
    assert header_value("a\r\nb: ü") == b"a??b: ?"


def test_a_sane_request_id_is_kept_and_any_other_replaced() -> None:
    assert request_id_of({b"x-request-id": b"abc-1"}) == b"abc-1"
    for strange in (b"", b"a b", b"a\nb", b"x" * 129, "ü".encode()):
        assert len(request_id_of({b"x-request-id": strange})) == 36


def test_what_an_identity_may_be_granted_is_computed_once_and_is_no_part_of_its_value() -> None:
    asked, fresh = (
        Identity(principal_id="p", user_name="ann", workspace_id="1", groups=("data",)) for _ in range(2)
    )
    assert asked.grantees == {"user:ann", "group:data"}
    assert asked.grantees is asked.grantees
    assert asked == fresh
    assert asked.model_dump() == fresh.model_dump()
