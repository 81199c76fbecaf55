"""The management API as one FastAPI application. It listens nowhere: ``api.carrier`` runs it."""

from collections.abc import Awaitable, Callable

from fastapi import FastAPI

from servery_controller.api.endpoints import endpoints_router
from servery_controller.api.errors import install_error_handlers
from servery_controller.api.identity import identity_router
from servery_controller.api.permissions import permissions_router
from servery_controller.builder_client import BuilderClient
from servery_controller.compute.backend import ComputeBackend
from servery_controller.endpoint_service import EndpointService
from servery_controller.permission_service import PermissionService


def make_api(
    service: EndpointService,
    permissions: PermissionService,
    builder: BuilderClient,
    backend: ComputeBackend,
    withdraw_route: Callable[[str], Awaitable[None]],
) -> FastAPI:
    """Return the application."""
    # A redirect would lose the body of mlflow's calls with a trailing slash: both spellings are routes.
    app = FastAPI(title="Servery", redirect_slashes=False, docs_url=None, redoc_url=None, openapi_url=None)
    app.include_router(endpoints_router(service, builder, backend, withdraw_route))
    app.include_router(permissions_router(permissions))
    app.include_router(identity_router())
    install_error_handlers(app)
    return app
