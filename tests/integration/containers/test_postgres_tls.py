"""Postgres of the compose file over TLS: its image, its start script, and the certificates that are issued for it."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import pytest
from servery_credentials.reloading import shown_by_postgres
from structlog.testing import capture_logs
from tests.containers.engine import can_do_tls, composed
from tests.containers.parts import Parts, read
from tests.integration.common.certificates import CertificateAuthority
from tests.waiting import until

from servery_common.postgres import create_pool
from servery_common.settings import PostgresSettings
from servery_common.tls import tls_context

pytestmark = pytest.mark.docker
# What the credentials' service does at a look, as if Postgres had had no certificate so many days ago.
ISSUE = """
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from servery_credentials.installation import Installation
Path("/credentials/postgres/tls.pem").unlink()
Installation(Path("/credentials")).keep(datetime.now(UTC) - timedelta(days=int(sys.argv[1])))
"""


class Database:
    """Postgres with what was issued for it, and with what the controller was issued for coming in."""

    def __init__(self, parts: Parts, folder: Path) -> None:
        self._parts = parts
        # Looks every second, for the test of renewal; until then nobody is to heal what tests do.
        self.credentials = parts.start("credentials", SERVERY_CREDENTIALS_CHECK_SECONDS="1")
        url = read(self.credentials, "/credentials/controller/env/SERVERY_POSTGRES_URL").decode()
        self.ca = folder / "ca.crt"
        self.ca.write_bytes(read(self.credentials, "/credentials/controller/ca.crt"))
        self.credentials.get_wrapped_container().stop()
        self._postgres = parts.start("postgres", port=5432)
        self.url = url.replace("postgres:5432", f"localhost:{self._postgres.get_exposed_port(5432)}")

    def settings(self, **changed: object) -> PostgresSettings:
        return PostgresSettings(**{"url": self.url, "tls": "on", "tls_ca": self.ca, **changed})

    async def shown(self) -> bytes | None:
        """The certificate whoever comes now is shown, good or not."""
        anything = ssl.create_default_context()
        anything.check_hostname, anything.verify_mode = False, ssl.CERT_NONE
        return await shown_by_postgres(self.url, anything)

    async def shown_instead_of(self, before: bytes | None) -> bytes | None:
        async with asyncio.timeout(30):
            while True:
                if (now := await self.shown()) != before:
                    return now
                await asyncio.sleep(0.1)

    def issue(self, *, days_ago: int = 0) -> None:
        """Replace the certificate, and tell nobody."""
        self._parts.run("credentials", "python", "-c", ISSUE, str(days_ago))

    async def show_another(self, *, days_ago: int = 0) -> None:
        """Replace the certificate, and have it shown."""
        before = await self.shown()
        await asyncio.to_thread(self.issue, days_ago=days_ago)
        told = ["psql", "-U", "postgres", "-c", "SELECT pg_reload_conf()"]
        ran = await asyncio.to_thread(self._postgres.exec, told)
        assert ran.exit_code == 0, ran.output.decode()
        await self.shown_instead_of(before)


@pytest.fixture(scope="module")
def database(
    postgres_image: str, credentials_image: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Database]:
    images = {"credentials": credentials_image, "postgres": postgres_image}
    with Parts(images) as parts:
        yield Database(parts, tmp_path_factory.mktemp("database"))


async def refusal(settings: PostgresSettings) -> str:
    """Return what a service writes down while it goes on trying."""
    with capture_logs() as lines:
        trying = asyncio.create_task(create_pool(settings))
        await until(lambda: bool(lines))
        assert not trying.done()
        trying.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await trying
    assert lines[0]["event"] == "postgres_connect_failed"
    return lines[0]["error"]


async def test_who_knows_the_authority_comes_in_encrypted(database: Database) -> None:
    async with await create_pool(database.settings()) as pool:
        row = await pool.fetchrow("SELECT ssl, version FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
        assert tuple(row) == (True, "TLSv1.3")
        assert await pool.fetchval("SELECT current_user") == "servery"


async def test_no_address_talks_a_service_out_of_tls(database: Database) -> None:
    async with await create_pool(database.settings(url=f"{database.url}?sslmode=disable")) as pool:
        assert await pool.fetchval("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")


async def test_another_authoritys_server_is_not_trusted(database: Database, tmp_path: Path) -> None:
    stranger = CertificateAuthority(tmp_path, "stranger").file
    told = await refusal(database.settings(tls_ca=stranger))
    assert "unable to get local issuer certificate" in told
    assert f"{stranger} (SERVERY_POSTGRES_TLS_CA)" in told


async def test_a_server_is_not_trusted_under_another_name(database: Database) -> None:
    told = await refusal(database.settings(url=database.url.replace("localhost", "127.0.0.1")))
    assert "IP address mismatch, certificate is not valid for '127.0.0.1'" in told


async def test_an_expired_certificate_is_not_trusted(database: Database) -> None:
    await database.show_another(days_ago=31)
    try:
        assert "certificate has expired" in await refusal(database.settings())
    finally:
        await database.show_another()
    async with await create_pool(database.settings()) as pool:
        assert await pool.fetchval("SELECT 1") == 1


async def test_nobody_comes_in_without_tls(database: Database) -> None:
    with pytest.raises(asyncpg.InvalidAuthorizationSpecificationError, match="no encryption"):
        await asyncpg.connect(database.url, ssl=False)


async def test_nobody_comes_in_with_an_older_tls(database: Database) -> None:
    older = ssl.create_default_context(cafile=database.ca)
    older.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(ssl.SSLError, match=r"(?i)protocol version"):
        await asyncpg.connect(database.url, ssl=older)


@pytest.fixture
async def watched(database: Database) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(database.url, ssl=tls_context(database.ca, None, None))
    yield connection
    await connection.close()


async def test_a_renewed_certificate_is_shown_and_no_connection_ends(
    database: Database, watched: asyncpg.Connection
) -> None:
    backend = await watched.fetchval("SELECT pg_backend_pid()")
    first = await database.shown()
    # Renewed by one that had no time to tell: the next that runs does.
    await asyncio.to_thread(database.issue)
    assert await database.shown() == first
    service = database.credentials.get_wrapped_container()
    await asyncio.to_thread(service.start)
    try:
        second = await database.shown_instead_of(first)
        # And as it runs.
        await asyncio.to_thread(service.exec_run, ["rm", "-f", "/credentials/postgres/tls.pem"])
        await database.shown_instead_of(second)
    finally:
        await asyncio.to_thread(service.stop)
    assert await watched.fetchval("SELECT pg_backend_pid()") == backend


async def test_without_tls_only_who_was_told_so_comes_in(
    engine: None, credentials_image: str, tmp_path: Path
) -> None:
    with Parts({"credentials": credentials_image}, SERVERY_POSTGRES_TLS="off") as parts:
        database = await asyncio.to_thread(Database, parts, tmp_path)
        told = await refusal(database.settings())
        assert "this service does not talk to it in plain text" in told
        assert "SERVERY_POSTGRES_TLS=off" in told
        async with await create_pool(database.settings(tls="off")) as pool:
            assert not await pool.fetchval("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")


async def test_a_build_without_tls_does_not_start_with_it(engine: None, credentials_image: str) -> None:
    if can_do_tls(composed()["postgres"]["image"]):
        pytest.skip("the image's Postgres can do TLS: tests/integration/deploy tries another build")
    with Parts({"credentials": credentials_image}) as parts:
        parts.start("credentials")
        postgres = parts.start("postgres", healthy=False)
        ended = await asyncio.to_thread(postgres.get_wrapped_container().wait, timeout=30)
        assert ended["StatusCode"] == 1
        assert "cannot do TLS, and SERVERY_POSTGRES_TLS is on" in postgres.get_logs()[1].decode()
