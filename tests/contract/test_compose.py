"""docker-compose.yml and what it mounts, without an engine: what must hold for every service of it."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from servery_credentials.installation import PARTS, Passwords

from servery_common.contracts.permissions import SERVICES, inbox_prefix

ROOT = Path(__file__).parents[2]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
PARTS_OF_IT: Mapping[str, Any] = COMPOSE["services"]
OURS = ("gateway", "controller", "builder", "scaler", "mlflow", "credentials")
WITH_A_DATABASE = {
    name: url
    for name, variables in Passwords.draw().variables().items()
    for url in variables.values()
    if url.startswith("postgresql://")
}
OBSERVABILITY = {"otel-collector", "jaeger", "prometheus", "grafana"}
PUBLISHED = {"gateway", "mlflow", "jaeger", "prometheus", "grafana"}
WITHOUT_HEALTH_CHECK = {
    "worker-image": "ends at once",
    "otel-collector": "its image has neither a shell nor a client; Prometheus watches it",
}

every = pytest.mark.parametrize("name", PARTS_OF_IT)


@every
def test_every_image_is_pinned(name: str) -> None:
    image = PARTS_OF_IT[name]["image"]
    assert re.fullmatch(r"[a-z0-9./-]+:(v?\d[\w.-]*|\$\{SERVERY_VERSION:-\d+\.\d+\.\d+\})", image), image


def test_every_variable_that_is_read_is_told_of() -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    read = {*re.findall(r"\$\{(\w+)", text), *re.findall(r"^ +([A-Z_]+):$", text, re.MULTILINE)}
    told = set(re.findall(r"`([A-Z_]+)`", (ROOT / "docs" / "compose.md").read_text()))
    assert read - told == set()


@every
def test_every_part_has_limits_and_few_rights(name: str) -> None:
    part = PARTS_OF_IT[name]
    assert part["mem_limit"]
    assert part["pids_limit"]
    assert part["cap_drop"] == ["ALL"]
    if name != "worker-image":
        assert part["cpus"]
        assert part["security_opt"] == ["no-new-privileges:true"]
        assert part["restart"] == "unless-stopped"
        assert part["logging"]["options"]["max-size"]


@every
def test_every_part_shows_its_health(name: str) -> None:
    part = PARTS_OF_IT[name]
    if name in WITHOUT_HEALTH_CHECK:
        assert part["healthcheck"] == {"disable": True}
    else:
        # Our own images carry theirs.
        assert "healthcheck" in part or name in OURS


@pytest.mark.parametrize("name", OURS)
def test_our_own_write_to_nothing_but_their_volumes(name: str) -> None:
    assert PARTS_OF_IT[name]["read_only"]


@every
def test_only_the_gateway_the_consoles_and_mlflow_are_published_and_on_loopback(name: str) -> None:
    ports = PARTS_OF_IT[name].get("ports", [])
    assert bool(ports) == (name in PUBLISHED)
    for port in ports:
        bind = "SERVERY_BIND" if name == "gateway" else "SERVERY_CONSOLES_BIND"
        assert port.startswith(f"${{{bind}:-127.0.0.1}}:${{SERVERY_"), port


def test_the_databases_have_no_way_out() -> None:
    assert COMPOSE["networks"]["internal"]["internal"]
    assert COMPOSE["networks"]["telemetry"]["internal"]
    for name in ("postgres", "nats", "credentials"):
        assert PARTS_OF_IT[name]["networks"] == ["internal"]


def test_scoring_needs_nothing_of_the_observability_part() -> None:
    needed, found = ["gateway"], set[str]()
    while needed:
        name = needed.pop()
        if name not in found:
            found.add(name)
            needed += PARTS_OF_IT[name].get("depends_on", {})
    assert found == set(PARTS_OF_IT) - OBSERVABILITY


def test_no_secret_is_in_the_file() -> None:
    for name, part in PARTS_OF_IT.items():
        for variable, value in (part.get("environment") or {}).items():
            if re.search(r"PASSWORD|TOKEN|SECRET|KEY$", variable):
                assert str(value).startswith("/run/servery/credentials/"), f"{name}: {variable}"


@every
def test_every_volume_is_declared_and_every_mounted_file_exists(name: str) -> None:
    for volume in PARTS_OF_IT[name].get("volumes", []):
        source = volume.rsplit(":", 2 if volume.count(":") > 1 and volume.endswith(":ro") else 1)[0]
        if source.startswith("./"):
            assert (ROOT / source).exists(), source
        elif not source.startswith("${"):
            assert source in COMPOSE["volumes"], source


def test_each_part_sees_its_own_credentials_and_nobody_elses() -> None:
    for name, part in PARTS_OF_IT.items():
        if name == "credentials":
            continue
        mounted = [v.split(":")[0] for v in part.get("volumes", []) if v.startswith("credentials-")]
        assert set(mounted) <= {f"credentials-{name}", f"credentials-{name}-init"}
        assert all(v.endswith(":ro") for v in part.get("volumes", []) if v.startswith("credentials-"))
    issued = {v.split(":")[0] for v in PARTS_OF_IT["credentials"]["volumes"]}
    assert issued == {f"credentials-{part.name}" for part in PARTS} | {
        "credentials-authority",
        "credentials-postgres-init",
    }


@pytest.mark.parametrize("name", [name for name in SERVICES if name in PARTS_OF_IT])
def test_each_service_uses_the_inbox_its_credentials_allow(name: str) -> None:
    assert PARTS_OF_IT[name]["environment"]["SERVERY_NATS_INBOX_PREFIX"] == inbox_prefix(name)


def test_whoever_is_issued_a_database_verifies_who_answers() -> None:
    assert set(WITH_A_DATABASE) == {"controller", "builder", "mlflow"}
    [postgres] = [part for part in PARTS if part.name == "postgres"]
    for name, url in WITH_A_DATABASE.items():
        environment = PARTS_OF_IT[name]["environment"]
        assert environment["SERVERY_POSTGRES_TLS_CA"] == "/run/servery/credentials/ca.crt", name
        assert urlsplit(url).hostname in postgres.hosts


def test_postgres_is_without_tls_only_where_somebody_says_so() -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    assert set(re.findall(r"\$\{SERVERY_POSTGRES_TLS[^}]*\}", text)) == {"${SERVERY_POSTGRES_TLS:-on}"}
    for name in (*WITH_A_DATABASE, "postgres"):
        assert PARTS_OF_IT[name]["environment"]["SERVERY_POSTGRES_TLS"] == "${SERVERY_POSTGRES_TLS:-on}"
    told = PARTS_OF_IT["credentials"]["environment"]["SERVERY_CREDENTIALS_POSTGRES_TLS"]
    assert told == "${SERVERY_POSTGRES_TLS:-on}"


def test_nobody_comes_into_postgres_over_the_network_without_tls_and_a_password() -> None:
    assert PARTS_OF_IT["postgres"]["entrypoint"] == ["sh", "/etc/servery/postgres/start.sh"]
    assert "./deploy/postgres:/etc/servery/postgres:ro" in PARTS_OF_IT["postgres"]["volumes"]
    lines = [
        line.split()
        for line in (ROOT / "deploy/postgres/pg_hba.conf").read_text().splitlines()
        if line and not line.startswith("#")
    ]
    network = [line for line in lines if line[0] != "local"]
    assert network == [["hostssl", "all", "all", "all", "scram-sha-256"]]


def test_the_collector_and_jaeger_use_only_what_they_define() -> None:
    for file in ("deploy/otel/collector.yaml", "deploy/jaeger/config.yaml"):
        config = yaml.safe_load((ROOT / file).read_text())
        assert set(config["service"]["extensions"]) == set(config["extensions"])
        for pipeline in config["service"]["pipelines"].values():
            for kind in ("receivers", "processors", "exporters"):
                assert pipeline[kind]
                assert set(pipeline[kind]) <= set(config[kind]), file
    collector = yaml.safe_load((ROOT / "deploy/otel/collector.yaml").read_text())
    jaeger = yaml.safe_load((ROOT / "deploy/jaeger/config.yaml").read_text())
    host, _, port = collector["exporters"]["otlp/jaeger"]["endpoint"].rpartition(":")
    assert host in PARTS_OF_IT
    assert jaeger["receivers"]["otlp"]["protocols"]["grpc"]["endpoint"].endswith(f":{port}")
    sent_to = PARTS_OF_IT["gateway"]["environment"]["OTEL_EXPORTER_OTLP_ENDPOINT"]
    port = collector["receivers"]["otlp"]["protocols"]["http"]["endpoint"].rpartition(":")[2]
    assert sent_to == f"${{OTEL_EXPORTER_OTLP_ENDPOINT-http://otel-collector:{port}}}"


def test_grafana_finds_its_sources_where_they_run() -> None:
    sources = yaml.safe_load((ROOT / "deploy/grafana/provisioning/datasources/servery.yml").read_text())
    hosts = {re.match(r"http://([\w-]+):", source["url"])[1] for source in sources["datasources"]}
    assert hosts == {"prometheus", "jaeger"}
    uids = {source["uid"] for source in sources["datasources"]}
    for source in sources["datasources"]:
        for linked in (
            source["jsonData"].get("exemplarTraceIdDestinations", []) if "jsonData" in source else []
        ):
            assert linked["datasourceUid"] in uids


def test_variables_that_clients_set_do_not_reach_the_services() -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    assert not re.search(r"\$\{?(MLFLOW_|DATABRICKS_)", text), (
        "they name what a person's shell reaches, not a container"
    )


def test_a_proxy_is_not_asked_for_what_is_inside() -> None:
    builder = PARTS_OF_IT["builder"]["environment"]
    spared = set(builder["NO_PROXY"].partition("$")[0].split(","))
    for name in ("MLFLOW_TRACKING_URI", "OTEL_EXPORTER_OTLP_ENDPOINT"):
        assert urlsplit(default_of(builder[name])).hostname in spared


def default_of(variable: str) -> str:
    """What ``${NAME:-default}`` or ``${NAME-default}`` is when nobody sets it."""
    found = re.fullmatch(r"\$\{\w+:?-(.*)\}", variable)
    assert found, variable
    return found[1]
