"""The overlay: the only files of Servery that exist inside a model's environment.

A directory named after the hash of its content, so that a new release makes a new one and warm parents of
the old one keep theirs.
"""

import hashlib
import shutil
import tempfile
from importlib.util import find_spec
from pathlib import Path

from servery_common.contracts import frames

EMPTY = b""


def materialise(data_dir: Path) -> Path:
    """Return the overlay directory, written first if need be. Safe to call from several processes."""
    files = overlay_files()
    target = data_dir / "overlays" / content_hash(files)
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix="staging-", dir=target.parent))
    for name, content in files.items():
        path = staging / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    try:
        staging.rename(target)
    except OSError:
        # Another process was first; same hash, same content.
        shutil.rmtree(staging)
        if not target.is_dir():
            raise
    return target


def overlay_files() -> dict[str, bytes]:
    """Relative path -> content of every file of the overlay."""
    files = {
        "servery_common/__init__.py": EMPTY,
        "servery_common/contracts/__init__.py": EMPTY,
        "servery_common/contracts/frames.py": Path(frames.__file__).read_bytes(),
    }
    for source in sorted(_runner_package().glob("*.py")):
        files[f"servery_runner/{source.name}"] = source.read_bytes()
    return files


def content_hash(files: dict[str, bytes]) -> str:
    """A short name for this content."""
    digest = hashlib.sha256()
    for name in sorted(files):
        digest.update(f"{name}\0{len(files[name])}\0".encode())
        digest.update(files[name])
    return digest.hexdigest()[:16]


def _runner_package() -> Path:
    spec = find_spec("servery_runner")
    if spec is None or spec.origin is None:
        raise FileNotFoundError("the servery_runner package is not installed beside servery_worker")
    return Path(spec.origin).parent
