"""The embedded stack as its user sees it: real Postgres, NATS and MLflow under a real supervisor."""

import asyncio
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path
from urllib.request import urlopen

import asyncpg
import psutil
import pytest
from tests.integration.local.stand_in_stack import (
    DEADLINE,
    SERVICES,
    STAND_IN,
    Stack,
    StandInMlflow,
    eventually,
)

from servery_local.ports import is_free
from servery_local.postgres import url as postgres_url
from servery_local.postgres_place import SHARED
from servery_local.processes import identify, is_alive


def sql(stack: Stack, statement: str) -> list[asyncpg.Record]:
    async def run() -> list[asyncpg.Record]:
        connection = await asyncpg.connect(postgres_url(Path(stack.state()["database_socket"])), timeout=5)
        try:
            return await connection.fetch(statement)
        finally:
            await connection.close()

    return asyncio.run(run())


def test_a_killed_child_is_restarted(stack: Stack) -> None:
    stack.up()
    before = stack.component("worker")
    os.kill(before["pid"], signal.SIGKILL)

    def restarted() -> bool:
        after = stack.component("worker")
        return after["state"] == "running" and after["pid"] not in (None, before["pid"])

    eventually(restarted, "the worker runs again")
    assert stack.component("worker")["restarts"] == 1
    assert stack.component("gateway")["restarts"] == 0
    assert stack.servery("status").returncode == 0


def test_a_killed_database_comes_back_with_its_data(stack: Stack) -> None:
    stack.up()
    sql(stack, "CREATE TABLE kept AS SELECT 42 AS answer")
    os.kill(stack.component("postgres")["pid"], signal.SIGKILL)

    def back() -> bool:
        try:
            return sql(stack, "SELECT answer FROM kept")[0]["answer"] == 42
        except (OSError, asyncpg.PostgresError):
            return False

    eventually(back, "the table is readable again")


def test_a_killed_supervisor_takes_all_with_it_and_the_next_one_finds_the_data(
    stack: Stack,
) -> None:
    stack.up()
    nats_port = stack.ports()[1]
    sql(stack, "CREATE TABLE kept AS SELECT 42 AS answer")
    children = [identify(each["pid"]) for each in stack.status()["components"]]
    assert all(children)
    stack.kill_supervisor()
    if sys.platform == "linux":
        eventually(
            lambda: not any(is_alive(child) for child in children),
            "the children died with the supervisor",
        )
    assert stack.servery("status").returncode == 3

    stack.up()
    assert sql(stack, "SELECT answer FROM kept")[0]["answer"] == 42
    assert stack.ports()[1] == nats_port


def test_up_right_after_a_killed_supervisor_works(stack: Stack) -> None:
    stack.up()
    old = {process.pid for process in stack.processes()}
    stack.kill_supervisor()
    stack.up()
    assert stack.servery("status").returncode == 0
    assert not old & {process.pid for process in stack.processes()}


def test_down_after_a_killed_supervisor_ends_what_is_left(stack: Stack) -> None:
    # A service that does not obey, so that something certainly is left.
    stack.write_stand_in("scaler", STAND_IN.replace("lambda *_: sys.exit(0)", "signal.SIG_IGN"))
    stack.up()
    stack.kill_supervisor()
    result = stack.servery("down")
    assert result.returncode == 0
    assert "left behind" in result.stdout
    assert not stack.processes()


def test_down_frees_every_process_and_port(stack: Stack) -> None:
    stack.up()
    ports = stack.ports()
    assert not any(is_free(port) for port in ports)
    result = stack.servery("down")
    assert result.returncode == 0
    assert not stack.processes()
    assert all(is_free(port) for port in ports)
    assert not (stack.data_dir / "run").exists()


def test_down_without_a_stack_says_so(stack: Stack) -> None:
    result = stack.servery("down")
    assert result.returncode == 0
    assert "does not run" in result.stdout


@pytest.mark.parametrize("arguments", [("up",), ("up", "--detach")])
def test_a_second_up_is_refused(stack: Stack, arguments: tuple[str, ...]) -> None:
    stack.up()
    supervisor = stack.status()["supervisor_pid"]
    result = stack.servery(*arguments)
    assert result.returncode == 1
    assert "already runs" in result.stderr
    assert stack.status()["supervisor_pid"] == supervisor


@pytest.mark.parametrize("arguments", [("up",), ("up", "--detach")])
def test_a_taken_port_is_named_with_the_way_out(stack: Stack, arguments: tuple[str, ...]) -> None:
    with socket.create_server(("127.0.0.1", stack.port)):
        result = stack.servery(*arguments)
    assert result.returncode == 1
    output = result.stdout + result.stderr
    assert f"port {stack.port} on 127.0.0.1 is taken by" in output
    assert f"(pid {os.getpid()})" in output
    assert "--port" in output
    assert not stack.data_dir.exists()


def test_a_component_that_dies_at_once_is_shown_with_its_log(stack: Stack) -> None:
    stack.write_stand_in("builder", "raise SystemExit('no space left on device')")
    result = stack.servery("up")
    assert result.returncode == 1
    assert "builder ended with exit code 1, 3 times in a row" in result.stderr
    assert "no space left on device" in result.stderr
    assert "servery logs builder`" in result.stderr
    assert not stack.processes()


def test_ctrl_c_stops_a_stack_in_the_foreground(stack: Stack) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "servery_local", "up"],
        env=stack.environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    eventually(lambda: stack.servery("status").returncode == 0, "the stack is ready")
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=DEADLINE)
    assert process.returncode == 0
    assert "Servery is ready" in output
    assert "\x1b" not in output
    assert not stack.processes()


def test_env_is_understood_by_a_shell(stack: Stack, tracking: StandInMlflow) -> None:
    stack.external_mlflow = f"http://{tracking.address}/a path?x='1'"
    stack.up()
    script = stack.servery("env").stdout + 'printf "%s\\n" "$DATABRICKS_HOST" "$MLFLOW_TRACKING_URI"'
    lines = subprocess.check_output(["sh", "-c", script], text=True).splitlines()
    assert lines == [f"http://127.0.0.1:{stack.port}", stack.external_mlflow]


def test_a_password_of_mlflow_is_told_to_nobody_but_who_asks_for_the_environment(
    stack: Stack, tracking: StandInMlflow
) -> None:
    stack.external_mlflow = f"http://ann:s3cret@{tracking.address}"
    console = stack.up()
    assert "s3cret" in stack.servery("env").stdout
    told = [console, stack.servery("status").stdout, stack.servery("status", "--json").stdout]
    told += [(stack.data_dir / "state.json").read_text(), stack.servery("logs").stdout]
    assert not [text for text in told if "s3cret" in text]
    assert f"using the MLflow at http://***@{tracking.address} (MLFLOW_TRACKING_URI)" in told[0]
    assert stat.S_IMODE((stack.data_dir / "tracking.json").stat().st_mode) == 0o600


def test_logs_are_kept_by_component_and_together(stack: Stack) -> None:
    stack.up()
    assert stack.servery("logs", "scaler").stdout == "hello from servery_scaler\n"
    together = stack.servery("logs").stdout
    assert "scaler     | hello from servery_scaler" in together
    assert "database system is ready" in together


def test_secrets_are_closed_to_others_and_given_only_where_needed(stack: Stack) -> None:
    stack.up()
    for name in ("secrets.json", "nats/nats.conf", "state.json"):
        assert stat.S_IMODE((stack.data_dir / name).stat().st_mode) == 0o600
    assert not (stack.data_dir).stat().st_mode & (stat.S_IRGRP | stat.S_IROTH)

    def names(component: str) -> set[str]:
        return set(psutil.Process(stack.component(component)["pid"]).environ())

    assert "SERVERY_ADMIN_TOKEN" in names("controller")
    for component in ("gateway", "builder", "scaler", "worker", "nats"):
        assert "SERVERY_ADMIN_TOKEN" not in names(component)
    for component in ("gateway", "scaler", "worker"):
        assert "SERVERY_POSTGRES_URL" not in names(component)


def test_mlflow_runs_unless_another_one_is_named(stack: Stack) -> None:
    stack.external_mlflow = None
    stack.up()
    with urlopen(f"{stack.status()['mlflow_url']}/health") as answer:
        assert answer.status == 200
    assert stack.component("mlflow")["state"] == "running"
    own = stack.status()["mlflow_url"]
    assert stack.servery("down").returncode == 0
    assert not stack.processes()
    assert stack.status()["mlflow_url"] is None

    # As in a shell that knows the stack by `servery env`: its own MLflow is no external one.
    stack.external_mlflow = own
    stack.up()
    assert stack.component("mlflow")["state"] == "running"
    assert stack.status()["mlflow_url"] == own


@pytest.mark.parametrize("arguments", [("up",), ("up", "--detach")])
@pytest.mark.parametrize(
    ("uri", "why"),
    [
        ("http://127.0.0.1:9", "nothing answers there"),
        ("http://127.0.0.1:{gateway}", "nothing answers there"),
        ("databricks", "the http(s) address"),
        ("sqlite:///mlflow.db", "the http(s) address"),
    ],
)
def test_an_mlflow_that_cannot_be_used_is_refused_in_a_sentence(
    stack: Stack, arguments: tuple[str, ...], uri: str, why: str
) -> None:
    stack.external_mlflow = uri.format(gateway=stack.port)
    result = stack.servery(*arguments)
    assert result.returncode == 1
    [line] = result.stderr.splitlines()
    assert line.startswith(f"error: MLFLOW_TRACKING_URI is {stack.external_mlflow}, but ")
    assert why in line
    assert not stack.data_dir.exists()


def test_of_two_starts_at_once_one_is_refused_and_the_console_is_the_others(stack: Stack) -> None:
    starts = [
        subprocess.Popen(
            [sys.executable, "-m", "servery_local", "up", "--detach"],
            env=stack.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for _ in range(2)
    ]
    outputs = [start.communicate(timeout=DEADLINE)[0] for start in starts]
    by_code = dict(zip([start.returncode for start in starts], outputs, strict=True))
    assert sorted(by_code) == [0, 1], outputs
    assert "Servery is ready" in by_code[0]
    assert by_code[1].startswith("error: Servery already runs on")
    assert "ready in" not in by_code[1]
    assert (stack.data_dir / "logs" / "console.log").read_text() == by_code[0]


def test_a_data_directory_that_cannot_be_is_told_in_a_line(stack: Stack) -> None:
    file = stack.home / "file"
    file.touch()
    for command in (("up",), ("up", "--detach")):
        result = stack.servery(*command, "--data-dir", str(file / "data"))
        assert result.returncode == 1
        [line] = result.stderr.splitlines()
        assert line == f"error: cannot use {file / 'data'} as data directory: Not a directory"


def test_an_address_of_another_machine_is_not_called_taken(stack: Stack) -> None:
    result = stack.servery("up", "--host", "192.0.2.1")
    assert result.returncode == 1
    assert "192.0.2.1 is not an address of this machine" in result.stderr
    assert not stack.data_dir.exists()


def test_logs_that_are_not_there_are_told_in_words(stack: Stack) -> None:
    assert "Servery never ran" in stack.servery("logs").stderr
    stack.up()
    error = stack.servery("logs", "nope").stderr
    assert "no log of nope; there are: builder, console, controller," in error


def test_a_deep_data_directory_gets_short_sockets(stack: Stack) -> None:
    stack.home /= "deep" * 25
    for service in SERVICES:
        stack.write_stand_in(service)
    stack.up()
    assert not (stack.data_dir / "run").exists()
    assert stack.servery("down").returncode == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs the database as another user")
def test_below_a_closed_directory_root_gives_the_database_a_place_of_its_own(
    stack: Stack, tmp_path: Path
) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    stack.home = closed
    for service in SERVICES:
        stack.write_stand_in(service)
    console = stack.up()
    place = Path(stack.status()["database"])
    try:
        assert place.is_relative_to(SHARED)
        assert str(place) in console
        sql(stack, "CREATE TABLE kept AS SELECT 42 AS answer")
        assert stack.servery("down").returncode == 0
        stack.up()
        assert sql(stack, "SELECT answer FROM kept")[0]["answer"] == 42
        assert stat.S_IMODE(closed.stat().st_mode) == 0o700
    finally:
        assert stack.servery("down").returncode == 0
        shutil.rmtree(place.parent)
