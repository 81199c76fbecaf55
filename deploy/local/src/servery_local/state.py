"""What the supervisor writes about the stack, and what the other commands read.

`state.json` is replaced in one step at every change, so a reader always sees a whole one. It may be
older than the truth after a `kill -9`: readers compare the recorded processes with those that run.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any

from servery_local.data_directory import DataDirectory, read_json, write_json
from servery_local.processes import ProcessIdentity, is_alive


class Phase(StrEnum):
    """Where the whole stack is."""

    STARTING = "starting"  # some component was not ready yet
    RUNNING = "running"  # all have been ready; a single one may be restarting
    STOPPING = "stopping"
    STOPPED = "stopped"


class ComponentState(StrEnum):
    """Where one component is."""

    STARTING = "starting"  # its process runs and is not ready yet
    RUNNING = "running"
    RESTARTING = "restarting"  # it died; the next start waits for the back-off
    STOPPED = "stopped"


@dataclass(frozen=True)
class ComponentStatus:
    """One component. `since` is the wall-clock time (seconds since 1970) of its last start."""

    name: str
    state: ComponentState
    process: ProcessIdentity | None
    stop_signal: signal.Signals
    since: float | None
    ready_seconds: float | None
    restarts: int


@dataclass(frozen=True)
class StackState:
    """The whole stack. `supervisor` is the process that writes this."""

    phase: Phase
    supervisor: ProcessIdentity
    runtime: str
    gateway_url: str
    mlflow_url: str
    """To be shown: it holds no password."""
    database: str = ""
    """Where the files of Postgres lie."""
    database_socket: str = ""
    """The directory of its socket."""
    stop_within: float = 60.0
    """Seconds after which the supervisor has stopped everything, killing what does not obey."""
    components: tuple[ComponentStatus, ...] = ()

    @property
    def is_ready(self) -> bool:
        """Whether every component runs."""
        running = all(each.state is ComponentState.RUNNING for each in self.components)
        return self.phase is Phase.RUNNING and running

    def as_stopped(self) -> StackState:
        """Return the state with nothing running."""
        components = tuple(
            replace(each, state=ComponentState.STOPPED, process=None, since=None) for each in self.components
        )
        return replace(self, phase=Phase.STOPPED, components=components)


def save_state(directory: DataDirectory, state: StackState) -> None:
    """Replace the stored state."""
    write_json(directory.state, asdict(state))


def load_state(directory: DataDirectory) -> StackState | None:
    """Return the stored state as it is; None if there never was one."""
    if not directory.state.exists():
        return None
    return _parse(read_json(directory.state))


def observe_state(directory: DataDirectory) -> StackState | None:
    """Return the stored state corrected by what really runs; None if there never was one."""
    state = load_state(directory)
    if state is not None and not is_alive(state.supervisor):
        return state.as_stopped()
    return state


def describe(state: StackState, now: float | None = None) -> dict[str, Any]:
    """Return what `servery status --json` prints."""
    now = time.time() if now is None else now
    stopped = state.phase is Phase.STOPPED
    return {
        "phase": state.phase,
        "ready": state.is_ready,
        "supervisor_pid": None if stopped else state.supervisor.pid,
        "gateway_url": None if stopped else state.gateway_url,
        "mlflow_url": None if stopped else state.mlflow_url,
        "database": state.database,
        "components": [
            {
                "name": each.name,
                "state": each.state,
                "pid": each.process.pid if each.process else None,
                "uptime_seconds": round(now - each.since, 1) if each.since else None,
                "restarts": each.restarts,
            }
            for each in state.components
        ],
    }


def _parse(document: Mapping[str, Any]) -> StackState:
    parsed: dict[str, Any] = {
        "phase": Phase(document["phase"]),
        "supervisor": ProcessIdentity(**document["supervisor"]),
        "components": tuple(_parse_component(each) for each in document["components"]),
    }
    return StackState(**{**document, **parsed})


def _parse_component(document: Mapping[str, Any]) -> ComponentStatus:
    process = document["process"]
    return ComponentStatus(
        name=document["name"],
        state=ComponentState(document["state"]),
        process=ProcessIdentity(**process) if process else None,
        stop_signal=signal.Signals(document["stop_signal"]),
        since=document["since"],
        ready_seconds=document["ready_seconds"],
        restarts=document["restarts"],
    )
