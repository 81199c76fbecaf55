"""Read an ``MLmodel`` file: what the model needs on disk and which MLflow wrote it.

Tolerant on purpose: a model logged by any MLflow since 1.0 should deploy, and flavors this code has never heard
of only have to hold a ``python_function`` flavor to be served.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

import yaml

from servery_builder.domain.build import BuildError
from servery_common.contracts.builds import FailureCode

# Keys under which flavors name files or folders that have to be beside MLmodel.
_PATH_KEYS = ("data", "model_path", "model_data", "pickled_model", "python_model", "code", "model_binary")


@dataclass(frozen=True)
class MlModel:
    """The parts of ``MLmodel`` a build looks at."""

    mlflow_version: str | None
    python_version: str | None
    """Python the model was logged with."""
    python_env_file: str
    conda_file: str
    paths: tuple[str, ...]
    """Files and folders, relative to the model's directory, without which it cannot be loaded."""
    has_input_example: bool


def parse_mlmodel(text: str) -> MlModel:
    """Parse ``MLmodel``; raises ``BuildError`` when it is not a model that can be served."""
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise BuildError(
            FailureCode.ARTIFACT_MISSING, "The model's MLmodel file is not valid YAML; log the model again."
        ) from error
    flavors = _mapping(_mapping(document).get("flavors"))
    pyfunc = _mapping(flavors.get("python_function"))
    if not pyfunc:
        names = ", ".join(sorted(flavors)) or "none"
        raise BuildError(
            FailureCode.LOAD_FAILED,
            f"The model has no python_function flavor (its flavors: {names}), and only models that have one"
            " can be served; log it with an MLflow flavor that supports pyfunc.",
        )
    environment = pyfunc.get("env")
    # A plain string in MLflow before 2.0: the conda file.
    env_files = {"conda": environment} if isinstance(environment, str) else _mapping(environment)
    return MlModel(
        mlflow_version=_text(_mapping(document).get("mlflow_version")),
        python_version=_text(pyfunc.get("python_version")),
        python_env_file=_text(env_files.get("virtualenv")) or "python_env.yaml",
        conda_file=_text(env_files.get("conda")) or "conda.yaml",
        paths=tuple(dict.fromkeys(_paths(flavors))),
        has_input_example=bool(_mapping(document).get("saved_input_example_info")),
    )


def _paths(flavors: Mapping[str, Any]) -> Iterator[str]:
    for flavor in flavors.values():
        settings = _mapping(flavor)
        for key in _PATH_KEYS:
            value = settings.get(key)
            if isinstance(value, str) and _is_relative_path(value):
                yield value
        for artifact in _mapping(settings.get("artifacts")).values():
            path = _mapping(artifact).get("path")
            if isinstance(path, str) and _is_relative_path(path):
                yield path


def _is_relative_path(value: str) -> bool:
    # An absolute path or a URI is where something was when the model was logged, not where it is now.
    return bool(value) and not value.startswith("/") and "://" not in value and ".." not in value.split("/")


def _mapping(value: object) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", value) if isinstance(value, dict) else {}


def _text(value: object) -> str | None:
    # YAML reads an unquoted 3.10 as the number 3.1; MLflow always writes three parts, which stay text.
    return None if value is None else str(value)
