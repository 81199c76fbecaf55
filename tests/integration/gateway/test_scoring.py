"""Scoring through the gateway: admission, routing, answers."""

import asyncio
import base64
import collections
import time

import pytest
from tests.integration.gateway.conftest import TOKEN, World, eventually
from tests.integration.gateway.peers import endpoint, entity, grant, identity, read_answer, said

from servery_common.contracts import frames, subjects
from servery_common.contracts.scaling import GatewayLoad

MIB = 1024 * 1024


async def test_the_answer_of_the_model_arrives_byte_for_byte_with_its_headers(world: World) -> None:
    replica = await world.replica("r1")
    await world.publish(endpoint("plain", entity("m-1", replica.route())))
    answer = await world.score("plain", b'{"inputs": [1, 2]}', headers={"x-request-id": "mine-1"})
    assert answer.status_code == 200
    assert answer.content == b'{"inputs": [1, 2]}'
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["served-model-name"] == "m-1"
    assert answer.headers["x-request-id"] == "mine-1"
    assert answer.headers["x-databricks-org-id"] == "7"
    again = await world.http.post("/serving-endpoints/plain/invocations/", content=b"{}")
    assert again.status_code == 200
    assert len(again.headers["x-request-id"]) == 36


async def test_only_a_valid_token_comes_in_and_every_other_is_answered_alike(world: World) -> None:
    replica = await world.replica("r2")
    await world.publish(endpoint("door", entity("m-1", replica.route())))
    await world.admit(
        identity(),
        grant("late", expires_at_ms=1),
        grant("long", expires_at_ms=2**50),
        grant("lost", "nobody"),
    )

    def basic(user: str, password: str) -> str:
        return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()

    for accepted in (f"Bearer {TOKEN}", f"bearer  {TOKEN}", basic("token", TOKEN), "Bearer long"):
        answer = await world.score("door", headers={"authorization": accepted})
        assert answer.status_code == 200, accepted
    bodies = set()
    refused = [
        "Bearer late",
        "Bearer lost",
        "Bearer wrong",
        "Bearer",
        basic("ann", TOKEN),
        "Basic %%%",
        f"Token {TOKEN}",
        TOKEN,
    ]
    for header in refused:
        answer = await world.score("door", headers={"authorization": header})
        assert answer.status_code == 401, header
        bodies.add(answer.content)
    del world.http.headers["authorization"]
    bodies.add((await world.score("door")).content)
    assert len(bodies) == 1
    assert b'"error_code":"UNAUTHENTICATED"' in bodies.pop()


async def test_a_revoked_token_is_refused_at_once(world: World) -> None:
    replica = await world.replica("r3")
    await world.publish(endpoint("revoke", entity("m-1", replica.route())))
    token = grant("short-lived")
    await world.admit(identity(), token)
    headers = {"authorization": "Bearer short-lived"}
    assert (await world.score("revoke", headers=headers)).status_code == 200
    await world.bus.kv_delete(subjects.TOKENS_BUCKET, token.token_sha256)
    await eventually(lambda: token.token_sha256 not in world.gateway.table.snapshot.tokens)
    assert (await world.score("revoke", headers=headers)).status_code == 401


async def test_what_cannot_be_scored_says_why(world: World) -> None:
    await world.publish(endpoint("deploying", status="deploying", message="Installing 42 packages."))
    await world.publish(endpoint("failed", status="failed", message="No module named 'x'."))
    await world.publish(endpoint("stopped", status="stopped"))
    await world.publish(endpoint("foreign", entity("m-1"), workspace_id="8"))
    await world.publish(endpoint("known", entity("m-1")))
    expected = {
        "deploying": (503, "TEMPORARILY_UNAVAILABLE", "Installing 42 packages."),
        "failed": (400, "BAD_REQUEST", "No module named 'x'."),
        "stopped": (400, "BAD_REQUEST", "is stopped"),
        "foreign": (404, "ENDPOINT_NOT_FOUND", "The given endpoint does not exist, please retry"),
        "nowhere": (404, "ENDPOINT_NOT_FOUND", "The given endpoint does not exist, please retry"),
        "known/served-models/other": (404, "RESOURCE_DOES_NOT_EXIST", "'other'"),
    }
    for name, (status, code, text) in expected.items():
        answer = await world.http.post(f"/serving-endpoints/{name}/invocations", content=b"{}")
        assert (answer.status_code, answer.json()["error_code"]) == (status, code)
        assert text in answer.json()["message"]
        assert ("retry-after" in answer.headers) == (status == 503)


async def test_paths_and_methods_nobody_serves_have_json_answers(world: World) -> None:
    await world.publish(endpoint("paths", entity("m-1")))
    wrong_method = await world.http.get("/serving-endpoints/paths/invocations")
    assert (wrong_method.status_code, wrong_method.json()["error_code"]) == (400, "BAD_REQUEST")
    for path in ("/", "/serving-endpoints/paths", "/api/1.0/x", "/metrics"):
        unknown = await world.http.get(path)
        assert (unknown.status_code, unknown.json()["error_code"]) == (404, "NOT_FOUND"), path
    del world.http.headers["authorization"]
    assert (await world.http.get("/api/1.0/x")).status_code == 401
    assert (await world.http.get("/serving-endpoints/paths")).status_code == 401
    assert (await world.http.get("/healthz")).status_code == 200
    assert (await world.http.get("/readyz")).status_code == 200


async def test_errors_of_the_model_get_databricks_shape(world: World) -> None:
    said_by_model = {
        "json": (400, said("Failed to predict", "INVALID_PARAMETER_VALUE"), "application/json"),
        "five": (500, said("boom", "INTERNAL_ERROR"), "application/json"),
        "type": (415, b"This predictor only supports ...", "text/plain"),
        "late": (504, b"Request processing time exceeded limit", "application/json"),
    }

    async def model(work):
        status, body, content_type = said_by_model[bytes(work.body).decode()]
        return status, body, {"ct": content_type}

    replica = await world.replica("r4", model)
    await world.publish(endpoint("errors", entity("m-1", replica.route())))
    expected = {
        "json": (400, "INVALID_PARAMETER_VALUE", "Failed to predict"),
        "five": (400, "BAD_REQUEST", "boom"),
        "type": (400, "BAD_REQUEST", "This predictor only supports ..."),
        "late": (504, "DEADLINE_EXCEEDED", "Timed out while evaluating the model."),
    }
    for case, (status, code, text) in expected.items():
        answer = await world.score("errors", case.encode())
        assert (answer.status_code, answer.json()["error_code"]) == (status, code)
        assert answer.json()["message"].startswith(text)
        assert answer.headers["served-model-name"] == "m-1"


async def test_content_type_is_json_unless_the_client_says_otherwise(world: World) -> None:
    seen = []

    async def model(work):
        seen.append(work.head.get("ct", "application/json"))
        return 200, b"{}"

    replica = await world.replica("r5", model)
    await world.publish(endpoint("types", entity("m-1", replica.route())))
    for header in (None, "application/x-www-form-urlencoded", "text/csv", "application/json; charset=utf-8"):
        headers = {"content-type": header} if header else {}
        assert (await world.score("types", headers=headers)).status_code == 200
    assert seen == ["application/json", "application/json", "text/csv", "application/json; charset=utf-8"]
    assert (await world.score("types", headers={"content-type": "x" * 201})).status_code == 400


async def test_traffic_is_split_by_weight_and_a_named_entity_gets_its_own(world: World) -> None:
    blue, green = await world.replica("blue"), await world.replica("green")
    await world.publish(
        endpoint(
            "split",
            entity("blue-1", blue.route(), weight=80),
            entity("green-1", green.route(), weight=20),
            max_queued=400,
        )
    )
    answers = await asyncio.gather(*(world.score("split") for _ in range(300)))
    counts = collections.Counter(answer.headers["served-model-name"] for answer in answers)
    # 5 sigma of 300 draws at 0.8 is 35.
    assert 205 <= counts["blue-1"] <= 275
    named = await world.http.post("/serving-endpoints/split/served-models/green-1/invocations", content=b"{}")
    assert named.headers["served-model-name"] == "green-1"


async def test_a_body_of_16_mib_works_both_ways_also_in_chunks(world: World) -> None:
    replica = await world.replica("r7")
    await world.publish(endpoint("large", entity("m-1", replica.route())))
    body = bytes(range(256)) * (16 * MIB // 256)

    async def pieces():
        for at in range(0, len(body), 100_000):
            yield body[at : at + 100_000]

    assert (await world.score("large", body)).content == body
    assert (await world.score("large", pieces())).content == body


async def test_one_byte_more_is_answered_once_and_the_connection_goes_on(world: World) -> None:
    replica = await world.replica("r8")
    await world.publish(endpoint("over", entity("m-1", replica.route())))
    reader, writer = await asyncio.open_connection("127.0.0.1", world.gateway.port)
    head = (
        f"POST /serving-endpoints/over/invocations HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n"
    )
    for framing in ("content-length", "chunked"):
        body = b"x" * (16 * MIB + 1)
        if framing == "chunked":
            writer.write(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
            for at in range(0, len(body), MIB):
                piece = body[at : at + MIB]
                writer.write(b"%x\r\n%s\r\n" % (len(piece), piece))
                await writer.drain()
            writer.write(b"0\r\n\r\n")
        else:
            writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        status, _, content = await read_answer(reader)
        assert status == 400
        assert b'"error_code":"BAD_REQUEST"' in content
        assert b"16777216 bytes" in content
    writer.write(f"{head}Content-Length: 2\r\n\r\n{{}}".encode())
    assert (await read_answer(reader))[0] == 200
    writer.close()
    assert len(replica.ran) == 1


async def test_expect_100_continue_is_answered_before_the_body_is_sent(world: World) -> None:
    replica = await world.replica("r9")
    await world.publish(endpoint("expect", entity("m-1", replica.route())))
    reader, writer = await asyncio.open_connection("127.0.0.1", world.gateway.port)
    head = f"Host: x\r\nAuthorization: Bearer {TOKEN}\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"
    writer.write(f"POST /serving-endpoints/expect/invocations HTTP/1.1\r\n{head}".encode())
    assert await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5) == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(b"{}")
    assert (await read_answer(reader))[0] == 200
    writer.write(f"POST /serving-endpoints/nowhere/invocations HTTP/1.1\r\n{head}".encode())
    status, headers, _ = await read_answer(reader)
    assert (status, headers["connection"]) == (404, "close")
    writer.close()


async def test_a_large_body_never_blocks_small_ones(world: World) -> None:
    replica = await world.replica("r10")
    replica.withheld = []
    await world.publish(endpoint("mixed", entity("m-1", replica.route(slots=8))))
    large = asyncio.create_task(world.score("mixed", b"x" * (16 * MIB)))
    window = frames.WINDOW_BYTES // frames.CHUNK_BYTES
    await eventually(lambda: len(replica.withheld or []) >= window)
    began = time.monotonic()
    for _ in range(20):
        assert (await world.score("mixed")).status_code == 200
    assert time.monotonic() - began < 10
    assert not large.done()
    assert len(replica.withheld or []) == window, "more than a window is under way"
    await replica.release_windows()
    assert (await large).status_code == 200


async def test_a_long_body_whose_request_ends_early_makes_way_for_the_next(world: World) -> None:
    replica = await world.replica("r10b")
    replica.withheld = []
    await world.publish(endpoint("early", entity("m-1", replica.route(slots=8))))
    first = asyncio.create_task(world.score("early", b"x" * (4 * MIB)))
    await eventually(lambda: len(replica.withheld or []) >= frames.WINDOW_BYTES // frames.CHUNK_BYTES)
    second = asyncio.create_task(world.score("early", b"y" * (4 * MIB)))
    await asyncio.sleep(0.3)  # It is read, and waits behind the first.
    (work,) = replica.work.values()
    await replica.send(work.reply, frames.encode(frames.RESULT, work.id, {"status": 400}, b"{}"))
    assert (await first).status_code == 400
    await replica.release_windows()
    assert (await asyncio.wait_for(second, 10)).status_code == 200


async def test_the_trace_of_the_caller_reaches_the_replica(world: World) -> None:
    seen = []

    async def model(work):
        seen.append((work.head.get("tp"), (work.nats_headers or {}).get("traceparent")))
        return 200, b"{}"

    replica = await world.replica("r11", model)
    await world.publish(endpoint("trace", entity("m-1", replica.route())))
    trace_id = "4bf92f3577b34da6a3ce929d0e0e4736"
    parent = f"00-{trace_id}-00f067aa0ba902b7-00"
    await world.score("trace", headers={"traceparent": parent})
    await world.score("trace")
    (in_head, in_header), untraced = seen
    assert in_head == in_header
    assert in_head.split("-")[1] == trace_id
    assert untraced == (None, None)


async def test_the_scaler_hears_how_much_there_is_to_do(world: World) -> None:
    release = asyncio.Event()

    async def model(work):
        await release.wait()
        return 200, b"{}"

    heard: list[GatewayLoad] = []

    async def note(load: GatewayLoad) -> None:
        heard.append(load)

    await world.bus.on_signal(subjects.ALL_GATEWAY_LOADS, GatewayLoad, note)
    replica = await world.replica("r12", model)
    await world.publish(endpoint("load", entity("load-1", replica.route(slots=2))))
    calls = [asyncio.create_task(world.score("load")) for _ in range(5)]

    def busy():
        loads = [e for load in heard for e in load.entities if e.served_entity_id == "eloadidload1"]
        return any(e.in_flight == 2 and e.queued == 3 for e in loads)

    await eventually(busy)
    release.set()
    assert {answer.status_code for answer in await asyncio.gather(*calls)} == {200}
    await eventually(
        lambda: any(
            e.served_entity_id == "eloadidload1" and e.requests == 5 for load in heard for e in load.entities
        )
    )


@pytest.mark.parametrize("given", ["two words", "x" * 129, "ünicode"])
async def test_a_strange_request_id_is_replaced(world: World, given: str) -> None:
    answer = await world.score("nowhere", headers={b"x-request-id": given.encode("latin-1")})
    assert answer.headers["x-request-id"] != given
    assert len(answer.headers["x-request-id"]) == 36
