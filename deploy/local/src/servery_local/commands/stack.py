"""`servery up`, `down`, `status`, `logs` and `env`: the embedded stack as a whole."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from servery_local.commands.options import DEFAULT_DATA_DIR, FLAG, AsJson, DataDir, find_client
from servery_local.data_directory import DataDirectory
from servery_local.errors import AlreadyRunning, ComponentFailed, LocalError
from servery_local.invocation import command
from servery_local.logs import COMBINED, follow, last_lines

if TYPE_CHECKING:
    from servery_local.client import EndpointsClient
    from servery_local.state import StackState

NOT_RUNNING = 3
"""Exit code of `status` and `env` without a stack, as of init scripts."""
NOT_READY = 1
KILLED_WITHIN = 5.0
CONSOLE_LOG = "console.log"
LINES_SHOWN = 20


def up(
    data_dir: DataDir = DEFAULT_DATA_DIR,
    port: Annotated[
        int,
        typer.Option(
            envvar="SERVERY_GATEWAY_PORT", metavar="PORT", min=1, max=65535, help="Port of the gateway."
        ),
    ] = 8080,
    host: Annotated[
        str,
        typer.Option(
            envvar="SERVERY_GATEWAY_HOST", metavar="ADDRESS", help="Address the gateway listens on."
        ),
    ] = "127.0.0.1",
    detach: Annotated[
        bool,
        typer.Option("--detach", metavar=FLAG, help="Return when the stack is ready, leaving it running."),
    ] = False,
) -> None:
    """Start the whole platform: stores, MLflow and all services; Ctrl-C stops it.

    With MLFLOW_TRACKING_URI in the environment, models come from that MLflow server, and none is started.
    """
    directory = DataDirectory(data_dir)
    if detach:
        _up_detached(directory, host, port)
        return

    from rich.console import Console

    from servery_local.stack import StackOptions, run_stack

    try:
        run_stack(directory, StackOptions(host, port), os.environ, Console())
    except ComponentFailed as error:
        raise LocalError(_with_logs(directory, error)) from error


def down(data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """Stop the stack and everything it started."""
    from servery_local import processes
    from servery_local.leftovers import end_leftovers
    from servery_local.state import observe_state

    directory = DataDirectory(data_dir)
    state = observe_state(directory)
    if state is None:
        print("\n".join((f"Servery does not run on {directory.root}.", *_in_containers())))
        return
    if processes.send(state.supervisor, signal.SIGTERM):
        if processes.wait_gone([state.supervisor], state.stop_within):
            processes.send(state.supervisor, signal.SIGKILL)
            processes.wait_gone([state.supervisor], KILLED_WITHIN)
        stopped = True
    else:
        stopped = False
    with directory.locked():
        ended = end_leftovers(directory)
    if stopped:
        print("Servery has stopped.")
    elif ended:
        print(f"Servery had been killed; ended {ended} process(es) it left behind.")
    else:
        print(f"Servery does not run on {directory.root}.")


def status(data_dir: DataDir = DEFAULT_DATA_DIR, as_json: AsJson = False) -> None:
    """Show what runs of `servery up`. Exit code 0: all of it, 1: not all, 3: nothing."""
    from servery_local.state import Phase, describe, observe_state

    state = observe_state(DataDirectory(data_dir))
    if state is None or state.phase is Phase.STOPPED:
        if as_json:
            print(json.dumps(describe(state) if state else {"phase": "stopped", "ready": False}, indent=2))
        else:
            print("\n".join((f"Servery does not run on {data_dir}.", *_in_containers())))
        raise typer.Exit(NOT_RUNNING)
    if as_json:
        print(json.dumps(describe(state), indent=2))
    else:
        _print_status(state)
    if not state.is_ready:
        raise typer.Exit(NOT_READY)


def logs(
    context: typer.Context,
    component: Annotated[
        str | None,
        typer.Argument(metavar="COMPONENT", help="Such as gateway or postgres; all if not given."),
    ] = None,
    endpoint: Annotated[
        str | None,
        typer.Option("--endpoint", "-e", metavar="ENDPOINT", help="What the models of an endpoint printed."),
    ] = None,
    build: Annotated[
        bool,
        typer.Option("--build", metavar=FLAG, help="With --endpoint: how their environments were built."),
    ] = False,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    following: Annotated[
        bool, typer.Option("--follow", "-f", metavar=FLAG, help="Go on as lines are written.")
    ] = False,
    lines: Annotated[
        int, typer.Option("--lines", "-n", metavar="COUNT", min=0, help="Lines to start with.")
    ] = 200,
) -> None:
    """Show what the components printed, in the order in which they did, or the models of one endpoint."""
    if endpoint is not None:
        if component is not None or following:
            raise typer.BadParameter("goes neither with COMPONENT nor with --follow", param_hint="--endpoint")
        _print_model_logs(find_client(context, data_dir), endpoint, build=build)
        return
    if build:
        raise typer.BadParameter("needs --endpoint", param_hint="--build")
    directory = DataDirectory(data_dir)
    path = directory.logs / f"{component or COMBINED}.log"
    if not path.exists():
        raise LocalError(_no_log(directory, component))
    # The size is taken first: a line written meanwhile is shown twice rather than never.
    end = path.stat().st_size
    for line in last_lines(path, lines):
        print(line)
    if following:
        try:
            for line in follow(path, offset=end, keep_waiting=lambda: True):
                print(line, flush=True)
        except KeyboardInterrupt:
            return


def env(data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """Print the variables with which clients find the stack: eval "$(servery env)"."""
    from servery_local.state import Phase, observe_state

    directory = DataDirectory(data_dir)
    state = observe_state(directory)
    if state is None or state.phase is Phase.STOPPED:
        start = command(data_dir, "up")
        not_running = f"Servery does not run on {data_dir}; start it with `{start}`."
        print("\n".join((not_running, *_in_containers())), file=sys.stderr)
        raise typer.Exit(NOT_RUNNING)
    variables = {
        "DATABRICKS_HOST": state.gateway_url,
        "DATABRICKS_TOKEN": directory.load_secrets().admin_token,
        "MLFLOW_TRACKING_URI": directory.load_tracking_uri(),
    }
    for name, value in variables.items():
        print(f"export {name}={shlex.quote(value)}")


def _in_containers() -> list[str]:
    """What is said of installations that this command is not about, and may have been meant."""
    from servery_local.compose_installation import find_installations

    return [each.describe() for each in find_installations()]


def _up_detached(directory: DataDirectory, host: str, port: int) -> None:
    """Run the supervisor in a session of its own; show its progress until it is ready or fails."""
    from servery_local import preflight
    from servery_local.state import Phase, load_state

    if not directory.root.exists():
        preflight.check(directory, host, port, os.environ)
    directory.create()
    if directory.is_locked():
        with directory.locked():  # raises, with the words for it
            raise AlreadyRunning
    # Its own until it is ready: another `up` may be a moment ahead, and then this one's console is no stack's.
    descriptor, name = tempfile.mkstemp(prefix=f".{CONSOLE_LOG}.", dir=directory.logs)
    console = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as output:
            daemon = subprocess.Popen(
                (
                    *(sys.executable, "-m", "servery_local", "up"),
                    *("--host", host, "--port", str(port), "--data-dir", str(directory.root)),
                ),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

        def is_coming_up() -> bool:
            state = load_state(directory)
            mine = state is not None and state.supervisor.pid == daemon.pid
            ready = mine and state is not None and state.phase is Phase.RUNNING
            return daemon.poll() is None and not ready

        try:
            for line in follow(console, offset=0, keep_waiting=is_coming_up):
                print(line, flush=True)
        except KeyboardInterrupt:
            daemon.terminate()
            daemon.wait()
            raise
        if (code := daemon.poll()) is not None:
            raise typer.Exit(code or 1)
        console.replace(directory.logs / CONSOLE_LOG)
    finally:
        console.unlink(missing_ok=True)


def _with_logs(directory: DataDirectory, error: ComponentFailed) -> str:
    path = directory.logs / f"{error.component}.log"
    shown = "\n".join(f"    {line}" for line in last_lines(path, LINES_SHOWN))
    return (
        f"{error}\n\nIts last lines, from {path}:\n{shown or '    (it printed nothing)'}\n\n"
        f"All of them: `{command(directory.root, 'logs', error.component)}`. Everything was stopped; "
        f"when the cause is gone, `{command(directory.root, 'up')}` starts it again."
    )


def _no_log(directory: DataDirectory, component: str | None) -> str:
    """Say why there is nothing to show, and what there is."""
    known = sorted(each.stem for each in directory.logs.glob("*.log") if each.stem != COMBINED)
    if not known:
        return "\n".join((f"there are no logs: Servery never ran on {directory.root}", *_in_containers()))
    return f"no log of {component or 'all components together'}; there are: {', '.join(known)}"


def _print_model_logs(client: EndpointsClient, name: str, *, build: bool) -> None:
    """Print the logs of all models of an endpoint; which one's follows goes to standard error if there are more."""
    from servery_local.deployment import served_entities

    entities = served_entities(client.get(name))
    for entity in entities:
        log = client.build_logs(name, entity) if build else client.model_logs(name, entity)
        if len(entities) > 1:
            print(f"==> {entity} <==", file=sys.stderr, flush=True)
        if log:
            print(log, end="" if log.endswith("\n") else "\n", flush=True)
        else:
            print(f"{entity} has {'no build log' if build else 'printed nothing'}", file=sys.stderr)


def _print_status(state: StackState) -> None:
    from rich.console import Console
    from rich.table import Table

    from servery_local.state import ComponentState, describe

    colours = {ComponentState.RUNNING: "green", ComponentState.STOPPED: "red"}
    table = Table(box=None, pad_edge=False)
    for heading in ("COMPONENT", "STATE", "PID", "UPTIME", "RESTARTS"):
        table.add_column(heading, no_wrap=True)
    for each in describe(state)["components"]:
        colour = colours.get(each["state"], "yellow")
        table.add_row(
            each["name"],
            f"[{colour}]{each['state']}[/]",
            str(each["pid"] or "-"),
            format_uptime(each["uptime_seconds"]),
            str(each["restarts"]),
        )
    console = Console()
    console.print(table)
    console.print(f"\nServing  {state.gateway_url}\nMLflow   {state.mlflow_url}", highlight=False)


def format_uptime(seconds: float | None) -> str:
    """Return a duration in its two largest units, such as `3h 05m`."""
    if seconds is None:
        return "-"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days}d {hours:02}h"
    if hours:
        return f"{hours}h {minutes:02}m"
    return f"{minutes}m {rest:02}s" if minutes else f"{rest}s"
