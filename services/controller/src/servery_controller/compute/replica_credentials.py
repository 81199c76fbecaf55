"""What lets replicas into NATS: made for each, short-lived, and made anew when the replica asks.

A replica asks on a subject that names it and that nobody else may use, so who asks is known. The token is for a key
that it has made itself, and the certificate for the one that it has: no secret travels.
"""

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import structlog

from servery_common.certificates import CertificateAuthority
from servery_common.contracts.permissions import of_replica
from servery_common.contracts.replicas import CredentialsRenewed, RenewCredentials
from servery_common.errors import InvalidParameter, PermissionDenied, ServeryError, Unavailable
from servery_common.nats_credentials import KeyPair, is_user_key, make_user, user_token
from servery_controller.compute.container_spec import Access
from servery_controller.telemetry import counters

log = structlog.get_logger()


MOST_RENEWALS = 40
"""So many times a lifetime, at most, are a replica's credentials renewed: two are usual, and an answer may be lost."""


class ReplicaCredentials:
    """Signs with what lies in ``directory``: files are read each time, as they may be replaced."""

    def __init__(self, directory: Path, lifetime: timedelta, now: Callable[[], datetime]) -> None:
        self._directory = directory
        self.lifetime = lifetime
        self.now = now

    def issue(self, replica_id: str, nats_url: str) -> Access:
        """Return the first ones of a replica. Raises OSError without the files."""
        now = self.now()
        return Access(
            nats_url,
            make_user(self._account(), replica_id, of_replica(replica_id), now, self.lifetime),
            (self._directory / "ca.crt").read_text(),
            self._authority().issue(replica_id, (), now, self.lifetime).decode(),
        )

    def renew(self, asked: RenewCredentials) -> CredentialsRenewed:
        """Return the next ones. Raises InvalidParameter, and OSError without the files."""
        if not is_user_key(asked.user_key):
            raise InvalidParameter("user_key: not the public key of a NATS user.")
        now, replica_id = self.now(), asked.replica_id
        certificate = b""
        if asked.certificate:
            try:
                shown = asked.certificate.encode()
                certificate = self._authority().renew(replica_id, shown, now, self.lifetime)
            except ValueError as error:
                raise InvalidParameter(f"certificate: {error}.") from error
        token = user_token(
            self._account(), asked.user_key, replica_id, of_replica(replica_id), now, self.lifetime
        )
        return CredentialsRenewed(token=token, certificate=certificate.decode())

    def _account(self) -> KeyPair:
        return KeyPair.of((self._directory / "nats_account.seed").read_text().strip())

    def _authority(self) -> CertificateAuthority:
        return CertificateAuthority.load((self._directory / "replicas_ca.pem").read_bytes())


class CredentialRenewals:
    """Answers replicas that ask for the next ones."""

    def __init__(self, credentials: ReplicaCredentials, runs: Callable[[str], bool]) -> None:
        """``runs`` says whether there is a replica of this id; raises Unavailable when that is not known."""
        self._credentials = credentials
        self._runs = runs
        self._renewed_at: dict[str, datetime] = {}
        """By replica id; what is longer ago than it matters is forgotten."""

    async def handle(self, asked: RenewCredentials) -> CredentialsRenewed:
        """Answer one. Raises PermissionDenied, InvalidParameter, Unavailable."""
        try:
            if not self._runs(asked.replica_id):
                raise PermissionDenied("There is no such replica, or it has ended.")
            self._check_pace(asked.replica_id)
            renewed = self._credentials.renew(asked)
        except ServeryError as error:
            log.warning("credentials_refused", replica_id=asked.replica_id, reason=error.message)
            counters.renewals.labels("refused").inc()
            raise
        except OSError as error:
            log.error("credentials_not_made", replica_id=asked.replica_id, reason=repr(error))
            counters.renewals.labels("failed").inc()
            raise Unavailable(f"What credentials are signed with cannot be read: {error}") from error
        self._renewed_at[asked.replica_id] = self._credentials.now()
        log.info("credentials_renewed", replica_id=asked.replica_id)
        counters.renewals.labels("renewed").inc()
        return renewed

    def _check_pace(self, replica_id: str) -> None:
        """Signing takes this process' time: a replica that was taken over must not take it from all others."""
        now, pause = self._credentials.now(), self._credentials.lifetime / MOST_RENEWALS
        self._renewed_at = {r: at for r, at in self._renewed_at.items() if now - at < pause}
        if replica_id in self._renewed_at:
            raise Unavailable(
                "The replica's credentials were renewed a moment ago.",
                retry_after=max(1, int(pause.total_seconds())),
            )
