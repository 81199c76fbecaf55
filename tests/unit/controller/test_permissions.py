from dataclasses import replace
from datetime import timedelta

import pytest
from tests.factories import config, deployment, entity, seen

from servery_common.contracts.access import Identity
from servery_common.errors import InvalidParameter, PermissionDenied
from servery_controller.api.permissions import AccessControlInput, PermissionsInput, presented
from servery_controller.domain.endpoint import ConfigPhase, EntityPhase
from servery_controller.domain.permissions import (
    DESCRIPTIONS,
    Grantee,
    PermissionLevel,
    check_still_manages,
    level_of,
    require,
)
from servery_controller.domain.routing import route_of
from servery_controller.endpoints.permission_service import EndpointPermissions

VIEW, QUERY, MANAGE = PermissionLevel.CAN_VIEW, PermissionLevel.CAN_QUERY, PermissionLevel.CAN_MANAGE
ANN = Identity(principal_id="p1", user_name="ann", workspace_id="1", groups=("data", "users"))
PROGRAM = Identity(principal_id="p2", kind="service_principal", user_name="app", workspace_id="1")
ADMIN = Identity(principal_id="p3", user_name="root", workspace_id="1", admin=True)

USER_ANN = Grantee("user", "ann")
DATA = Grantee("group", "data")
BOB = Grantee("user", "bob")


def test_a_level_includes_the_ones_below_it() -> None:
    assert [[a.includes(b) for b in (VIEW, QUERY, MANAGE)] for a in (VIEW, QUERY, MANAGE)] == [
        [True, False, False],
        [True, True, False],
        [True, True, True],
    ]
    assert set(DESCRIPTIONS) == set(PermissionLevel)


def test_the_highest_of_own_and_group_grants_counts() -> None:
    assert level_of(ANN, {USER_ANN: VIEW, DATA: QUERY, BOB: MANAGE}) is QUERY
    assert level_of(ANN, {USER_ANN: MANAGE, DATA: VIEW}) is MANAGE
    assert level_of(ANN, {BOB: MANAGE, Grantee("group", "ann"): MANAGE}) is None
    assert level_of(PROGRAM, {Grantee("service_principal", "app"): QUERY}) is QUERY
    assert level_of(PROGRAM, {Grantee("user", "app"): QUERY}) is None


def test_an_administrator_manages_everything_and_a_creator_what_they_made() -> None:
    assert level_of(ADMIN, {}) is MANAGE
    assert level_of(ANN, {Grantee.of(ANN): MANAGE}) is MANAGE
    assert level_of(PROGRAM, {Grantee.of(PROGRAM): MANAGE, Grantee.of(ANN): VIEW}) is MANAGE
    assert level_of(PROGRAM, {Grantee.of(ANN): MANAGE}) is None


def test_a_refusal_says_who_lacks_what_and_what_they_have() -> None:
    require(ANN, VIEW, {DATA: QUERY}, "iris")
    with pytest.raises(
        PermissionDenied, match=r"'ann' does not have CAN_MANAGE .* 'iris' .they have CAN_QUERY"
    ):
        require(ANN, MANAGE, {DATA: QUERY}, "iris")
    with pytest.raises(PermissionDenied, match=r"no permission on it.* Ask"):
        require(ANN, VIEW, {}, "iris")


def test_nobody_locks_themselves_out_but_an_administrator_cannot() -> None:
    with pytest.raises(InvalidParameter, match="'ann'"):
        check_still_manages(ANN, {USER_ANN: QUERY, BOB: MANAGE})
    check_still_manages(ANN, {DATA: MANAGE})
    check_still_manages(ADMIN, {})


@pytest.mark.parametrize(
    "entry",
    [
        {"permission_level": "CAN_VIEW"},
        {"user_name": "ann", "group_name": "data", "permission_level": "CAN_VIEW"},
        {"user_name": "", "permission_level": "CAN_VIEW"},
        {"user_name": "ann"},
        {"user_name": "ann", "permission_level": "can_view"},
        {"user_name": "ann", "permission_level": "IS_OWNER"},
    ],
)
def test_an_entry_names_one_grantee_and_a_level_of_endpoints(entry: dict[str, str]) -> None:
    with pytest.raises(InvalidParameter, match=r"access_control_list\[0\]"):
        PermissionsInput(access_control_list=[AccessControlInput(**entry)]).to_grants()


def test_a_list_names_nobody_twice_and_may_be_empty() -> None:
    ann = AccessControlInput(user_name="ann", permission_level="CAN_VIEW")
    assert PermissionsInput(access_control_list=[ann]).to_grants() == {USER_ANN: VIEW}
    assert PermissionsInput().to_grants() == {}
    with pytest.raises(InvalidParameter, match="User 'ann' is in access_control_list twice"):
        PermissionsInput(
            access_control_list=[AccessControlInput(user_name="Ann", permission_level="CAN_MANAGE"), ann]
        ).to_grants()


def test_the_administrators_are_shown_with_what_they_inherit() -> None:
    shown = presented(EndpointPermissions("e1", {USER_ANN: MANAGE, Grantee("group", "admins"): VIEW}))
    assert shown["object_id"] == "/serving-endpoints/e1"
    admins, ann = shown["access_control_list"]
    assert ann == {
        "user_name": "ann",
        "all_permissions": [{"permission_level": "CAN_MANAGE", "inherited": False}],
    }
    assert admins["group_name"] == "admins"
    assert [(p["permission_level"], p["inherited"]) for p in admins["all_permissions"]] == [
        ("CAN_VIEW", False),
        ("CAN_MANAGE", True),
    ]


def test_gateways_are_told_who_may_query_whatever_the_endpoint_does() -> None:
    grants = {USER_ANN: MANAGE, DATA: QUERY, BOB: VIEW}
    for phase, of_entity in (
        (ConfigPhase.PENDING, EntityPhase.BUILDING),
        (ConfigPhase.ACTIVE, EntityPhase.READY),
    ):
        wanted = replace(deployment(config(phase=phase), entity(phase=of_entity)), grants=grants)
        route = route_of(wanted, seen(), timedelta(minutes=10))
        assert route is not None
        assert route.query_grantees == ("group:data", "user:ann")
