"""Which variables of the builder's own process are credentials, to be masked in every build log."""

import re
from collections.abc import Iterable

_SECRET_NAME = re.compile(
    r"(?:UV|MLFLOW|AWS|AZURE)_\w*(?:PASSWORD|TOKEN|SECRET|CREDENTIAL|ACCESS_KEY|API_KEY)", re.IGNORECASE
)


def secret_values(environment: Iterable[tuple[str, str]]) -> list[str]:
    """Return the values of the process environment variables that are credentials of uv or MLflow."""
    return [value for name, value in environment if _SECRET_NAME.match(name)]
