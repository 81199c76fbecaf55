"""Compile all modules below a directory. A script for the interpreter of a model's environment, which knows nothing of
Servery: ``python -I -S compile_packages.py DIRECTORY [PARENT]``.

Isolated and without site: compiling runs no code of the packages, not even their .pth files. With PARENT, the id of the
process that wants it, only what nobody else wants of the processors is taken, and it ends with that process.

Python 3.9 and up, standard library only.
"""

import compileall
import contextlib
import ctypes
import os
import re
import signal
import sys
from pathlib import Path

SKIPPED = re.compile(r"[/\\]tests?[/\\]")
"""A package's own tests are a third of its modules and never imported by a model."""
PR_SET_PDEATHSIG = 1
LOWEST_PRIORITY = 19


def step_back(parent: int) -> None:
    """Go behind everybody else, and end with ``parent``."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent:
        os._exit(0)
    # Linux shares processors among sessions first ("autogroup"): within its own, niceness alone would take half of
    # one from those who answer requests.
    os.setsid()
    with contextlib.suppress(OSError):
        Path("/proc/self/autogroup").write_text(str(LOWEST_PRIORITY))
    os.nice(LOWEST_PRIORITY)


def main() -> None:
    """Compile with all processors, or patiently with one."""
    directory, *parent = sys.argv[1:]
    if parent:
        step_back(int(parent[0]))
    # Some packages carry templates that are no valid Python, so it says nothing whether all could be compiled.
    compileall.compile_dir(directory, quiet=2, rx=SKIPPED, workers=1 if parent else 0)


if __name__ == "__main__":
    main()
