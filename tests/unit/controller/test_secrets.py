"""Who may do what with a secret, and which environment variables refer to one."""

import pytest

from servery_common.contracts.access import Identity
from servery_common.errors import InvalidParameter, PermissionDenied
from servery_controller.domain.secrets import (
    MAX_VALUE_BYTES,
    SecretPermission,
    SecretReference,
    check_allowed,
    check_key,
    check_scope_name,
    check_value,
    is_allowed,
    place_of,
    references_of,
)

READ, WRITE, MANAGE = SecretPermission
ANN = Identity(principal_id="a", user_name="ann", workspace_id="1", groups=("data", "users"))
ADMIN = Identity(principal_id="b", user_name="root", workspace_id="1", admin=True)
ROBOT = Identity(
    principal_id="c", kind="service_principal", user_name="1234-app", workspace_id="1", groups=("users",)
)


@pytest.mark.parametrize(
    ("granted", "caller", "allowed"),
    [
        ({}, ANN, []),
        ({"user:ann": READ}, ANN, [READ]),
        ({"group:data": WRITE}, ANN, [READ, WRITE]),
        ({"user:ann": READ, "group:data": MANAGE}, ANN, [READ, WRITE, MANAGE]),
        ({"group:users": READ}, ROBOT, [READ]),
        ({"service_principal:1234-app": WRITE}, ROBOT, [READ, WRITE]),
        ({"user:bob": MANAGE, "group:ops": MANAGE}, ANN, []),
        ({"group:ann": MANAGE, "user:data": MANAGE}, ANN, []),
        ({}, ADMIN, [READ, WRITE, MANAGE]),
    ],
)
def test_a_permission_comes_by_name_by_group_or_with_administration(granted, caller, allowed):
    assert [p for p in SecretPermission if is_allowed(caller, granted, p)] == allowed


def test_a_refusal_says_what_is_missing_and_whom_to_ask():
    with pytest.raises(PermissionDenied, match="'ann' does not have WRITE permission on secret scope 'prod'"):
        check_allowed(ANN, "prod", {"user:ann": READ}, WRITE)


@pytest.mark.parametrize(
    ("value", "reference"),
    [
        ("{{secrets/prod/key}}", SecretReference("prod", "key")),
        ("{{secrets/a.b-c_d@e/K.1}}", SecretReference("a.b-c_d@e", "K.1")),
        ("{{secrets/prod/team/key}}", SecretReference("prod", "team/key")),
        ("{{secrets/prod/key}} ", None),
        ("{{secrets/prod/key}}\n", None),
        ("{{ secrets/prod/key }}", None),
        ("Bearer {{secrets/prod/key}}", None),
        ("{{secrets/prod}}", None),
        ("{{secrets/prod/}}", None),
        ("{{Secrets/prod/key}}", None),
        ("", None),
    ],
)
def test_only_the_exact_form_is_a_reference(value, reference):
    assert references_of({"KEY": value}) == ({"KEY": reference} if reference else {})


@pytest.mark.parametrize("name", ["a", "A.b_c-d@e/f", "x" * 128])
def test_names_that_may_be(name):
    check_scope_name(name)
    check_key(name)


@pytest.mark.parametrize("name", ["", "x" * 129, "a b", "a{b", "ä", "a\n"])
def test_names_that_may_not_be(name):
    with pytest.raises(InvalidParameter, match="Invalid scope name"):
        check_scope_name(name)
    with pytest.raises(InvalidParameter, match="Invalid secret key"):
        check_key(name)


def test_a_value_may_have_128_kilobytes():
    check_value(bytes(MAX_VALUE_BYTES))
    with pytest.raises(InvalidParameter, match=r"131073 bytes; at most 131072 \(128 KB\)"):
        check_value(bytes(MAX_VALUE_BYTES + 1))


def test_no_two_places_are_the_same():
    assert place_of("1", "a/b", "c") != place_of("1", "a", "b/c")
