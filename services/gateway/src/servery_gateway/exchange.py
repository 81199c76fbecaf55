"""One scoring request and what is known about its answer so far."""

import time
from collections.abc import Mapping
from typing import NamedTuple

from servery_common.contracts.access import Identity
from servery_common.contracts.routes import EndpointRoute, ServedEntityRoute
from servery_gateway.http import Header, header_value, request_id_of
from servery_gateway.request_meter import EntityMeter
from servery_gateway.request_trace import RequestTrace


class Target(NamedTuple):
    """What the path of a scoring request names."""

    endpoint: str
    served_entity: str | None = None


class Admitted(NamedTuple):
    """What a request that may come in goes to."""

    route: EndpointRoute
    entity: ServedEntityRoute
    content_type: str


class Exchange:
    """From the request's headers to the end of its answer."""

    __slots__ = (
        "began",
        "client",
        "headers",
        "identity",
        "meter",
        "predict_ms",
        "queue_ms",
        "request_id",
        "response_headers",
        "served_entity",
        "target",
        "trace",
    )

    def __init__(
        self, target: Target, headers: Mapping[bytes, bytes], trace: RequestTrace, client: str | None
    ) -> None:
        self.began = time.perf_counter()
        self.target = target
        self.headers = headers
        self.trace = trace
        self.client = client
        """The address the request came from; None: not known."""
        request_id = request_id_of(headers)
        self.request_id = request_id.decode()
        self.response_headers: list[Header] = [(b"x-request-id", request_id)]
        self.served_entity: str | None = None
        self.identity: Identity | None = None
        self.meter: EntityMeter | None = None
        self.queue_ms: float | None = None
        self.predict_ms: float | None = None

    def headers_of_answer(self) -> list[Header]:
        """Return what the answer's own headers are added to."""
        if self.served_entity is not None:
            self.response_headers.append((b"served-model-name", header_value(self.served_entity)))
        return self.response_headers
