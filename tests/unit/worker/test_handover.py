"""Two subscriptions in every order their messages may come in: each message once, each gateway's in its order."""

import random

import pytest

from servery_worker.handover import Handover

Message = tuple[bytes, str]


class Rig:
    def __init__(self) -> None:
        self.handled: list[Message] = []
        self.handover = Handover(self._take)

    def _take(self, payload: memoryview, reply: str, headers: bytes, subject: bytes) -> None:
        assert (headers, subject) == (b"h", b"s")
        self.handled.append((bytes(payload), reply))

    def old(self, *messages: Message) -> None:
        for payload, reply in messages:
            self.handover.from_old(memoryview(payload), reply, b"h", b"s")

    def new(self, *messages: Message) -> None:
        for payload, reply in messages:
            self.handover.from_new(memoryview(payload), reply, b"h", b"s")


A, B, C, D = ((letter, "gateway") for letter in (b"a", b"b", b"c", b"d"))


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_what_both_bring_is_handled_once_when_the_old_one_is_first(rig: Rig) -> None:
    rig.old(A, B)
    rig.new(B)
    rig.handover.end()
    assert rig.handled == [A, B]


def test_what_the_new_one_brings_first_waits_for_the_old_one(rig: Rig) -> None:
    rig.new(B)
    assert rig.handled == []
    rig.old(A, B)
    assert rig.handled == [A, B]
    rig.handover.end()
    assert rig.handled == [A, B]


def test_what_only_the_new_one_brings_is_handled_in_order_when_the_old_one_has_ended(rig: Rig) -> None:
    rig.old(A)
    rig.new(B, C, D)
    rig.old(B)
    rig.handover.end()
    assert rig.handled == [A, B, C, D]


def test_what_the_new_one_brings_late_was_handled_before(rig: Rig) -> None:
    rig.old(A, B)
    rig.new(A)
    rig.handover.end()
    rig.new(B, C)
    assert rig.handled == [A, B, C]


def test_equal_bytes_of_two_gateways_are_two_messages(rig: Rig) -> None:
    rig.old((b"a", "one"))
    rig.new((b"a", "other"))
    rig.handover.end()
    assert rig.handled == [(b"a", "one"), (b"a", "other")]


def test_where_a_reply_ends_and_a_payload_begins_is_no_matter_of_chance(rig: Rig) -> None:
    rig.old((b"bc", "a"))
    rig.new((b"c", "ab"))
    rig.handover.end()
    assert len(rig.handled) == 2


@pytest.mark.parametrize("seed", range(200))
def test_any_interleaving_gives_each_gateways_messages_once_and_in_order(seed: int) -> None:
    draw = random.Random(seed)
    rig = Rig()
    sent = [(b"%d" % number, f"g{draw.randrange(3)}") for number in range(20)]
    # The old one brings all up to some message of a gateway, the new one all from some earlier one on.
    begin, end = sorted(draw.sample(range(21), 2))
    old, new = sent[:end], sent[begin:]
    while old or (new and draw.random() < 0.8):
        source, take = draw.choice([(old, rig.old), (new, rig.new)])
        if source:
            take(source.pop(0))
    rig.handover.end()
    # What the new one was behind with, and what came when the old one was gone.
    rig.new(*new)
    for gateway in ("g0", "g1", "g2"):
        assert [m for m in rig.handled if m[1] == gateway] == [m for m in sent if m[1] == gateway]
