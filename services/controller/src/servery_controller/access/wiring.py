"""Puts this package together: the part of the composition root that is about access."""

import asyncio
from dataclasses import dataclass
from datetime import timedelta

import structlog
from fastapi import APIRouter

from servery_common.contracts import subjects
from servery_common.contracts.access import FindToken, IssueModelToken, IssueToken
from servery_common.errors import ServeryError
from servery_common.messaging.port import Bus
from servery_common.postgres.pool import OUTAGE, Pool
from servery_common.service import ServiceContext
from servery_controller.access.authority import Authority
from servery_controller.access.bootstrap import ensure_bootstrap
from servery_controller.access.directory_service import DirectoryService
from servery_controller.access.identity_store import Identities
from servery_controller.access.ip_access_service import IpAccessService
from servery_controller.access.oauth import OauthService
from servery_controller.access.publisher import AccessPublisher
from servery_controller.access.quota_service import QuotaService
from servery_controller.access.signing import Signer
from servery_controller.access.token_service import TokenService
from servery_controller.access.workspace_service import WorkspaceService
from servery_controller.api.ip_access import ip_access_router
from servery_controller.api.quotas import quotas_router
from servery_controller.api.scim import scim_router
from servery_controller.api.service_principal_secrets import service_principal_secrets_router
from servery_controller.api.tokens import tokens_router
from servery_controller.api.workspaces import workspaces_router
from servery_controller.encryption import Cipher
from servery_controller.endpoints.endpoint_changes import EndpointChanges
from servery_controller.settings import ControllerSettings

log = structlog.get_logger(__name__)

_ROTATION_CHECK_SECONDS = 600.0
DEFAULT_ISSUER = "servery"


@dataclass(frozen=True, slots=True)
class Access:
    """What the rest of the controller needs."""

    publisher: AccessPublisher
    authority: Authority
    routers: tuple[APIRouter, ...]


async def start_access(
    context: ServiceContext,
    settings: ControllerSettings,
    pool: Pool,
    bus: Bus,
    cipher: Cipher,
    changes: EndpointChanges,
) -> Access:
    """Make the bootstrap administrator, publish who may call and answer gateways and workers.

    Returns once gateways can know everything Postgres knows.
    """
    await ensure_bootstrap(
        pool,
        token=settings.admin_token.get_secret_value(),
        user_name=settings.admin_user,
        workspace_id=settings.workspace_id,
    )
    regions = frozenset(region.strip() for region in settings.served_regions.split(",") if region.strip())
    identities = Identities(regions)
    publisher = AccessPublisher(bus, pool, identities, settings.access_repair_seconds)
    signer = Signer(
        pool,
        cipher,
        publisher.keys_changed,
        issuer=settings.public_url or DEFAULT_ISSUER,
        rotation=timedelta(days=settings.signing_key_days),
    )
    tokens = TokenService(pool, publisher, identities)
    oauth = OauthService(pool, signer, settings.public_url)
    context.spawn("access", publisher.run())
    await signer.rotate()
    await publisher.published.wait()
    context.spawn("signing keys", _rotate(signer))
    queue = subjects.CONTROLLER_QUEUE
    await bus.serve(subjects.controller_find_token(), FindToken, tokens.find, queue=queue)
    await bus.serve(subjects.controller_issue_token(), IssueToken, oauth.issue, queue=queue)
    await bus.serve(
        subjects.controller_issue_model_token(), IssueModelToken, oauth.issue_for_model, queue=queue
    )
    return Access(
        publisher=publisher,
        authority=Authority(pool, identities),
        routers=(
            scim_router(DirectoryService(pool, publisher, changes)),
            tokens_router(tokens),
            service_principal_secrets_router(oauth),
            workspaces_router(WorkspaceService(pool, publisher, tokens, settings.workspace_id)),
            quotas_router(QuotaService(pool, publisher), settings.workspace_compute_slots),
            ip_access_router(IpAccessService(pool, publisher)),
        ),
    )


async def _rotate(signer: Signer) -> None:
    while True:
        await asyncio.sleep(_ROTATION_CHECK_SECONDS)
        try:
            await signer.rotate()
        except (ServeryError, *OUTAGE) as error:  # the next round tries again
            log.warning("signing_keys_not_rotated", error=str(error))
