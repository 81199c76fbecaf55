import json

import httpx
import pytest

from servery_local.client import ApiError, EndpointsClient, normalise_host, parse_error
from servery_local.errors import LocalError


def client(handler) -> EndpointsClient:
    transport = httpx.MockTransport(handler)
    return EndpointsClient(httpx.Client(base_url="http://servery.test", transport=transport))


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("http://127.0.0.1:8080/", "http://127.0.0.1:8080"),
        ("serving.example", "https://serving.example"),
    ],
)
def test_a_host_is_understood_as_the_databricks_clients_do(host: str, expected: str) -> None:
    assert normalise_host(host) == expected


def test_an_error_is_printed_as_code_and_message() -> None:
    body = {"error_code": "RESOURCE_CONFLICT", "message": "an update is in progress"}
    error = parse_error(httpx.Response(409, json=body))
    assert str(error) == "RESOURCE_CONFLICT: an update is in progress"
    assert error.status == 409


def test_the_trace_of_the_models_exception_is_kept() -> None:
    body = {"error_code": "BAD_REQUEST", "message": "it raised", "stack_trace": "Traceback"}
    assert parse_error(httpx.Response(400, json=body)).stack_trace == "Traceback"


def test_an_error_of_something_else_on_the_way_is_printed_too() -> None:
    assert str(parse_error(httpx.Response(502, text="bad gateway"))) == "HTTP 502: bad gateway"
    assert str(parse_error(httpx.Response(502, text=""))) == "HTTP 502: Bad Gateway"


def test_names_are_quoted_in_paths() -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        assert request.url.raw_path == b"/api/2.0/serving-endpoints/a%2Fb/config"
        assert json.loads(request.content) == {"served_entities": []}
        return httpx.Response(200, json={"name": "a/b"})

    assert client(handler).update_config("a/b", {"served_entities": []}) == {"name": "a/b"}


def test_a_build_log_that_does_not_exist_yet_is_empty() -> None:
    body = {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "no build yet"}
    assert client(lambda _: httpx.Response(404, json=body)).build_logs("e", "m-1") == ""


def test_another_error_of_the_build_log_is_raised() -> None:
    body = {"error_code": "PERMISSION_DENIED", "message": "no"}
    with pytest.raises(ApiError, match="PERMISSION_DENIED: no"):
        client(lambda _: httpx.Response(403, json=body)).build_logs("e", "m-1")


def test_nobody_answering_is_told_with_the_address() -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("connection refused", request=request)

    with pytest.raises(LocalError, match=r"no answer from http://servery\.test.*refused"):
        client(handler).list()


def test_a_body_is_sent_as_it_is() -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        assert request.url.path == "/serving-endpoints/iris/invocations"
        assert request.headers["content-type"] == "text/csv"
        return httpx.Response(200, content=request.content)

    assert client(handler).invoke("iris", b"a,b\n1,2\n", "text/csv").content == b"a,b\n1,2\n"
