"""Say a command so that the person can type it: by the path `servery` was called by, at their data directory."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

DATA_DIR_VARIABLE = "SERVERY_DATA_DIR"
DEFAULT_DATA_DIR = Path(".servery")


def command(root: Path, *arguments: str) -> str:
    """Return the command line of `servery` with `arguments`, for the stack at `root`.

    The directory is named only where the command would not find it by itself; then by its whole path, so that the
    command does the same wherever it is typed.
    """
    variable = os.environ.get(DATA_DIR_VARIABLE)
    named = Path(variable) if variable else DEFAULT_DATA_DIR
    # A relative path in the variable means another directory elsewhere, and nobody thinks of it then.
    if root == named.resolve() and (named.is_absolute() or not variable):
        return shlex.join([*_program(_shortest), *arguments])
    return shlex.join([*_program(str), *arguments, "--data-dir", str(root)])


def eval_env(root: Path) -> str:
    """Return what a shell runs to know the stack at `root`."""
    return f'eval "$({command(root, "env")})"'


def _program(write: Callable[[Path], str]) -> list[str]:
    called = Path(sys.argv[0])
    # `python -m servery_local` and the detached supervisor are called by the name of a module.
    script = called if called.name == "servery" else Path(sys.executable).with_name("servery")
    found = shutil.which("servery")
    if found is not None and script.exists() and Path(found).samefile(script):
        return ["servery"]
    if script.exists():
        written = write(script.absolute())
        # A name alone would be looked for on the PATH.
        return [written if os.sep in written else f"{os.curdir}{os.sep}{written}"]
    return [write(Path(sys.executable)), "-m", "servery_local"]


def _shortest(path: Path) -> str:
    """Return a path relative to here unless the absolute one is shorter."""
    return min(os.path.relpath(path), str(path), key=len)
