"""What of the output of programs helps whoever reads a build log. Pure.

What is known to say nothing is left out; what is not known stays.
"""

import re

_STEP = re.compile(r"#\d+ ")
_BUILDKITS_OWN = re.compile(
    r"#\d+ (?:"
    r"building with .*"  # which builder
    r"|\[internal\] .*"  # it reads the Dockerfile, the names of files, what is known of the base
    r"|\[\d+/\d+\] (?:FROM|COPY) .*"  # the Dockerfile is ours, and has these two
    r"|transferring (?:dockerfile|context): \d+B.*"  # the Dockerfile, or nothing
    r"|(?:DONE|CACHED)\b.*"
    r"|exporting (?:to image|layers)"
    r"|(?:writing image|naming to) .*"  # said when the image is there
    r"|\.\.\."
    r")"
)
_MLFLOWS_OWN = re.compile(
    r".*/mlflow/pyfunc/utils/data_validation\.py:\d+: UserWarning:.*Add type hints to the `predict`.*"
    r"|\s+color_warning\("  # the line of code that Python shows below it
)


def of_buildkit(line: str) -> str | None:
    """Return what to show of a line of BuildKit's plain progress, None for nothing.

    How far a large copy is stays, and whatever is no ordinary step.
    """
    return None if _BUILDKITS_OWN.fullmatch(line) else _STEP.sub("", line, count=1)


def of_model(line: str) -> str | None:
    """Return what to show of a line that a model's process printed while it was verified, None for nothing.

    MLflow's advice on how to log a model comes when it is logged, too, where it can be followed.
    """
    return None if _MLFLOWS_OWN.fullmatch(line) else line
