"""`servery deploy` and `cancel`: put a model behind an endpoint and show how it gets there.

With --json, standard output carries exactly what the API answered last; progress goes to standard error.
"""

from __future__ import annotations

import sys
import time
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from servery_local.commands.options import (
    DEFAULT_DATA_DIR,
    FLAG,
    AsJson,
    DataDir,
    EndpointName,
    find_client,
    print_json,
)
from servery_local.errors import LocalError
from servery_local.invocation import command

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from rich.console import Console

    from servery_local.client import EndpointsClient

T = TypeVar("T")

POLL_INTERVAL = 1.0
DEPLOYMENT_TIMEOUT = 20 * 60
INTERRUPTED = 130
EXAMPLE_REQUEST = '{"dataframe_split": {"columns": […], "data": [[…]]}}'


SIZES = ("Small", "Medium", "Large")
"""Workload sizes of the API."""


def parse_size(text: str) -> str:
    """Return the workload size that is meant, in any case. Raises `typer.BadParameter`."""
    size = text.capitalize()
    if size not in SIZES:
        raise typer.BadParameter(
            f"'{text}' is no workload size: choose {', '.join(SIZES[:-1])} or {SIZES[-1]}."
        )
    return size


def require_seconds(seconds: int) -> int:
    """Return a time to wait. Raises `typer.BadParameter`. Typer's own `min=` takes a column of the help."""
    if seconds < 1:
        raise typer.BadParameter(f"{seconds} s is no time to wait: give 1 or more.")
    return seconds


def deploy(
    context: typer.Context,
    model: Annotated[str, typer.Argument(metavar="MODEL", help="models:/NAME/VERSION or models:/NAME@ALIAS")],
    name: Annotated[str, typer.Option("--name", metavar="ENDPOINT", help="Endpoint to create or to update.")],
    size: Annotated[
        str, typer.Option(metavar="SIZE", parser=parse_size, help="Small, Medium or Large.")
    ] = SIZES[0],
    scale_to_zero: Annotated[
        bool,
        typer.Option(
            metavar=FLAG, help="Stop the last replica while nobody sends requests; one starts it again."
        ),
    ] = False,
    wait: Annotated[
        bool, typer.Option(metavar=FLAG, help="Return when the endpoint serves the model.")
    ] = True,
    timeout: Annotated[
        int,
        typer.Option(
            metavar="SECONDS",
            callback=require_seconds,
            help="Seconds to wait; the deployment itself goes on.",
        ),
    ] = DEPLOYMENT_TIMEOUT,
    variables: Annotated[
        list[str] | None,
        typer.Option("--env", metavar="KEY=VALUE", help="Variable for the model; repeatable."),
    ] = None,
    tags: Annotated[
        list[str] | None,
        typer.Option(
            "--tag",
            metavar="KEY=VALUE",
            help="Tag of the endpoint, such as team=risk; repeatable. Some are options of it: see README, Scaling.",
        ),
    ] = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    as_json: AsJson = False,
) -> None:
    """Serve a registered model at an endpoint, showing the build as it happens."""
    from rich.console import Console

    from servery_local.client import ApiError
    from servery_local.deployment import config_for, parse_assignments, parse_model_uri

    config = config_for(
        parse_model_uri(model),
        size,
        scale_to_zero=scale_to_zero,
        variables=parse_assignments("variable", variables or ()),
    )
    tagged = parse_assignments("tag", tags or ())
    client = find_client(context, data_dir)
    console = Console(stderr=as_json, highlight=False)
    logs: dict[str, str] = {}
    try:
        before = client.get(name)
    except ApiError as error:
        if error.status != 404:
            raise
        endpoint = client.create(name, config, tagged)
        console.print(f"creating endpoint {name}", markup=False)
    else:
        # An update that builds nothing shows no build again.
        logs = _build_logs(client, before)
        if tagged:
            client.add_tags(name, tagged)
        endpoint = _update(client, name, config, data_dir)
        console.print(f"updating endpoint {name}", markup=False)
    follower = _Follower(client, endpoint, console, data_dir, logs)
    try:
        if wait:
            follower.follow(timeout)
            example = command(data_dir, "query", name, "-d", EXAMPLE_REQUEST)
            console.print(f"{name} is ready\nscore it:  {example}", markup=False, soft_wrap=True)
    except KeyboardInterrupt:
        print(f"\nThe deployment goes on. {_ways_on(name, data_dir)}", file=sys.stderr)
        raise typer.Exit(INTERRUPTED) from None
    finally:
        if as_json:
            print_json(follower.endpoint)


def cancel(
    context: typer.Context,
    name: EndpointName,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    as_json: AsJson = False,
) -> None:
    """Give up the update of an endpoint that is in progress; what served before goes on."""
    answer = find_client(context, data_dir).cancel_update(name)
    if as_json:
        print_json(answer)
    else:
        print(f"canceled the update of endpoint {name}")


class _Follower:
    """Prints the messages and the build logs of a deployment until it ends, but not what `logs` were before.

    `endpoint` is the last answer.
    """

    def __init__(
        self,
        client: EndpointsClient,
        endpoint: dict[str, Any],
        console: Console,
        data_dir: Path,
        logs: Mapping[str, str],
    ) -> None:
        self.endpoint = endpoint
        self._client = client
        self._console = console
        self._data_dir = data_dir
        self._messages: dict[str, str] = {}
        self._logs = dict(logs)

    def follow(self, timeout: float) -> None:
        """Return when the endpoint serves the new config; `LocalError` if it fails or takes too long."""
        from servery_local.deployment import Outcome, view

        name = self.endpoint["name"]
        deadline = time.monotonic() + timeout
        while True:
            now = view(self.endpoint)
            # A failure is told once, by the error.
            failed = now.outcome is Outcome.FAILED
            for entity, message in now.messages.items():
                # What was logged meanwhile belongs under the message before, if there was one.
                if self._logs.get(entity):
                    self._show_log(entity, message if failed else "")
                if not failed:
                    self._show_message(entity, message)
                self._show_log(entity, message if failed else "")
            if now.outcome is Outcome.SUCCEEDED:
                return
            if failed:
                reasons = "\n".join(message for message in now.messages.values() if message)
                raise LocalError(f"deployment of {name} failed: {reasons or 'no reason was given'}")
            if time.monotonic() > deadline:
                last = "".join(f"{entity}: {said}\n" for entity, said in now.messages.items() if said)
                raise LocalError(
                    f"{name} is not ready after {timeout:.0f} s; the deployment goes on.\n"
                    f"{last}{_ways_on(name, self._data_dir)}"
                )
            time.sleep(POLL_INTERVAL)
            self.endpoint = _or_what_is_known(lambda: self._client.get(name), self.endpoint)

    def _show_message(self, entity: str, message: str) -> None:
        if message and self._messages.get(entity) != message:
            self._console.print(f"[bold]{entity}[/]: ", end="")
            self._console.print(message, markup=False, soft_wrap=True)
            self._messages[entity] = message

    def _show_log(self, entity: str, told: str) -> None:
        from servery_local.deployment import abridge, unseen

        known = self._logs.get(entity, "")
        log = _or_what_is_known(lambda: self._client.build_logs(self.endpoint["name"], entity), known)
        new = abridge(unseen(self._logs.get(entity, ""), log), (told,))
        self._console.print(new, end="", markup=False, style="dim", soft_wrap=True)
        self._logs[entity] = log


def _build_logs(client: EndpointsClient, endpoint: Mapping[str, Any]) -> dict[str, str]:
    """The build logs that there are already, by served entity."""
    from servery_local.deployment import served_entities

    name = endpoint["name"]
    return {
        entity: _or_what_is_known(partial(client.build_logs, name, entity), "")
        for entity in served_entities(endpoint)
    }


def _or_what_is_known(ask: Callable[[], T], known: T) -> T:
    """A service that is away for a moment, as in an upgrade, ends no deployment."""
    from servery_local.client import ApiError

    try:
        return ask()
    except ApiError as error:
        if error.status != 503:
            raise
        return known


def _update(client: EndpointsClient, name: str, config: dict[str, Any], data_dir: Path) -> dict[str, Any]:
    from servery_local.client import ApiError

    try:
        return client.update_config(name, config)
    except ApiError as error:
        if error.code == "RESOURCE_CONFLICT":
            raise LocalError(
                f"{error}\nCancel the update that is in progress:  {command(data_dir, 'cancel', name)}"
            ) from error
        raise


def _ways_on(name: str, data_dir: Path) -> str:
    return f"See it with `{command(data_dir, 'get', name)}`, cancel it with `{command(data_dir, 'cancel', name)}`."
