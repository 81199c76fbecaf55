"""Take secrets out of text before it is stored or shown.

Build logs and reasons of failures repeat what other programs say: index URLs with credentials, presigned
downloads, the values of a served entity's environment variables in a model's own traceback. All of it passes
through here.
"""

import json
import re
from collections.abc import Iterable, Iterator

MASK = "[REDACTED]"

# Shorter values ("1", "on", "cpu") are settings, and masking them would make the log unreadable.
_SHORTEST_SECRET = 4
# Programs print long values line by line. A short line of one ("}", "EOF") is nothing to hide.
_SHORTEST_LINE = 8

# Every repetition is bounded: what passes through here may be megabytes without a single space.
_URL_CREDENTIALS = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.\-]{0,20}://)[^/\s@'\"`]{1,2000}@")
_URL_SECRET_PARAMETERS = re.compile(
    r"(?P<name>[?&](?:sig|signature|token|access_token|api_key|password|se|sv|X-Amz-[A-Za-z\-]+|X-Goog-[A-Za-z\-]+)=)"
    r"[^&\s'\"`)]+",
    re.IGNORECASE,
)


class Redactor:
    """Masks known secret values and the credentials in URLs."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._secrets: set[str] = set()
        self.hide(secrets)

    def hide(self, secrets: Iterable[str]) -> None:
        """Mask these values too from now on: whole, line by line, and as Python and JSON write them in quotes."""
        self._secrets.update(
            form for value in secrets if len(value) >= _SHORTEST_SECRET for form in _written(value)
        )
        # Longest first, so that a value that contains another one is masked whole.
        values = sorted(self._secrets, key=len, reverse=True)
        self._values = re.compile("|".join(re.escape(value) for value in values)) if values else None

    def __call__(self, text: str) -> str:
        """Return ``text`` with every secret replaced by ``[REDACTED]``."""
        if self._values is not None:
            text = self._values.sub(MASK, text)
        text = _URL_CREDENTIALS.sub(rf"\g<scheme>{MASK}@", text)
        return _URL_SECRET_PARAMETERS.sub(rf"\g<name>{MASK}", text)


def _written(value: str) -> Iterator[str]:
    """Yield every form in which a value may be in a text."""
    lines = (line.strip() for line in value.splitlines())
    for text in (value, *(line for line in lines if len(line) >= _SHORTEST_LINE)):
        yield text
        quoted = repr(text)[1:-1]
        yield quoted
        # Python escapes this quote only in a text that has both kinds, such as a message around the value.
        yield quoted.replace("\\'", "'").replace("'", "\\'")
        yield json.dumps(text)[1:-1]
        yield json.dumps(text, ensure_ascii=False)[1:-1]
