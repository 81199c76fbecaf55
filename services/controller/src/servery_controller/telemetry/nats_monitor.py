"""The NATS server as it tells of itself on its monitoring port (``/varz``, ``/jsz``)."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import httpx
from prometheus_client.core import CounterMetricFamily, Metric

from servery_common.metric_families import gauge, single

ANSWER_SECONDS = 3.0
FAILURES: tuple[type[Exception], ...] = (httpx.HTTPError, ValueError, KeyError, TypeError)
"""What ``read_nats`` raises when nobody answers, or somebody else."""


@dataclass(frozen=True, slots=True)
class NatsServer:
    """A server at one moment: what it answered."""

    server: Mapping[str, Any]
    jetstream: Mapping[str, Any]


async def read_nats(web: httpx.AsyncClient, url: str) -> NatsServer:
    """Ask the server whose monitoring port is at ``url``. Raises one of ``FAILURES``."""
    answers = [await web.get(f"{url.rstrip('/')}/{page}", timeout=ANSWER_SECONDS) for page in ("varz", "jsz")]
    varz, jsz = (answer.raise_for_status().json() for answer in answers)
    seen = NatsServer(varz, jsz)
    list(present_nats(seen))  # what is no NATS server's shows here, and not in a scrape
    return seen


def present_nats(seen: NatsServer) -> Iterator[Metric]:
    """Return it as Prometheus has it."""
    server, jetstream = seen.server, seen.jetstream
    yield single("servery_nats_server_connections", "Clients connected.", server["connections"])
    yield single("servery_nats_server_max_connections", "Most it takes.", server["max_connections"])
    yield single("servery_nats_server_subscriptions", "Subscriptions.", server["subscriptions"])
    yield single("servery_nats_server_memory_bytes", "Resident memory of the server.", server["mem"])
    yield single(
        "servery_nats_server_cpu_ratio", "Processors it uses: 1 is a whole one.", float(server["cpu"]) / 100
    )
    yield CounterMetricFamily(
        "servery_nats_server_slow_consumers",
        "Clients that were cut off because they did not read what was sent to them.",
        value=server["slow_consumers"],
    )
    for name, unit in (("messages", "msgs"), ("bytes", "bytes")):
        family = CounterMetricFamily(
            f"servery_nats_server_{name}", f"{name.capitalize()} to and from clients.", labels=("direction",)
        )
        family.add_metric(("in",), server[f"in_{unit}"])
        family.add_metric(("out",), server[f"out_{unit}"])
        yield family
    yield gauge(
        "servery_nats_jetstream_bytes",
        "What streams hold.",
        ("storage",),
        ((("memory",), jetstream["memory"]), (("file",), jetstream["storage"])),
    )
    yield gauge(
        "servery_nats_jetstream_max_bytes",
        "Most they may hold.",
        ("storage",),
        ((("memory",), jetstream["config"]["max_memory"]), (("file",), jetstream["config"]["max_storage"])),
    )
    yield single(
        "servery_nats_jetstream_streams", "Streams, key-value buckets among them.", jetstream["streams"]
    )
    yield single("servery_nats_jetstream_consumers", "Consumers of streams.", jetstream["consumers"])
    yield single("servery_nats_jetstream_messages", "Messages in all streams.", jetstream["messages"])
    api = CounterMetricFamily(
        "servery_nats_jetstream_api_requests", "Calls of JetStream's API.", labels=("result",)
    )
    api.add_metric(("all",), jetstream["api"]["total"])
    api.add_metric(("error",), jetstream["api"]["errors"])
    yield api
