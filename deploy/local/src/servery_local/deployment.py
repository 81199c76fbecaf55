"""Read what a person asks to deploy, and follow the deployment in the API's answers.

Pure: values in, values out. The endpoint commands do the asking and the printing.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from servery_local.errors import LocalError

UV_DETAIL = re.compile(r"(\[[^\]]*\] )?( [-+~] \S|(Resolved|Prepared|Audited) \d+ packages? )")
"""What uv prints beside `Installed N packages`; its lines have a time before them."""
MODEL_URI = re.compile(r"models:/(?P<name>[^/@]+)(?:/(?P<version>\d+)|@(?P<alias>[^/@]+))")


@dataclass(frozen=True)
class ModelReference:
    """A registered model. `version` is a number, or `@` and an alias, as the API wants it."""

    name: str
    version: str


def parse_model_uri(uri: str) -> ModelReference:
    """Return the model that `models:/NAME/VERSION` or `models:/NAME@ALIAS` names."""
    match = MODEL_URI.fullmatch(uri)
    if match is None and uri.startswith("runs:/"):
        # Not registered behind the person's back: a version has a name, an owner and a history of its own.
        raise LocalError(
            f"{uri!r} is a model of a run, and endpoints serve registered models, by models:/NAME/VERSION: register it"
            f" first, in Python with mlflow.register_model({uri!r}, NAME)"
        )
    if match is None:
        raise LocalError(f"{uri!r} names no model: use models:/NAME/VERSION or models:/NAME@ALIAS")
    return ModelReference(match["name"], match["version"] or f"@{match['alias']}")


def parse_assignments(noun: str, assignments: Iterable[str]) -> dict[str, str]:
    """Return what `KEY=VALUE` texts say; ``noun`` is what they are, for the error."""
    parsed: dict[str, str] = {}
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        if not name or not equals:
            raise LocalError(f"{assignment!r} is no {noun}: use KEY=VALUE")
        parsed[name] = value
    return parsed


def config_for(
    model: ModelReference, size: str, *, scale_to_zero: bool, variables: Mapping[str, str]
) -> dict[str, Any]:
    """Return the config of an endpoint that sends all requests to one model."""
    entity: dict[str, Any] = {
        "entity_name": model.name,
        "entity_version": model.version,
        "workload_size": size,
        "scale_to_zero_enabled": scale_to_zero,
    }
    if variables:
        entity["environment_vars"] = dict(variables)
    return {"served_entities": [entity]}


class Outcome(StrEnum):
    """Where a deployment is."""

    GOING_ON = "going_on"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


@dataclass(frozen=True)
class DeploymentView:
    """One look at a deployment."""

    outcome: Outcome
    messages: Mapping[str, str]
    """What the platform says about each served entity, by its name."""

    @property
    def served_entities(self) -> tuple[str, ...]:
        """The served entities of the config that is being deployed."""
        return tuple(self.messages)


def view(endpoint: Mapping[str, Any]) -> DeploymentView:
    """Return what an answer of the API says about the newest config."""
    config = endpoint.get("pending_config") or endpoint.get("config") or {}
    entities = config.get("served_entities") or []
    messages = {
        entity["name"]: (entity.get("state") or {}).get("deployment_state_message") or ""
        for entity in entities
    }
    match endpoint["state"]["config_update"]:
        case "IN_PROGRESS":
            outcome = Outcome.GOING_ON
        case "NOT_UPDATING":
            outcome = Outcome.SUCCEEDED
        case _:
            outcome = Outcome.FAILED
    return DeploymentView(outcome, messages)


def is_starting(endpoint: Mapping[str, Any]) -> bool:
    """Tell whether an endpoint, as listed, does not serve yet and is expected to."""
    state = endpoint.get("state") or {}
    return state.get("ready") != "READY" and state.get("config_update") in {"NOT_UPDATING", "IN_PROGRESS"}


def served_entities(endpoint: Mapping[str, Any]) -> list[str]:
    """Return the names of the served entities of an endpoint, those of a pending config last, each once."""
    configs = [endpoint.get(key) or {} for key in ("config", "pending_config")]
    names = [entity["name"] for config in configs for entity in config.get("served_entities") or ()]
    return list(dict.fromkeys(names))


def abridge(log: str, told: Collection[str] = ()) -> str:
    """Return a build log without the lines that end in one of `told`, and without the packages one by one.

    It still says how many were installed.
    """
    ends = tuple(text for text in told if text)
    lines = log.splitlines(keepends=True)
    return "".join(line for line in lines if not UV_DETAIL.match(line) and not line.rstrip().endswith(ends))


def unseen(seen: str, log: str) -> str:
    """Return the part of a growing log that was not seen; all of it if it is another log."""
    return log.removeprefix(seen) if log.startswith(seen) else log
