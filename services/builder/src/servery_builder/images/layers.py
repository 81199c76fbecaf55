"""What an image is made of: names, Dockerfiles, labels. Pure (docs/decisions/0026-images-in-layers.md)."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

REPOSITORY = "servery"


@dataclass(frozen=True, slots=True)
class Layer:
    """One folder of the builder's, copied onto another image under the same path."""

    image: str
    """Name of what comes out: ``repository:tag``."""
    base: str
    """What it is copied onto. A name, as a Dockerfile cannot name an image by its content."""
    folder: str
    labels: Mapping[str, str]

    def dockerfile(self) -> str:
        """Return the Dockerfile. It runs nothing, and needs no network."""
        copied = json.dumps(["./", f"{self.folder}/"])
        labels = "".join(f"LABEL {name}={json.dumps(value)}\n" for name, value in sorted(self.labels.items()))
        # Root's: whoever runs in the container reads it and changes nothing.
        return f"FROM {self.base}\nCOPY --chown=0:0 {copied}\n{labels}"


def interpreter_layer(folder: str, base: str, base_id: str, labels: Mapping[str, str]) -> Layer:
    """A Python that uv has downloaded."""
    return Layer(f"{REPOSITORY}/python:{tag(folder, base_id)}", base, folder, labels)


def environment_layer(key: str, folder: str, base: str, base_id: str, labels: Mapping[str, str]) -> Layer:
    """All packages of an environment: shared by every model with these requirements.

    The name has the base in it: a new release of the worker is followed by new environment images.
    """
    return Layer(
        f"{REPOSITORY}/environment:{tag(folder, base_id)}",
        base,
        folder,
        {**labels, "servery.environment": key},
    )


def model_layer(
    build_id: str, model: str, version: str, folder: str, base: str, labels: Mapping[str, str]
) -> Layer:
    """A model's files: all that a new version adds."""
    return Layer(
        f"{REPOSITORY}/model:{build_id}",
        base,
        folder,
        {
            **labels,
            "servery.build": build_id,
            "org.opencontainers.image.title": model,
            "org.opencontainers.image.version": version,
        },
    )


def tag(folder: str, base_id: str) -> str:
    """Return a tag that is another one for another folder, whose name follows from its content, or another base."""
    return hashlib.sha256(f"{folder}\n{base_id}".encode()).hexdigest()[:32]


def interpreter_folder(python: str, artifacts: str) -> str | None:
    """Return the folder of the Python that a virtual environment's link leads to, if it lies among the artifacts.

    ``python`` is the path without links: ``…/pythons/cpython-3.10.19-linux-x86_64-gnu/bin/python3.10``.
    """
    inside = PurePosixPath(python)
    if not inside.is_relative_to(artifacts):
        return None
    return str(inside.parent.parent)
