"""TLS towards NATS and Postgres, with certificates that may be replaced while the process runs."""

import ssl
from pathlib import Path


class ReloadingContext(ssl.SSLContext):
    """A client's context that shows the certificate its files hold at the moment.

    Certificates are short-lived and replaced in place. Each handshake reads them again: a process never has to be
    restarted, nor be told.
    """

    ca: Path
    cert: Path | None = None
    key: Path | None = None

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLObject:
        """Begin a handshake, with what the files hold now."""
        self.read()
        return super().wrap_bio(incoming, outgoing, server_side, server_hostname, session)

    def read(self) -> None:
        """Read the files. Raises OSError or ssl.SSLError when one is missing or makes no sense."""
        self.load_verify_locations(self.ca)
        if self.cert is not None:
            self.load_cert_chain(self.cert, self.key)


def tls_context(ca: Path | None, cert: Path | None, key: Path | None) -> ReloadingContext | None:
    """Return what to encrypt with, or None without an authority to trust. Raises as ``ReloadingContext.read``."""
    if ca is None:
        return None
    context = ReloadingContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.ca, context.cert, context.key = ca, cert, key
    context.read()
    return context
