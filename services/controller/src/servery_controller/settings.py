"""The controller's own settings, from the environment (``SERVERY_…``)."""

from typing import Annotated, Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from servery_controller.domain.endpoint_options import SCALE_TO_ZERO_SECONDS
from servery_controller.notifications.notification_sinks import SmtpServer


class ControllerSettings(BaseSettings):
    """Each can be set as ``SERVERY_<NAME>``."""

    model_config = SettingsConfigDict(env_prefix="SERVERY_", hide_input_in_errors=True)

    admin_token: SecretStr
    """The bootstrap administrator's token. Whoever has it may do everything; only its SHA-256 is published."""
    encryption_key: SecretStr
    """32 random bytes in Base64. What is secret in Postgres is encrypted with it; losing it loses those secrets."""
    public_url: str = ""
    """Where clients reach the gateway (``http://host:port``), for models that call back; empty: not said."""
    admin_user: str = "admin"
    """The user the bootstrap token stands for: recorded as the creator of endpoints."""
    workspace_id: str = "1"
    """Numeric, as clients parse it (``X-Databricks-Org-Id``)."""
    served_regions: str = ""
    """Regions whose workspaces are served, with commas between; empty: all. Workspaces without one are served."""
    signing_key_days: float = 30.0
    """A new key signs OAuth access tokens after so many days."""
    access_repair_seconds: float = 60.0
    """How often what gateways know of principals and tokens is compared with Postgres. Changes are published
    at once; this finds what expired, and what was lost."""
    model_timeout_seconds: float = 60.0
    """Longest a model may compute for one request, for new endpoints. Databricks' documented limit."""
    max_stream_seconds: float = Field(default=600.0, gt=0)
    """Longest a streamed answer may go on, however lively it is; between two pieces of it the endpoint's timeout
    applies, to the model and to the client alike. Replicas that are stopped finish their streams: for so long an
    update may use the old config's resources too."""
    max_endpoints_per_workspace: int = 1000
    """Databricks' documented limit. What a creation beyond it is answered says so."""
    notifications_smtp_url: SecretStr | None = None
    """Mail server for ``email_notifications``: ``smtp://user:password@host:port?from=address``, or ``smtps://…``;
    ``&starttls=always`` or ``never`` where the server's offer should not decide. None: no mail is sent."""
    notifications_webhook_url: SecretStr | None = None
    """Gets the same notifications as JSON by POST; secret, as such addresses often hold a key. None: not called."""
    deployment_timeout_seconds: float = 3600.0
    """Longest a config may be pending, builds included, before it fails: whoever waits for it gets an answer."""
    scale_to_zero_seconds: float = Field(
        default=SCALE_TO_ZERO_SECONDS, gt=0, validation_alias="SERVERY_CONTROLLER_SCALE_TO_ZERO_SECONDS"
    )
    """Without a request for so long a served entity that may be scaled to zero is; endpoints can choose another time
    with the tag ``servery.scale_to_zero_seconds``."""
    workspace_compute_slots: int | None = Field(
        default=None, ge=0, validation_alias="SERVERY_CONTROLLER_WORKSPACE_COMPUTE_SLOTS"
    )
    """Slots that the replicas of a workspace may have together (one has 4), where an operator chose no other number
    for it. None: no limit but the workers'."""
    region_compute_slots: Annotated[dict[str, int], NoDecode] = Field(
        default={}, validation_alias="SERVERY_CONTROLLER_REGION_COMPUTE_SLOTS"
    )
    """The same for all workspaces of a region together, as ``eu-west-1=64,us=32``."""
    compute: Literal["process", "docker"] = Field(
        default="process", validation_alias="SERVERY_CONTROLLER_COMPUTE"
    )
    """Where replicas run: ``process``, in workers that join by themselves; ``docker``, in a container each."""
    reconcile_poll_seconds: float = 1.0
    """Look for due endpoints at least this often; hints come earlier. Costs one indexed query."""
    reconcile_concurrency: int = 16
    """Endpoints reconciled at the same time; each may hold one Postgres connection for a moment."""
    sweep_seconds: float = 15.0
    """How often replicas and routes nobody asked for are looked for."""
    worker_settle_seconds: float = 2.5
    """After a start or reconnect every living worker has been heard within this time: heartbeats come each
    second. Before, an absent replica proves nothing."""
    lease_seconds: float = 5.0
    """A leader that does not renew for this long is replaced: the longest standstill after its death."""

    @field_validator("region_compute_slots", mode="before")
    @classmethod
    def _is_slots_by_region(cls, written: object) -> object:
        return slots_by_region(written) if isinstance(written, str) else written

    @field_validator("notifications_smtp_url")
    @classmethod
    def _is_a_mail_server(cls, url: SecretStr | None) -> SecretStr | None:
        if url is not None:
            SmtpServer.parse(url.get_secret_value())
        return url

    @field_validator("notifications_webhook_url")
    @classmethod
    def _is_an_http_address(cls, url: SecretStr | None) -> SecretStr | None:
        if url is not None and not url.get_secret_value().startswith(("http://", "https://")):
            raise ValueError("must start with http:// or https://")
        return url


def slots_by_region(written: str) -> dict[str, int]:
    """Read ``eu-west-1=64,us=32``. Raises ValueError that says what would be right."""
    slots: dict[str, int] = {}
    for part in filter(None, (each.strip() for each in written.split(","))):
        region, _, number = (text.strip() for text in part.rpartition("="))
        if not region or not (number.isascii() and number.isdigit()):
            raise ValueError(f"'{part}' is not a region and its slots: write it as eu-west-1=64")
        if region in slots:
            raise ValueError(f"the region '{region}' is given twice")
        slots[region] = int(number)
    return slots
