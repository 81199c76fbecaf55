"""Replicas that refuse, are silent, slow or gone: where a request goes, and that it never runs twice."""

import asyncio
import time

from tests.integration.gateway.conftest import AT_ONCE, TOKEN, World, eventually
from tests.integration.gateway.peers import FakeReplica, endpoint, entity, read_answer, said


class Gate:
    """A model that answers when it is told to."""

    def __init__(self) -> None:
        self.open = asyncio.Event()

    async def __call__(self, work):
        await self.open.wait()
        return 200, b'"done"'


async def both(world: World, name: str, first: FakeReplica, second: FakeReplica, slots: int = 4) -> None:
    await world.publish(endpoint(name, entity("m-1", first.route(slots), second.route(slots))))


async def test_a_refused_request_goes_to_another_replica_at_once(patient_world: World) -> None:
    world = patient_world
    for reason in ("busy", "draining", "unknown"):
        one, other = await world.replica(f"no{reason}"), await world.replica(f"yes{reason}")
        one.refuse = reason
        await both(world, f"refuse{reason}", one, other)
        began = time.monotonic()
        answers = await asyncio.gather(*(world.score(f"refuse{reason}") for _ in range(8)))
        assert {answer.status_code for answer in answers} == {200}
        assert time.monotonic() - began < AT_ONCE
        assert one.ran == []
        assert one.cancels == [], "an attempt that ends by waiting is withdrawn; a refused one is not"
        assert len(other.ran) == 8


async def test_a_replica_that_is_busy_with_others_work_is_asked_again(world: World) -> None:
    replica = await world.replica("busyonly")
    replica.refuse = "busy"
    await world.publish(endpoint("busyonly", entity("m-1", replica.route())))
    call = asyncio.create_task(world.score("busyonly"))
    await eventually(lambda: replica.messages >= 2)
    replica.refuse = None
    assert (await call).status_code == 200
    assert len(replica.ran) == 1


async def test_a_silent_replica_loses_the_request_to_another_one(world: World) -> None:
    silent, other = await world.replica("silent"), await world.replica("talks")
    silent.silent = True
    # The other one has no slot until the silent one was asked.
    await world.publish(endpoint("silence", entity("m-1", silent.route())))
    call = asyncio.create_task(world.score("silence"))
    await eventually(lambda: silent.messages == 1)
    await world.publish(endpoint("silence", entity("m-1", silent.route(), other.route()), created_at_ms=2))
    assert (await call).status_code == 200
    assert len(other.ran) == 1
    await eventually(lambda: len(silent.cancels) == 1)
    assert silent.ran == []


async def test_two_silent_replicas_are_enough(world: World) -> None:
    one, other = await world.replica("mute1"), await world.replica("mute2")
    one.silent = other.silent = True
    await both(world, "mute", one, other)
    began = time.monotonic()
    answer = await world.score("mute")
    assert (answer.status_code, answer.json()["error_code"]) == (503, "TEMPORARILY_UNAVAILABLE")
    assert answer.headers["retry-after"] == "1"
    assert time.monotonic() - began < AT_ONCE
    await eventually(lambda: len(one.cancels) == len(other.cancels) == 1)


async def test_a_slow_replica_that_accepted_keeps_the_request(world: World) -> None:
    gate = Gate()
    slow, other = await world.replica("slow1", gate), await world.replica("slow2", gate)
    await both(world, "slow", slow, other)
    call = asyncio.create_task(world.score("slow"))
    await asyncio.sleep(0.8)  # well past the accept timeout
    gate.open.set()
    assert (await call).status_code == 200
    assert len(slow.ran) + len(other.ran) == 1


async def test_an_agent_that_is_gone_costs_no_waiting(patient_world: World) -> None:
    world = patient_world
    gone, other = await world.replica("gone"), await world.replica("here")
    await both(world, "gone", gone, other)
    await gone.stop()
    began = time.monotonic()
    answers = await asyncio.gather(*(world.score("gone") for _ in range(8)))
    assert {answer.status_code for answer in answers} == {200}
    assert time.monotonic() - began < AT_ONCE


async def test_accepted_work_of_an_agent_that_ended_is_reported_and_not_run_again(world: World) -> None:
    gate = Gate()
    first, second = await world.replica("ends1", gate), await world.replica("ends2", gate)
    await both(world, "ends", first, second)
    call = asyncio.create_task(world.score("ends"))
    await eventually(lambda: len(first.ran) + len(second.ran) == 1)
    await (first if first.ran else second).stop()
    answer = await call
    assert (answer.status_code, answer.json()["error_code"]) == (503, "TEMPORARILY_UNAVAILABLE")
    assert "died while it worked on the request" in answer.json()["message"]
    assert len(first.ran) + len(second.ran) == 1


async def test_a_runner_that_died_is_reported_and_its_work_not_run_again(world: World) -> None:
    async def dies(work):
        return 503, said("The model's process was killed by SIGKILL.", "ANY"), {"lost": True}

    one, other = await world.replica("dies1", dies), await world.replica("dies2", dies)
    await both(world, "dies", one, other)
    answer = await world.score("dies")
    assert (answer.status_code, answer.json()["error_code"]) == (503, "TEMPORARILY_UNAVAILABLE")
    assert (
        answer.json()["message"]
        == "The model's process was killed by SIGKILL. The request was not run again."
    )
    assert len(one.ran) + len(other.ran) == 1


async def test_the_deadline_ends_the_request_and_cancels_the_work(world: World) -> None:
    gate = Gate()
    deadline = 0.4
    replica = await world.replica("late", gate)
    await world.publish(endpoint("late", entity("m-1", replica.route()), timeout_seconds=deadline))
    began = time.monotonic()
    answer = await world.score("late")
    assert time.monotonic() - began < deadline + 4
    assert (answer.status_code, answer.json()["error_code"]) == (504, "DEADLINE_EXCEEDED")
    assert answer.json()["message"].startswith("Timed out while evaluating the model.")
    await eventually(lambda: len(replica.cancels) == 1)
    gate.open.set()  # A late answer finds nobody, and does no harm.
    assert (await world.score("late")).status_code == 200


async def test_a_client_that_leaves_cancels_its_work_and_frees_the_slot(world: World) -> None:
    gate = Gate()
    replica = await world.replica("leave", gate)
    await world.publish(endpoint("leave", entity("m-1", replica.route(slots=1))))
    _, writer = await asyncio.open_connection("127.0.0.1", world.gateway.port)
    writer.write(
        f"POST /serving-endpoints/leave/invocations HTTP/1.1\r\nHost: x\r\n"
        f"Authorization: Bearer {TOKEN}\r\nContent-Length: 2\r\n\r\n{{}}".encode()
    )
    await eventually(lambda: len(replica.ran) == 1)
    writer.close()
    await eventually(lambda: len(replica.cancels) == 1)
    gate.open.set()
    assert (await world.score("leave")).status_code == 200
    assert world.gateway.dispatcher.unfinished == 0


async def test_a_client_that_leaves_while_it_uploads_was_never_here(world: World) -> None:
    replica = await world.replica("upload")
    await world.publish(endpoint("upload", entity("m-1", replica.route(slots=1))))
    _, writer = await asyncio.open_connection("127.0.0.1", world.gateway.port)
    writer.write(
        f"POST /serving-endpoints/upload/invocations HTTP/1.1\r\nHost: x\r\n"
        f"Authorization: Bearer {TOKEN}\r\nContent-Length: 200000\r\n\r\n".encode()
        + b"x" * 100_000
    )
    await writer.drain()
    await asyncio.sleep(0.05)
    writer.close()
    assert (await world.score("upload")).status_code == 200
    assert len(replica.ran) == 1


async def test_a_full_queue_answers_429_and_the_others_are_served_in_order(world: World) -> None:
    gate = Gate()
    replica = await world.replica("queue", gate)
    await world.publish(endpoint("queue", entity("m-1", replica.route(slots=1)), max_queued=3))
    calls = []
    for number in range(4):
        calls.append(asyncio.create_task(world.score("queue", headers={"x-request-id": f"n{number}"})))
        await eventually(lambda number=number: world.gateway.dispatcher.unfinished == number + 1)
    full = await world.score("queue")
    assert (full.status_code, full.json()["error_code"]) == (429, "RESOURCE_EXHAUSTED")
    assert full.json()["message"].startswith("Too many concurrent requests.")
    assert full.headers["retry-after"] == "1"
    gate.open.set()
    assert {answer.status_code for answer in await asyncio.gather(*calls)} == {200}
    assert replica.ran == ["n0", "n1", "n2", "n3"]


async def test_a_full_queue_refuses_on_headers_and_throws_the_body_away(world: World) -> None:
    gate = Gate()
    replica = await world.replica("door", gate)
    await world.publish(endpoint("door", entity("m-1", replica.route(slots=1)), max_queued=1))
    calls = [asyncio.create_task(world.score("door")) for _ in range(2)]
    await eventually(lambda: world.gateway.dispatcher.unfinished == 2)
    held = world.gateway.bodies.held
    reader, writer = await asyncio.open_connection("127.0.0.1", world.gateway.port)
    head = (
        f"POST /serving-endpoints/door/invocations HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n"
    )
    body = b"x" * 1_000_000
    writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body[:500_000])
    await writer.drain()
    await asyncio.sleep(0.1)
    assert world.gateway.bodies.held == held, "nothing of a body that is refused is kept"
    writer.write(body[500_000:])
    assert (await read_answer(reader))[0] == 429
    # The same connection goes on; a client that asks first is answered without sending.
    writer.write(f"{head}Content-Length: 2\r\nExpect: 100-continue\r\n\r\n".encode())
    status, headers, _ = await read_answer(reader)
    assert (status, headers["connection"]) == (429, "close")
    writer.close()
    gate.open.set()
    assert {answer.status_code for answer in await asyncio.gather(*calls)} == {200}
    await eventually(lambda: world.gateway.bodies.held == 0)


async def test_bodies_beyond_what_a_gateway_may_hold_are_answered_503(bare_world: World) -> None:
    world = bare_world
    await world.connect_bus()
    await world.start_gateway(max_body_bytes=1000, max_held_body_bytes=1500)
    gate = Gate()
    replica = await world.replica("budget", gate)
    await world.publish(endpoint("budget", entity("m-1", replica.route(slots=4))))

    async def in_chunks():
        yield b"x" * 400
        yield b"x" * 400

    await eventually(lambda: world.gateway.why_not_ready() is None)
    first = asyncio.create_task(world.score("budget", b"x" * 1000))
    await eventually(lambda: len(replica.ran) == 1)
    for body in (b"x" * 501, in_chunks()):
        refused = await world.score("budget", body)
        assert (refused.status_code, refused.json()["error_code"]) == (503, "TEMPORARILY_UNAVAILABLE")
        assert refused.headers["retry-after"] == "1"
    assert world.gateway.bodies.held == 1000
    gate.open.set()
    assert (await world.score("budget", b"x" * 500)).status_code == 200
    assert (await first).status_code == 200
    assert world.gateway.bodies.held == 0


async def test_without_a_replica_a_request_waits_a_moment_and_is_then_sent_away(world: World) -> None:
    await world.publish(endpoint("cold", entity("m-1")))
    began = time.monotonic()
    answer = await world.score("cold")
    assert (answer.status_code, answer.json()["error_code"]) == (503, "TEMPORARILY_UNAVAILABLE")
    assert "retry-after" in answer.headers
    assert 0.4 < time.monotonic() - began < AT_ONCE


async def test_a_replica_that_appears_takes_the_requests_that_wait(world: World) -> None:
    await world.publish(endpoint("warming", entity("m-1")))
    calls = [asyncio.create_task(world.score("warming")) for _ in range(3)]
    await eventually(lambda: world.gateway.dispatcher.unfinished == 3)
    replica = await world.replica("warm")
    await world.publish(endpoint("warming", entity("m-1", replica.route()), created_at_ms=2))
    assert {answer.status_code for answer in await asyncio.gather(*calls)} == {200}


async def test_a_request_that_waits_for_an_entity_that_is_replaced_goes_to_the_new_one(world: World) -> None:
    await world.publish(endpoint("switch", entity("m-1")))
    call = asyncio.create_task(world.score("switch"))
    await eventually(lambda: world.gateway.dispatcher.unfinished == 1)
    replica = await world.replica("successor")
    await world.publish(endpoint("switch", entity("m-2", replica.route()), created_at_ms=2))
    answer = await call
    assert (answer.status_code, answer.headers["served-model-name"]) == (200, "m-2")
