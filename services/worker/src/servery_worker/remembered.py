"""Which environments were warm, kept in a file of the worker's data directory for the time after a restart."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Self

import structlog
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from servery_common.contracts.builds import Artifacts

log = structlog.get_logger(__name__)


class Remembered(BaseModel):
    """What it takes to start a warm parent, and what it held."""

    model_config = ConfigDict(frozen=True)

    environment_key: str
    environment_path: str
    python: str
    modules: tuple[str, ...]
    memory_bytes: int

    @classmethod
    def of(cls, artifacts: Artifacts, modules: tuple[str, ...], memory_bytes: int) -> Self:
        """Of a warm parent that is there."""
        return cls(
            environment_key=artifacts.environment_key,
            environment_path=artifacts.environment_path,
            python=artifacts.python,
            modules=modules,
            memory_bytes=memory_bytes,
        )

    @property
    def artifacts(self) -> Artifacts:
        """As a warm parent is started with: of no model."""
        return Artifacts(
            model_path="",
            environment_path=self.environment_path,
            python=self.python,
            environment_key=self.environment_key,
        )


_LIST = TypeAdapter(list[Remembered])


class WarmList:
    """The file: environments, the ones used last first."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._written: list[Remembered] | None = None

    def read(self) -> list[Remembered]:
        """What was written last; nothing when there is no file, or an unreadable one: then starts are slower once."""
        try:
            return _LIST.validate_json(self._path.read_bytes())
        except FileNotFoundError:
            return []
        except (OSError, ValidationError) as error:
            log.warning("warm_list_unreadable", path=str(self._path), error=repr(error))
            return []

    def write(self, environments: list[Remembered]) -> None:
        """Replace the list, if it is another one."""
        if environments == self._written:
            return
        fresh = self._path.with_suffix(".fresh")
        try:
            fresh.write_text(json.dumps([one.model_dump() for one in environments]))
            fresh.replace(self._path)
        except OSError as error:
            log.warning("warm_list_not_written", path=str(self._path), error=repr(error))
        # Also when it failed: a full disk is not told of every second.
        self._written = environments


def within(budget_bytes: int, environments: Iterable[Remembered]) -> list[Remembered]:
    """The first of them that the budget holds together."""
    chosen: list[Remembered] = []
    for one in environments:
        budget_bytes -= one.memory_bytes
        if budget_bytes < 0:
            break
        chosen.append(one)
    return chosen
