"""Routes of Databricks' API that Servery knows and does not offer. They say so, where a 404 would look like a typo."""

from collections.abc import Awaitable, Callable

from fastapi import APIRouter

from servery_common.errors import NotImplementedByServery

_ENDPOINTS = "/api/2.0/serving-endpoints"
_INSTEAD = {
    ("POST", f"{_ENDPOINTS}/pt"): "Provisioned throughput is not supported: create an endpoint with "
    "workload_size or provisioned concurrency.",
    ("PUT", f"{_ENDPOINTS}/pt/{{name}}/config"): "Provisioned throughput is not supported: update the "
    "endpoint's config with workload_size or provisioned concurrency.",
    ("PATCH", f"{_ENDPOINTS}/{{name}}/telemetry-config"): "telemetry_config is not supported: Servery sends "
    "its traces to the installation's OpenTelemetry collector.",
    (
        "POST",
        "/api/2.0/external-function",
    ): "External functions are not supported: call the service yourself.",
}

_ELSEWHERE = {
    "mlflow": "The MLflow registry is not behind this address: set MLFLOW_TRACKING_URI to the MLflow server's, as "
    "`servery env` prints it.",
    "feature-store": "Feature tables are not supported: send the features with the request.",
    "online-tables": "Online tables are not supported: send the features with the request.",
    "sql": "SQL warehouses and statements are not supported: Servery serves models.",
}
"""Databricks' other products that clients of serving endpoints may turn to, whatever they ask there."""
_METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"]


def unsupported_router() -> APIRouter:
    """The routes."""
    router = APIRouter()
    for (method, path), instead in _INSTEAD.items():
        router.add_api_route(path, _refusal(instead), methods=[method], include_in_schema=False)
    for product, instead in _ELSEWHERE.items():
        path = f"/api/2.0/{product}{{rest:path}}"
        router.add_api_route(path, _refusal(instead), methods=_METHODS, include_in_schema=False)
    return router


def _refusal(message: str) -> Callable[[], Awaitable[None]]:
    async def refuse() -> None:
        raise NotImplementedByServery(message)

    return refuse
