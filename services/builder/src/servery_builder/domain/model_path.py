"""Where in a model's folder the files lie that its own files name.

Lexical, without touching the disk; reading also follows links and checks where they end
(``artifacts.model_files``).
"""

from collections.abc import Callable
from pathlib import Path, PurePosixPath

from servery_builder.domain.build import BuildError
from servery_common.contracts.builds import FailureCode

ReadText = Callable[[Path], str]
"""Returns the text of a file of the model; raises ``FileNotFoundError``, and ``BuildError`` when it refuses to."""


def inside(model_dir: Path, path: Path, shown: str) -> Path:
    """Return ``path`` without ``..``; raises ``BuildError``, calling it ``shown``, when it leaves ``model_dir``."""
    absolute = Path(_normal_path(path))
    if not absolute.is_relative_to(model_dir):
        raise BuildError(
            FailureCode.ARTIFACT_MISSING,
            f"The model's files name {shown}, which lies outside the model; log the model again with the file inside"
            " it (code_paths=[...]) or with a published package.",
        )
    return absolute


def _normal_path(path: Path) -> str:
    parts: list[str] = []
    for part in PurePosixPath(path).parts:
        if part == "..":
            if len(parts) > 1:
                parts.pop()
        elif part != ".":
            parts.append(part)
    return str(PurePosixPath(*parts))
