"""What clients may send and leave undone on a connection, before anybody knows who they are."""

import asyncio

import pytest
from tests.integration.gateway.conftest import AT_ONCE, TOKEN, World, eventually
from tests.integration.gateway.peers import Work, echo, endpoint, entity, read_answer
from tests.integration.gateway.test_short_requests import Client, connected, post

import servery_gateway.app
from servery_common.contracts import frames
from servery_gateway import careful_protocol, http_protocol, paths

PATH = "/serving-endpoints/iris/invocations"
KIB = 1024


async def serve(world: World, model=echo):
    replica = await world.replica("r1", model)
    await world.publish(endpoint("iris", entity("v1", replica.route())))
    return replica


def head(*lines: str, method: str = "POST", path: str = PATH, version: str = "1.1") -> bytes:
    return "\r\n".join(
        [f"{method} {path} HTTP/{version}", "host: h", f"authorization: Bearer {TOKEN}", *lines, "", ""]
    ).encode()


def connections(world: World) -> set:
    return world.gateway._server.server_state.connections


async def refusal(client: Client) -> int | None:
    """The status of what the gateway says before it closes; None when the rest of what was sent made it a reset."""
    try:
        return (await client.answer())[0]
    except (ConnectionError, asyncio.IncompleteReadError):
        return None


H2C = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__")


@pytest.mark.parametrize("spelling", ["Upgrade", "upgrade", "UPGRADE"])
@pytest.mark.parametrize("pieces", [1, 2])
async def test_an_offer_to_upgrade_is_ignored_and_the_body_is_the_body(
    world: World, spelling: str, pieces: int
):
    """As curl --http2 and Java's client send it."""
    replica = await serve(world)
    body = b'{"inputs": [1]}'
    lines = [line.replace("Upgrade: ", f"{spelling}: ") for line in H2C]
    sent = head(*lines, f"content-length: {len(body)}")
    async with connected(world) as client:
        if pieces == 1:
            client.send(sent + body)
        else:
            client.send(sent)
            await eventually(lambda: any(not one._reads_head for one in connections(world)))
            client.send(body)
        status, _, answer = await client.answer()
        assert (status, answer) == (200, body)
        client.send(post(b"{}", path=PATH))
        assert (await client.answer())[0] == 200, "the connection goes on"
    assert len(replica.ran) == 2


async def test_what_stands_behind_an_upgrade_in_pieces_is_never_read_as_a_request(world: World):
    replica = await serve(world)
    smuggled = head("content-length: 2") + b"{}"
    first = head("Connection: Upgrade", "Upgrade: h2c", f"content-length: {len(smuggled)}")
    cut = first.index(b"Upgrade: h2c") + 3
    async with connected(world) as client:
        client.send(first[:cut])
        await client.writer.drain()
        await eventually(lambda: any(one._quiet_bytes for one in connections(world)))
        client.send(first[cut:] + smuggled)
        status, headers, _ = await client.answer()
        assert (status, headers["connection"]) == (400, "close")
        assert await client.closed()
    assert replica.ran == []


async def test_a_tunnel_is_refused(world: World):
    replica = await serve(world)
    async with connected(world) as client:
        client.send(head(method="CONNECT", path="h:80") + head("content-length: 2") + b"{}")
        assert (await client.answer())[0] in (400, 404)
        assert await client.closed()
    assert replica.ran == []


@pytest.mark.parametrize("what", ["one long header", "many headers", "a long path"])
async def test_a_head_is_bounded(world: World, what: str):
    filler = b"a" * KIB
    async with connected(world) as client:
        begin = {
            "one long header": b"GET / HTTP/1.1\r\nx: ",
            "many headers": b"GET / HTTP/1.1\r\n",
            "a long path": b"GET /",
        }[what]
        client.send(begin)
        for number in range(4 * careful_protocol.MAX_QUIET_BYTES // KIB):
            client.send(b"h%d: %b\r\n" % (number, filler) if what == "many headers" else filler)
        assert await refusal(client) in (431, None)
        await eventually(lambda: not connections(world))


async def test_who_sends_too_long_a_head_is_told_so(world: World):
    async with connected(world) as client:
        client.send(b"GET / HTTP/1.1\r\nx: " + b"a" * careful_protocol.MAX_QUIET_BYTES)
        status, headers, body = await client.answer()
        assert (status, headers["connection"]) == (431, "close")
        assert b"longer than 65536 bytes" in body


@pytest.mark.parametrize("path", [PATH, "/health"])
async def test_trailers_are_bounded(world: World, path: str):
    await serve(world)
    async with connected(world) as client:
        client.send(head("transfer-encoding: chunked", path=path) + b"2\r\n{}\r\n0\r\nx: ")
        ended = asyncio.create_task(refusal(client))
        while not ended.done():
            client.send(b"a" * 64 * KIB)
            await asyncio.wait({ended}, timeout=0.01)
    await eventually(lambda: not connections(world))


async def test_a_long_header_within_the_bound_arrives(world: World):
    await serve(world)
    async with connected(world) as client:
        client.send(head(f"x-baggage: {'a' * 32 * KIB}", "content-length: 2") + b"{}")
        assert (await client.answer())[0] == 200


async def test_long_paths_are_not_remembered(world: World):
    remembered = (http_protocol._known_target, paths._known_target)
    before = [one.cache_info().currsize for one in remembered]
    async with connected(world) as client:
        for number in range(20):
            client.send(head(method="GET", path=f"/{number}{'a' * 8 * KIB}"))
            assert (await client.answer())[0] in (401, 404)
    assert [one.cache_info().currsize for one in remembered] == before


@pytest.fixture
async def hasty_world(bare_world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """A gateway that soon gives up on clients that do nothing."""
    monkeypatch.setattr(servery_gateway.app, "KEEP_ALIVE_SECONDS", 1)
    await bare_world.connect_bus()
    await bare_world.start_gateway()
    await eventually(lambda: bare_world.gateway.why_not_ready() is None)
    return bare_world


@pytest.mark.parametrize("begin", [b"", b"PO", b"GET / HTTP/1.1\r\nhost: h\r\nx: "])
async def test_a_connection_on_which_no_request_comes_is_closed(hasty_world: World, begin: bytes):
    async with connected(hasty_world) as client:
        client.send(begin)
        assert await client.closed(AT_ONCE)


async def test_a_head_that_comes_byte_by_byte_has_no_longer_time(hasty_world: World):
    async with connected(hasty_world) as client:
        client.send(b"GET / HTTP/1.1\r\n")
        closed = asyncio.create_task(refusal(client))
        while not closed.done():
            client.send(b"x-a: b\r\n")
            await asyncio.wait({closed}, timeout=0.05)
        assert closed.result() is None


async def test_a_client_that_takes_no_answer_is_cut_off(hasty_world: World):
    """It would keep the answer in memory for as long as it likes."""

    async def long(_work: Work) -> tuple[int, bytes]:
        return 200, b"a" * 16 * KIB * KIB

    await serve(hasty_world, long)
    async with connected(hasty_world) as client:
        client.writer.transport.pause_reading()
        client.send(post(b"{}", path=PATH))
        await eventually(lambda: any(one.flow.write_paused for one in connections(hasty_world)))
        await eventually(lambda: not connections(hasty_world), seconds=20)


async def test_a_record_that_makes_no_sense_takes_no_other_answer_along(world: World):
    held: list[Work] = []

    async def both(work: Work) -> tuple[int, bytes]:
        held.append(work)
        await asyncio.Event().wait()
        return 200, b""

    replica = await serve(world, both)
    tasks = [asyncio.create_task(world.score("iris")) for _ in range(2)]
    await eventually(lambda: len(held) == 2)
    bad = frames.encode(frames.RESULT, held[0].id, {"status": "many"}, b"")
    good = frames.encode(frames.RESULT, held[1].id, {"status": 200, "ct": "application/json"}, b"{}")
    await replica.send(held[0].reply, bad, good)
    assert sorted([answer.status_code for answer in await asyncio.gather(*tasks)]) == [200, 503]


async def test_an_http_1_0_client_is_answered_and_closed(world: World):
    await serve(world)
    async with connected(world) as client:
        client.send(head("content-length: 2", version="1.0") + b"{}")
        status, _, body = await read_answer(client.reader)
        assert (status, body) == (200, b"{}")
        assert await client.closed()
