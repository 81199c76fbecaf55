"""The scaler's own settings, from the environment (``SERVERY_SCALER_…``)."""

from pydantic_settings import BaseSettings, SettingsConfigDict


class ScalerSettings(BaseSettings):
    """Each can be set as ``SERVERY_SCALER_<NAME>``."""

    model_config = SettingsConfigDict(env_prefix="SERVERY_SCALER_")

    tick_seconds: float = 2.0
    """Time between decisions. A decision is cheap; shorter than a gateway's report (1 s) would see nothing new."""
