"""The controller's own settings, from the environment (``SERVERY_…``)."""

from pydantic import SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class ControllerSettings(BaseSettings):
    """Each can be set as ``SERVERY_<NAME>``."""

    model_config = SettingsConfigDict(env_prefix="SERVERY_")

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
    deployment_timeout_seconds: float = 3600.0
    """Longest a config may be pending, builds included, before it fails: whoever waits for it gets an answer."""
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
