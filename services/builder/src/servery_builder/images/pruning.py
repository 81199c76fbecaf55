"""Which images may go when they take more than they should. Pure, and the loop around it.

Never one that an endpoint needs or that is young: its build may just have ended. Of the rest the oldest go first,
models before the environments they are made on, until what is left is small enough. What BuildKit keeps to make images
faster is no image, grows with each build, and is the engine's: the engine is asked to make it small.
"""

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import docker.errors
import structlog

from servery_common.contracts import subjects
from servery_common.contracts.builds import BuildsInUse, ReadBuildsInUse
from servery_common.docker_engine import Engine
from servery_common.errors import ServeryError
from servery_common.messaging.port import Bus

log = structlog.get_logger(__name__)

YOUNG = timedelta(hours=1)
ASK_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class KnownImage:
    """An image this installation made."""

    id: str
    created_at: datetime
    size_bytes: int
    layers: tuple[str, ...]
    build_id: str | None
    """None: an environment or an interpreter, which models share."""


def choose_removed(
    images: Sequence[KnownImage], needed_builds: Collection[str], most_bytes: int, now: datetime
) -> list[str]:
    """Return the ids of images to remove, in order. What several share counts once."""
    kept = list(images)
    removed: list[str] = []
    models = sorted((i for i in images if i.build_id is not None), key=lambda i: i.created_at)
    shared = sorted((i for i in images if i.build_id is None), key=lambda i: (-len(i.layers), i.created_at))
    for image in (*models, *shared):
        if total_bytes(kept) <= most_bytes:
            break
        if image.build_id in needed_builds or now - image.created_at < YOUNG:
            continue
        if image.build_id is None and any(_is_on(other, image) for other in kept if other is not image):
            continue
        kept.remove(image)
        removed.append(image.id)
    return removed


def total_bytes(images: Sequence[KnownImage]) -> int:
    """Return what images take together: a model's layers are mostly its environment's."""
    total = 0
    for image in images:
        below = [other for other in images if other is not image and _is_on(image, other)]
        total += image.size_bytes - max((other.size_bytes for other in below), default=0)
    return total


def _is_on(image: KnownImage, other: KnownImage) -> bool:
    return len(other.layers) < len(image.layers) and image.layers[: len(other.layers)] == other.layers


class ImagePruner:
    """Removes images beyond ``most_bytes``, and of BuildKit's cache what is beyond ``cache_bytes``."""

    def __init__(
        self,
        engine: Engine,
        bus: Bus,
        installation: str,
        most_bytes: int,
        cache_bytes: int,
        every_seconds: float,
    ) -> None:
        self._engine = engine
        self._bus = bus
        self._installation = installation
        self._most_bytes = most_bytes
        self._cache_bytes = cache_bytes
        self._every_seconds = every_seconds

    async def run(self) -> None:
        """Look again and again, for ever."""
        while True:
            await asyncio.sleep(self._every_seconds)
            for what, prune in (("images", self._prune_now), ("build_cache", self.prune_cache)):
                try:
                    await prune()
                except (ServeryError, docker.errors.APIError) as error:
                    log.warning("not_pruned", what=what, reason=str(error))

    async def _prune_now(self) -> None:
        await self.prune(datetime.now(UTC))

    async def prune(self, now: datetime) -> list[str]:
        """Remove what may go; return the ids. Raises ServeryError when it is not known what is needed."""
        images = await self._engine.call(self._list)
        if total_bytes(images) <= self._most_bytes:
            return []
        answer = await self._bus.request(
            subjects.controller_builds_in_use(), ReadBuildsInUse(), BuildsInUse, timeout=ASK_SECONDS
        )
        removed: list[str] = []
        for image_id in choose_removed(images, set(answer.build_ids), self._most_bytes, now):
            try:
                await self._engine.call(lambda client, image_id=image_id: client.images.remove(image_id))
            except docker.errors.APIError as error:
                # A container uses it, or another image is on it: it stays.
                log.info("image_kept", image=image_id, reason=str(error.explanation))
                continue
            removed.append(image_id)
            log.info("image_removed", image=image_id)
        return removed

    async def prune_cache(self) -> int:
        """Have the engine forget what BuildKit used least recently; return the bytes that became free."""
        most = self._cache_bytes
        told = await self._engine.call(lambda client: client.api.prune_builds(keep_storage=most))
        freed = int(told.get("SpaceReclaimed") or 0)
        if freed:
            log.info("build_cache_pruned", freed_bytes=freed, kept_bytes=most)
        return freed

    def _list(self, client: Any) -> list[KnownImage]:
        found = client.images.list(filters={"label": f"servery.installation={self._installation}"})
        return [_known(image) for image in found if image.tags]


def _known(image: Any) -> KnownImage:
    created = datetime.fromisoformat(
        str(image.attrs["Created"])
    )  # with nanoseconds, of which Python takes six digits
    return KnownImage(
        id=image.id,
        created_at=created,
        size_bytes=int(image.attrs["Size"]),
        layers=tuple(image.attrs["RootFS"]["Layers"]),
        build_id=image.labels.get("servery.build"),
    )
