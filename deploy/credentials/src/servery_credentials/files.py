"""Write files that others read while they are replaced."""

import os
from pathlib import Path


def write(path: Path, content: bytes, *, mode: int = 0o400, owner: int | None = None) -> None:
    """Put ``content`` in the place of the file at once: whoever reads sees the old one or the new one, whole.

    ``owner`` is a user id, and the id of its group; None leaves it to whoever runs this.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if owner is not None:
            os.chown(fresh, owner, owner)
        fresh.chmod(mode)
        fresh.replace(path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise


def keep(path: Path, content: str, owner: int | None) -> None:
    """See that the file has this content."""
    if not path.exists() or path.read_text() != content:
        write(path, content.encode(), owner=owner)
