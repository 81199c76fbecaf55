import json
from typing import Any

import pytest

from servery_common.contracts import frames
from servery_worker.result_heads import LONGEST_CONTENT_TYPE, LONGEST_PREDICTION_US, ResultHeads, error_status

NONSENSE = [
    *({"status": status} for status in (-5, 0, 100, 101, 201, 204, 205, 299, 304, 399, 600, 10**300)),
    *({"status": status} for status in ("", "ok", None, [], {}, float("inf"), float("nan"))),
    *({"ct": value} for value in ("text/html\r\nset-cookie: a=b", "caf\u00e9", "a\0", 7, ["text/plain"])),
    {"ct": "a" * (LONGEST_CONTENT_TYPE + 1)},
    *({"p": value} for value in (float("inf"), float("nan"), "soon", None, [])),
    {"n": float("inf")},
    {"t": 7},
]


def said(head: dict[str, Any]) -> bytes:
    return json.dumps(head).encode()


@pytest.mark.parametrize("head", NONSENSE, ids=lambda head: said(head)[:40].decode())
def test_nonsense_is_not_handed_on_and_not_remembered(head: dict[str, Any]) -> None:
    heads = ResultHeads()
    for _ in range(2):
        with pytest.raises((frames.FrameError, ValueError, TypeError, OverflowError)):
            heads.read(said(head))


@pytest.mark.parametrize("status", [200, 400, 404, 415, 499, 500, 503, 599])
def test_an_answer_or_an_error_is_handed_on(status: int) -> None:
    read = ResultHeads().read(said({"status": status, "ct": "text/csv; charset=utf-8"}))
    assert read.status == status
    head = json.loads(read.packed)
    assert head == {"ct": "text/csv; charset=utf-8"} | ({} if status == 200 else {"status": status})


def test_a_head_that_says_nothing_is_that_of_an_answer_in_json() -> None:
    assert ResultHeads().read(b"") == (b"", 200, {}, 1)


@pytest.mark.parametrize(("took", "told"), [(-3, 0), (1234, 1234), (1e300, LONGEST_PREDICTION_US)])
def test_a_prediction_took_a_possible_time(took: float, told: int) -> None:
    assert json.loads(ResultHeads().read(said({"p": took})).packed) == {"p": told}


def test_an_answer_is_no_error() -> None:
    with pytest.raises(frames.FrameError):
        error_status({"status": 200})
