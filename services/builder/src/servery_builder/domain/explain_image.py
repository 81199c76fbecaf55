"""Say in one sentence why an image could not be made. Pure."""

import re

from servery_builder.domain.build import Failure
from servery_common.contracts.builds import FailureCode

_RULES: tuple[tuple[str, str], ...] = (
    (
        r"no space left on device",
        "The disk of the Docker engine is full: free some space (docker system df shows what takes it), then deploy"
        " again.",
    ),
    (
        r"(failed to resolve source metadata|pull access denied|not found).*servery-worker",
        "The worker's image is not there: build it (docker compose build worker-image), then deploy again.",
    ),
)

# What BuildKit's client says when it cannot reach the engine, or not any more.
_LOST = re.compile(
    r"permission denied.*docker|docker\.sock.*permission denied|cannot connect to the docker daemon"
    r"|no such file.*docker\.sock|error during connect|connect: (?:connection refused|no such file)"
    r"|code = Unavailable|closing transport|connection reset by peer|broken pipe|unexpected EOF|\bEOF$",
    re.IGNORECASE | re.MULTILINE,
)


def has_lost_engine(output: str) -> bool:
    """Whether a build of an image failed because the engine went away, and may go on when it is back."""
    # A full disk breaks off copying, too, and is what has to be told.
    return _LOST.search(output) is not None and _known_reason(output) is None


def explain_image(output: str) -> Failure:
    """Explain a failed build of an image; ``output`` is what BuildKit printed."""
    if (sentence := _known_reason(output)) is not None:
        return Failure(FailureCode.IMAGE_FAILED, sentence)
    lines = [line for line in output.splitlines() if "error" in line.lower()] or output.splitlines()
    last = " ".join(lines[-1].split())[:300] if lines else "it printed nothing"
    return Failure(FailureCode.IMAGE_FAILED, f"The image could not be built: {last}")


def _known_reason(output: str) -> str | None:
    rules = ((re.compile(pattern, re.IGNORECASE | re.DOTALL), sentence) for pattern, sentence in _RULES)
    return next((sentence for pattern, sentence in rules if pattern.search(output)), None)
