"""Say a command so that the person can type it: by the path `servery` was called by, at their data directory."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path

DATA_DIR_VARIABLE = "SERVERY_DATA_DIR"
DEFAULT_DATA_DIR = Path(".servery")


def command(root: Path, *arguments: str) -> str:
    """Return the command line of `servery` with `arguments`, for the stack at `root`.

    The directory is named only where the command would not find it by itself.
    """
    default = Path(os.environ.get(DATA_DIR_VARIABLE) or DEFAULT_DATA_DIR).resolve()
    where = () if root == default else ("--data-dir", _shortest(root))
    return shlex.join([*_program(), *arguments, *where])


def eval_env(root: Path) -> str:
    """Return what a shell runs to know the stack at `root`."""
    return f'eval "$({command(root, "env")})"'


def _program() -> list[str]:
    called = Path(sys.argv[0])
    # `python -m servery_local` and the detached supervisor are called by the name of a module.
    script = called if called.name == "servery" else Path(sys.executable).with_name("servery")
    found = shutil.which("servery")
    if found is not None and script.exists() and Path(found).samefile(script):
        return ["servery"]
    if script.exists():
        shortest = _shortest(script.absolute())
        # A name alone would be looked for on the PATH.
        return [shortest if os.sep in shortest else f"{os.curdir}{os.sep}{shortest}"]
    return [_shortest(Path(sys.executable)), "-m", "servery_local"]


def _shortest(path: Path) -> str:
    """Return a path relative to here unless the absolute one is shorter."""
    return min(os.path.relpath(path), str(path), key=len)
