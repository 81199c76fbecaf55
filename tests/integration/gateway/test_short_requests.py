"""Short scoring requests as connections carry them: one after the other, ahead of time, in pieces and broken off."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from tests.integration.gateway.conftest import AT_ONCE, TOKEN, World, eventually
from tests.integration.gateway.peers import (
    FakeReplica,
    Work,
    echo,
    endpoint,
    entity,
    grant,
    identity,
    read_answer,
)

import servery_gateway.app
from servery_common import access_tokens
from servery_common.contracts import subjects
from servery_common.contracts.access import FindToken, TokenFound
from servery_gateway.http_protocol import GatewayProtocol

MIB = 1024 * 1024
FIRST = "/serving-endpoints/first/invocations"
"""What a token is used for first: after that it is known."""


@pytest.fixture
def long_ways(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Paths of the requests that were given to the ASGI application."""
    started: list[str] = []
    start: Any = GatewayProtocol._start_asgi_task

    def start_and_note(self: GatewayProtocol, cycle: Any, app: Any) -> None:
        if cycle.scope.get("path") != FIRST:
            started.append(cycle.scope.get("path"))
        start(self, cycle, app)

    monkeypatch.setattr(GatewayProtocol, "_start_asgi_task", start_and_note)
    return started


class Client:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        return await read_answer(self.reader)

    async def closed(self, seconds: float = AT_ONCE) -> bool:
        """Whether the gateway closes the connection without another byte."""
        return await asyncio.wait_for(self.reader.read(), seconds) == b""


@asynccontextmanager
async def connected(world: World) -> AsyncIterator[Client]:
    reader, writer = await asyncio.open_connection("127.0.0.1", world.gateway.port)
    try:
        yield Client(reader, writer)
    finally:
        writer.close()


def post(
    body: bytes,
    *headers: str,
    path: str = "/serving-endpoints/short/invocations",
    version: str = "1.1",
    token: str = TOKEN,
) -> bytes:
    """Return a request with its body."""
    lines = [
        f"POST {path} HTTP/{version}",
        "Host: x",
        f"Authorization: Bearer {token}",
        f"Content-Length: {len(body)}",
        *headers,
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body


def chunked(*pieces: bytes, trailers: str = "", path: str = "/serving-endpoints/short/invocations") -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\nTransfer-Encoding: chunked\r\n\r\n"
    return (
        head.encode()
        + b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
        + (f"0\r\n{trailers}\r\n".encode())
    )


class Held:
    """A model that answers what it was given when it is let."""

    def __init__(self) -> None:
        self.let = asyncio.Event()
        self.given: list[bytes] = []

    async def __call__(self, work: Work) -> tuple[int, bytes]:
        self.given.append(bytes(work.body))
        await self.let.wait()
        return 200, bytes(work.body)


async def serve(world: World, model: Callable[[Work], Awaitable[tuple]] = echo, **fields: Any) -> FakeReplica:
    replica = await world.replica("rshort", model)
    await world.publish(endpoint("short", entity("m-1", replica.route(slots=16)), **fields))
    assert (await world.http.post(FIRST)).status_code == 404
    return replica


async def test_a_connection_carries_one_short_request_after_the_other(
    world: World, long_ways: list[str]
) -> None:
    await serve(world)
    async with connected(world) as client:
        for number in range(5):
            client.send(post(b"[%d]" % number))
            status, headers, body = await client.answer()
            assert (status, body) == (200, b"[%d]" % number)
            assert headers["served-model-name"] == "m-1"
            assert "connection" not in headers
    assert long_ways == []


async def test_requests_sent_ahead_in_one_segment_are_answered_in_their_order(
    world: World, long_ways: list[str]
) -> None:
    async def first_last(work: Work) -> tuple[int, bytes]:
        await asyncio.sleep(0.2 if bytes(work.body) == b"[0]" else 0)
        return 200, bytes(work.body)

    await serve(world, first_last)
    async with connected(world) as client:
        client.send(b"".join(post(b"[%d]" % number) for number in range(3)))
        assert [(await client.answer())[2] for _ in range(3)] == [b"[0]", b"[1]", b"[2]"]
        client.send(post(b"[3]"))
        assert (await client.answer())[2] == b"[3]"
    assert len(long_ways) == 2, "those that had to wait for their turn"


@pytest.mark.parametrize("cut", [1, 4, 9])
async def test_a_body_that_arrives_behind_its_head_gets_the_same_answer(
    world: World, long_ways: list[str], cut: int
) -> None:
    await serve(world)
    async with connected(world) as client:
        request = post(b'{"inputs": [1]}')
        client.send(request)
        _, headers, body = await client.answer()
        assert long_ways == []
        client.send(request[:-cut])
        await eventually(lambda: len(long_ways) == 1)
        client.send(request[-cut:])
        status, other_headers, other_body = await client.answer()
        client.send(request)
        assert (await client.answer())[2] == body
    assert (status, other_body) == (200, body)
    assert other_headers.keys() == headers.keys()
    assert len(long_ways) == 1


@pytest.mark.parametrize("request_bytes", [post(b"[1]", version="1.0"), post(b"[1]", "Connection: close")])
async def test_a_connection_that_is_not_to_be_kept_is_closed_after_the_answer(
    world: World, long_ways: list[str], request_bytes: bytes
) -> None:
    await serve(world)
    async with connected(world) as client:
        client.send(request_bytes)
        status, headers, body = await client.answer()
        assert (status, body, headers["connection"]) == (200, b"[1]", "close")
        assert await client.closed()
    assert long_ways == []


@pytest.mark.parametrize("name", ["short", "nowhere"])
@pytest.mark.parametrize(("version", "connection"), [("1.1", "close"), ("1.0", "keep-alive")])
async def test_what_is_sent_behind_the_last_request_of_a_connection_is_never_run(
    world: World, long_ways: list[str], name: str, version: str, connection: str
) -> None:
    replica = await serve(world)
    async with connected(world) as client:
        path = f"/serving-endpoints/{name}/invocations"
        client.send(post(b"[1]", f"Connection: {connection}", path=path, version=version) + post(b"[2]"))
        status, headers, _ = await client.answer()
        assert (status, headers["connection"]) == (200 if name == "short" else 404, "close")
        assert await client.closed()
    async with connected(world) as client:
        client.send(post(b"[4]"))
        assert (await client.answer())[2] == b"[4]"
    assert len(replica.ran) == (2 if name == "short" else 1)
    assert long_ways == []


async def test_a_chunked_body_is_put_together(world: World, long_ways: list[str]) -> None:
    await serve(world)
    async with connected(world) as client:
        client.send(chunked(b'{"inputs"', b": [1", b"]}"))
        assert (await client.answer())[::2] == (200, b'{"inputs": [1]}')
        assert long_ways == []
        whole = chunked(b'{"inputs"', b": [1", b"]}")
        client.send(whole[:-12])
        await eventually(lambda: len(long_ways) == 1)
        client.send(whole[-12:])
        assert (await client.answer())[::2] == (200, b'{"inputs": [1]}')


@pytest.mark.parametrize(
    "path", ["/serving-endpoints/short/invocations", "/serving-endpoints/short/invocations?a"]
)
async def test_what_stands_behind_a_body_is_no_header(world: World, path: str) -> None:
    await serve(world)
    async with connected(world) as client:
        client.send(
            chunked(b"[1]", trailers="Authorization: Bearer none\r\nX-Request-Id: late\r\n", path=path)
        )
        status, headers, body = await client.answer()
    assert (status, body) == (200, b"[1]")
    assert headers["x-request-id"] != "late"


async def test_a_replica_hears_of_a_client_that_left(world: World, long_ways: list[str]) -> None:
    held = Held()
    replica = await serve(world, held)
    async with connected(world) as client:
        client.send(post(b"[1]"))
        await eventually(lambda: held.given == [b"[1]"])
    await eventually(lambda: len(replica.cancels) == 1)
    held.let.set()
    await eventually(lambda: world.gateway.dispatcher.unfinished == 0)
    assert long_ways == []


async def test_a_malformed_request_closes_the_connection_behind_the_answer_to_a_good_one(
    world: World,
) -> None:
    await serve(world)
    async with connected(world) as client:
        client.send(post(b"[1]"))
        assert (await client.answer())[0] == 200
        client.send(b"NONSENSE\r\n\r\n")
        status, headers, _ = await client.answer()
        assert (status, headers["connection"]) == (400, "close")
        assert await client.closed()


async def test_a_malformed_request_in_the_segment_of_a_good_one_does_not_take_its_answer(
    world: World,
) -> None:
    await serve(world)
    async with connected(world) as client:
        client.send(post(b"[1]") + b"NONSENSE\r\n\r\n")
        status, headers, body = await client.answer()
        assert (status, body, headers["connection"]) == (200, b"[1]", "close")
        assert await client.closed()


async def test_a_malformed_body_is_answered_400(world: World) -> None:
    await serve(world)
    for path in ("/serving-endpoints/short/invocations", "/serving-endpoints/short/invocations?a"):
        async with connected(world) as client:
            client.send(chunked(b"[1]", path=path).replace(b"3\r\n", b"x\r\n"))
            assert (await client.answer())[0] == 400
            assert await client.closed()


async def test_a_gateway_that_stops_answers_short_requests_and_closes(
    world: World, long_ways: list[str]
) -> None:
    held = Held()
    await serve(world, held)
    async with connected(world) as client, connected(world) as idle:
        idle.send(post(b"[0]", path="/serving-endpoints/nowhere/invocations"))
        assert (await idle.answer())[0] == 404
        client.send(post(b"[1]"))
        await eventually(lambda: held.given == [b"[1]"])
        stopping = asyncio.create_task(world.gateway.stop())
        assert await idle.closed()
        held.let.set()
        status, headers, body = await client.answer()
        assert (status, body, headers["connection"]) == (200, b"[1]", "close")
        assert await client.closed()
        await asyncio.wait_for(stopping, AT_ONCE)
    assert long_ways == []


@pytest.mark.parametrize("length", [64 * 1024, 64 * 1024 + 1, 3 * MIB])
async def test_long_answers_to_short_requests_arrive_whole_and_in_order(world: World, length: int) -> None:
    async def long(work: Work) -> tuple[int, bytes]:
        return 200, bytes(work.body) * (length // len(work.body))

    await serve(world, long)
    async with connected(world) as client:
        for letter in (b"a", b"b"):
            client.send(post(letter))
            status, _, body = await client.answer()
            assert (status, body) == (200, letter * length)


async def test_a_client_that_reads_no_answers_gets_no_more_of_them(
    world: World, long_ways: list[str]
) -> None:
    async def long(_work: Work) -> tuple[int, bytes]:
        return 200, bytes(8 * MIB)

    replica = await serve(world, long)
    async with connected(world) as client:
        # Several times what the sockets between them hold.
        for number in range(1, 9):
            client.send(post(b"[1]"))
            await asyncio.sleep(0.1)
            if len(replica.ran) < number:
                break
        ran = len(replica.ran)
        assert ran <= 3
        for _ in range(number):
            assert len((await client.answer())[2]) == 8 * MIB
    assert long_ways


async def test_a_refused_request_leaves_its_connection_usable(world: World, long_ways: list[str]) -> None:
    await serve(world)
    forbidden = endpoint("forbidden", entity("m-1"), query_grantees=("user:ben",))
    await world.publish(forbidden)
    await world.allow("7", 1)
    async with connected(world) as client:

        async def status(name: str) -> int:
            client.send(post(b"[1]", path=f"/serving-endpoints/{name}/invocations"))
            return (await client.answer())[0]

        assert [await status(name) for name in ("nowhere", "forbidden", "short")] == [404, 403, 200]
        statuses = [await status("short") for _ in range(20)]
        assert set(statuses) == {200, 429}
        await world.allow("7", 1000)
        assert await status("short") == 200
    assert long_ways == []


async def test_an_idle_connection_is_closed_and_one_that_waits_for_an_answer_is_not(
    bare_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(servery_gateway.app, "KEEP_ALIVE_SECONDS", 1)
    world = bare_world
    await world.connect_bus()
    await world.start_gateway()
    await eventually(lambda: world.gateway.why_not_ready() is None)
    held = Held()
    await serve(world, held)
    async with connected(world) as idle, connected(world) as busy, connected(world) as ahead:
        refused = post(b"[0]", path="/serving-endpoints/nowhere/invocations")
        for client in (idle, busy):
            client.send(refused)
            assert (await client.answer())[0] == 404
        busy.send(post(b"[1]"))
        ahead.send(refused + post(b"[2]"))
        assert (await ahead.answer())[0] == 404
        assert await idle.closed()
        await asyncio.sleep(2.5)
        held.let.set()
        assert [(await client.answer())[2] for client in (busy, ahead)] == [b"[1]", b"[2]"]
        assert await busy.closed()
        assert await ahead.closed()


@pytest.mark.parametrize(
    "path",
    [
        "/serving-endpoints/sh%6frt/invocations",
        "/serving-endpoints/short/invocations?a=b",
        "/serving-endpoints/short/invocations/",
        "http://x/serving-endpoints/short/invocations",
    ],
)
async def test_other_ways_to_write_the_path_get_the_same_answer(world: World, path: str) -> None:
    await serve(world)
    async with connected(world) as client:
        client.send(post(b"[1]"))
        status, headers, body = await client.answer()
        client.send(post(b"[1]", path=path))
        other = await client.answer()
    assert (other[0], other[2]) == (status, body) == (200, b"[1]")
    assert other[1].keys() == headers.keys()


async def test_a_token_nobody_told_of_takes_the_long_way_and_is_answered(
    world: World, long_ways: list[str]
) -> None:
    await serve(world)
    fresh = access_tokens.generate()
    token = grant(fresh)

    async def find(asked: FindToken) -> TokenFound:
        known = asked.token_sha256 == token.token_sha256
        return TokenFound(grant=token, identity=identity()) if known else TokenFound()

    await world.bus.serve(subjects.controller_find_token(), FindToken, find, queue="controller")
    async with connected(world) as client:
        client.send(post(b"[1]", token=fresh))
        assert (await client.answer())[::2] == (200, b"[1]")
        assert len(long_ways) == 1
        client.send(post(b"[2]", token=access_tokens.generate()))
        assert (await client.answer())[0] == 401
        client.send(post(b"[3]"))
        assert (await client.answer())[::2] == (200, b"[3]")
    assert len(long_ways) == 2
