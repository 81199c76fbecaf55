"""Request bodies from a list of ASGI messages: what is read, thrown away, reserved and given back."""

import asyncio
from collections.abc import Iterable

import pytest

from servery_common.errors import BadRequest, Unavailable
from servery_gateway.http import ClientDisconnected
from servery_gateway.request_body import COMPANY_SECONDS, BodyBudget, Owner, RequestBody

LIMIT, DRAIN_LIMIT = 10, 40
EXPECTS = {b"content-length": b"11", b"expect": b"100-Continue"}


class Client:
    """Sends these pieces; counts how many were asked for."""

    def __init__(self, *pieces: bytes, leaves: bool = False) -> None:
        self.pieces = list(pieces)
        self.leaves = leaves
        self.asked = 0

    async def receive(self) -> dict:
        self.asked += 1
        if not self.pieces:
            assert self.leaves, "read beyond its end"
            return {"type": "http.disconnect"}
        piece = self.pieces.pop(0)
        return {"type": "http.request", "body": piece, "more_body": bool(self.pieces) or self.leaves}


def body_of(client: Client, budget: BodyBudget | None = None, headers: Iterable = ()) -> RequestBody:
    return RequestBody(client.receive, dict(headers), budget or BodyBudget(1000))


async def discard(body: RequestBody) -> bool:
    return await body.discard(DRAIN_LIMIT, asyncio.get_running_loop().time() + 60)


@pytest.mark.parametrize("pieces", [[b""], [b"0123456789"], [b"01234", b"", b"56789"]])
async def test_a_body_within_the_limit_is_read_whole(pieces: list[bytes]) -> None:
    assert await body_of(Client(*pieces)).read(LIMIT) == b"".join(pieces)


@pytest.mark.parametrize("headers", [{}, {b"content-length": b"11"}])
async def test_a_longer_one_is_refused_and_can_be_thrown_away(headers: dict) -> None:
    client = Client(b"0123456789", b"0", b"1")
    body = body_of(client, headers=headers)
    with pytest.raises(BadRequest, match="10 bytes"):
        await body.read(LIMIT)
    assert await discard(body)
    assert client.pieces == []


async def test_throwing_away_has_its_limit_too() -> None:
    client = Client(*[b"0123456789"] * 10)
    assert not await discard(body_of(client))
    assert len(client.pieces) == 5


async def test_a_refused_client_that_asked_first_is_not_told_to_send() -> None:
    client = Client(b"x" * 11)
    body = body_of(client, headers=EXPECTS)
    with pytest.raises(BadRequest):
        await body.read(LIMIT)
    assert not await discard(body)
    assert client.asked == 0


async def test_what_does_not_arrive_in_time_is_not_waited_for() -> None:
    async def receive() -> dict:
        await asyncio.Event().wait()
        raise AssertionError

    body = RequestBody(receive, {}, BodyBudget(1000))
    assert not await body.discard(DRAIN_LIMIT, asyncio.get_running_loop().time())


async def test_a_declared_length_is_reserved_before_a_byte_is_read() -> None:
    budget = BodyBudget(15)
    first = body_of(Client(b"01234567"), budget, {b"content-length": b"8"})
    assert await first.read(LIMIT) == b"01234567"
    assert budget.held == 8
    client = Client(b"01234567")
    second = body_of(client, budget, {b"content-length": b"8"})
    with pytest.raises(Unavailable) as refused:
        await second.read(LIMIT)
    assert refused.value.retry_after == 1
    assert client.asked == 0
    assert await discard(second)
    assert budget.held == 8
    first.release()
    first.release()
    assert budget.held == 0


async def test_a_body_in_chunks_reserves_as_it_grows_and_gives_all_back_when_refused() -> None:
    budget = BodyBudget(7)
    client = Client(b"0123", b"4567", b"8")
    body = body_of(client, budget)
    with pytest.raises(Unavailable):
        await body.read(LIMIT)
    assert budget.held == 4
    assert await discard(body)
    assert budget.held == 0


async def test_who_leaves_while_it_uploads_is_noticed() -> None:
    with pytest.raises(ClientDisconnected):
        await body_of(Client(b"01", leaves=True)).read(LIMIT)


def test_who_is_alone_may_hold_all_and_who_is_not_half_of_it() -> None:
    now = 0.0
    budget = BodyBudget(100, clock=lambda: now)
    noisy, quiet = Owner("w1", "e1"), Owner("w2", "e2")
    budget.reserve(100, noisy)
    with pytest.raises(Unavailable):
        budget.reserve(1, quiet)  # It comes too late, but now it is known.
    budget.give_back(60, noisy)
    with pytest.raises(Unavailable) as refused:
        budget.reserve(11, noisy)
    assert refused.value.reason == "memory"
    budget.reserve(10, noisy)
    budget.reserve(50, quiet)
    budget.give_back(50, quiet)
    now = COMPANY_SECONDS + 1
    budget.forget_idle()
    budget.reserve(50, noisy)
    assert budget.held == 100


def test_endpoints_of_one_workspace_leave_each_other_room() -> None:
    budget = BodyBudget(100)
    one, other = Owner("w1", "e1"), Owner("w1", "e2")
    budget.reserve(1, other)
    budget.reserve(50, one)
    with pytest.raises(Unavailable):
        budget.reserve(1, one)
    budget.reserve(49, other)
