"""The scaler's own settings, from the environment (``SERVERY_SCALER_…``)."""

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from servery_scaler.autoscaler import ScalingPolicy


class ScalerSettings(BaseSettings):
    """Each can be set as ``SERVERY_SCALER_<NAME>``; durations are in seconds. The defaults were chosen with the
    simulator (docs/autoscaling.md) on other traffic than it reports on."""

    model_config = SettingsConfigDict(env_prefix="SERVERY_SCALER_")

    tick_seconds: float = Field(default=1.0, gt=0)
    """Time between decisions. Shorter than a gateway's report (1 s) would see nothing new."""
    stable_window: float = Field(default=120.0, ge=1)
    """Replicas go only when the busiest seconds of so long would have done without them. Longer keeps replicas through
    pauses between bursts, shorter pays less after them."""
    panic_window: float = Field(default=2.0, ge=1)
    """In panic, the mean of so long counts and not the one of ``up_window``."""
    panic_threshold: float = Field(default=2.0, gt=1)
    """It is panic when there is so many times the load that ready replicas should have (Knative's 200 %)."""
    panic_hold: float = Field(default=20.0, ge=0)
    """No replica goes for so long after panic was last seen."""
    up_window: float = Field(default=5.0, ge=1)
    """Replicas are added for the mean load of so long. Longer follows chance less, shorter follows demand faster."""
    safety: float = Field(default=0.7, ge=0)
    """Square roots of the load that there is room for beside the load; more is safer and costs more."""
    drain_seconds: float = Field(default=0.3, gt=0)
    """There is to be room to work off requests that wait in so long."""
    down_share: float = Field(default=0.1, gt=0, le=1)
    """Share of the replicas that go at a time, at least one."""
    down_interval: float = Field(default=2.0, ge=0)
    """Time between two steps down."""
    learn_seconds: float = Field(default=30.0, gt=0)
    """Time between two changes of a learned target concurrency (Databricks' AutoPilot: 30 s)."""

    def policy(self) -> ScalingPolicy:
        """Return the part of them that decisions depend on."""
        return ScalingPolicy(**self.model_dump(exclude={"tick_seconds"}))
