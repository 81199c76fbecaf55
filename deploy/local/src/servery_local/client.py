"""A small HTTP client for the serving-endpoints API, for the commands people type.

Programs use `databricks-sdk` or `mlflow.deployments`; this one exists so that the `servery` command
starts quickly and can show build logs as they grow.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import quote

import httpx

from servery_local.data_directory import DataDirectory
from servery_local.errors import LocalError, NotRunning
from servery_local.invocation import command
from servery_local.state import Phase, observe_state

API = "/api/2.0/serving-endpoints"
HOST_VARIABLE = "DATABRICKS_HOST"
API_TIMEOUT = 60.0
SCORING_TIMEOUT = 600.0
"""Longer than any model may take: the platform's own deadline is the one that counts."""


class ApiError(LocalError):
    """An answer that is not 2xx; printed as `error_code: message`."""

    def __init__(self, status: int, code: str, message: str, stack_trace: str = "") -> None:
        super().__init__(f"{code}: {message}")
        self.status = status
        self.code = code
        self.stack_trace = stack_trace
        """The model's, if it raised."""


@dataclass(frozen=True)
class Credentials:
    """Where the API is, without a slash at the end, and the token that opens it."""

    host: str
    token: str
    origin: str = ""
    """The variable that named the host; empty if it is that of a data directory."""


def find_credentials(environ: Mapping[str, str], directory: DataDirectory, *, insist: bool) -> Credentials:
    """Return those of DATABRICKS_HOST and DATABRICKS_TOKEN, else those of the stack that runs on `directory`.

    With `insist` the directory was asked for by name, and the variables do not count.
    Raises `NotRunning` if there are neither.
    """
    host, token = environ.get(HOST_VARIABLE), environ.get("DATABRICKS_TOKEN")
    if host and token and not insist:
        return Credentials(normalise_host(host), token, HOST_VARIABLE)
    state = observe_state(directory)
    if state is None or state.phase is Phase.STOPPED:
        elsewhere = f", or set {HOST_VARIABLE} and DATABRICKS_TOKEN to use a stack that runs elsewhere"
        raise NotRunning(
            f"Servery does not run on {directory.root}.\n"
            f"Start it with `{command(directory.root, 'up')}`{'' if insist else elsewhere}."
        )
    return Credentials(state.gateway_url, directory.load_secrets().admin_token)


def normalise_host(host: str) -> str:
    """Return a host as the Databricks clients understand it: https if it does not say."""
    return (host if "://" in host else f"https://{host}").rstrip("/")


class ApiClient:
    """The connection; every call raises `ApiError` or, if nobody answers, `LocalError`."""

    def __init__(self, http: httpx.Client, origin: str = "") -> None:
        self._http = http
        self._origin = origin

    @classmethod
    def connect(cls, credentials: Credentials, timeout: float = API_TIMEOUT) -> Self:
        """Return a client; nothing is sent yet."""
        # What runs on this machine is not reached through a proxy.
        local = httpx.URL(credentials.host).host in {"127.0.0.1", "localhost", "::1"}
        return cls(
            httpx.Client(
                base_url=credentials.host,
                headers={"Authorization": f"Bearer {credentials.token}"},
                timeout=timeout,
                trust_env=not local,
            ),
            credentials.origin,
        )

    @classmethod
    def find(cls, directory: DataDirectory, *, insist: bool) -> Self:
        """Return a client for the stack that `find_credentials` finds."""
        return cls.connect(find_credentials(os.environ, directory, insist=insist))

    def _json(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        response = self._send(method, path, json=body)
        return response.json() if response.content else {}

    def _send(self, method: str, path: str, **options: Any) -> httpx.Response:
        try:
            response = self._http.request(method, path, **options)
        except httpx.HTTPError as error:
            reason = str(error) or type(error).__name__
            if not self._origin:
                raise LocalError(f"no answer from {self._http.base_url}: {reason}") from error
            raise LocalError(
                f"nothing answers at {self._http.base_url}, which is the address in {self._origin}: {reason}\n"
                f"If it is just starting, try again. Else correct it, `unset {self._origin}`, or name a stack of this"
                " machine with --data-dir."
            ) from error
        if not response.is_success:
            raise parse_error(response)
        return response


class EndpointsClient(ApiClient):
    """Calls about serving endpoints."""

    def list(self) -> dict[str, Any]:
        """Return all endpoints, below the key `endpoints`."""
        return self._json("GET", API)

    def get(self, name: str) -> dict[str, Any]:
        """Return one endpoint."""
        return self._json("GET", _path(name))

    def scaling(self, name: str, decisions: int) -> dict[str, Any]:
        """Return why an endpoint has the replicas it has, with so many of the last decisions."""
        return self._json("GET", f"{_path(name)}/scaling?limit={decisions}")

    def create(self, name: str, config: Mapping[str, Any], tags: Mapping[str, str]) -> dict[str, Any]:
        """Create an endpoint; its deployment has begun when this returns."""
        return self._json("POST", API, {"name": name, "config": config, "tags": _as_list(tags)})

    def add_tags(self, name: str, tags: Mapping[str, str]) -> dict[str, Any]:
        """Add tags or give them other values; return all there are now."""
        return self._json("PATCH", f"{_path(name)}/tags", {"add_tags": _as_list(tags)})

    def update_config(self, name: str, config: Mapping[str, Any]) -> dict[str, Any]:
        """Deploy another config; the old one serves until the new one is ready."""
        return self._json("PUT", f"{_path(name)}/config", config)

    def cancel_update(self, name: str) -> dict[str, Any]:
        """Give up the deployment in progress; the config that served before it goes on."""
        return self._json("POST", f"{_path(name)}/config:cancel")

    def delete(self, name: str) -> dict[str, Any]:
        """Delete an endpoint."""
        return self._json("DELETE", _path(name))

    def build_logs(self, name: str, served_entity: str) -> str:
        """Return the build log as far as it goes; empty before there is one."""
        return self._logs(name, served_entity, "build-logs")

    def model_logs(self, name: str, served_entity: str) -> str:
        """Return what the model printed; empty before there is a replica."""
        return self._logs(name, served_entity, "logs")

    def invoke(self, name: str, body: bytes, content_type: str) -> httpx.Response:
        """Score `body` and return the whole answer."""
        return self._send(
            "POST",
            f"/serving-endpoints/{quote(name, safe='')}/invocations",
            content=body,
            headers={"Content-Type": content_type},
            timeout=SCORING_TIMEOUT,
        )

    def _logs(self, name: str, served_entity: str, kind: str) -> str:
        try:
            return self._json("GET", f"{_path(name)}/served-models/{quote(served_entity, safe='')}/{kind}")[
                "logs"
            ]
        except ApiError as error:
            if error.status == 404:
                return ""
            raise


def parse_error(response: httpx.Response) -> ApiError:
    """Return the error in an answer, whether or not it has the shape of the API's own."""
    try:
        body = response.json()
    except ValueError:
        body = None
    if isinstance(body, dict) and "error_code" in body:
        trace = body.get("stack_trace") or ""
        return ApiError(response.status_code, body["error_code"], body.get("message", ""), trace)
    text = response.text.strip() or response.reason_phrase
    return ApiError(response.status_code, f"HTTP {response.status_code}", text)


def _as_list(tags: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"key": key, "value": value} for key, value in tags.items()]


def _path(name: str) -> str:
    return f"{API}/{quote(name, safe='')}"
