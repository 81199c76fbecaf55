"""What people do with databricks-sdk, written as they write it. Runs with any version of the SDK.

The test passes host, token, a model's name and two versions of it, and a prefix for the names of what is made.
"""

import base64
import json
import uuid
from datetime import timedelta

from databricks.sdk import WorkspaceClient
from databricks.sdk.config import Config
from databricks.sdk.errors import (
    BadRequest,
    InvalidParameterValue,
    InvalidState,
    NotFound,
    NotImplemented,  # noqa: A004
    PermissionDenied,
    ResourceAlreadyExists,
    ResourceConflict,
    Unauthenticated,
)
from databricks.sdk.service.iam import ComplexValue, Patch, PatchOp, PatchSchema
from databricks.sdk.service.serving import (
    AiGatewayUsageTrackingConfig,
    DataframeSplitInput,
    EmailNotifications,
    EndpointCoreConfigInput,
    EndpointStateConfigUpdate,
    EndpointStateReady,
    EndpointTag,
    RateLimit,
    RateLimitRenewalPeriod,
    Route,
    ServedEntityInput,
    ServedModelInput,
    ServingEndpointAccessControlRequest,
    ServingEndpointPermissionLevel,
    TrafficConfig,
)
from databricks.sdk.service.settings import ListType
from databricks.sdk.service.workspace import AclPermission
from databricks.sdk.version import __version__
from tests.end_to_end.clients.report import Scenario, alone, arguments, equal, eventually, raises

PATCH = PatchSchema.URN_IETF_PARAMS_SCIM_API_MESSAGES_2_0_PATCH_OP
PATIENCE = timedelta(minutes=3)
COLUMNS = ["sepal length (cm)", "sepal width (cm)", "petal length (cm)", "petal width (cm)"]
FLOWER = [5.1, 3.5, 1.4, 0.2]
RECORD = dict(zip(COLUMNS, FLOWER))  # noqa: B905  # `strict` is newer than the oldest Python the SDK runs on

scenario = Scenario()


class World:
    """The administrator's client, the model, and the names of what the steps make."""

    def __init__(self, host, token, model, versions, prefix):
        self.host = host
        self.w = self.client(token=token)
        self.model = model
        self.first, self.second = versions
        self.name = f"{prefix}-entities"
        self.older = f"{prefix}-models"
        self.empty = f"{prefix}-empty"
        self.scope = f"{prefix}-scope"
        self.prefix = prefix

    def client(self, **credentials):
        """Another caller of the same workspace."""
        return WorkspaceClient(config=Config(host=self.host, retry_timeout_seconds=20, **credentials))

    def entity(self, version, name=None, **options):
        """A served entity of the model."""
        return ServedEntityInput(
            name=name,
            entity_name=self.model,
            entity_version=version,
            workload_size="Small",
            scale_to_zero_enabled=False,
            **options,
        )

    def post(self, path, body=None):
        """A call the SDK has no method for."""
        return self.w.api_client.do("POST", path, body=body)


@scenario.step
def the_caller_is_known(world):
    me = world.w.current_user.me()
    equal(me.user_name, "admin")
    assert me.active
    assert world.w.get_workspace_id() > 0


@scenario.step
def an_endpoint_is_created_and_awaited(world):
    created = world.w.serving_endpoints.create_and_wait(
        name=world.name,
        config=EndpointCoreConfigInput(
            name=world.name,
            served_entities=[world.entity(world.first, environment_vars={"GREETING": "hello"})],
        ),
        tags=[EndpointTag(key="team", value="blue")],
        timeout=PATIENCE,
    )
    equal(created.state.ready, EndpointStateReady.READY)
    equal(created.state.config_update, EndpointStateConfigUpdate.NOT_UPDATING)
    equal(created.config.config_version, 1)
    equal(created.pending_config, None)
    equal([(tag.key, tag.value) for tag in created.tags], [("team", "blue")])


@scenario.step
def an_endpoint_is_read_and_listed(world):
    endpoint = world.w.serving_endpoints.get(world.name)
    assert len(endpoint.id) == 32
    equal(endpoint.creator, "admin")
    assert endpoint.creation_timestamp > 1_600_000_000_000, "milliseconds"
    equal(endpoint.permission_level.value, "CAN_MANAGE")
    (entity,) = endpoint.config.served_entities
    equal((entity.entity_name, entity.entity_version), (world.model, world.first))
    equal(entity.name, f"{world.model}-{world.first}")
    equal(entity.environment_vars, {"GREETING": "hello"})
    equal(entity.state.deployment.value, "DEPLOYMENT_READY")
    (route,) = endpoint.config.traffic_config.routes
    equal((route.served_model_name, route.traffic_percentage), (entity.name, 100))
    (listed,) = [one for one in world.w.serving_endpoints.list() if one.name == world.name]
    equal(listed.id, endpoint.id)
    equal(listed.config.served_entities[0].entity_name, world.model)


@scenario.step
def an_endpoint_is_queried_in_every_format(world):
    query = world.w.serving_endpoints.query
    answers = [
        query(world.name, dataframe_records=[RECORD]),
        query(world.name, dataframe_split=DataframeSplitInput(columns=COLUMNS, data=[FLOWER])),
        query(world.name, instances=[RECORD]),
        query(world.name, inputs={column: [value] for column, value in RECORD.items()}),
    ]
    for answer in answers:
        equal(answer.predictions, [0])
        equal(answer.served_model_name, f"{world.model}-{world.first}")
    equal(query(world.name, dataframe_records=[RECORD], client_request_id="mine").predictions, [0])


@scenario.step
def a_config_is_updated_and_traffic_split(world):
    updated = world.w.serving_endpoints.update_config_and_wait(
        world.name,
        served_entities=[world.entity(world.first, "current"), world.entity(world.second, "candidate")],
        traffic_config=TrafficConfig(
            routes=[
                Route(served_model_name="current", traffic_percentage=0),
                Route(served_model_name="candidate", traffic_percentage=100),
            ]
        ),
        timeout=PATIENCE,
    )
    equal(updated.config.config_version, 2)
    equal(world.w.serving_endpoints.query(world.name, instances=[RECORD]).served_model_name, "candidate")


@scenario.step
def legacy_served_models_and_an_endpoint_without_a_config(world):
    endpoints = world.w.serving_endpoints
    model = ServedModelInput(
        model_name=world.model, model_version=world.first, workload_size="Small", scale_to_zero_enabled=False
    )
    older = endpoints.create(
        name=world.older, config=EndpointCoreConfigInput(name=world.older, served_models=[model])
    )
    empty = endpoints.create_and_wait(name=world.empty)
    equal(empty.state.ready, EndpointStateReady.NOT_READY)
    configured = endpoints.update_config(world.empty, served_entities=[world.entity(world.first)])

    created = older.result(timeout=PATIENCE)
    (served,) = created.config.served_models
    equal((served.model_name, served.model_version), (world.model, world.first))
    assert created.config.served_entities, "the newer spelling is answered too"
    equal(endpoints.query(world.older, instances=[RECORD]).predictions, [0])
    equal(configured.result(timeout=PATIENCE).state.ready, EndpointStateReady.READY)


@scenario.step
def logs_of_the_build_and_of_the_model_are_read(world):
    build = world.w.serving_endpoints.build_logs(world.name, "candidate")
    assert build.logs.strip(), "an empty build log"
    assert isinstance(world.w.serving_endpoints.logs(world.name, "candidate").logs, str)
    raises(NotFound, world.w.serving_endpoints.build_logs, world.name, "nobody")


@scenario.step
def events_are_read_newest_first(world):
    answer = world.w.api_client.do("GET", f"/api/2.0/serving-endpoints/{world.name}/events")
    times = [event["timestamp"] for event in answer["events"]]
    assert times, "no events"
    equal(times, sorted(times, reverse=True))
    assert {"event_type", "status", "message", "timestamp"} <= set(answer["events"][0])


@scenario.step
def metrics_are_exported(world):
    def text():
        return world.w.serving_endpoints.export_metrics(world.name).contents.read().decode()

    eventually(lambda: "request_count_total" in text())
    assert "provisioned_concurrent_requests_total" in text()


@scenario.step
def an_endpoint_describes_itself(world):
    document = json.loads(world.w.serving_endpoints.get_open_api(world.name).contents.read())
    assert document["openapi"].startswith("3.1")
    equal(document["info"]["title"], world.name)
    assert any(path.endswith("/invocations") for path in document["paths"])


@scenario.step
def tags_are_changed(world):
    patched = world.w.serving_endpoints.patch(
        world.name, add_tags=[EndpointTag(key="stage", value="test")], delete_tags=["team"]
    )
    tags = patched.tags if hasattr(patched, "tags") else patched  # a list in SDKs of 2024
    equal([(tag.key, tag.value) for tag in tags], [("stage", "test")])
    equal([tag.key for tag in world.w.serving_endpoints.get(world.name).tags], ["stage"])


@scenario.step
def rate_limits_are_set_and_lifted(world):
    limit = RateLimit(calls=1000, renewal_period=RateLimitRenewalPeriod.MINUTE)
    answer = world.w.serving_endpoints.put(world.name, rate_limits=[limit])
    equal([one.calls for one in answer.rate_limits], [1000])
    assert not world.w.serving_endpoints.put(world.name, rate_limits=[]).rate_limits
    with_a_word_too_many = {"rate_limits": [{"calls": 1, "renewal_period": "hour"}]}
    path = f"/api/2.0/serving-endpoints/{world.name}/rate-limits"
    raises(InvalidParameterValue, world.w.api_client.do, "PUT", path, body=with_a_word_too_many)


@scenario.step
def notifications_are_set(world):
    told = EmailNotifications(on_update_failure=["ops@example.com"])
    answer = world.w.serving_endpoints.update_notifications(world.name, email_notifications=told)
    equal(answer.email_notifications.on_update_failure, ["ops@example.com"])


@scenario.step
def permissions_let_a_service_principal_query(world):
    w, endpoints = world.w, world.w.serving_endpoints
    levels = endpoints.get_permission_levels(endpoints.get(world.name).id).permission_levels
    equal({level.permission_level.value for level in levels}, {"CAN_VIEW", "CAN_QUERY", "CAN_MANAGE"})

    principal = w.service_principals.create(display_name=f"{world.prefix}-robot")
    secret = w.service_principal_secrets_proxy.create(service_principal_id=principal.id)
    robot = world.client(client_id=principal.application_id, client_secret=secret.secret)
    equal(robot.current_user.me().user_name, principal.application_id)
    raises(PermissionDenied, robot.serving_endpoints.get, world.name)
    raises(PermissionDenied, robot.serving_endpoints.query, world.name, instances=[RECORD])

    def grant(level):
        return ServingEndpointAccessControlRequest(
            service_principal_name=principal.application_id, permission_level=level
        )

    endpoint_id = endpoints.get(world.name).id
    granted = endpoints.update_permissions(
        endpoint_id, access_control_list=[grant(ServingEndpointPermissionLevel.CAN_QUERY)]
    )
    equal(granted.object_id, f"/serving-endpoints/{endpoint_id}")
    eventually(lambda: robot.serving_endpoints.query(world.name, instances=[RECORD]).predictions == [0])
    equal(robot.serving_endpoints.get(world.name).permission_level.value, "CAN_QUERY")
    raises(PermissionDenied, robot.serving_endpoints.delete, world.name)

    read = endpoints.get_permissions(endpoint_id).access_control_list
    assert principal.application_id in [one.service_principal_name for one in read]
    left = endpoints.set_permissions(endpoint_id, access_control_list=[]).access_control_list
    assert principal.application_id not in [one.service_principal_name for one in left or []]
    eventually(
        lambda: raises(PermissionDenied, robot.serving_endpoints.query, world.name, instances=[RECORD])
    )
    w.service_principals.delete(principal.id)


@scenario.step
def secrets_are_kept_and_named_in_an_environment(world):
    secrets = world.w.secrets
    secrets.create_scope(world.scope)
    assert world.scope in [scope.name for scope in secrets.list_scopes()]
    secrets.put_secret(world.scope, "key", string_value="hidden")
    equal([secret.key for secret in secrets.list_secrets(world.scope)], ["key"])
    equal(base64.b64decode(secrets.get_secret(world.scope, "key").value), b"hidden")
    secrets.put_acl(world.scope, "users", AclPermission.READ)
    equal(secrets.get_acl(world.scope, "users").permission, AclPermission.READ)
    assert "users" in [acl.principal for acl in secrets.list_acls(world.scope)]
    secrets.delete_acl(world.scope, "users")

    reference = f"{{{{secrets/{world.scope}/key}}}}"
    entity = world.entity(world.first, environment_vars={"PASSWORD": reference})
    updated = world.w.serving_endpoints.update_config_and_wait(
        world.empty, served_entities=[entity], timeout=PATIENCE
    )
    equal(updated.config.served_entities[0].environment_vars, {"PASSWORD": reference})

    secrets.delete_secret(world.scope, "key")
    secrets.delete_scope(world.scope)
    raises(NotFound, secrets.list_acls, world.scope)


@scenario.step
def tokens_work_at_once_and_end_when_deleted(world):
    made = world.w.tokens.create(comment=world.prefix, lifetime_seconds=600)
    mine = world.client(token=made.token_value)
    equal(mine.current_user.me().user_name, "admin")
    listed = [info for info in world.w.tokens.list() if info.token_id == made.token_info.token_id]
    equal([info.comment for info in listed], [world.prefix])
    world.w.tokens.delete(made.token_info.token_id)
    eventually(lambda: raises(Unauthenticated, mine.current_user.me))


@scenario.step
def an_administrator_manages_tokens_of_others(world):
    w = world.w
    principal = w.service_principals.create(display_name=f"{world.prefix}-batch")
    made = w.token_management.create_obo_token(
        principal.application_id, comment="for a job", lifetime_seconds=600
    )
    robot = world.client(token=made.token_value)
    equal(robot.current_user.me().user_name, principal.application_id)
    token_id = made.token_info.token_id
    assert token_id in [info.token_id for info in w.token_management.list()]
    equal(w.token_management.get(token_id).token_info.comment, "for a job")
    raises(PermissionDenied, lambda: list(robot.token_management.list()))
    w.token_management.delete(token_id)
    eventually(lambda: raises(Unauthenticated, robot.current_user.me))
    w.service_principals.delete(principal.id)


@scenario.step
def users_groups_and_principals_are_kept(world):
    w = world.w
    name = f"{world.prefix}@example.com"
    user = w.users.create(user_name=name, display_name="Ann")
    equal(w.users.get(user.id).user_name, name)
    equal([one.id for one in w.users.list(filter=f'userName eq "{name}"')], [user.id])
    w.users.patch(
        user.id, operations=[Patch(op=PatchOp.REPLACE, path="displayName", value="Bob")], schemas=[PATCH]
    )
    equal(w.users.get(user.id).display_name, "Bob")
    w.users.update(user.id, user_name=name, display_name="Cleo", active=True)
    equal(w.users.get(user.id).display_name, "Cleo")

    principal = w.service_principals.create(display_name=f"{world.prefix}-job")
    equal(w.service_principals.get(principal.id).application_id, principal.application_id)
    assert principal.id in [one.id for one in w.service_principals.list()]
    w.service_principals.patch(
        principal.id,
        operations=[Patch(op=PatchOp.REPLACE, path="displayName", value="other")],
        schemas=[PATCH],
    )
    w.service_principals.update(
        principal.id, application_id=principal.application_id, display_name="third", active=True
    )
    equal(w.service_principals.get(principal.id).display_name, "third")
    secret = w.service_principal_secrets_proxy.create(service_principal_id=principal.id)
    assert secret.id in [one.id for one in w.service_principal_secrets_proxy.list(principal.id)]
    w.service_principal_secrets_proxy.delete(principal.id, secret.id)

    group = w.groups.create(display_name=f"{world.prefix}-group", members=[ComplexValue(value=user.id)])
    equal([member.value for member in w.groups.get(group.id).members], [user.id])
    assert group.id in [one.id for one in w.groups.list()]
    add = Patch(op=PatchOp.ADD, value={"members": [{"value": principal.id}]})
    w.groups.patch(group.id, operations=[add], schemas=[PATCH])
    equal({member.value for member in w.groups.get(group.id).members}, {user.id, principal.id})
    w.groups.update(group.id, display_name=f"{world.prefix}-group", members=[])
    assert not w.groups.get(group.id).members
    for api, made in ((w.groups, group), (w.users, user), (w.service_principals, principal)):
        api.delete(made.id)
        raises(NotFound, api.get, made.id)


@scenario.step
def ip_access_lists_restrict_a_workspace(world):
    with alone(world.host):
        _restrict_a_workspace(world)


def _restrict_a_workspace(world):
    w, switch = world.w, "enableIpAccessLists"
    lists, query = w.ip_access_lists, world.w.serving_endpoints.query
    equal(w.workspace_conf.get_status(keys=switch), {switch: "false"})
    made = lists.create(
        label=world.prefix, list_type=ListType.BLOCK, ip_addresses=["203.0.113.0/24", "2001:db8::1"]
    ).ip_access_list
    equal((made.label, made.list_type, made.address_count), (world.prefix, ListType.BLOCK, 2))
    equal((made.enabled, made.created_by), (True, int(w.current_user.me().id)))
    assert made.created_at > 1_600_000_000_000, "milliseconds"
    here = lists.create(
        label=f"{world.prefix}-here", list_type=ListType.ALLOW, ip_addresses=["127.0.0.0/8", "::1"]
    ).ip_access_list
    try:
        equal({one.list_id for one in lists.list()}, {made.list_id, here.list_id})
        w.workspace_conf.set_status({switch: "true"})
        equal(w.workspace_conf.get_status(keys=switch), {switch: "true"})
        equal(query(world.name, dataframe_records=[RECORD]).predictions, [0])
        raises(InvalidState, lists.create, "b", ListType.BLOCK, ip_addresses=["127.0.0.0/8", "::/0"])
        raises(InvalidState, lists.update, here.list_id, ip_addresses=["203.0.113.7"])
        raises(InvalidParameterValue, lists.create, "b", ListType.BLOCK, ip_addresses=["nowhere"])
        raises(
            BadRequest,
            lists.create,
            "b",
            ListType.BLOCK,
            ip_addresses=[f"10.0.{n}.0/24" for n in range(256)] * 4,
        )
        lists.update(made.list_id, enabled=False)
        equal(lists.get(made.list_id).ip_access_list.enabled, False)
        lists.replace(made.list_id, "other", ListType.BLOCK, True, ip_addresses=["198.51.100.7"])
        replaced = lists.get(made.list_id).ip_access_list
        equal((replaced.label, replaced.enabled), ("other", True))
        equal(replaced.ip_addresses, ["198.51.100.7"])
    finally:
        w.workspace_conf.set_status({switch: "false"})
        for one in (made, here):
            lists.delete(one.list_id)
    raises(NotFound, lists.get, made.list_id)


@scenario.step
def each_error_is_raised_as_its_class(world):
    endpoints = world.w.serving_endpoints
    raises(NotFound, endpoints.get, "no-such-endpoint")
    raises(NotFound, endpoints.query, "no-such-endpoint", instances=[RECORD])
    raises(NotFound, endpoints.delete, "no-such-endpoint")
    raises(NotFound, endpoints.update_config, world.name, served_entities=[world.entity("999999")])
    raises(ResourceAlreadyExists, endpoints.create, name=world.name)
    raises(InvalidParameterValue, endpoints.create, name="not a name")
    raises(InvalidParameterValue, endpoints.update_config, world.name, served_entities=[])
    raises(InvalidParameterValue, endpoints.query, world.name, dataframe_records=[{"wrong": 1}])
    raises(BadRequest, world.post, f"/serving-endpoints/{world.name}/invocations", {"neither": "nor"})
    raises(
        NotImplemented,
        endpoints.put_ai_gateway,
        world.name,
        usage_tracking_config=AiGatewayUsageTrackingConfig(enabled=True),
    )
    stranger = world.client(token=f"dapi{uuid.uuid4().hex}")
    raises(Unauthenticated, stranger.serving_endpoints.get, world.name)
    raises(Unauthenticated, stranger.serving_endpoints.query, world.name, instances=[RECORD])


@scenario.step
def a_second_update_at_the_same_time_conflicts(world):
    endpoints = world.w.serving_endpoints
    under_way = endpoints.update_config(world.older, served_entities=[world.entity(world.second)])
    raises(
        ResourceConflict, endpoints.update_config, world.older, served_entities=[world.entity(world.first)]
    )
    equal(under_way.result(timeout=PATIENCE).config.served_entities[0].entity_version, world.second)


@scenario.step
def an_endpoint_is_stopped_and_started(world):
    stopped = world.post(f"/api/2.0/serving-endpoints/{world.older}/config:stop")
    equal(stopped["name"], world.older)
    eventually(lambda: raises(BadRequest, world.w.serving_endpoints.query, world.older, instances=[RECORD]))
    world.post(f"/api/2.0/serving-endpoints/{world.older}/config:start")
    started = world.w.serving_endpoints.wait_get_serving_endpoint_not_updating(world.older, timeout=PATIENCE)
    equal(started.state.ready, EndpointStateReady.READY)
    equal(world.w.serving_endpoints.query(world.older, instances=[RECORD]).predictions, [0])


@scenario.step
def endpoints_are_deleted(world):
    for name in (world.name, world.older, world.empty):
        world.w.serving_endpoints.delete(name)
        raises(NotFound, world.w.serving_endpoints.get, name)
    left = [endpoint.name for endpoint in world.w.serving_endpoints.list()]
    assert not {world.name, world.older, world.empty} & set(left), left


if __name__ == "__main__":
    scenario.run(World(**arguments()), f"databricks-sdk {__version__}")
