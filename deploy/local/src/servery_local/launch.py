"""Start a program so that it does not outlive the supervisor, then become that program.

The supervisor runs this file between itself and every child. It asks the kernel for a signal when
the parent dies, gives up root where asked to, and replaces itself with the program, so the pid the
supervisor knows is the program's own. Doing this in a `preexec_fn` would run Python between fork and
exec of a process that has threads; a small program of its own has no such hazard.

It is run by path with `-I -S`, needs only the standard library, and starts in about 20 ms.
The kernel offers the signal on Linux only; elsewhere the next `servery up` ends what was left over.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

PR_SET_PDEATHSIG = 1
NO_CHANGE = -1


def command(
    argv: Sequence[str],
    *,
    death_signal: signal.Signals,
    uid: int | None = None,
    gid: int | None = None,
) -> list[str]:
    """Return the command line that runs `argv` through this launcher.

    The program gets `death_signal` when the calling process dies. With `uid` and `gid` it runs as
    that user, without supplementary groups; only root may ask for that.
    """
    return [
        sys.executable,
        "-I",
        "-S",
        str(Path(__file__).resolve()),
        str(os.getpid()),
        str(int(death_signal)),
        str(NO_CHANGE if uid is None else uid),
        str(NO_CHANGE if gid is None else gid),
        *argv,
    ]


def main(arguments: Sequence[str]) -> None:
    """Become the program in `arguments`: parent pid, signal, uid, gid, then its command line."""
    parent, death_signal, uid, gid = (int(argument) for argument in arguments[:4])
    argv = list(arguments[4:])
    if uid != NO_CHANGE:
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)
    if sys.platform == "linux":
        # After setuid: a change of the user clears the setting.
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, death_signal, 0, 0, 0)
        if os.getppid() != parent:
            sys.exit("the supervisor died before its child was started")
    # Python ignores these two for itself, and ignored signals survive exec.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    try:
        os.execvp(argv[0], argv)
    except OSError as error:
        sys.exit(f"cannot run {argv[0]}: {error.strerror}")


if __name__ == "__main__":
    main(sys.argv[1:])
