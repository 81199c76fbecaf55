"""What a program may do that signs in by OAuth, with the unmodified databricks-sdk on both sides of each grant."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from databricks.sdk import WorkspaceClient
from databricks.sdk.errors import BadRequest, NotFound, PermissionDenied
from databricks.sdk.service.serving import (
    ServingEndpointAccessControlRequest,
    ServingEndpointPermissionLevel,
)
from databricks.sdk.service.serving import ServingEndpointDetailedPermissionLevel as Shown
from tests.end_to_end.client import Client
from tests.end_to_end.deadlines import eventually

Names = Callable[[], str]
VIEW, QUERY, MANAGE = (
    ServingEndpointPermissionLevel.CAN_VIEW,
    ServingEndpointPermissionLevel.CAN_QUERY,
    ServingEndpointPermissionLevel.CAN_MANAGE,
)


@pytest.fixture(scope="module")
def admin(client: Client) -> WorkspaceClient:
    return WorkspaceClient(host=client.access.host, token=client.access.token)


@pytest.fixture(scope="module")
def robot(client: Client, admin: WorkspaceClient) -> Iterator[WorkspaceClient]:
    """A service principal that signed in with its client id and secret."""
    principal = admin.service_principals.create(display_name="robot")
    assert principal.id is not None
    secret = admin.service_principal_secrets_proxy.create(principal.id).secret
    yield WorkspaceClient(host=client.access.host, client_id=principal.application_id, client_secret=secret)
    admin.service_principals.delete(principal.id)


def grant(
    robot: WorkspaceClient, level: ServingEndpointPermissionLevel
) -> ServingEndpointAccessControlRequest:
    return ServingEndpointAccessControlRequest(
        service_principal_name=robot.current_user.me().user_name, permission_level=level
    )


def test_each_grant_allows_the_next_step(admin: WorkspaceClient, robot: WorkspaceClient, new_name: Names):
    name = new_name()
    endpoint = admin.serving_endpoints.create(name=name).response
    assert endpoint.id is not None
    with pytest.raises(PermissionDenied, match="no permission"):
        robot.serving_endpoints.get(name)
    assert name not in [one.name for one in robot.serving_endpoints.list()]

    admin.serving_endpoints.update_permissions(endpoint.id, access_control_list=[grant(robot, VIEW)])
    assert robot.serving_endpoints.get(name).permission_level is Shown.CAN_VIEW
    assert name in [one.name for one in robot.serving_endpoints.list()]
    with pytest.raises(PermissionDenied, match="CAN_QUERY"):
        robot.serving_endpoints.query(name, inputs=[1])

    admin.serving_endpoints.update_permissions(endpoint.id, access_control_list=[grant(robot, QUERY)])

    def may_query() -> bool:
        try:
            with pytest.raises(BadRequest, match="no config"):
                robot.serving_endpoints.query(name, inputs=[1])
        except PermissionDenied:
            return False
        return True

    eventually(may_query, within=10, what="the gateway knows of the grant")
    with pytest.raises(PermissionDenied, match="CAN_MANAGE"):
        robot.serving_endpoints.delete(name)

    admin.serving_endpoints.set_permissions(endpoint.id, access_control_list=[grant(robot, MANAGE)])
    shown = robot.serving_endpoints.get_permissions(endpoint.id).access_control_list or []
    assert {one.group_name or one.service_principal_name for one in shown} == {
        "admins",
        robot.current_user.me().user_name,
    }
    assert [
        one.permission_level
        for one in robot.serving_endpoints.get_permission_levels(endpoint.id).permission_levels or []
    ] == [VIEW, QUERY, MANAGE]
    with pytest.raises(BadRequest, match="from yourself"):
        robot.serving_endpoints.set_permissions(endpoint.id, access_control_list=[])
    robot.serving_endpoints.delete(name)
    with pytest.raises(NotFound):
        admin.serving_endpoints.get_permissions(endpoint.id)


def test_who_creates_an_endpoint_manages_it(admin: WorkspaceClient, robot: WorkspaceClient, new_name: Names):
    name = new_name()
    assert robot.serving_endpoints.create(name=name).response.permission_level is Shown.CAN_MANAGE
    assert admin.serving_endpoints.get(name).creator == robot.current_user.me().user_name
    robot.serving_endpoints.delete(name)
