import signal
from dataclasses import replace

from servery_local.processes import ProcessIdentity
from servery_local.state import ComponentState, ComponentStatus, Phase, StackState, describe

GATEWAY = ComponentStatus(
    name="gateway",
    state=ComponentState.RUNNING,
    process=ProcessIdentity(11, "boot/100"),
    stop_signal=signal.SIGTERM,
    since=1000.0,
    ready_seconds=0.5,
    restarts=2,
)
STACK = StackState(
    phase=Phase.RUNNING,
    supervisor=ProcessIdentity(10, "boot/90"),
    runtime="/data/run",
    gateway_url="http://127.0.0.1:8080",
    mlflow_url="http://127.0.0.1:5000",
    components=(GATEWAY,),
)


def test_a_running_component_is_described_with_its_uptime() -> None:
    described = describe(STACK, now=1060.04)
    assert described["ready"] is True
    assert described["supervisor_pid"] == 10
    assert described["components"] == [
        {"name": "gateway", "state": "running", "pid": 11, "uptime_seconds": 60.0, "restarts": 2}
    ]


def test_one_restarting_component_makes_the_stack_not_ready() -> None:
    restarting = replace(GATEWAY, state=ComponentState.RESTARTING)
    assert not replace(STACK, components=(GATEWAY, restarting)).is_ready


def test_a_stack_that_is_still_starting_is_not_ready() -> None:
    assert not replace(STACK, phase=Phase.STARTING).is_ready


def test_a_stopped_stack_has_no_processes() -> None:
    described = describe(STACK.as_stopped(), now=2000.0)
    assert described["phase"] == "stopped"
    assert described["supervisor_pid"] is None
    assert described["gateway_url"] is described["mlflow_url"] is None
    assert described["components"][0]["pid"] is None
    assert described["components"][0]["uptime_seconds"] is None
