"""End what a killed supervisor left running, before the data directory is used again.

A child gets its stop signal from the kernel when the supervisor dies, so usually nothing is left.
This is for what did not obey, for grandchildren, and for systems without that signal. A process is
touched only if it is the recorded one, descends from one, or carries the id of this very stack.
"""

from __future__ import annotations

import signal
from contextlib import suppress
from pathlib import Path

from servery_local import processes
from servery_local.data_directory import DataDirectory
from servery_local.processes import ProcessIdentity
from servery_local.state import load_state, save_state

OBEY_WITHIN = 5.0
STOP_WITHIN = 10.0
KILLED_WITHIN = 5.0


def end_leftovers(directory: DataDirectory) -> int:
    """End all processes of an earlier run; the caller holds the lock. Returns how many there were.

    Also corrects the stored state and removes the sockets of that run.
    """
    state = load_state(directory)
    if state is None:
        return 0
    recorded = {
        each.process: each.stop_signal
        for each in state.components
        if each.process is not None and processes.is_alive(each.process)
    }
    below = {child for identity in recorded for child in processes.descendants(identity.pid)}
    carrying = set(processes.carrying(directory.load_secrets().stack_id))
    found = {*recorded, *below, *carrying}

    # The children may still be busy obeying the signal they got when the supervisor died.
    processes.wait_gone(recorded, OBEY_WITHIN)
    for identity in found:
        _send(identity, recorded.get(identity, signal.SIGTERM))
    left = processes.wait_gone(found, STOP_WITHIN)
    for identity in left:
        _send(identity, signal.SIGKILL)
    processes.wait_gone(left, KILLED_WITHIN)
    save_state(directory, state.as_stopped())
    directory.remove_runtime(Path(state.runtime))
    return len(found)


def _send(identity: ProcessIdentity, number: signal.Signals) -> None:
    with suppress(PermissionError):
        processes.send(identity, number)
