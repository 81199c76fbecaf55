"""Small file operations whose order matters when the power fails."""

import errno
import hashlib
import os
from pathlib import Path

_FULL = (errno.ENOSPC, errno.EDQUOT)


def write_durably(path: Path, text: str) -> None:
    """Write a file so that it is either absent or whole, also after a crash of the machine."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def is_disk_full(error: BaseException | None) -> bool:
    """Whether an error, or what it was raised from, is that a disk or a quota is full."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _FULL:
            return True
        error = error.__cause__ or error.__context__
    return False


def sync_directory(path: Path) -> None:
    """Make renames and new names in a folder durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def hash_path(path: Path) -> str:
    """Return a digest of a file, or of a folder's files and their names. Raises ``FileNotFoundError``.

    Bytecode that Python leaves beside a source file it ran is not counted.
    """
    digest = hashlib.sha256()
    files = [path]
    if path.is_dir():
        files = sorted(
            item for item in path.rglob("*") if item.is_file() and item.parent.name != "__pycache__"
        )
    elif not path.is_file():
        # Absent, or a device, which has no end.
        raise FileNotFoundError(path)
    for file in files:
        digest.update(f"{file.relative_to(path)}\0{file.stat().st_size}\0".encode())
        with file.open("rb") as content:
            while block := content.read(1024 * 1024):
                digest.update(block)
    return digest.hexdigest()


def sync_tree(path: Path) -> int:
    """Make a folder's files durable before it is renamed into place; returns their size in bytes."""
    size = 0
    for item in sorted(path.rglob("*")):
        if item.is_symlink():
            continue
        if item.is_dir():
            sync_directory(item)
            continue
        with item.open("rb") as file:
            os.fsync(file.fileno())
            size += os.fstat(file.fileno()).st_size
    sync_directory(path)
    return size
