"""Who asks may be answered, and by nobody else: read from the allow-lists alone."""

from __future__ import annotations

import itertools

import pytest

from servery_common.contracts import subjects
from servery_common.contracts.permissions import SERVICES, Permissions, inbox_prefix, of_replica

REPLICA = "r1"
EVERYBODY: dict[str, Permissions] = {**SERVICES, REPLICA: of_replica(REPLICA)}


def meet(one: str, other: str) -> bool:
    """Whether there is a subject that both cover."""
    for mine, theirs in itertools.zip_longest(one.split("."), other.split(".")):
        if ">" in (mine, theirs):
            return True
        if mine is None or theirs is None or (mine != theirs and "*" not in (mine, theirs)):
            return False
    return True


def asked() -> list[tuple[str, str, str]]:
    """Who may ask whom, and on which subject."""
    return [
        (asker, answerer, published)
        for asker, answerer in itertools.permutations(EVERYBODY, 2)
        for published in EVERYBODY[asker].publish
        if published.startswith("servery.api.")
        and any(meet(published, heard) for heard in EVERYBODY[answerer].subscribe)
    ]


def inbox(asker: str, answerer: str) -> str:
    return f"{inbox_prefix(asker)}.{answerer}.own.1"


@pytest.mark.parametrize(("asker", "answerer", "subject"), asked())
def test_who_is_asked_may_answer(asker: str, answerer: str, subject: str) -> None:
    rights = EVERYBODY[answerer]
    reply = inbox(asker, subjects.answerer(subject))
    assert any(meet(reply, heard) for heard in EVERYBODY[asker].subscribe)
    assert rights.answers or any(meet(reply, allowed) for allowed in rights.publish)


def test_somebody_asks() -> None:
    pairs = {(asker, answerer) for asker, answerer, _ in asked()}
    assert {("gateway", "controller"), ("controller", "builder"), ("controller", REPLICA)} <= pairs
    assert (REPLICA, "controller") in pairs


@pytest.mark.parametrize("service", [name for name in EVERYBODY if name != "controller"])
def test_nobody_answers_for_another_one(service: str) -> None:
    for asker, answerer in itertools.product(EVERYBODY, SERVICES):
        if answerer != service:
            reply = inbox(asker, answerer)
            assert not any(meet(reply, allowed) for allowed in EVERYBODY[service].publish), reply


def test_the_controller_answers_for_itself_alone() -> None:
    for asker, answerer in itertools.product(EVERYBODY, SERVICES):
        reply = inbox(asker, answerer)
        allowed = any(meet(reply, pattern) for pattern in SERVICES["controller"].publish)
        assert allowed is (answerer == "controller"), reply


def test_a_request_to_whom_nobody_may_answer_is_refused() -> None:
    with pytest.raises(ValueError, match=r"servery\.api\.<who answers>"):
        subjects.answerer("servery.signals.gateway.load.g1")
