"""Settings of the gateway, each from one environment variable."""

import sys
from pathlib import Path
from typing import Self

from pydantic import Field, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from servery_common.service import STOP_SECONDS

STOP_MARGIN = 1.0
"""Seconds kept for what follows the last answer: the snapshot is written, connections are closed."""


class GatewaySettings(BaseSettings):
    """``SERVERY_GATEWAY_*``; durations are in seconds, sizes in bytes."""

    model_config = SettingsConfigDict(env_prefix="SERVERY_GATEWAY_", extra="ignore", populate_by_name=True)

    host: str = "127.0.0.1"
    """Address to listen on. The default is not reachable from other machines."""
    port: int = 8080
    """Port to listen on."""
    processes: int = Field(default=1, ge=1, le=128)
    """Gateways that answer on the one port, each in a process of its own: one for each core that scoring should use.
    Limits on memory, such as ``max_held_body_bytes``, are each process'; quotas and rate limits those of all."""
    data_dir: Path = Field(default=Path(".servery/gateway"), validation_alias="SERVERY_DATA_DIR")
    """Where the last-known-good routing snapshot is kept."""
    trusted_proxies: str = ""
    """Addresses or networks, separated by commas, of proxies that end TLS before this gateway. Their X-Forwarded-Proto
    is believed: clients are told https addresses; and their X-Forwarded-For: IP access lists are about the address in
    it. Empty: both headers are ignored."""
    max_body_bytes: int = 16 * 1024 * 1024
    """Longest scoring request. Databricks' limit."""
    max_drain_bytes: int = 64 * 1024 * 1024
    """A longer body is read and thrown away up to here, so that the client sees an answer and not a reset."""
    max_held_body_bytes: int = 1024 * 1024 * 1024
    """Bodies of all requests that are being read, waiting or under way. Beyond it requests are answered 503. Room for
    64 of the longest, and for 32 of one endpoint beside others. The process takes up to one and a half times what it
    holds: 750 MiB were seen with 32 bodies of 16 MB. Never less than ``max_body_bytes``, or the longest request could
    not come in."""
    max_management_body_bytes: int = 1024 * 1024
    """Longest management request; it travels in one message."""
    max_answer_bytes: int = 64 * 1024 * 1024
    """Longest answer of a model that is put together in memory."""
    accept_timeout: float = 0.3
    """A replica that has not accepted a request by then loses it to another one. Far above a healthy
    round trip (1 ms), far below what a caller notices."""
    replica_wait: float = 5.0
    """How long a request waits for the first replica. Shorter than a cold start on purpose: the client
    retries a 503, and a held request is lost when the gateway restarts."""
    max_queue_wait: float = 30.0
    """Longest a request may have to wait for a slot, as estimated when it comes; never so long that its deadline would
    pass. In overload it is about as long as the model takes."""
    max_queued_body_bytes: int = 128 * 1024 * 1024
    """Bodies that wait at one endpoint: an eighth of all that may be held, so that it leaves room for others."""
    max_loop_lag: float = 0.1
    """A gateway whose event loop stays later than this answers new requests 503 until it has caught up."""
    answer_margin: float = 1.0
    """Taken off the endpoint's timeout. databricks-sdk stops reading after exactly 60 s and sends the
    request again; a 504 has to arrive before that."""
    management_timeout: float = 30.0
    """How long the controller may take for a management call."""
    stop_grace: float = Field(default=58.0, ge=0)
    """On SIGTERM, after ``stop_delay``, requests in flight have this long, streamed answers too."""
    stop_delay: float = Field(default=0.0, ge=0)
    """On SIGTERM /readyz fails this long before the port closes, for load balancers that poll it. Together with
    ``stop_grace`` at most 59 s: ``servery_common.service`` ends the process after 60 s."""
    snapshot_debounce: float = 1.0
    """Least time between two writes of the routing snapshot."""
    absence_grace: float = 60.0
    """How long a route that a complete listing did not contain is still believed in."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.processes > 1 and sys.platform != "linux":
            raise ValueError("several processes need Linux: elsewhere no kernel divides a port's connections")
        if self.stop_delay + self.stop_grace > STOP_SECONDS - STOP_MARGIN:
            raise ValueError(
                f"stop_delay and stop_grace are {self.stop_delay + self.stop_grace:g} s together; "
                f"the process is ended {STOP_SECONDS:g} s after SIGTERM: at most {STOP_SECONDS - STOP_MARGIN:g} s"
            )
        if self.max_held_body_bytes < self.max_body_bytes:
            raise ValueError(
                "max_held_body_bytes is less than max_body_bytes: the longest request could not come in"
            )
        return self
