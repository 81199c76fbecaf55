from typing import Any

import pytest

from servery_common.errors import InvalidParameter
from servery_controller.access.scim import (
    PrincipalChange,
    member_numbers,
    parse_filter,
    parse_group_patch,
    parse_principal_patch,
)
from servery_controller.api.present_directory import selected


def members(*numbers: int) -> list[dict[str, str]]:
    return [{"value": str(number)} for number in numbers]


@pytest.mark.parametrize(
    ("operations", "after"),
    [
        ([{"op": "add", "path": "members", "value": members(3)}], {1, 2, 3}),
        ([{"op": "Add", "value": {"Members": members(3)}}], {1, 2, 3}),
        ([{"op": "add", "path": "members", "value": members(1)}], {1, 2}),
        ([{"op": "add", "path": "members", "value": {"value": "3"}}], {1, 2, 3}),
        ([{"op": "remove", "path": 'members[value eq "1"]'}], {2}),
        ([{"op": "remove", "path": "members", "value": members(2, 9)}], {1}),
        ([{"op": "remove", "path": "members"}], set()),
        ([{"op": "replace", "path": "members", "value": members(7)}], {7}),
        ([{"op": "replace", "path": "members", "value": []}], set()),
        (
            [
                {"op": "remove", "path": "members"},
                {"op": "add", "path": "members", "value": members(5)},
                {"op": "remove", "path": 'members[value eq "5"]'},
                {"op": "add", "path": "members", "value": members(6)},
            ],
            {6},
        ),
        ([{"op": "add", "path": "entitlements", "value": [{"value": "workspace-access"}]}], {1, 2}),
        ([], {1, 2}),
    ],
)
def test_members_after_a_patch(operations: list[dict[str, Any]], after: set[int]):
    assert parse_group_patch(operations).members_after({1, 2}) == after


def test_a_group_is_renamed_by_path_or_by_value():
    by_path = parse_group_patch([{"op": "replace", "path": "displayName", "value": "data"}])
    by_value = parse_group_patch([{"op": "replace", "value": {"displayName": "data"}}])
    assert (by_path.name, by_value.name) == ("data", "data")
    assert by_path.members == ()


@pytest.mark.parametrize(
    ("operations", "change"),
    [
        ([{"op": "replace", "path": "active", "value": "false"}], PrincipalChange(active=False)),
        ([{"op": "replace", "path": "active", "value": True}], PrincipalChange(active=True)),
        ([{"op": "replace", "value": {"active": False}}], PrincipalChange(active=False)),
        ([{"op": "replace", "path": "displayName", "value": "Ann"}], PrincipalChange(display_name="Ann")),
        ([{"op": "remove", "path": "displayName"}], PrincipalChange(display_name="")),
        ([{"op": "replace", "path": "name.givenName", "value": "Ann"}], PrincipalChange()),
        ([{"op": "remove", "path": 'roles[value eq "x"]'}], PrincipalChange()),
    ],
)
def test_what_a_patch_changes_of_a_principal(operations: list[dict[str, Any]], change: PrincipalChange):
    assert parse_principal_patch(operations) == change


@pytest.mark.parametrize(
    "operation",
    [
        {"op": "replace", "path": "active"},
        {"op": "replace", "path": "active", "value": "perhaps"},
        {"op": "remove", "path": "active"},
        {"op": "replace", "path": "shoeSize", "value": 46},
        {"op": "replace", "path": "displayName", "value": 1},
        {"op": "add", "path": "groups", "value": members(1)},
        {"op": "copy", "path": "displayName", "value": "x"},
        {"op": "replace", "value": "active"},
        {"path": "active", "value": True},
    ],
)
def test_what_would_be_dropped_in_a_patch_is_refused(operation: dict[str, Any]):
    with pytest.raises(InvalidParameter):
        parse_principal_patch([operation])


@pytest.mark.parametrize("value", [[{"value": "ann"}], [{}], ["-1"], [{"value": "9" * 19}], [None]])
def test_members_that_are_no_ids_are_refused(value: Any):
    with pytest.raises(InvalidParameter, match="not an id"):
        member_numbers(value)


@pytest.mark.parametrize(
    ("text", "value", "passes"),
    [
        ('userName eq "Ann@Example.com"', "ann@example.com", True),
        ('username EQ "ann"', "ann@example.com", False),
        ('userName co "EXAMPLE"', "ann@example.com", True),
        ('userName sw "ann"', "ann@example.com", True),
        ('userName sw "example"', "ann@example.com", False),
        (r'userName eq "a\"b"', 'a"b', True),
    ],
)
def test_filters(text: str, value: str, passes: bool):
    wanted = parse_filter(text, ["userName", "id"])
    assert wanted.attribute == "userName"
    assert wanted.matches(value) is passes


@pytest.mark.parametrize(
    "text", ["", "userName", 'shoeSize eq "46"', 'userName eq "a" or id eq "1"', "id gt 3"]
)
def test_filters_that_are_not_understood_are_refused(text: str):
    with pytest.raises(InvalidParameter, match="userName, id"):
        parse_filter(text, ["userName", "id"])


def test_answers_hold_the_attributes_asked_for_and_always_the_id():
    user = {"schemas": [], "id": "1", "userName": "ann", "name": {"givenName": "Ann"}, "groups": []}
    assert set(selected(user, "username, name.givenName", None)) == {"schemas", "id", "userName", "name"}
    assert set(selected(user, None, "groups,id")) == {"schemas", "id", "userName", "name"}
