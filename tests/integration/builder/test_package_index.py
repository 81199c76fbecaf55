"""Packages from an index of one's own, with a certificate of one's own, or through a proxy: as the settings say."""

import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from uuid import uuid4

import pytest
from tests.integration.builder.peers import Orderer, Registry, running_builder, write_wheel
from tests.integration.builder.test_builds import installed
from tests.integration.common.certificates import CertificateAuthority

from servery_builder.settings import BuilderSettings
from servery_common.contracts.builds import BuildStatus, FailureCode
from servery_common.contracts.states import BuildState
from servery_common.postgres import Pool

pytestmark = pytest.mark.usefixtures("worker")
UNKNOWN = "packages.invalid"
"""No name server knows it: only a proxy does."""


class Index(SimpleHTTPRequestHandler):
    """Serves a folder as a package index (PEP 503), also to who comes as to a proxy; keeps what was asked for."""

    asked: list[str]

    def __init__(self, asked: list[str], *arguments: object, **options: object) -> None:
        self.asked = asked
        super().__init__(*arguments, **options)

    def do_GET(self) -> None:
        self.asked.append(self.path)
        self.path = self.path.removeprefix(f"http://{UNKNOWN}")
        super().do_GET()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def package(tmp_path: Path) -> str:
    """The name of a package that no other index has."""
    name = f"own-{uuid4().hex[:8]}"
    page = tmp_path / "index" / "simple" / name
    page.mkdir(parents=True)
    wheel = f"{name.replace('-', '_')}-1.0-py3-none-any.whl"
    write_wheel(page / wheel)
    (page / "index.html").write_text(
        f'<!DOCTYPE html><html><body><a href="{wheel}">{wheel}</a></body></html>'
    )
    return name


@contextmanager
def serving(directory: Path, files: tuple[Path, Path] | None = None) -> Iterator[tuple[int, list[str]]]:
    """Serve it, with a certificate and its key if there are ``files``; yields the port and what is asked for."""
    asked: list[str] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Index, asked, directory=str(directory)))
    if files is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*files)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_address[1], asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


async def built(
    nats_url: str, settings: BuilderSettings, pool: Pool, orderer: Orderer, model: tuple[str, str]
) -> BuildStatus:
    async with running_builder(nats_url, settings, pool):
        return await orderer.ended(await orderer.order(model))


async def versions(status: BuildStatus) -> dict[str, str]:
    assert status.state is BuildState.SUCCEEDED, status.reason
    assert status.artifacts is not None
    return await installed(status.artifacts.python)


@pytest.mark.parametrize("variable", ["UV_DEFAULT_INDEX", "UV_INDEX"])
async def test_an_index_with_a_certificate_of_an_own_authority(
    nats_url: str,
    settings: BuilderSettings,
    pool: Pool,
    registry: Registry,
    orderer: Orderer,
    package: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
) -> None:
    authority = CertificateAuthority(tmp_path)
    model = registry.register([f"{package}==1.0"])
    with serving(tmp_path / "index", authority.issue("index")) as (port, asked):
        monkeypatch.setenv(variable, f"https://127.0.0.1:{port}/simple")
        refused = await built(nats_url, settings, pool, orderer, model)
        assert refused.code == FailureCode.INSTALL_FAILED
        assert refused.reason == (
            f"The package index at 127.0.0.1:{port} has its certificate of an authority that the builder does not know:"
            " give it the authority's file (SSL_CERT_FILE), then deploy again."
        )
        assert asked == []

        monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
        found = await versions(await built(nats_url, settings, pool, orderer, model))
    assert found[package.replace("-", "_")] == "1.0"
    assert f"/simple/{package}/" in asked


async def test_an_index_that_only_a_proxy_reaches(
    nats_url: str,
    settings: BuilderSettings,
    pool: Pool,
    registry: Registry,
    orderer: Orderer,
    package: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with serving(tmp_path / "index") as (port, asked):
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{port}")
        monkeypatch.setenv("UV_DEFAULT_INDEX", f"http://{UNKNOWN}/simple")
        model = registry.register([f"{package}==1.0"])
        found = await versions(await built(nats_url, settings, pool, orderer, model))
    assert found[package.replace("-", "_")] == "1.0"
    assert f"http://{UNKNOWN}/simple/{package}/" in asked, "asked through the proxy"
