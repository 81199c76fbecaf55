"""What clients may send and leave undone on a connection, before anybody knows who they are."""

import asyncio
import json

import pytest
from tests.integration.gateway.conftest import AT_ONCE, TOKEN, World, eventually
from tests.integration.gateway.peers import Work, echo, endpoint, entity, read_answer
from tests.integration.gateway.test_short_requests import Client, connected, post

import servery_gateway.app
from servery_common.contracts import frames
from servery_gateway import careful_protocol, http_protocol, paths
from servery_gateway.entity_pool import EntityWithdrawn
from servery_gateway.http_protocol import GatewayProtocol
from servery_gateway.request_trace import RequestTrace
from servery_gateway.scoring import CLIENT_CLOSED_REQUEST

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


@pytest.mark.parametrize("path", [PATH, "/healthz"])
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
            client.send(head(method="GET", path=f"/{number}{'a' * 7 * KIB}"))
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


@pytest.mark.parametrize("name", ["x", "upgrade"])
async def test_a_body_is_the_same_however_its_head_was_cut(world: World, name: str):
    """What looks like the header in the first line of a body is none, also when a head's last byte comes with it."""
    replica = await serve(world)
    body = f"\n{name}: {'1' * 40}".encode()
    sent = head(f"content-length: {len(body)}") + body
    cut = len(sent) - len(body) - 1
    async with connected(world) as client:
        client.send(sent[:cut])
        await eventually(lambda: any(one._quiet_bytes == cut for one in connections(world)))
        client.send(sent[cut:])
        assert (await client.answer())[::2] == (200, body)
        client.send(post(b"{}", path=PATH))
        assert (await client.answer())[::2] == (200, b"{}")
    assert len(replica.ran) == 2


async def test_a_header_value_that_is_cut_before_a_name_is_kept(world: World):
    await serve(world)
    sent = head("x-request-id: my-upgrade:x", "content-length: 2") + b"{}"
    cut = sent.index(b"upgrade")
    async with connected(world) as client:
        client.send(sent[:cut])
        await eventually(lambda: any(one._quiet_bytes == cut for one in connections(world)))
        client.send(sent[cut:])
        assert (await client.answer())[1]["x-request-id"] == "my-upgrade:x"


@pytest.mark.parametrize("length", [careful_protocol.MAX_URL_BYTES, careful_protocol.MAX_QUIET_BYTES])
async def test_a_long_url_is_refused_414(world: World, length: int):
    async with connected(world) as client:
        client.send(b"GET /" + b"a" * length)
        if length < careful_protocol.MAX_QUIET_BYTES:
            client.send(b" HTTP/1.1\r\nhost: h\r\n\r\n")
        status, headers, body = await client.answer()
    assert (status, headers["connection"], json.loads(body)["error_code"]) == (414, "close", "BAD_REQUEST")


async def test_the_number_of_headers_is_bounded(world: World):
    lines = [f"h{number}: x" for number in range(careful_protocol.MAX_HEADERS)]
    async with connected(world) as client:
        client.send(head(*lines[:-2], method="GET", path="/healthz"))
        assert (await client.answer())[0] == 200
        client.send(head(*lines, method="GET", path="/healthz"))
        status, headers, body = await client.answer()
    assert (status, headers["connection"], json.loads(body)["error_code"]) == (431, "close", "BAD_REQUEST")


async def test_a_head_that_comes_in_one_read_is_bounded_too(world: World):
    async with connected(world) as client:
        client.send(head(f"x: {'a' * careful_protocol.MAX_QUIET_BYTES}", method="GET", path="/healthz"))
        assert (await client.answer())[0] == 431


async def test_what_is_no_http_is_answered_in_json(world: World):
    async with connected(world) as client:
        client.send(b"NONSENSE\r\n\r\n")
        status, headers, body = await client.answer()
    assert (status, headers["content-type"]) == (400, "application/json")
    assert json.loads(body)["error_code"] == "BAD_REQUEST"


async def test_a_body_that_was_refused_and_never_ends_is_not_waited_for(hasty_world: World):
    """It is not read by anybody any more, and each byte of it is no request."""
    async with connected(hasty_world) as client:
        client.send(head("content-length: 100", path="/healthz", method="GET"))
        assert (await client.answer())[0] == 200
        client.send(b"x")
        assert await client.closed(AT_ONCE)


async def test_a_slow_reader_that_caught_up_is_answered(hasty_world: World):
    """It left a little unread for a while. That must not be held against its next request."""
    let = asyncio.Event()

    async def model(work: Work) -> tuple[int, bytes]:
        if bytes(work.body) == b"wait":
            await let.wait()
        return 200, b"a" * 32 * KIB

    await serve(hasty_world, model)
    async with connected(hasty_world) as client:
        asked, one = await leave_a_little_unread(hasty_world, client)
        await eventually(lambda: one._untaken, seconds=AT_ONCE)  # looked at once
        client.writer.transport.resume_reading()
        for _ in range(asked):
            assert (await client.answer())[0] == 200
        client.send(post(b"wait", path=PATH))
        wheel = one._idle._slots
        await eventually(lambda: one.cycle is not None and not one.cycle.response_complete)
        assert not any(one in slot for slot in wheel.values()), "a request is under way"
        let.set()
        assert (await client.answer())[0] == 200


@pytest.mark.parametrize("last", [post(b"{}", "Connection: close", path=PATH), b"NONSENSE\r\n\r\n"])
async def test_a_connection_that_is_closing_does_not_wait_for_its_client_for_ever(
    hasty_world: World, last: bytes
):
    async def model(_work: Work) -> tuple[int, bytes]:
        return 200, b"a" * 32 * KIB

    await serve(hasty_world, model)
    async with connected(hasty_world) as client:
        await leave_a_little_unread(hasty_world, client)
        client.send(last)
        await eventually(lambda: not connections(hasty_world), seconds=20)


async def leave_a_little_unread(world: World, client: Client) -> tuple[int, GatewayProtocol]:
    """Ask, and read nothing, until the gateway holds a little. Returns how often, and the gateway's end."""
    client.writer.transport.pause_reading()
    state = world.gateway._server.server_state
    port = client.writer.get_extra_info("sockname")[1]
    asked, before = 0, state.total_requests
    while True:
        client.send(post(b"{}", path=PATH))
        asked += 1
        await eventually(lambda done=before + asked: state.total_requests == done)
        one = next(one for one in connections(world) if one.client[1] == port)
        if one.transport.get_write_buffer_size():
            assert not one.flow.write_paused
            return asked, one


async def test_a_record_whose_head_is_no_json_takes_no_other_answer_along(world: World):
    held: list[Work] = []

    async def both(work: Work) -> tuple[int, bytes]:
        held.append(work)
        await asyncio.Event().wait()
        return 200, b""

    replica = await serve(world, both)
    tasks = [asyncio.create_task(world.score("iris")) for _ in range(2)]
    await eventually(lambda: len(held) == 2)
    bad = frames.pack(frames.RESULT, held[0].id, b"{nonsense")
    good = frames.encode(frames.RESULT, held[1].id, {"status": 200, "ct": "application/json"}, b"{}")
    await replica.send(held[0].reply, bad, good)
    async with asyncio.timeout(AT_ONCE):
        assert sorted([answer.status_code for answer in await asyncio.gather(*tasks)]) == [200, 503]


@pytest.mark.parametrize("path", [PATH, PATH + "?a"])
async def test_an_answer_that_is_streamed_to_an_http_1_0_client_ends_with_the_connection(
    world: World, path: str
):
    replica = await serve(world, never)
    async with connected(world) as client:
        body = b'{"stream": true}'
        client.send(head(f"content-length: {len(body)}", path=path, version="1.0") + body)
        await eventually(lambda: replica.work)
        work = next(iter(replica.work.values()))
        stream = {"ct": "text/event-stream"}
        await replica.send(
            work.reply,
            frames.encode(frames.RESULT, work.id, stream, flags=frames.STREAM),
            frames.encode(frames.CHUNK, work.id, None, b"data: 1\n\n"),
            frames.encode(frames.END, work.id),
        )
        answer = await asyncio.wait_for(client.reader.read(), AT_ONCE)
    headers, content = answer.split(b"\r\n\r\n", 1)
    assert content == b"data: 1\n\ndata: [DONE]\n\n"
    assert b"transfer-encoding" not in headers.lower()
    assert b"connection: close" in headers.lower()


class Ended(RequestTrace):
    """What a sampled trace is told of its end."""

    def __init__(self) -> None:
        self.statuses: list[int] = []

    def ended(self, status: int) -> None:
        self.statuses.append(status)


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_client_that_leaves_while_its_outcome_is_on_its_way_is_worked_for_no_more(
    world: World, streamed: bool
):
    """Both happen in one turn of the event loop: what is to be done about the outcome comes after them."""
    replica = await serve(world, never)
    dispatcher = world.gateway.dispatcher
    assert (await world.score("nowhere")).status_code == 404  # The token is known from now on.
    async with connected(world) as client:
        client.send(post(b"{}", path=PATH))
        await eventually(lambda: replica.work)
        one = next(one for one in connections(world) if one._cycle is not None)
        request = one._cycle.request
        ticket = request._ticket
        trace = request._exchange.trace = Ended()
        if streamed:
            dispatcher.on_stream(ticket.attempt, 200, "text/event-stream")
        else:
            dispatcher._end(ticket, EntityWithdrawn())
        one._cycle.left()
        await eventually(lambda: request._owner is None)
        assert request._ticket is ticket, "it is not dispatched again"
        assert trace.statuses == [CLIENT_CLOSED_REQUEST]
        assert dispatcher.unfinished == 0
    assert len(replica.ran) == 1


async def never(_work: Work) -> tuple[int, bytes]:
    await asyncio.Event().wait()
    return 200, b""
