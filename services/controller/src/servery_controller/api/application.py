"""The management API as one FastAPI application. It listens nowhere: ``api.carrier`` runs it."""

from collections.abc import Awaitable, Callable, Iterable

from fastapi import APIRouter, Depends, FastAPI

from servery_controller.api.callers import Confirm, confirming, require_scope
from servery_controller.api.document import add_document
from servery_controller.api.endpoints import endpoints_router
from servery_controller.api.errors import install_error_handlers
from servery_controller.builder_client import BuilderClient
from servery_controller.compute.backend import ComputeBackend
from servery_controller.endpoints.endpoint_service import EndpointService


def make_api(
    service: EndpointService,
    builder: BuilderClient,
    backend: ComputeBackend,
    withdraw_route: Callable[[str], Awaitable[None]],
    confirm: Confirm,
    routers: Iterable[APIRouter],
) -> FastAPI:
    """Return the application: serving endpoints and ``routers``. ``confirm`` checks the caller of every route."""
    # A redirect would lose the body of mlflow's calls with a trailing slash: both spellings are routes.
    app = FastAPI(
        title="Servery",
        redirect_slashes=False,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        dependencies=[Depends(confirming(confirm)), Depends(require_scope)],
    )
    app.include_router(endpoints_router(service, builder, backend, withdraw_route))
    for router in routers:
        app.include_router(router)
    add_document(app)
    install_error_handlers(app)
    return app
