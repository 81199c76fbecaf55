"""What a warm parent imports for a model, and which frameworks must not be forked.

Read from the model's own ``MLmodel`` and ``requirements.txt``: both are untrusted text, and all that is taken
from them is keys of the tables below, and names of MLflow's own modules.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

import yaml

FRAMEWORK_MODULES: Mapping[str, tuple[str, ...]] = {
    "catboost": ("catboost",),
    "langchain": ("langchain",),
    "lightgbm": ("lightgbm",),
    "onnx": ("onnxruntime",),
    "onnxruntime": ("onnxruntime",),
    "pmdarima": ("pmdarima",),
    "prophet": ("prophet",),
    "pytorch": ("torch",),
    "scikit-learn": (
        "sklearn",
        "sklearn.compose",
        "sklearn.ensemble",
        "sklearn.linear_model",
        "sklearn.pipeline",
        "skops.io",
    ),
    "scipy": ("scipy",),
    "sentence-transformers": ("sentence_transformers",),
    "spacy": ("spacy",),
    "statsmodels": ("statsmodels.api",),
    "torch": ("torch",),
    "transformers": ("transformers",),
    "xgboost": ("xgboost",),
}
"""Flavor or distribution name -> modules worth having before the fork: those that take long to import."""

FLAVOR_NAMES: Mapping[str, str] = {
    "sklearn": "scikit-learn",
    "sentence_transformers": "sentence-transformers",
}
"""Flavors whose name differs from the distribution's."""

UNFORKABLE: Mapping[str, str] = {
    "h2o": "its client talks to a JVM over a connection that two processes cannot share",
    "jax": "it starts threads when it is imported and warns that a fork may deadlock",
    "johnsnowlabs": "its Spark session talks to a JVM over a connection that two processes cannot share",
    "keras": "it imports TensorFlow or JAX, which do not support fork",
    "polars": "its thread pool holds locks that stay locked in a fork, as its documentation says",
    "spark": "its session talks to a JVM over a connection that two processes cannot share",
    "tensorflow": "its runtime starts threads when it is imported and does not support fork",
}
"""Flavor or distribution name -> why an environment with it starts each runner from nothing."""

_REQUIREMENT_NAME = re.compile(r"^\s*([A-Za-z0-9][A-Za-z0-9._-]*)")
_MLFLOW_MODULE = re.compile(r"mlflow(\.[a-z_]+)+")
_LONGEST_FILE = 1024 * 1024
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""Written in C where libyaml is there: it is on the way of each start."""


class Frameworks(NamedTuple):
    """How to start runners of a model."""

    modules: tuple[str, ...]
    """Imported before the first fork."""
    unforkable: str
    """Why runners must be started from nothing; empty if they may be forked."""


def of_model(model_path: Path) -> Frameworks:
    """Read the model's directory. Files that are missing or unreadable say nothing."""
    flavors = _flavors(_read(model_path / "MLmodel"))
    return choose(flavors, _loader(flavors), _requirements(_read(model_path / "requirements.txt")))


def choose(flavors: Iterable[str], loader: str, requirements: Iterable[str]) -> Frameworks:
    """Decide from the names of flavors, the module MLflow loads the model with, and required distributions."""
    names = {FLAVOR_NAMES.get(name, name) for name in flavors} | set(requirements)
    reasons = [f"{name}: {UNFORKABLE[name]}" for name in sorted(names & UNFORKABLE.keys())]
    modules = [module for name in sorted(names) for module in FRAMEWORK_MODULES.get(name, ())]
    if _MLFLOW_MODULE.fullmatch(loader):
        modules.append(loader)
    return Frameworks(tuple(dict.fromkeys(modules)), "; ".join(reasons))


def _flavors(text: str) -> dict[str, Any]:
    try:
        loaded: Any = yaml.load(text, Loader=_LOADER)
    except yaml.YAMLError:
        return {}
    flavors: Any = cast(dict[str, Any], loaded).get("flavors") if isinstance(loaded, dict) else None
    if not isinstance(flavors, dict):
        return {}
    return {str(name): flavor for name, flavor in cast(dict[Any, Any], flavors).items()}


def _loader(flavors: Mapping[str, Any]) -> str:
    generic = flavors.get("python_function")
    return str(cast(dict[str, Any], generic).get("loader_module")) if isinstance(generic, dict) else ""


def _requirements(text: str) -> set[str]:
    matches = (_REQUIREMENT_NAME.match(line) for line in text.splitlines())
    return {re.sub(r"[._-]+", "-", match[1]).lower() for match in matches if match}


def _read(path: Path) -> str:
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return file.read(_LONGEST_FILE)
    except OSError:
        return ""
