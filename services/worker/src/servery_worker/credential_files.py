"""The files of what lets this worker into NATS. Connections read them each time they are made."""

import os
from pathlib import Path

from servery_common.nats_credentials import Lifetime, creds_file, lifetime_of
from servery_common.settings import NatsSettings

_CERTIFICATE = "-----BEGIN CERTIFICATE-----"


class CredentialFiles:
    """Those that the settings name."""

    def __init__(self, settings: NatsSettings) -> None:
        self._creds = settings.credentials
        self._certificate = settings.tls_cert

    def lifetime(self) -> Lifetime | None:
        """Return how long what is in the file is good; None when it has no end, or there is none.

        Raises OSError, and ValueError for a file that is not understood.
        """
        return None if self._creds is None else lifetime_of(self._creds.read_text())

    def certificate(self) -> str:
        """Return the certificate that is shown, in PEM; empty when none is. Raises OSError."""
        if self._certificate is None:
            return ""
        content = self._certificate.read_text()
        return content[content.index(_CERTIFICATE) :]

    def replace(self, token: str, seed: str, certificate: str) -> None:
        """Write the next ones: a token for the key of this seed, and a certificate, if any, for the key that is there.

        Raises OSError.
        """
        if self._certificate is not None and certificate:
            content = self._certificate.read_text()
            replace_file(self._certificate, content[: content.index(_CERTIFICATE)] + certificate)
        if self._creds is not None:
            replace_file(self._creds, creds_file(token, seed))


def replace_file(path: Path, content: str) -> None:
    """Put a file in its place: at once for whoever reads, and for its owner only. Raises OSError."""
    fresh = path.with_name(f".{path.name}")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(content)
    fresh.replace(path)
