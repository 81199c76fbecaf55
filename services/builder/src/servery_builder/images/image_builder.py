"""From a model's files and its environment to an image: which layers are missing, and what comes of them."""

import asyncio
import os
from collections.abc import Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import structlog

from servery_builder.artifacts.model_cache import LocalModel
from servery_builder.domain.build import Build, BuildError
from servery_builder.environments.bytecode import BytecodeCompiler
from servery_builder.environments.virtualenv import Environment
from servery_builder.files import write_durably
from servery_builder.images.buildkit import BuildKit
from servery_builder.images.layers import (
    Layer,
    environment_layer,
    interpreter_folder,
    interpreter_layer,
    model_layer,
)
from servery_builder.images.sbom import bill_of_materials, installed_packages
from servery_builder.locks import locked
from servery_common.contracts.builds import FailureCode
from servery_common.docker_engine import Engine, EngineFailed

log = structlog.get_logger(__name__)

Say = Callable[[str], None]


class ImageBuilder:
    """Makes images on one engine."""

    def __init__(
        self,
        engine: Engine,
        buildkit: BuildKit,
        compiler: BytecodeCompiler,
        *,
        base: str,
        artifacts: Path,
        labels: Mapping[str, str],
    ) -> None:
        """``base`` names the worker's image; ``artifacts`` holds what is copied; everything made has ``labels``."""
        self._engine = engine
        self._buildkit = buildkit
        self._compiler = compiler
        self._base = base
        self._artifacts = artifacts
        self._labels = labels

    async def make(self, build: Build, model: LocalModel, environment: Environment, say: Say) -> str:
        """Return the content id of the model's image. Raises BuildError, or EngineAway: then it can be asked again."""
        try:
            base_id = await self._engine.image_id(self._base)
            if base_id is None:
                raise BuildError(
                    FailureCode.IMAGE_FAILED,
                    f"The worker's image {self._base} is not there: build it (docker compose build worker-image), then"
                    " deploy again.",
                )
            # Replicas cannot write where packages are, so what they do not find compiled they compile at each start.
            await self._compiler.compile_now(environment, say)
            base = await self._interpreter(environment, base_id, say)
            below = environment_layer(environment.key, str(environment.path), base, base_id, self._labels)
            await self._once(below, say)
            layer = model_layer(
                build.build_id,
                build.model_name,
                build.model_version,
                str(model.path),
                below.image,
                self._labels,
            )
            made = await self._buildkit.build(layer, say)
            if await self._engine.image_id(made) != made:
                raise BuildError(
                    FailureCode.IMAGE_FAILED, f"The engine does not have the image {made} it has just made."
                )
        except EngineFailed as error:
            raise BuildError(FailureCode.IMAGE_FAILED, error.message) from error
        say(f"Made image {layer.image} ({made}).")
        bill = await asyncio.to_thread(self._write_bill, build, environment)
        say(f"What it holds: {bill} (CycloneDX).")
        return made

    def _write_bill(self, build: Build, environment: Environment) -> Path:
        file = self._artifacts / "sboms" / f"{build.build_id}.cdx.json"
        file.parent.mkdir(exist_ok=True)
        python = next(environment.path.glob("lib/python*")).name.removeprefix("python")
        packages = installed_packages(environment.path)
        bill = bill_of_materials(
            build.model_name, build.model_version, build.build_id, python, packages, datetime.now(UTC)
        )
        write_durably(file, bill)
        return file

    async def _interpreter(self, environment: Environment, base_id: str, say: Say) -> str:
        folder = interpreter_folder(os.path.realpath(environment.python), str(self._artifacts))
        if folder is None:
            return self._base
        layer = interpreter_layer(folder, self._base, base_id, self._labels)
        await self._once(layer, say)
        return layer.image

    async def _once(self, layer: Layer, say: Say) -> None:
        """Make a layer that others share, unless it is there."""
        if await self._engine.image_id(layer.image) is not None:
            say(f"Image {layer.image} is there already.")
            return
        async with self._alone(layer, say):
            if await self._engine.image_id(layer.image) is None:
                await self._buildkit.build(layer, say)

    @asynccontextmanager
    async def _alone(self, layer: Layer, say: Say):  # noqa: ANN202 - an async context manager
        lock = self._artifacts / ".image-locks" / f"{layer.image.replace('/', '-').replace(':', '-')}.lock"
        await asyncio.to_thread(lock.parent.mkdir, parents=True, exist_ok=True)
        async with locked(
            lock, on_wait=lambda: say("Another build is making the same image: waiting for it.")
        ):
            yield
