"""From where a workspace may be reached, with the unmodified databricks-sdk and two addresses of one machine."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from databricks.sdk import WorkspaceClient
from databricks.sdk.errors import InvalidState, PermissionDenied
from databricks.sdk.service.settings import ListType
from tests.end_to_end.client import Client, fine

ELSEWHERE = "127.0.0.2"
SWITCH = {"enableIpAccessLists": "true"}


class Detour:
    """Carries connections to the gateway from another address: clients need not know of it."""

    def __init__(self, gateway: str) -> None:
        to = urlsplit(gateway)
        self._to = (to.hostname, to.port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.host = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Take no more connections."""
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                gateway = socket.create_connection(self._to, source_address=(ELSEWHERE, 0))
                for source, target in ((client, gateway), (gateway, client)):
                    threading.Thread(target=_carry, args=(source, target), daemon=True).start()


def _carry(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


@pytest.fixture
def detour(client: Client) -> Iterator[str]:
    """The gateway's address for those who call from elsewhere."""
    detour = Detour(client.access.host)
    yield detour.host
    detour.close()


@pytest.fixture
def servery(client: Client) -> Callable[..., str]:
    """Runs the ``servery`` command as the operator; returns what it printed."""

    def run(*arguments: str) -> str:
        return subprocess.run(
            [str(Path(sys.executable).with_name("servery")), *arguments],
            env={
                **os.environ,
                "DATABRICKS_HOST": client.access.host,
                "DATABRICKS_TOKEN": client.access.token,
            },
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        ).stdout

    return run


@pytest.fixture
def token(servery: Callable[..., str]) -> Iterator[str]:
    """Of the administrator of another workspace: what they do there disturbs nobody."""
    made = json.loads(servery("workspace", "create", "e2e-addresses", "--admin", "eve", "--json"))
    yield made["token_value"]
    servery("workspace", "delete", "e2e-addresses")


def test_a_blocked_address_is_refused_and_told_why(client: Client, misbehaving: str, token: str, detour: str):
    here = WorkspaceClient(host=client.access.host, token=token)
    elsewhere = WorkspaceClient(host=detour, token=token)
    workspace_id = here.get_workspace_id()
    made = here.ip_access_lists.create("here", ListType.ALLOW, ip_addresses=["127.0.0.1"]).ip_access_list
    assert made is not None
    assert elsewhere.current_user.me().user_name == "eve", "the list is not in force"
    with pytest.raises(InvalidState):
        elsewhere.workspace_conf.set_status(SWITCH)

    here.workspace_conf.set_status(SWITCH)
    for call in (
        elsewhere.current_user.me,
        lambda: elsewhere.serving_endpoints.query("anything", instances=[1]),
        lambda: elsewhere.workspace_conf.set_status({"enableIpAccessLists": "false"}),
    ):
        with pytest.raises(PermissionDenied, match=f"{ELSEWHERE} is blocked .* workspace: {workspace_id}"):
            call()
    assert here.current_user.me().user_name == "eve"
    assert client.score(misbehaving, fine()).status_code == 200, "other workspaces are not concerned"
    other = WorkspaceClient(host=detour, token=client.access.token)
    assert other.current_user.me().user_name == "admin"

    here.ip_access_lists.update(made.list_id or "", ip_addresses=["127.0.0.0/8"])
    assert elsewhere.current_user.me().user_name == "eve"
    here.ip_access_lists.create("not there", ListType.BLOCK, ip_addresses=[ELSEWHERE])
    with pytest.raises(PermissionDenied):
        elsewhere.current_user.me()
    here.workspace_conf.set_status({"enableIpAccessLists": "false"})
    assert elsewhere.current_user.me().user_name == "eve"
