"""What the operator sees: every panel and every alert, asked of a real Prometheus that scrapes a stack under load."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any, NamedTuple

import pytest
import yaml
from tests.end_to_end.client import Client, fine, registrar
from tests.end_to_end.deadlines import eventually
from tests.end_to_end.load import Load
from tests.end_to_end.otlp_receiver import OtlpReceiver
from tests.end_to_end.prometheus import DEPLOY, Prometheus, found, running_prometheus
from tests.end_to_end.stack import Stack, run_stack
from tests.models import zoo
from tests.models.bodies import Body
from tests.scraping import scrape, total

ORDER = ("controller", "builder", "scaler", "worker", "gateway")
"""As ``servery up`` gives out the ports from ``SERVERY_METRICS_PORT`` on."""
ENDPOINT = "observed"
SECONDS_OF_LOAD = 15
VARIABLES = {
    "$__rate_interval": "5m",
    "$workspace": "1",
    "$endpoint": ENDPOINT,
    "$served_entity": ".*",
}


class Panel(NamedTuple):
    board: str
    title: str
    expression: str


def panels() -> Iterator[Panel]:
    for path in sorted((DEPLOY / "grafana" / "dashboards").glob("*.json")):
        for row in json.loads(path.read_text())["panels"]:
            for panel in [row, *row.get("panels", ())]:
                for target in panel.get("targets", ()):
                    yield Panel(path.stem, panel["title"], target["expr"])


PANELS = list(panels())
OF_CONTAINERS = ("servery_worker_credentials_left_ratio",)
"""Series of installations in containers, which tests/end_to_end/compose looks for."""
RULES: list[dict[str, Any]] = [
    rule
    for path in sorted((DEPLOY / "prometheus" / "rules").glob("*.yml"))
    for group in yaml.safe_load(path.read_text())["groups"]
    for rule in group["rules"]
]


class World(NamedTuple):
    stack: Stack
    prometheus: Prometheus
    receiver: OtlpReceiver
    ports: dict[str, int]


def first_free_of(count: int) -> int:
    """The first of so many ports in a row on which nobody listens."""
    for first in range(32_000, 32_700, count):
        try:
            for port in range(first, first + count):
                with closing(socket.socket()) as probe:
                    probe.bind(("127.0.0.1", port))
        except OSError:
            continue
        return first
    raise AssertionError("no ports are free")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A stack that has had load, failures and a model that died, with Prometheus looking on from the start."""
    if found() is None:
        pytest.skip("needs the program prometheus, which Debian's package of that name has")
    first = first_free_of(len(ORDER))
    ports = {name: first + at for at, name in enumerate(ORDER)}
    scraped = {name: port for name, port in ports.items() if name != "worker"}
    receiver = OtlpReceiver()
    try:
        for stack in run_stack(
            {
                "SERVERY_METRICS_PORT": str(first),
                "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint,
                "OTEL_TRACES_SAMPLER": "always_on",
                "OTEL_BSP_SCHEDULE_DELAY": "500",
            }
        ):
            with running_prometheus(tmp_path_factory.mktemp("prometheus"), scraped) as prometheus:
                client = Client(stack)
                try:
                    work(client)
                    yield World(stack, prometheus, receiver, ports)
                finally:
                    client.close()
            stack.assert_nothing_crashed()
    finally:
        receiver.close()


def work(client: Client) -> None:
    """Deploy, serve, be refused, raise, and die once."""
    client.deploy(ENDPOINT, "misbehaves", registrar(client)(zoo.misbehaves()))
    with Load(client, ENDPOINT) as load:
        started = load.count()
        eventually(
            lambda: (
                load.count() > started + 100
                and load.scored[-1].answered_at - load.scored[0].sent_at > SECONDS_OF_LOAD
            ),
            within=120,
            what="there was load for a while",
        )
    assert client.score(ENDPOINT, fine("raise")).status_code == 400
    kill_the_model_at_work(client, load.scored[-1].pid)
    assert client.score(ENDPOINT, Body("too long a content type", b"{}", "x" * 300)).status_code == 400
    assert client.score("nowhere", fine()).status_code == 404
    eventually(
        lambda: client.score(ENDPOINT, fine()).status_code == 200, within=60, what="the model is there again"
    )


def kill_the_model_at_work(client: Client, pid: int | None) -> None:
    """End the model's process from outside, as the kernel does where memory is short."""
    assert pid is not None
    with ThreadPoolExecutor(1) as pool:
        working = pool.submit(client.score, ENDPOINT, fine("sleep:20"))
        time.sleep(1)  # it is on its way: nothing outside tells when the model has it
        os.kill(pid, signal.SIGKILL)
        assert working.result().status_code == 503


def answered(prometheus: Prometheus, expression: str) -> list[float]:
    """The numbers an expression returns, without NaN: what was divided by nothing."""
    values = [float(one["value"][1]) for one in prometheus.query(expression)]
    return [value for value in values if not math.isnan(value)]


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: f"{panel.board}: {panel.title}")
def test_every_panel_shows_something(world: World, panel: Panel) -> None:
    expression = panel.expression
    for name, value in VARIABLES.items():
        expression = expression.replace(name, value)
    assert "$" not in expression
    assert eventually(
        lambda: answered(world.prometheus, expression), within=30, what=f"data for {expression}", interval=1
    )


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_every_alert_looks_at_series_that_there_are(world: World, rule: dict[str, Any]) -> None:
    world.prometheus.query(rule["expr"])
    for selector in re.findall(r"\b(?:servery_\w+|process_\w+|up)\b(?:\{[^}]*\})?", rule["expr"]):
        if selector in OF_CONTAINERS:
            continue
        if selector in OF_CONTAINERS:
            continue
        assert eventually(
            lambda one=selector: answered(world.prometheus, f"count({one})"),
            within=30,
            what=f"series of {selector}",
            interval=1,
        )


def test_prometheus_evaluates_all_rules_and_nobody_is_woken(world: World) -> None:
    def evaluated() -> list[dict[str, Any]]:
        rules = [rule for group in world.prometheus.get("/rules")["groups"] for rule in group["rules"]]
        assert {rule["name"] for rule in rules} == {rule["alert"] for rule in RULES}
        assert all(rule["health"] == "ok" for rule in rules), rules
        return rules

    rules = eventually(evaluated, within=30, what="all rules were evaluated", interval=1)
    critical = [
        rule["name"]
        for rule in rules
        if rule["labels"]["severity"] == "critical" and rule["state"] == "firing"
    ]
    assert critical == []


def test_a_slow_request_leads_to_its_trace(world: World) -> None:
    exemplars = eventually(
        lambda: world.prometheus.exemplars('servery_gateway_request_duration_seconds_bucket{phase="total"}'),
        within=30,
        what="exemplars",
        interval=1,
    )
    trace_id = exemplars[-1]["labels"]["trace_id"]
    spans = eventually(lambda: world.receiver.trace(trace_id), within=30, what=f"the trace {trace_id}")
    assert "servery-gateway" in {span.service for span in spans}


def test_what_is_counted_is_what_clients_saw(world: World) -> None:
    samples = scrape(world.ports["gateway"])
    requests = "servery_gateway_requests_total"
    assert total(samples, requests, endpoint=ENDPOINT, status="2xx") > 100
    assert total(samples, requests, endpoint=ENDPOINT, status="4xx") >= 1
    assert total(samples, requests, endpoint=ENDPOINT, status="5xx") >= 1
    rejections = "servery_gateway_rejections_total"
    assert total(samples, rejections, endpoint=ENDPOINT, reason="replica_died") == 1
    assert total(samples, rejections, endpoint=ENDPOINT, reason="bad_request") == 1
    assert total(samples, rejections, endpoint="", reason="not_found") == 1
    durations = "servery_gateway_request_duration_seconds_count"
    counted = total(samples, durations, endpoint=ENDPOINT, phase="total")
    assert counted == total(samples, requests, endpoint=ENDPOINT)
    builder = scrape(world.ports["builder"])
    assert total(builder, "servery_builder_builds_total", result="succeeded") == 1
    controller = scrape(world.ports["controller"])
    batches = total(controller, "servery_replica_batch_size_count", endpoint=ENDPOINT)
    assert batches > 100
    assert total(controller, "servery_replica_restarts_total", endpoint=ENDPOINT) == 1
    assert total(scrape(world.ports["worker"]), "servery_nats_connected") == 2


def test_log_lines_within_a_trace_name_it(world: World) -> None:
    said = [json.loads(line) for line in world.stack.logs("controller") if line.startswith("{")]
    published = [line for line in said if line["event"] == "route_published"]
    assert published, "a reconcile step, which is a span of its own, has logged"
    for line in published:
        assert re.fullmatch("[0-9a-f]{32}", line["trace_id"]), line
        assert re.fullmatch("[0-9a-f]{16}", line["span_id"]), line
        assert world.receiver.trace(line["trace_id"]), line
