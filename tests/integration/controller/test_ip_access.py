"""IP access lists: who changes them, what is refused, and what gateways are told."""

import asyncio
from typing import Any

import asyncpg
from tests.integration.controller.conftest import World

LISTS = "/api/2.0/ip-access-lists"
CONF = "/api/2.0/workspace-conf"
SWITCH = "enableIpAccessLists"
HERE, ELSEWHERE = "203.0.113.7", "198.51.100.1"
"""The administrator calls from the first."""


def told(world: World, workspace_id: str = "1") -> tuple[tuple[str, ...], tuple[str, ...]] | None:
    """What gateways were told of a workspace: allowed and blocked networks."""
    known = world.gateway.ip_access.get(workspace_id)
    return (known.allow, known.block) if known else None


async def create(world: World, list_type: str, *addresses: str, **options: Any) -> dict[str, Any]:
    body = {"label": "a list", "list_type": list_type, "ip_addresses": addresses}
    return (await world.ok("POST", LISTS, body, **options))["ip_access_list"]


async def switch(world: World, value: object, **options: Any) -> None:
    answer = await world.gateway.call("PATCH", CONF, f'{{"{SWITCH}": "{value}"}}', **options)
    assert (answer.status, answer.body) == (204, ""), answer


async def test_lists_have_no_effect_until_the_workspace_uses_them(world: World):
    await world.until(lambda: told(world) == ((), ()))
    assert await world.ok("GET", f"{CONF}?keys={SWITCH}") == {SWITCH: "false"}
    await create(world, "ALLOW", HERE, "2001:db8::/32")
    await create(world, "BLOCK", f"{ELSEWHERE}/32")
    assert told(world) == ((), ())
    await switch(world, "true")
    assert await world.ok("GET", f"{CONF}?keys={SWITCH}") == {SWITCH: "true"}
    await world.until(lambda: told(world) == (("2001:db8::/32", f"{HERE}/32"), (f"{ELSEWHERE}/32",)))
    await switch(world, "false")
    await world.until(lambda: told(world) == ((), ()))


async def test_a_list_is_made_read_changed_replaced_and_removed(world: World):
    made = await create(world, "BLOCK", "198.51.100.0/24", "2001:DB8::1")
    assert made == {
        "list_id": made["list_id"],
        "label": "a list",
        "list_type": "BLOCK",
        "ip_addresses": ["198.51.100.0/24", "2001:DB8::1"],
        "address_count": 2,
        "enabled": True,
        "created_at": made["created_at"],
        "created_by": made["created_by"],
        "updated_at": made["created_at"],
        "updated_by": made["created_by"],
    }
    me = await world.ok("GET", "/api/2.0/preview/scim/v2/Me")
    assert made["created_by"] == int(me["id"])
    assert made["created_at"] > 1_600_000_000_000, "milliseconds"
    path = f"{LISTS}/{made['list_id']}"
    assert await world.ok("GET", path) == {"ip_access_list": made}
    assert await world.ok("GET", LISTS) == {"ip_access_lists": [made]}

    changed = (await world.ok("PATCH", path, {"enabled": False}))["ip_access_list"]
    assert changed == {**made, "enabled": False, "updated_at": changed["updated_at"]}
    assert changed["updated_at"] >= made["updated_at"]
    new = {"label": "new", "list_type": "ALLOW", "enabled": True, "ip_addresses": [HERE]}
    replaced = (await world.ok("PUT", path, new))["ip_access_list"]
    assert replaced == {**made, **new, "address_count": 1, "updated_at": replaced["updated_at"]}
    assert await world.ok("GET", path) == {"ip_access_list": replaced}
    assert await world.ok("DELETE", path) == {}
    assert await world.ok("GET", LISTS) == {"ip_access_lists": []}


async def test_each_change_reaches_gateways(world: World):
    await switch(world, "true")
    made = await create(world, "BLOCK", ELSEWHERE)
    path = f"{LISTS}/{made['list_id']}"
    await world.until(lambda: told(world) == ((), (f"{ELSEWHERE}/32",)))
    await world.ok("PATCH", path, {"ip_addresses": ["198.51.100.0/24", "::ffff:192.0.2.1"]})
    await world.until(lambda: told(world) == ((), ("192.0.2.1/32", "198.51.100.0/24")))
    await world.ok("PATCH", path, {"enabled": False})
    await world.until(lambda: told(world) == ((), ()))
    await world.ok("PATCH", path, {"enabled": True})
    await world.until(lambda: told(world) == ((), ("192.0.2.1/32", "198.51.100.0/24")))
    await world.ok("DELETE", path)
    await world.until(lambda: told(world) == ((), ()))


async def test_nobody_locks_themselves_out(world: World):
    async def locked_out(method: str, path: str, body: dict[str, Any] | None = None) -> None:
        status, code, message = await world.refused(method, path, body)
        assert (status, code) == (400, "INVALID_STATE")
        assert HERE in message

    other = await create(world, "ALLOW", ELSEWHERE)
    await locked_out("PATCH", CONF, {SWITCH: "true"})
    assert await world.ok("GET", f"{CONF}?keys={SWITCH}") == {SWITCH: "false"}
    own = await create(world, "ALLOW", "203.0.113.0/24")
    await switch(world, "true")
    block = {"label": "b", "list_type": "BLOCK", "ip_addresses": [HERE]}
    await locked_out("POST", LISTS, block)
    await locked_out("PATCH", f"{LISTS}/{own['list_id']}", {"enabled": False})
    await locked_out("PATCH", f"{LISTS}/{own['list_id']}", {"list_type": "BLOCK"})
    await locked_out("PUT", f"{LISTS}/{own['list_id']}", {**block, "enabled": True})
    await locked_out("DELETE", f"{LISTS}/{own['list_id']}")
    assert (await world.ok("GET", LISTS))["ip_access_lists"] == [other, own]
    # The last list that allows may go: without one everybody may call.
    await world.ok("DELETE", f"{LISTS}/{other['list_id']}")
    await world.ok("DELETE", f"{LISTS}/{own['list_id']}")

    world.gateway.client = ""
    assert (await world.refused("POST", LISTS, {**block, "ip_addresses": [ELSEWHERE]}))[:2] == (
        400,
        "INVALID_STATE",
    ), "whose address is not known would be shut out, too"


async def test_two_administrators_cannot_lock_each_other_out_at_the_same_time(world: World):
    first = await create(world, "ALLOW", HERE)
    second = await create(world, "ALLOW", f"{HERE}/32")
    await create(world, "ALLOW", ELSEWHERE)
    await switch(world, "true")
    answers = await asyncio.gather(
        *(world.gateway.call("DELETE", f"{LISTS}/{one['list_id']}") for one in (first, second))
    )
    assert sorted(answer.status for answer in answers) == [200, 400]


WRONG_FIELDS: list[tuple[str, object]] = [
    *(
        ("ip_addresses", wrong)
        for wrong in (
            ["10.0.0.256"],
            ["10.0.0.1/8"],
            ["10.0.0.0/33"],
            ["10.0.0.0/255.0.0.0"],
            ["example.com"],
            ["fe80::1%eth0"],
            [""],
            [" 10.0.0.1"],
            ["10.0.0.1", "10.0.0.1"],
            ["10.0.0.1", "10.0.0.1/32"],
            ["10.0.0.1", "::ffff:10.0.0.1"],
            ["2001:db8::1", "2001:DB8:0::1"],
            [],
            None,
            "10.0.0.1",
            [None],
            [7],
            [["10.0.0.1"]],
            ["\0"],
        )
    ),
    ("label", ""),
    ("label", "  "),
    ("label", None),
    ("label", "a\nb"),
    ("label", "x" * 1000),
    ("label", "\0"),
    ("label", 7),
    ("list_type", "DENY"),
    ("list_type", "allow"),
    ("list_type", None),
]


async def test_what_is_wrong_is_refused_by_name(world: World):
    right = {"label": "a", "list_type": "BLOCK", "ip_addresses": [ELSEWHERE]}
    for field, wrong in WRONG_FIELDS:
        status, code, message = await world.refused("POST", LISTS, {**right, field: wrong})
        assert (status, code) == (400, "INVALID_PARAMETER_VALUE"), (field, wrong)
        assert field in message, (field, wrong)
    assert await world.ok("GET", LISTS) == {"ip_access_lists": []}


async def test_a_list_without_addresses_is_refused_as_a_change_too(world: World):
    made = await create(world, "BLOCK", ELSEWHERE)
    path = f"{LISTS}/{made['list_id']}"
    for method, body in (
        ("PATCH", {"ip_addresses": []}),
        ("PUT", {"label": "a", "list_type": "BLOCK", "enabled": True}),
    ):
        assert (await world.refused(method, path, body))[:2] == (400, "INVALID_PARAMETER_VALUE")
    assert await world.ok("GET", path) == {"ip_access_list": made}


async def test_a_workspace_has_a_thousand_addresses_in_all_its_lists_together(world: World):
    many = [f"10.0.{n // 256}.{n % 256}" for n in range(1000)]
    made = await create(world, "BLOCK", *many[:999])
    await create(world, "ALLOW", HERE)
    body = {"label": "a", "list_type": "BLOCK", "ip_addresses": ["192.0.2.1"]}
    for method, path, tried in (
        ("POST", LISTS, body),
        ("POST", LISTS, {**body, "ip_addresses": [*many, "192.0.2.1"]}),
        ("PATCH", f"{LISTS}/{made['list_id']}", {"ip_addresses": many}),
    ):
        status, code, message = await world.refused(method, path, tried)
        assert (status, code) == (400, "QUOTA_EXCEEDED")
        assert "1000" in message
    await switch(world, "true")
    await world.until(lambda: [len(part) for part in told(world) or ()] == [1, 999])


async def test_only_administrators_see_and_change_lists_and_only_their_own_workspaces(world: World):
    made = await create(world, "BLOCK", ELSEWHERE)
    path = f"{LISTS}/{made['list_id']}"
    user = await world.new_user("ann")
    body = {"label": "a", "list_type": "BLOCK", "ip_addresses": [ELSEWHERE]}
    for method, at, sent in (
        ("GET", LISTS, None),
        ("POST", LISTS, body),
        ("GET", path, None),
        ("PUT", path, {**body, "enabled": True}),
        ("PATCH", path, {"enabled": False}),
        ("DELETE", path, None),
        ("GET", f"{CONF}?keys={SWITCH}", None),
        ("PATCH", CONF, {SWITCH: "true"}),
    ):
        assert (await world.refused(method, at, sent, identity=user))[:2] == (403, "PERMISSION_DENIED")

    other = await world.new_workspace("other")
    assert await world.ok("GET", LISTS, identity=other) == {"ip_access_lists": []}
    for method, sent in (("GET", None), ("PATCH", {"enabled": False}), ("DELETE", None)):
        status, code, _ = await world.refused(method, path, sent, identity=other)
        assert (status, code) == (404, "RESOURCE_DOES_NOT_EXIST")
    await switch(world, "true", identity=other)
    await create(world, "BLOCK", "192.0.2.1", identity=other)
    await world.until(lambda: told(world, other.workspace_id) == ((), ("192.0.2.1/32",)))
    assert told(world) == ((), ())
    await world.ok("DELETE", f"/api/2.0/servery/workspaces/{other.workspace_id}")
    await world.until(lambda: told(world, other.workspace_id) is None)


async def test_of_a_workspaces_configuration_there_is_the_one_switch(world: World):
    for method, query, body, code in (
        ("GET", "", None, "INVALID_PARAMETER_VALUE"),
        ("GET", "?keys=", None, "INVALID_PARAMETER_VALUE"),
        ("GET", "?keys=maxTokenLifetimeDays", None, "NOT_IMPLEMENTED"),
        ("GET", f"?keys={SWITCH},maxTokenLifetimeDays", None, "NOT_IMPLEMENTED"),
        ("PATCH", "", {}, "INVALID_PARAMETER_VALUE"),
        ("PATCH", "", {SWITCH: "yes"}, "INVALID_PARAMETER_VALUE"),
        ("PATCH", "", {SWITCH: None}, "INVALID_PARAMETER_VALUE"),
        ("PATCH", "", {SWITCH: 1}, "INVALID_PARAMETER_VALUE"),
        ("PATCH", "", {SWITCH: "true", "maxTokenLifetimeDays": "9"}, "NOT_IMPLEMENTED"),
        ("PATCH", "", [], "INVALID_PARAMETER_VALUE"),
    ):
        assert (await world.refused(method, f"{CONF}{query}", body))[1] == code
    assert await world.ok("GET", f"{CONF}?keys={SWITCH}") == {SWITCH: "false"}


async def test_an_operator_with_the_database_lets_everybody_in_again(world: World):
    await create(world, "ALLOW", HERE)
    await switch(world, "true")
    await world.until(lambda: told(world) == ((f"{HERE}/32",), ()))
    await world.crash_controller()
    database = await asyncpg.connect(world.postgres_url)
    await database.execute("UPDATE workspaces SET ip_access_enabled = false WHERE id = '1'")
    await database.close()
    await world.start_controller()
    await world.until(lambda: told(world) == ((), ()))
