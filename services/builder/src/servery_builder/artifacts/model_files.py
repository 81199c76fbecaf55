"""Read text files of a model, which may come from anybody: only ones that lie in its folder, and only short ones."""

from pathlib import Path

from servery_builder.domain.build import BuildError
from servery_common.contracts.builds import FailureCode

LONGEST_FILE_BYTES = 4 * 1024 * 1024
"""MLmodel is the longest of them: with a signature of ten thousand columns it has less than 2 MiB."""


def read_within(model_dir: Path, path: Path) -> str:
    """Return the text of a file of a model.

    Raises ``FileNotFoundError``, and ``BuildError`` for what is no text file of a sensible length inside ``model_dir``.
    """
    name = path.name
    real = path.resolve(strict=True)
    if not real.is_relative_to(model_dir.resolve()):
        raise _refused(f"The model's {name} is a link to a file outside the model")
    if not real.is_file():
        raise _refused(f"The model's {name} is not a file")
    with real.open("rb") as file:
        content = file.read(LONGEST_FILE_BYTES + 1)
    if len(content) > LONGEST_FILE_BYTES:
        raise _refused(f"The model's {name} is longer than {LONGEST_FILE_BYTES // 1024**2} MiB")
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise _refused(f"The model's {name} is not a text file in UTF-8") from error


def _refused(what: str) -> BuildError:
    return BuildError(FailureCode.ARTIFACT_MISSING, f"{what}; correct it and log the model again.")
