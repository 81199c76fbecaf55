"""What a person asks for, and the rules it must follow. Pure.

Every rule raises ``InvalidParameter`` with a sentence that names the field, the value and what would be
right. Limits are Databricks' (databricks.com documentation, "Model Serving limits").
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from servery_common.contracts.replicas import (
    BATCHING_MODES,
    BATCHING_VARIABLE,
    WARM_UP_MODES,
    WARM_UP_VARIABLE,
)
from servery_common.errors import InvalidParameter, NotImplementedByServery
from servery_controller.domain.endpoint import Route
from servery_controller.domain.settings_rules import short as _short
from servery_controller.domain.sizes import SUPPORTED_WORKLOAD_TYPES, WORKLOAD_SIZES, WORKLOAD_TYPES

MAX_SERVED_ENTITIES = 10
MAX_ENVIRONMENT_VARS = 30
MAX_ENVIRONMENT_BYTES = 64 * 1024
"""Names and values together. They travel in one message with every order, and into the model's process."""
MAX_NAME_LENGTH = 63
MAX_CONCURRENCY = 1024

_NAME = re.compile(r"[A-Za-z0-9_-]+")
_SERVED_NAME = re.compile(r"[A-Za-z0-9_.-]+")
_ENVIRONMENT_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OWN_VARIABLES = {
    BATCHING_VARIABLE: (BATCHING_MODES, "requests that wait may be predicted together"),
    WARM_UP_VARIABLE: (WARM_UP_MODES, "a replica predicts the input example before it takes requests"),
}
"""Of environment_vars, those that Servery itself reads: what each may be, the default first, and what it decides."""
_VERSION = re.compile(r"[0-9]{1,9}|@[A-Za-z0-9_.-]{1,255}")


@dataclass(frozen=True, slots=True)
class EntityRequest:
    """One served entity as asked for; the version may still be an alias, the name empty."""

    entity_name: str
    entity_version: str
    name: str = ""
    workload_size: str | None = None
    workload_type: str = "CPU"
    scale_to_zero_enabled: bool = False
    min_provisioned_concurrency: int | None = None
    max_provisioned_concurrency: int | None = None
    environment_vars: dict[str, str] = field(default_factory=dict[str, str])
    instance_profile_arn: str | None = None

    def served_name(self, version: str) -> str:
        """The given name, or ``<last part of the entity name>-<version>``."""
        return self.name or f"{self.entity_name.rsplit('.', 1)[-1]}-{version}"


@dataclass(frozen=True, slots=True)
class ConfigRequest:
    """A config as asked for."""

    entities: tuple[EntityRequest, ...]
    routes: tuple[Route, ...] | None


def check_endpoint_name(name: str) -> None:
    """Raise InvalidParameter unless ``name`` may name an endpoint."""
    if not _NAME.fullmatch(name) or len(name) > MAX_NAME_LENGTH:
        raise InvalidParameter(
            f"Invalid endpoint name {_short(name)}: use 1 to {MAX_NAME_LENGTH} letters, digits, '-' and '_'."
        )
    if name.startswith("databricks-"):
        raise InvalidParameter(f"Invalid endpoint name {_short(name)}: the prefix 'databricks-' is reserved.")


def check_config(config: ConfigRequest) -> None:
    """Raise InvalidParameter for the first rule that the config breaks."""
    if not config.entities:
        raise InvalidParameter("The config has no served entity: give at least one in 'served_entities'.")
    if len(config.entities) > MAX_SERVED_ENTITIES:
        raise InvalidParameter(
            f"The config has {len(config.entities)} served entities; at most {MAX_SERVED_ENTITIES} are allowed."
        )
    for entity in config.entities:
        _check_entity(entity)


def resolve_routes(names: Sequence[str], routes: tuple[Route, ...] | None) -> tuple[Route, ...]:
    """Return the traffic split over the served names; without one, everything goes to the only entity.

    Raises InvalidParameter when names repeat, a route points nowhere or the percentages do not sum to 100.
    """
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise InvalidParameter(f"Served entity names must be unique; repeated: {', '.join(repeated)}.")
    if not routes:
        if len(names) > 1:
            raise InvalidParameter(
                "A config with several served entities needs 'traffic_config.routes' to say how traffic is split."
            )
        return (Route(names[0], 100),)
    seen: set[str] = set()
    for route in routes:
        if route.served_entity_name not in names:
            raise InvalidParameter(
                f"traffic_config routes to {_short(route.served_entity_name)}, which is not a served entity of "
                f"this config ({', '.join(names)})."
            )
        if route.served_entity_name in seen:
            raise InvalidParameter(f"traffic_config routes to {_short(route.served_entity_name)} twice.")
        seen.add(route.served_entity_name)
        if not 0 <= route.traffic_percentage <= 100:
            raise InvalidParameter(
                f"traffic_percentage of {_short(route.served_entity_name)} is {route.traffic_percentage}; "
                "it must be between 0 and 100."
            )
    total = sum(route.traffic_percentage for route in routes)
    if total != 100:
        raise InvalidParameter(f"The traffic percentages sum to {total}; they must sum to 100.")
    return routes


def _check_entity(entity: EntityRequest) -> None:
    if not entity.entity_name:
        raise InvalidParameter("A served entity has no 'entity_name': give the name of a registered model.")
    if not _VERSION.fullmatch(entity.entity_version):
        raise InvalidParameter(
            f"Invalid entity_version {_short(entity.entity_version)} of {_short(entity.entity_name)}: "
            "give a version number such as '3', or an alias such as '@champion'."
        )
    if entity.name and (not _SERVED_NAME.fullmatch(entity.name) or len(entity.name) > MAX_NAME_LENGTH):
        raise InvalidParameter(
            f"Invalid served entity name {_short(entity.name)}: use 1 to {MAX_NAME_LENGTH} letters, digits, "
            "'-', '_' and '.'."
        )
    _check_size(entity)
    _check_environment(entity)


def _check_size(entity: EntityRequest) -> None:
    if entity.workload_size is not None and entity.workload_size not in WORKLOAD_SIZES:
        raise InvalidParameter(
            f"Unknown workload_size {_short(entity.workload_size)}: use one of {', '.join(WORKLOAD_SIZES)}."
        )
    if entity.workload_type not in WORKLOAD_TYPES:
        raise InvalidParameter(
            f"Unknown workload_type {_short(entity.workload_type)}: use one of {', '.join(WORKLOAD_TYPES)}."
        )
    if entity.workload_type not in SUPPORTED_WORKLOAD_TYPES:
        raise NotImplementedByServery(
            f"workload_type '{entity.workload_type}' needs a GPU, and Servery serves on CPUs only: "
            f"use one of {', '.join(SUPPORTED_WORKLOAD_TYPES)}."
        )
    low, high = entity.min_provisioned_concurrency, entity.max_provisioned_concurrency
    if low is None and high is None:
        return
    if entity.workload_size is not None:
        raise InvalidParameter("Give either workload_size or min/max_provisioned_concurrency, not both.")
    if low is None or high is None:
        raise InvalidParameter("min_provisioned_concurrency and max_provisioned_concurrency go together.")
    if not 0 <= low <= high or not 1 <= high <= MAX_CONCURRENCY:
        raise InvalidParameter(
            f"Provisioned concurrency {low} to {high} is not a range between 0 and {MAX_CONCURRENCY}."
        )


def _check_environment(entity: EntityRequest) -> None:
    if len(entity.environment_vars) > MAX_ENVIRONMENT_VARS:
        raise InvalidParameter(
            f"A served entity may have at most {MAX_ENVIRONMENT_VARS} environment_vars; "
            f"this one has {len(entity.environment_vars)}."
        )
    for name in entity.environment_vars:
        if not _ENVIRONMENT_NAME.fullmatch(name):
            raise InvalidParameter(f"{_short(name)} cannot name an environment variable.")
    for name, (modes, meaning) in _OWN_VARIABLES.items():
        mode = entity.environment_vars.get(name, modes[0])
        if mode not in modes:
            raise InvalidParameter(
                f"{name} is {_short(mode)}; it may be {', '.join(modes)}: whether {meaning}."
            )
    size = sum(len(name.encode()) + len(value.encode()) for name, value in entity.environment_vars.items())
    if size > MAX_ENVIRONMENT_BYTES:
        raise InvalidParameter(
            f"The environment_vars of a served entity hold {size} bytes; at most {MAX_ENVIRONMENT_BYTES} are allowed."
        )
