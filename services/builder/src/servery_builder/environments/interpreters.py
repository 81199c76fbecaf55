"""Find a Python for a model: what is installed first, a download second.

Discovery is uv's. Its answer is kept for a while, since asking takes longer than everything else a cached build does.
"""

import json
import platform
import time
from collections.abc import Callable
from pathlib import Path

from packaging.version import Version

from servery_builder.domain.interpreter import Interpreter, choose, not_available, wanted_version
from servery_builder.environments.uv import Uv

_KEPT_SECONDS = 60.0


class Interpreters:
    """The Pythons of this machine."""

    def __init__(self, uv: Uv, cwd: Path) -> None:
        self._uv = uv
        self._cwd = cwd
        self._installed: list[Interpreter] = []
        self._read_at: float | None = None

    async def find(self, logged: str | None, say: Callable[[str], None]) -> Interpreter:
        """Return the interpreter for a model logged with Python ``logged``; raises ``BuildError``."""
        if logged is None:
            say(f"The model does not say which Python it needs: {platform.python_version()} is assumed.")
        wanted = wanted_version(logged, platform.python_version())
        chosen = choose(wanted, await self._list(fresh=False)) or choose(wanted, await self._list(fresh=True))
        if chosen is None:
            chosen = await self._download(wanted, say)
        if Version(chosen.version) != wanted:
            say(
                f"Python {wanted} is not installed here: Python {chosen.version} is used, the same minor version."
            )
        return chosen

    async def _download(self, wanted: Version, say: Callable[[str], None]) -> Interpreter:
        minor = f"{wanted.major}.{wanted.minor}"
        say(f"No Python {minor} is installed here: downloading one.")
        result = await self._uv.run(
            ["python", "install", "--no-bin", "--color", "never", minor], cwd=self._cwd, on_line=say
        )
        installed = await self._list(fresh=True)
        chosen = choose(wanted, installed) if result.ok else None
        if chosen is None:
            raise not_available(wanted, installed)
        return chosen

    async def _list(self, *, fresh: bool) -> list[Interpreter]:
        now = time.monotonic()
        if fresh or self._read_at is None or now - self._read_at > _KEPT_SECONDS:
            self._installed = await self._read()
            self._read_at = now
        return self._installed

    async def _read(self) -> list[Interpreter]:
        lines: list[str] = []
        # The JSON stands on a line of its own; warnings about broken interpreters stand on others.
        await self._uv.run(
            ["python", "list", "--only-installed", "--no-python-downloads", "--output-format", "json"],
            cwd=self._cwd,
            on_line=lines.append,
        )
        return [
            Interpreter(found["version"], found["path"])
            for line in lines
            if line.startswith("[{")
            for found in json.loads(line)
            if found["implementation"] == "cpython" and found["variant"] == "default" and found["path"]
        ]
