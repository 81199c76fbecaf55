"""Run uv: list arguments, a scrubbed environment, its output line by line.

uv resolves, downloads and builds packages, and building one runs its setup code. That code sees none of Servery's
variables and no credentials but the ones meant for package indexes.
"""

import asyncio
import os
import signal
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from uv import find_uv_bin

_PASSED_ON = frozenset(
    {
        "HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "TZ", "TMPDIR", "TMP", "TEMP", "NETRC",
        "CC", "CXX", "CFLAGS", "CXXFLAGS", "CPPFLAGS", "LDFLAGS", "LD_LIBRARY_PATH", "PKG_CONFIG_PATH",
        "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "GIT_SSL_CAINFO", "GIT_SSL_CERT",
    }
)  # fmt: skip
_PASSED_ON_PREFIXES = ("UV_", "SSL_", "XDG_", "LC_")
# They would make uv build something else than the environment it is told to.
_NEVER_PASSED_ON = frozenset(
    {"UV_PROJECT_ENVIRONMENT", "UV_SYSTEM_PYTHON", "UV_PYTHON", "UV_CONSTRAINT", "UV_OVERRIDE"}
)
_LINES_KEPT = 4000
_LONGEST_LINE = 64 * 1024


@dataclass(frozen=True)
class UvResult:
    """How a run of uv ended."""

    exit_code: int
    output: str
    """The last lines it printed, standard error included."""

    @property
    def ok(self) -> bool:
        return self.exit_code == 0


class Uv:
    """The uv that is installed with the builder."""

    def __init__(self, environment: Mapping[str, str], binary: str | None = None) -> None:
        """``environment`` is the builder's own; what uv sees is taken from it."""
        self._binary = binary or find_uv_bin()
        self._environment = scrub(environment)

    def sets(self, variable: str) -> bool:
        """Whether whoever runs the builder decided this ``UV_*`` setting."""
        return variable in self._environment

    async def run(
        self,
        arguments: Sequence[str],
        *,
        cwd: Path,
        on_line: Callable[[str], None] | None = None,
        inherit: Sequence[int] = (),
    ) -> UvResult:
        """Run uv to its end; cancelling ends it and everything it started.

        ``inherit`` are descriptors it keeps open: a lock held that way lasts until uv is gone, even when the
        builder is killed and uv is not.
        """
        process = await asyncio.create_subprocess_exec(
            self._binary,
            *arguments,
            cwd=cwd,
            env=self._environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            limit=_LONGEST_LINE,
            start_new_session=True,
            pass_fds=tuple(inherit),
        )
        kept: deque[str] = deque(maxlen=_LINES_KEPT)
        try:
            assert process.stdout is not None
            async for line in _lines(process.stdout):
                kept.append(line)
                if on_line is not None:
                    on_line(line)
            exit_code = await process.wait()
        finally:
            if process.returncode is None:
                _kill_group(process.pid)
                await process.wait()
        return UvResult(exit_code, "\n".join(kept))


def scrub(environment: Mapping[str, str]) -> dict[str, str]:
    """Return what uv and the build backends it starts may see of the builder's environment variables."""
    kept = {
        name: value
        for name, value in environment.items()
        if name not in _NEVER_PASSED_ON
        and (name in _PASSED_ON or name.startswith(_PASSED_ON_PREFIXES) or name.lower().endswith("_proxy"))
    }
    return kept | {
        "PATH": search_path(environment),
        "NO_COLOR": "1",
        "UV_NO_PROGRESS": "1",
        "PYTHONUTF8": "1",
    }


def search_path(environment: Mapping[str, str]) -> str:
    """Return the ``PATH`` on which interpreters and compilers are looked for.

    pyenv, which MLflow itself installs Pythons with, puts shims on the path that fail for every version that is not
    selected; the interpreters behind them are named instead.
    """
    root = Path(environment.get("PYENV_ROOT") or Path(environment.get("HOME") or "/") / ".pyenv")
    entries = [entry for entry in environment.get("PATH", os.defpath).split(os.pathsep) if entry]
    versions = sorted(root.glob("versions/*/bin"))
    kept = [entry for entry in entries if Path(entry) != root / "shims"]
    return os.pathsep.join([*kept, *map(str, versions)])


async def _lines(stream: asyncio.StreamReader):  # noqa: ANN202 - an async generator of str
    while True:
        try:
            raw = await stream.readuntil(b"\n")
        except asyncio.IncompleteReadError as end:
            raw = end.partial
        except asyncio.LimitOverrunError:
            raw = await stream.read(_LONGEST_LINE)
        if not raw:
            return
        yield raw.decode(errors="replace").rstrip()


def _kill_group(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
