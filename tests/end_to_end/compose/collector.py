"""Plays the collector in a container, under its name and port: prints a line of JSON for each span it is sent."""

import gzip
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

_printing = threading.Lock()
"""Each request has a thread, and ``print`` ends its line with a second write."""


class Handler(BaseHTTPRequestHandler):
    """Takes OTLP over HTTP."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        if self.path == "/v1/traces":
            _show(ExportTraceServiceRequest.FromString(body))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


def _show(request: ExportTraceServiceRequest) -> None:
    for resource in request.resource_spans:
        names = {one.key: one.value.string_value for one in resource.resource.attributes}
        for scope in resource.scope_spans:
            for span in scope.spans:
                told = {"service": names.get("service.name"), "name": span.name, "trace": span.trace_id.hex()}
                with _printing:
                    print(json.dumps(told), flush=True)


if __name__ == "__main__":
    ThreadingHTTPServer(("", 4318), Handler).serve_forever()
