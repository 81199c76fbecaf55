"""Puts together what a builder needs where replicas are containers."""

from dataclasses import dataclass

from servery_builder.environments.bytecode import BytecodeCompiler
from servery_builder.images.buildkit import BuildKit
from servery_builder.images.container_verifier import ContainerVerifier
from servery_builder.images.image_builder import ImageBuilder
from servery_builder.images.pruning import ImagePruner
from servery_builder.settings import BuilderSettings
from servery_common.docker_engine import Engine
from servery_common.messaging.port import Bus


@dataclass(frozen=True)
class ContainerParts:
    """On one engine."""

    images: ImageBuilder
    verifier: ContainerVerifier
    pruner: ImagePruner


def container_parts(settings: BuilderSettings, compiler: BytecodeCompiler, bus: Bus) -> ContainerParts:
    """Return them; the engine is connected to when it is first needed."""
    engine = Engine("builder")
    labels = {"servery.installation": settings.image_installation}
    return ContainerParts(
        ImageBuilder(
            engine,
            BuildKit(settings.image_buildx),
            compiler,
            base=settings.image_base,
            artifacts=settings.artifacts_dir.resolve(),
            labels=labels,
        ),
        ContainerVerifier(engine, labels, settings.verification_memory_bytes),
        ImagePruner(
            engine,
            bus,
            settings.image_installation,
            settings.image_cache_bytes,
            settings.engine_cache_bytes,
            settings.image_prune_interval.total_seconds(),
        ),
    )
