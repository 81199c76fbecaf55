"""Compile all modules below a directory. A script for the interpreter of a model's environment, which knows nothing of
Servery: ``python -I -S compile_packages.py DIRECTORY [PARENT]``.

Isolated and without site: compiling runs no code of the packages, not even their .pth files. With PARENT, the id of the
process that wants it, only what nobody else wants of the processors is taken, and it ends with that process.

Python 3.9 and up, standard library only.
"""

import compileall
import contextlib
import os
import re
import signal
import sys
import time
from pathlib import Path

SKIPPED = re.compile(r"[/\\]tests?[/\\]")
"""A package's own tests are a third of its modules and never imported by a model."""
PR_SET_PDEATHSIG = 1
LOWEST_PRIORITY = 19
AUTOGROUP = Path("/proc/self/autogroup")
TRIES = 20


def step_back(parent: int) -> None:
    """Go behind everybody else, and end with ``parent``."""
    _die_with_parent()
    if os.getppid() != parent:
        sys.exit("nobody waits for it any more")
    # Linux shares processors among sessions first ("autogroup"): within its own, niceness alone would take half of
    # one from those who answer requests. In a container, whose processes are a group anyway, niceness does.
    os.setsid()
    for _ in range(TRIES):
        try:
            AUTOGROUP.write_text(str(LOWEST_PRIORITY))
        except BlockingIOError:  # Only one on the machine is changed in a tenth of a second.
            time.sleep(0.11)
        except OSError:
            break
        else:
            break
    os.nice(LOWEST_PRIORITY)


def _die_with_parent() -> None:
    if sys.platform == "linux":
        with contextlib.suppress(ImportError, OSError):  # An interpreter without it compiles all the same.
            import ctypes

            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)


def main() -> None:
    """Compile with all processors, or patiently with one."""
    directory, *parent = sys.argv[1:]
    if parent:
        step_back(int(parent[0]))
    # Some packages carry templates that are no valid Python, so it says nothing whether all could be compiled.
    compileall.compile_dir(directory, quiet=2, rx=SKIPPED, workers=1 if parent else 0)


if __name__ == "__main__":
    main()
