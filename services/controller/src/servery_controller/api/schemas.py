"""Request bodies of the management API, in both families (``served_entities`` and legacy ``served_models``).

Shapes follow databricks-sdk. Meaning is checked in ``domain.request``.
"""

from typing import Annotated, Any

from pydantic import Field, ValidationError

from servery_common.contracts.routes import RateLimit
from servery_common.errors import InvalidParameter, NotImplementedByServery
from servery_controller.api.body import ENDPOINT_NAME, Body, Text, Version, Whole, refused
from servery_controller.api.settings_schemas import (
    AiGatewayInput,
    EmailNotificationsInput,
    RateLimitInput,
    TagInput,
)
from servery_controller.domain.endpoint import Route
from servery_controller.domain.request import ConfigRequest, EntityRequest
from servery_controller.domain.sizes import WORKLOAD_SIZES, WORKLOAD_TYPES


class Sizing(Body):
    """Fields served entities and served models share."""

    name: Text | None = None
    workload_size: Text | None = Field(None, json_schema_extra={"enum": [*WORKLOAD_SIZES, None]})
    workload_type: Text | None = Field(None, json_schema_extra={"enum": [*WORKLOAD_TYPES, None]})
    min_provisioned_concurrency: Whole | None = None
    max_provisioned_concurrency: Whole | None = None
    environment_vars: dict[Text, Text] | None = None
    instance_profile_arn: Text | None = None
    external_model: dict[str, Any] | None = None
    min_provisioned_throughput: Whole | None = None
    max_provisioned_throughput: Whole | None = None
    provisioned_model_units: Whole | None = None
    burst_scaling_enabled: bool | None = None

    def to_request(self, entity_name: str, entity_version: str, scale_to_zero_enabled: bool) -> EntityRequest:
        """Return the domain's value. Raises NotImplementedByServery for what serves no custom model."""
        if self.external_model is not None:
            raise NotImplementedByServery(
                "external_model is not supported: Servery serves registered models."
            )
        for field in ("min_provisioned_throughput", "max_provisioned_throughput", "provisioned_model_units"):
            if getattr(self, field) is not None:
                raise NotImplementedByServery(
                    f"{field} is not supported: give workload_size, or min/max_provisioned_concurrency."
                )
        if self.burst_scaling_enabled:
            raise NotImplementedByServery("burst_scaling_enabled is not supported: leave it out.")
        return EntityRequest(
            entity_name=entity_name,
            entity_version=entity_version,
            name=self.name or "",
            workload_size=self.workload_size,
            workload_type="CPU" if self.workload_type is None else self.workload_type,
            scale_to_zero_enabled=scale_to_zero_enabled,
            min_provisioned_concurrency=self.min_provisioned_concurrency,
            max_provisioned_concurrency=self.max_provisioned_concurrency,
            environment_vars=self.environment_vars or {},
            instance_profile_arn=self.instance_profile_arn,
        )


class ServedEntityInput(Sizing):
    """``served_entities[]``."""

    entity_name: Text | None = None
    entity_version: Version | None = None
    scale_to_zero_enabled: bool | None = None


class ServedModelInput(Sizing):
    """Legacy ``served_models[]``."""

    model_name: Text | None = None
    model_version: Version | None = None
    scale_to_zero_enabled: bool | None = None


class RouteInput(Body):
    """``traffic_config.routes[]``. Percentages may be strings: Databricks' own examples send them so."""

    served_entity_name: Text | None = None
    served_model_name: Text | None = None
    traffic_percentage: Whole


class TrafficConfigInput(Body):
    """``traffic_config``."""

    routes: list[RouteInput] = Field(default_factory=list["RouteInput"])


class ConfigInput(Body):
    """The body of an update, and ``config`` of a creation."""

    served_entities: list[ServedEntityInput] | None = None
    served_models: list[ServedModelInput] | None = None
    traffic_config: TrafficConfigInput | None = None
    auto_capture_config: Annotated[
        dict[str, Any] | None,
        refused("auto_capture_config is not supported: Servery has no inference tables. Leave it out."),
    ] = None

    def to_request(self) -> ConfigRequest:
        """Return the domain's value. Raises InvalidParameter for mixed families or missing names."""
        if self.served_entities and self.served_models:
            raise InvalidParameter("Give either served_entities or served_models, not both.")
        entities = [_from_entity(i, e) for i, e in enumerate(self.served_entities or [])]
        entities += [_from_model(i, m) for i, m in enumerate(self.served_models or [])]
        routes = (
            tuple(_route(i, r) for i, r in enumerate(self.traffic_config.routes))
            if self.traffic_config
            else None
        )
        return ConfigRequest(entities=tuple(entities), routes=routes)


class CreateInput(Body):
    """The body of a creation."""

    name: Text = Field(json_schema_extra={**ENDPOINT_NAME})
    config: ConfigInput | None = None
    description: Text | None = None
    tags: list[TagInput] | None = None
    route_optimized: bool | None = None
    rate_limits: list[RateLimitInput] | None = None
    ai_gateway: AiGatewayInput | None = None
    email_notifications: EmailNotificationsInput = EmailNotificationsInput()
    budget_policy_id: Text | None = None
    telemetry_config: Annotated[
        dict[str, Any] | None,
        refused("telemetry_config is not supported: Servery exports OpenTelemetry itself. Leave it out."),
    ] = None

    def wanted_rate_limits(self) -> tuple[RateLimit, ...]:
        """The rate limits, from either field. Raises InvalidParameter when both give some."""
        legacy = tuple(limit.to_domain() for limit in self.rate_limits or ())
        newer = self.ai_gateway.to_domain() if self.ai_gateway else ()
        if legacy and newer:
            raise InvalidParameter("Give either rate_limits or ai_gateway.rate_limits, not both.")
        return legacy or newer


class _VersionInput(Body):
    config_version: Annotated[Whole, Field(ge=0, le=2**31 - 1)] | None = None


def config_version_in(body: bytes) -> int | None:
    """Return the config version that a body names, if it names one. Raises InvalidParameter."""
    if not body.strip():
        return None
    try:
        return _VersionInput.model_validate_json(body).config_version
    except ValidationError as error:
        raise InvalidParameter(f"The body of the request: {error.errors()[0]['msg']}.") from None


def _from_entity(index: int, entity: ServedEntityInput) -> EntityRequest:
    place = f"served_entities[{index}]"
    return entity.to_request(
        _given(entity.entity_name, f"{place}.entity_name"),
        _given(entity.entity_version, f"{place}.entity_version"),
        bool(entity.scale_to_zero_enabled),
    )


def _from_model(index: int, model: ServedModelInput) -> EntityRequest:
    if model.scale_to_zero_enabled is None:
        raise InvalidParameter(
            f"served_models[{index}].scale_to_zero_enabled: scaleToZeroEnabled is undefined. "
            "Please set it to either true or false."
        )
    place = f"served_models[{index}]"
    return model.to_request(
        _given(model.model_name, f"{place}.model_name"),
        _given(model.model_version, f"{place}.model_version"),
        model.scale_to_zero_enabled,
    )


def _route(index: int, route: RouteInput) -> Route:
    names = {n for n in (route.served_entity_name, route.served_model_name) if n}
    if len(names) > 1:
        raise InvalidParameter(
            f"traffic_config.routes[{index}]: served_entity_name and served_model_name name different entities."
        )
    name = _given(next(iter(names), None), f"traffic_config.routes[{index}].served_entity_name")
    return Route(name, route.traffic_percentage)


def _given(value: str | None, field: str) -> str:
    if not value:
        raise InvalidParameter(f"{field} is missing.")
    return value
