from pathlib import Path

import pytest

from servery_local.data_directory import Secrets
from servery_local.errors import LocalError
from servery_local.services import SERVICES, Addresses, variables

SECRETS = Secrets(admin_token="dapi0", nats_password="n0", stack_id="s0", encryption_key="k0")
ADDRESSES = Addresses(
    gateway_host="0.0.0.0",
    gateway_port=8080,
    gateway_url="http://127.0.0.1:8080",
    nats_url="nats://127.0.0.1:4222",
    nats_monitoring_url="http://127.0.0.1:8222",
    postgres_url="postgresql://servery@/servery?host=%2Frun",
    mlflow_url="http://127.0.0.1:5000",
)
SHELL = {
    "PATH": "/bin",
    "SERVERY_NATS_URL": "nats://elsewhere:4222",
    "SERVERY_DATA_DIR": "/the/whole/stack",
    "AWS_SECRET_ACCESS_KEY": "s",
    "UV_INDEX_URL": "https://packages.example/simple",
    "CUDA_VISIBLE_DEVICES": "0",
    "SERVERY_NOTIFICATIONS_SMTP_URL": "smtp://user:password@mail.example",
}


def environments(**more: str) -> dict[str, dict[str, str]]:
    return {
        service.name: variables(
            service, Path("/data", service.name), Path("/artifacts"), SECRETS, ADDRESSES, {**SHELL, **more}
        )
        for service in SERVICES
    }


@pytest.mark.parametrize(
    ("variable", "services"),
    [
        ("SERVERY_NATS_URL", {"gateway", "controller", "builder", "scaler", "worker"}),
        ("SERVERY_NATS_PASSWORD", {"gateway", "controller", "builder", "scaler", "worker"}),
        ("SERVERY_POSTGRES_URL", {"controller", "builder"}),
        ("SERVERY_ADMIN_TOKEN", {"controller"}),
        ("SERVERY_GATEWAY_PORT", {"gateway"}),
        ("SERVERY_ARTIFACTS_DIR", {"builder", "worker"}),
        ("MLFLOW_TRACKING_URI", {"builder"}),
        ("AWS_SECRET_ACCESS_KEY", {"builder"}),
        ("UV_INDEX_URL", {"builder"}),
        ("SERVERY_NOTIFICATIONS_SMTP_URL", {"controller"}),
        ("CUDA_VISIBLE_DEVICES", {"controller", "worker"}),
    ],
)
def test_a_variable_goes_only_where_it_is_needed(variable: str, services: set[str]) -> None:
    assert {name for name, env in environments().items() if variable in env} == services


def test_the_stack_wins_over_the_shell() -> None:
    gateway = environments()["gateway"]
    assert gateway["SERVERY_NATS_URL"] == "nats://127.0.0.1:4222"
    assert gateway["SERVERY_DATA_DIR"] == "/data/gateway"


def test_each_service_serves_its_metrics_on_a_port_of_its_own_and_the_gateway_has_room_for_more_processes() -> (
    None
):
    assert all("SERVERY_METRICS_PORT" not in env for env in environments().values())
    told = environments(SERVERY_METRICS_PORT="9464")
    ports = {name: int(env["SERVERY_METRICS_PORT"]) for name, env in told.items()}
    assert ports == {"controller": 9464, "builder": 9465, "scaler": 9466, "worker": 9467, "gateway": 9468}
    assert told["controller"]["SERVERY_NATS_MONITORING_URL"] == "http://127.0.0.1:8222"


@pytest.mark.parametrize("written", ["0", "65535", "-1", "http", ""])
def test_what_is_no_port_for_metrics_is_said(written: str) -> None:
    with pytest.raises(LocalError, match="SERVERY_METRICS_PORT"):
        environments(SERVERY_METRICS_PORT=written)


def test_models_call_back_where_the_operator_says_or_else_where_this_machine_finds_the_gateway() -> None:
    assert environments()["controller"]["SERVERY_PUBLIC_URL"] == "http://127.0.0.1:8080"
    own = environments(SERVERY_PUBLIC_URL="https://serving.example")
    assert own["controller"]["SERVERY_PUBLIC_URL"] == "https://serving.example"


def test_the_gateway_stops_before_those_it_sends_to() -> None:
    stages = {service.name: service.stop_stage for service in SERVICES}
    assert stages.pop("gateway") < min(stages.values())
