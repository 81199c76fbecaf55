"""Decide on a scoring request's headers alone whether it may come in, before its body is read. Pure."""

from collections.abc import Mapping
from typing import NoReturn

from servery_common.contracts.access import Identity
from servery_common.contracts.routes import EndpointRoute, ServedEntityRoute
from servery_common.errors import BadRequest, EndpointNotFound, NotFound, PermissionDenied, Unavailable
from servery_gateway.load_balancing import choose_served_entity
from servery_gateway.routing_table import Snapshot

MAX_CONTENT_TYPE = 200
"""Characters. It travels in the head of the request's frame, which has its bounds."""

NO_ENDPOINT = (
    "The given endpoint does not exist, please retry after checking the specified model and "
    "version deployment exists."
)
NOT_SUPPORTED = (
    "Your workspace is not currently supported. This installation does not serve the region of your workspace; "
    "ask its operator which regions are served, or use a workspace in one of them."
)
DEPLOYING_RETRY_AFTER = 2

JSON = "application/json"
_FORM = "application/x-www-form-urlencoded"


def find_route(snapshot: Snapshot, identity: Identity, name: str) -> EndpointRoute:
    """Return the caller's endpoint of this name, if they may query it.

    Raises BadRequest (workspace not supported; endpoint stopped or failed), EndpointNotFound, PermissionDenied or
    Unavailable.
    """
    if not identity.supported:
        raise BadRequest(NOT_SUPPORTED)
    route = snapshot.by_name.get((identity.workspace_id, name))
    if route is None:
        raise EndpointNotFound(NO_ENDPOINT)
    require_query_permission(route, identity)
    if route.status != "serving":
        _refuse(route)
    return route


def require_query_permission(route: EndpointRoute, identity: Identity) -> None:
    """Raise PermissionDenied unless the caller, or a group of theirs, was granted to query, or administrates."""
    if identity.admin or not identity.grantees.isdisjoint(route.query_grantees):
        return
    raise PermissionDenied(
        f"{_who(identity)} does not have CAN_QUERY permission on endpoint '{route.name}'. Ask somebody who "
        "has CAN_MANAGE permission on it, such as its creator, or an administrator of the workspace, to grant it."
    )


def find_served_entity(route: EndpointRoute, served: str | None, point: float) -> ServedEntityRoute:
    """Return the served entity the caller named, or the one that ``point`` (in [0, 1)) falls on by weight."""
    if served is not None:
        for entity in route.served_entities:
            if entity.name == served:
                return entity
        raise NotFound(f"Served entity '{served}' does not exist in endpoint '{route.name}'.")
    entity = choose_served_entity(route.served_entities, point)
    if entity is None:
        raise Unavailable(
            f"Endpoint '{route.name}' has no served entity that takes traffic.", reason="not_serving"
        )
    return entity


def content_type_of(headers: Mapping[bytes, bytes]) -> str:
    """Return the body's content type as the model should see it. Raises BadRequest.

    MLflow's server fails without one, and ``curl -d`` says "form" for the JSON people paste: both mean JSON.
    """
    value = headers.get(b"content-type")
    if not value:
        return JSON
    if len(value) > MAX_CONTENT_TYPE:
        raise BadRequest(f"The Content-Type header is longer than {MAX_CONTENT_TYPE} characters.")
    content_type = value.decode("latin-1")
    return JSON if content_type.partition(";")[0].strip().lower() == _FORM else content_type


def time_budget(timeout_seconds: float, margin: float) -> float:
    """Return how long a request may take so that its answer is out before the client stops waiting.

    ``margin`` comes off the timeout, but never more than a twentieth of it.
    """
    return timeout_seconds - min(margin, timeout_seconds / 20)


def _who(identity: Identity) -> str:
    kind = "User" if identity.kind == "user" else "Service principal"
    return f"{kind} '{identity.user_name}'"


def _refuse(route: EndpointRoute) -> NoReturn:
    reason = f" {route.message}" if route.message else ""
    match route.status:
        case "stopped":
            raise BadRequest(
                f"Endpoint '{route.name}' is stopped. Start it to query it.{reason}", reason="not_serving"
            )
        case "failed":
            raise BadRequest(
                f"Endpoint '{route.name}' failed to deploy and cannot be queried.{reason}",
                reason="not_serving",
            )
        case _:
            raise Unavailable(
                f"Endpoint '{route.name}' is being deployed. Try again when it is ready.{reason}",
                retry_after=DEPLOYING_RETRY_AFTER,
                reason="not_serving",
            )
