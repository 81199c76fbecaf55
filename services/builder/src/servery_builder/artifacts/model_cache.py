"""The files of model versions on the artifact volume, downloaded once.

A version's files never change, so the key is the registry, the name, the version and the source. They are
downloaded beside their place and renamed into it when complete: whoever sees a folder sees a whole model.
"""

import asyncio
import hashlib
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from servery_builder.artifacts.mlflow_registry import ArtifactMissing, MlflowRegistry
from servery_builder.artifacts.model_files import read_within
from servery_builder.domain.build import BuildError
from servery_builder.domain.mlmodel import MlModel, parse_mlmodel
from servery_builder.files import sync_tree
from servery_builder.locks import locked
from servery_common.contracts.builds import FailureCode, ModelResolved


@dataclass(frozen=True)
class LocalModel:
    """A model's files on the artifact volume."""

    path: Path
    mlmodel: MlModel


class ModelCache:
    """All downloaded model versions."""

    def __init__(self, root: Path, registry: MlflowRegistry) -> None:
        self._root = root
        self._registry = registry

    async def fetch(self, version: ModelResolved, say: Callable[[str], None]) -> LocalModel:
        """Return the files of a version, downloading them if needed; raises ``BuildError``."""
        path = self._root / self._key(version)
        if path.is_dir():
            say("The model's files are here already.")
        else:
            lock = self._root / ".locks" / f"{path.name}.lock"

            def on_wait() -> None:
                say("Another build is downloading the same model: waiting for it.")

            async with locked(lock, on_wait=on_wait):
                if not path.is_dir():
                    await self._download(version, path, say)
        return await asyncio.to_thread(_read, path)

    async def _download(self, version: ModelResolved, path: Path, say: Callable[[str], None]) -> None:
        temporary = path.with_name(f".{path.name}.part")
        if temporary.exists():
            await asyncio.to_thread(shutil.rmtree, temporary)
        temporary.mkdir(parents=True)
        say(f"Downloading the model's files from {self._registry.address}.")
        try:
            await self._registry.download(version.name, version.version, temporary)
            size = await asyncio.to_thread(_publish, temporary, path, version)
        except ArtifactMissing as error:
            raise _missing(version) from error
        except OSError:
            await asyncio.to_thread(shutil.rmtree, temporary, ignore_errors=True)
            raise
        say(f"Downloaded {size / 1e6:,.1f} MB.")

    def _key(self, version: ModelResolved) -> str:
        parts = (self._registry.address, version.name, version.version, version.source or "")
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


def _publish(temporary: Path, path: Path, version: ModelResolved) -> int:
    # Checked before the files get their place, so that an incomplete download is not found there later.
    if not (temporary / "MLmodel").is_file():
        raise _missing(version)
    _check_paths(temporary, _read(temporary).mlmodel)
    size = sync_tree(temporary)
    temporary.rename(path)
    return size


def _read(path: Path) -> LocalModel:
    return LocalModel(path, parse_mlmodel(read_within(path, path / "MLmodel")))


def _check_paths(path: Path, mlmodel: MlModel) -> None:
    for needed in mlmodel.paths:
        if not (path / needed).exists():
            raise BuildError(
                FailureCode.ARTIFACT_MISSING,
                f"The model's MLmodel file names {needed}, which is not among its artifacts: somebody deleted it or"
                " the upload was interrupted; log the model again.",
            )


def _missing(version: ModelResolved) -> BuildError:
    return BuildError(
        FailureCode.ARTIFACT_MISSING,
        f"The files of version {version.version} of {version.name} (MLmodel) are not in MLflow's artifact store:"
        " somebody deleted them or the upload was interrupted; log and register the model again.",
    )
