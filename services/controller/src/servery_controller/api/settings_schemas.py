"""Request bodies of what an endpoint is given beside its config: tags, rate limits, recipients of notifications."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator

from servery_common.contracts.routes import RateLimit
from servery_common.errors import InvalidParameter, NotImplementedByServery
from servery_controller.api.body import Body, Text, Whole, refused
from servery_controller.domain.endpoint import EmailNotifications


def _or_empty(value: Any) -> Any:
    return "" if value is None else value


class TagInput(Body):
    """``tags[]``."""

    key: Text
    value: Annotated[Text, BeforeValidator(_or_empty)] = ""


class RateLimitInput(Body):
    """Legacy ``rate_limits[]``. Calls may be a string, as Databricks' own examples write numbers."""

    calls: Whole
    key: Literal["endpoint", "user"] | None = None
    renewal_period: Literal["minute"]

    def to_domain(self) -> RateLimit:
        """Return the contract's value."""
        return RateLimit(key=self.key or "endpoint", calls=self.calls)


class EmailNotificationsInput(Body):
    """``email_notifications``."""

    on_update_success: list[Text] | None = None
    on_update_failure: list[Text] | None = None

    def to_domain(self) -> EmailNotifications:
        """Return the domain's value."""
        return EmailNotifications(tuple(self.on_update_success or ()), tuple(self.on_update_failure or ()))


class AiGatewayRateLimitInput(Body):
    """``ai_gateway.rate_limits[]``."""

    calls: Whole | None = None
    tokens: Whole | None = None
    key: Literal["endpoint", "user", "user_group", "service_principal"] | None = None
    principal: Text | None = None
    renewal_period: Literal["minute"]

    def to_domain(self, index: int) -> RateLimit:
        """Return the contract's value. Raises NotImplementedByServery, or InvalidParameter without calls."""
        place = f"ai_gateway.rate_limits[{index}]"
        if self.tokens is not None:
            raise NotImplementedByServery(f"{place}.tokens is not supported: limit calls.")
        if self.principal is not None:
            raise NotImplementedByServery(
                f"{place}.principal is not supported: limit by 'endpoint' or 'user'."
            )
        if self.key is not None and self.key not in ("endpoint", "user"):
            raise NotImplementedByServery(
                f"{place}.key '{self.key}' is not supported: use 'endpoint' or 'user'."
            )
        if self.calls is None:
            raise InvalidParameter(f"{place}.calls is missing.")
        return RateLimit(key=self.key or "endpoint", calls=self.calls)


class AiGatewayInput(Body):
    """``ai_gateway``: of it, Servery has rate limits. What is off may be sent, as clients write whole objects."""

    rate_limits: list[AiGatewayRateLimitInput] | None = None
    guardrails: Annotated[
        dict[str, Any] | None, refused("ai_gateway.guardrails is not supported: leave it out.")
    ] = None
    fallback_config: Annotated[
        dict[str, Any] | None, refused("ai_gateway.fallback_config is not supported: leave it out.")
    ] = None
    inference_table_config: Annotated[
        dict[str, Any] | None, refused("ai_gateway.inference_table_config is not supported: leave it out.")
    ] = None
    usage_tracking_config: Annotated[
        dict[str, Any] | None, refused("ai_gateway.usage_tracking_config is not supported: leave it out.")
    ] = None

    def to_domain(self) -> tuple[RateLimit, ...]:
        """Return the rate limits. Raises NotImplementedByServery for limits of another kind."""
        return tuple(limit.to_domain(i) for i, limit in enumerate(self.rate_limits or ()))


class TagsInput(Body):
    """The body of a change of tags."""

    add_tags: list[TagInput] | None = None
    delete_tags: list[Text] | None = None


class RateLimitsInput(Body):
    """The body of new rate limits."""

    rate_limits: list[RateLimitInput] | None = None


class NotificationsInput(Body):
    """The body of new recipients."""

    email_notifications: EmailNotificationsInput = EmailNotificationsInput()
