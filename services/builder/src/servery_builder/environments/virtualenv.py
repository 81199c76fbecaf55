"""Virtual environments, one per key, made once and then only read.

A virtual environment cannot be moved, so it is made where it stays. Its marker is written last: an entry
without one is what a builder left that was killed, and is made again. The lock of an entry is inherited by
uv, so that an uv which outlives its builder is not joined by a second one.
"""

import asyncio
import json
import os
import platform
import shutil
import sysconfig
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from servery_builder.domain.build import BuildError
from servery_builder.domain.environment_spec import FORMAT_VERSION, EnvironmentSpec, environment_key
from servery_builder.domain.explain import explain_install
from servery_builder.domain.interpreter import Interpreter
from servery_builder.environments.interpreters import Interpreters
from servery_builder.environments.uv import Uv
from servery_builder.files import hash_path, sync_directory, write_durably
from servery_builder.locks import locked

MARKER = ".servery-ready"
"""Exists only in a complete environment."""

# What is written for the installer; gone when the environment is complete, for it may name indexes with passwords.
_INSTALL = "servery-install"

Say = Callable[[str], None]
"""Takes a line for the build log."""


@dataclass(frozen=True)
class Environment:
    """A complete virtual environment."""

    key: str
    path: Path
    python: Path
    cached: bool
    """Whether it existed before."""


class VirtualenvCache:
    """All environments on the artifact volume."""

    def __init__(self, root: Path, uv: Uv, interpreters: Interpreters, *, wheels_only: bool = False) -> None:
        """``wheels_only``: nothing is built from source, as building a package runs its code."""
        self._only = ("--only-binary", ":all:") if wheels_only else ()
        self._root = root
        self._uv = uv
        self._interpreters = interpreters
        self._platform = platform_tag()

    async def ensure(self, spec: EnvironmentSpec, say: Say) -> Environment:
        """Return the environment ``spec`` asks for, making it if needed; raises ``BuildError``."""
        interpreter = await self._interpreters.find(spec.python, say)
        key = await asyncio.to_thread(
            environment_key,
            spec,
            python_version=interpreter.version,
            platform=self._platform,
            hash_path=hash_path,
        )
        path = self._root / key
        if is_complete(path):
            say(f"Environment {key} has these requirements already.")
            return _environment(path, cached=True)
        lock = self._root / ".locks" / f"{key}.lock"

        def on_wait() -> None:
            say("Another build is making the same environment: waiting for it.")

        async with locked(lock, on_wait=on_wait) as held:
            if is_complete(path):
                say(f"Another build has made environment {key}.")
                return _environment(path, cached=True)
            if path.exists():
                say("An unfinished environment of an interrupted build is removed.")
                await asyncio.to_thread(shutil.rmtree, path)
            try:
                await self._make(path, spec, interpreter, say, held)
            except (BuildError, OSError):
                await asyncio.to_thread(shutil.rmtree, path, ignore_errors=True)
                raise
        return _environment(path, cached=False)

    async def _make(
        self, path: Path, spec: EnvironmentSpec, interpreter: Interpreter, say: Say, lock: int
    ) -> None:
        requirements = spec.requirements
        count = len(requirements.lines)
        say(f"Making environment {path.name}: Python {interpreter.version}, {count} requirements.")

        async def run(arguments: Sequence[str]) -> None:
            # In the folder of all environments, not in the model's: a uv.toml among a model's files must not
            # configure the builder's uv.
            result = await self._uv.run(arguments, cwd=self._root, on_line=say, inherit=[lock])
            if not result.ok:
                failure = explain_install(result.output, python_version=interpreter.version)
                raise BuildError(failure.code, failure.reason)

        async def install(*arguments: str) -> None:
            python = str(path / "bin" / "python")
            await run(["pip", "install", "--color", "never", "--python", python, *self._only, *arguments])

        await run(
            ["venv", "--quiet", "--no-project", "--color", "never", "--python", interpreter.path, str(path)]
        )
        (path / _INSTALL).mkdir()
        # Two steps, as MLflow does it: what the model asks for may replace a build dependency.
        if spec.build_dependencies:
            say(f"Installing build dependencies: {', '.join(spec.build_dependencies)}.")
            file = _write_lines(path / _INSTALL / "build-dependencies.txt", spec.build_dependencies)
            await install("--requirements", file)
        say(f"Installing {count} requirements: {', '.join(_shown(requirements.lines))}.")
        await install(*await asyncio.to_thread(self._install_arguments, path, spec))
        await asyncio.to_thread(_complete, path, interpreter)

    def _install_arguments(self, path: Path, spec: EnvironmentSpec) -> list[str]:
        requirements = spec.requirements
        options = [option for option in requirements.options if option != "--pre"]
        lines = [
            _with_copied_source(line, requirements.local_paths, path / _INSTALL / "sources")
            for line in requirements.lines
        ]
        arguments = ["--requirements", _write_lines(path / _INSTALL / "requirements.txt", (*options, *lines))]
        if requirements.constraints:
            arguments += [
                "--constraints",
                _write_lines(path / _INSTALL / "constraints.txt", requirements.constraints),
            ]
        if "--pre" in requirements.options:
            arguments += ["--prerelease", "allow"]
        brings_index = any(option.startswith("--extra-index-url") for option in options)
        if brings_index and not self._uv.sets("UV_INDEX_STRATEGY"):
            # The model comes from an environment pip made, and pip takes the best version of all indexes.
            arguments += ["--index-strategy", "unsafe-best-match"]
        return arguments


def is_complete(path: Path) -> bool:
    """Whether the environment was made to its end and its Python still exists."""
    # bin/python is a link to the interpreter it was made with, which may have been uninstalled.
    return (path / MARKER).is_file() and os.access(path / "bin" / "python", os.X_OK)


def platform_tag() -> str:
    """Return what must be equal for installed packages to be interchangeable, besides the Python version."""
    return f"{sysconfig.get_platform()}-{''.join(platform.libc_ver())}"


def _environment(path: Path, *, cached: bool) -> Environment:
    return Environment(path.name, path, path / "bin" / "python", cached)


def _complete(path: Path, interpreter: Interpreter) -> None:
    shutil.rmtree(path / _INSTALL)
    sync_directory(path)
    write_durably(path / MARKER, json.dumps({"format": FORMAT_VERSION, "python": interpreter.version}))


def _write_lines(path: Path, lines: Sequence[str]) -> str:
    path.write_text("".join(f"{line}\n" for line in lines))
    return str(path)


def _with_copied_source(line: str, local_paths: Sequence[Path], sources: Path) -> str:
    """Return ``line`` with a folder to install replaced by a copy of it."""
    for number, local in enumerate(local_paths):
        rest = line.removeprefix(str(local))
        if rest != line and rest[:1] in {"", "[", " "} and local.is_dir():
            # Building a package writes into its folder, and a model's files must stay as they were logged.
            copy = sources / str(number) / local.name
            shutil.copytree(local, copy)
            return f"{copy}{rest}"
    return line


def _shown(lines: Sequence[str]) -> list[str]:
    most = 12
    names = [line if not line.startswith("/") else Path(line).name for line in lines[:most]]
    return names if len(lines) <= most else [*names, f"and {len(lines) - most} more"]
