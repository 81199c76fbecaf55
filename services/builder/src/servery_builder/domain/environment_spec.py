"""What environment a model asks for, read from the files MLflow logged with it.

``python_env.yaml`` is the newest form, ``conda.yaml`` the oldest, and some models carry only a
``requirements.txt``. All become one :class:`EnvironmentSpec`; its key is the environment's identity, so two
models that ask for the same things share one environment.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import yaml
from packaging.version import InvalidVersion, Version

from servery_builder.domain.build import BuildError
from servery_builder.domain.mlmodel import MlModel
from servery_builder.domain.model_path import ReadText, inside
from servery_builder.domain.requirements import Requirements, parse_requirements, requirement_name
from servery_common.contracts.builds import FailureCode

FORMAT_VERSION = 1
"""Raised when the way environments are made changes, so that older ones are not used any more."""

HashPath = Callable[[Path], str]
"""Returns a digest of a file's or folder's contents; raises ``FileNotFoundError``."""


@dataclass(frozen=True)
class EnvironmentSpec:
    """The environment a model asks for."""

    python: str | None
    """Version as logged, or None when the model does not say."""
    build_dependencies: tuple[str, ...]
    """Installed first (pip, setuptools, wheel): some packages import them at run time."""
    requirements: Requirements
    notes: tuple[str, ...] = ()
    """What a person reading the build log should know about how the files were read."""


def read_environment_spec(model: MlModel, model_dir: Path, read: ReadText) -> EnvironmentSpec:
    """Read the files of ``model_dir`` that describe the environment; raises ``BuildError``."""
    spec = (
        _from_python_env(model, model_dir, read)
        or _from_conda(model, model_dir, read)
        or _from_requirements(model, model_dir, read)
        or EnvironmentSpec(
            model.python_version,
            (),
            Requirements(),
            (
                "The model carries no python_env.yaml, conda.yaml or requirements.txt: only MLflow is installed.",
            ),
        )
    )
    if spec.python is None and model.python_version is not None:
        spec = replace(spec, python=model.python_version)
    return _with_mlflow(spec, model)


def environment_key(spec: EnvironmentSpec, *, python_version: str, platform: str, hash_path: HashPath) -> str:
    """Return the identity of the environment: equal keys mean interchangeable environments."""
    local = {path.name: _hash(hash_path, path) for path in spec.requirements.local_paths}
    identity = {
        "format": FORMAT_VERSION,
        "python": python_version,
        "platform": platform,
        "build_dependencies": sorted(spec.build_dependencies),
        "requirements": spec.requirements.normalised,
        "options": spec.requirements.options,
        "constraints": sorted(spec.requirements.constraints),
        "local": local,
    }
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:32]


def _hash(hash_path: HashPath, path: Path) -> str:
    try:
        return hash_path(path)
    except FileNotFoundError as error:
        raise BuildError(
            FailureCode.ARTIFACT_MISSING,
            f"The model's requirements install {path.name}, which is not among the model's artifacts; log the model"
            " again with it.",
        ) from error


def _from_python_env(model: MlModel, model_dir: Path, read: ReadText) -> EnvironmentSpec | None:
    document = _yaml(model.python_env_file, model_dir, read)
    if document is None:
        return None
    requirements = parse_requirements(_strings(document.get("dependencies")), model_dir=model_dir, read=read)
    python = document.get("python")
    return EnvironmentSpec(
        None if python is None else str(python), _strings(document.get("build_dependencies")), requirements
    )


def _from_conda(model: MlModel, model_dir: Path, read: ReadText) -> EnvironmentSpec | None:
    document = _yaml(model.conda_file, model_dir, read)
    if document is None:
        return None
    python: str | None = None
    pip_lines: tuple[str, ...] = ()
    dropped: list[str] = []
    for dependency in cast("Sequence[Any]", document.get("dependencies") or ()):
        if isinstance(dependency, dict):
            pip_lines += _strings(cast("Mapping[str, Any]", dependency).get("pip"))
            continue
        name, version = _conda_package(str(dependency))
        if name == "python":
            python = version
        elif name not in {"pip", "setuptools", "wheel"}:
            dropped.append(str(dependency))
    notes = [
        "The model carries no python_env.yaml: conda.yaml is used, its pip section and its Python version."
    ]
    if dropped:
        notes.append(
            f"Warning: conda packages are not installed: {', '.join(dropped)}. If the model needs them, log it with"
            " their PyPI counterparts (extra_pip_requirements=[...])."
        )
    requirements = parse_requirements(pip_lines, model_dir=model_dir, read=read)
    return EnvironmentSpec(python, (), requirements, tuple(notes))


def _from_requirements(model: MlModel, model_dir: Path, read: ReadText) -> EnvironmentSpec | None:
    try:
        lines = read(model_dir / "requirements.txt").splitlines()
    except FileNotFoundError:
        return None
    return EnvironmentSpec(
        model.python_version,
        (),
        parse_requirements(lines, model_dir=model_dir, read=read),
        ("The model carries no python_env.yaml or conda.yaml: requirements.txt is used.",),
    )


def _with_mlflow(spec: EnvironmentSpec, model: MlModel) -> EnvironmentSpec:
    if spec.requirements.names & {"mlflow", "mlflow-skinny"}:
        return spec
    line = f"mlflow=={model.mlflow_version}" if _is_release(model.mlflow_version) else "mlflow"
    requirements = replace(
        spec.requirements,
        lines=(*spec.requirements.lines, line),
        normalised=tuple(sorted({*spec.requirements.normalised, line})),
        names=spec.requirements.names | {"mlflow"},
    )
    note = f"The model's requirements do not list MLflow, which loads it: {line} is added."
    return replace(spec, requirements=requirements, notes=(*spec.notes, note))


def _is_release(version: str | None) -> bool:
    try:
        return version is not None and not Version(version).is_devrelease
    except InvalidVersion:
        return False


def _conda_package(dependency: str) -> tuple[str, str | None]:
    name, _, version = dependency.replace("==", "=").partition("=")
    if not name.isidentifier() and any(mark in name for mark in "<>"):
        return requirement_name(name) or name, None
    # A build string may follow: python=3.11.7=h0 .
    return name.strip().lower(), version.partition("=")[0].strip() or None


def _yaml(name: str, model_dir: Path, read: ReadText) -> Mapping[str, Any] | None:
    try:
        document = yaml.safe_load(read(inside(model_dir, model_dir / name, name)))
    except FileNotFoundError:
        return None
    except yaml.YAMLError as error:
        raise BuildError(
            FailureCode.INSTALL_FAILED, f"The model's {name} is not valid YAML; log the model again."
        ) from error
    return cast("Mapping[str, Any]", document) if isinstance(document, dict) else {}


def _strings(value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        return ()
    # Only scalars: YAML's aliases make nested lists whose text would not fit into memory.
    return tuple(str(item) for item in cast("list[object]", value) if isinstance(item, str | int | float))
