import asyncio

import pytest
from tests.messages import Answer, Ask, Other

from servery_common import errors
from servery_common.messaging.testing import InMemoryBus, matches


async def answer(message: Ask) -> Answer:
    return Answer(text=message.text)


async def test_requests_are_answered_or_fail_like_on_the_real_bus() -> None:
    bus = InMemoryBus()

    async def refuse(message: Ask) -> Answer:
        raise errors.Conflict("busy")

    async def fault(message: Ask) -> Answer:
        raise KeyError("x")

    await bus.serve("a", Ask, answer)
    await bus.serve("b", Ask, refuse)
    await bus.serve("c", Ask, fault)
    assert await bus.request("a", Ask(text="x"), Answer, timeout=1) == Answer(text="x")
    for subject, error in (("b", errors.Conflict), ("c", errors.Internal), ("nobody", errors.Unavailable)):
        with pytest.raises(error):
            await bus.request(subject, Ask(text="x"), Answer, timeout=1)


async def test_a_request_in_anothers_name_is_refused() -> None:
    bus = InMemoryBus()
    await bus.serve("ask.*", Ask, answer, sender=lambda message: message.text)
    assert await bus.request("ask.me", Ask(text="me"), Answer, timeout=1) == Answer(text="me")
    with pytest.raises(errors.PermissionDenied):
        await bus.request("ask.me", Ask(text="you"), Answer, timeout=1)


async def test_an_event_is_stored_once_and_consumed_even_if_published_before() -> None:
    bus, seen = InMemoryBus(), asyncio.Queue[Ask]()
    await bus.publish("servery.events.a.1", Ask(text="1"), event_id="1")
    await bus.publish("servery.events.a.1", Ask(text="1"), event_id="1")
    consuming = asyncio.create_task(bus.consume("S", "d", "servery.events.a.*", {Ask: seen.put}))
    await bus.publish("servery.events.a.2", Ask(text="2"), event_id="2")
    assert [(await seen.get()).text, (await seen.get()).text] == ["1", "2"]
    assert bus.published == [("servery.events.a.1", Ask(text="1")), ("servery.events.a.2", Ask(text="2"))]
    consuming.cancel()


async def test_a_lost_connection_fails_requests_and_loses_signals() -> None:
    bus, lost = InMemoryBus(), list[str]()
    bus.on_disconnect(lambda: lost.append("lost"))
    bus.fail()
    await bus.signal("s", Ask(text="x"))
    with pytest.raises(errors.Unavailable):
        await bus.publish("s", Ask(text="x"), event_id="1")
    assert (lost, bus.signals, bus.connected) == (["lost"], [], False)


async def test_a_watch_gives_present_values_then_changes() -> None:
    bus = InMemoryBus()
    await bus.kv_put("b", "k", Ask(text="1"))
    watch = aiter(bus.kv_watch("b", Ask))
    assert (await anext(watch)).value == Ask(text="1")
    assert (await anext(watch)).caught_up
    await bus.kv_delete("b", "k")
    assert (await anext(watch)).deleted
    assert await bus.kv_keys("b") == []


async def test_signals_reach_those_who_listen_to_a_matching_subject() -> None:
    bus, seen = InMemoryBus(), asyncio.Queue[Other]()
    await bus.on_signal("servery.signals.x.*", Other, seen.put)
    await bus.signal("servery.signals.x.1", Other(number=1))
    await bus.signal("servery.signals.y.1", Other(number=2))
    assert (seen.qsize(), (await seen.get()).number) == (1, 1)


@pytest.mark.parametrize(
    ("pattern", "subject", "expected"),
    [
        ("a.b", "a.b", True),
        ("a.*", "a.b", True),
        ("a.*", "a.b.c", False),
        ("a.>", "a.b.c", True),
        ("a.>", "a", False),
        ("a.b", "a.c", False),
    ],
)
def test_subjects_match_as_in_nats(pattern: str, subject: str, expected: bool) -> None:
    assert matches(pattern, subject) is expected
