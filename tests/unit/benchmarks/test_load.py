import itertools
import math

import pytest
from tests.benchmarks.load.answers import AnswerParser, HttpAnswer
from tests.benchmarks.load.client import Outcome, percentile
from tests.benchmarks.load.schedule import constant, poisson

PLAIN = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nx: y\r\n\r\nabc"
REFUSED = b"HTTP/1.1 429 Too Many Requests\r\nretry-after: 7\r\ncontent-length: 0\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n"
ANSWERS = [HttpAnswer(200, b"abc"), HttpAnswer(429, b"", 7), HttpAnswer(200, b"abc")]


@pytest.mark.parametrize("step", [1, 2, 7, 1000])
def test_answers_come_out_whole_however_the_bytes_are_cut(step: int):
    parser, stream = AnswerParser(), PLAIN + REFUSED + CHUNKED
    found = [parser.feed(stream[at : at + step]) for at in range(0, len(stream), step)]
    assert list(itertools.chain(*found)) == ANSWERS


def test_constant_arrivals_are_equally_far_apart():
    assert list(constant(4, 1.0)) == [0.0, 0.25, 0.5, 0.75]


def test_poisson_arrivals_have_the_rate_and_are_the_same_for_the_same_seed():
    arrivals = list(poisson(1000, 10.0, seed=1))
    assert arrivals == list(poisson(1000, 10.0, seed=1))
    assert arrivals == sorted(arrivals)
    assert 9_500 < len(arrivals) < 10_500
    assert arrivals[-1] < 10.0


@pytest.mark.parametrize(("share", "value"), [(1, 1), (50, 50), (99, 99), (99.9, 100), (100, 100)])
def test_a_percentile_is_the_smallest_value_that_so_many_do_not_exceed(share: float, value: int):
    assert percentile([float(one) for one in range(100, 0, -1)], share) == value


def test_of_nothing_there_is_no_percentile():
    assert math.isnan(percentile([], 50))


def test_everything_but_a_right_answer_counts_as_an_error():
    outcome = Outcome(seconds=2.0, in_time=9, statuses={"200": 10, "503": 2}, wrong=1, lost=3, unsent=4)
    outcome.add(Outcome(seconds=1.0, in_time=3, statuses={"200": 5, "429": 1}))
    assert outcome.errors == 2 + 1 + 3 + 4 + 1
    assert outcome.ok == 10 + 5 - 1


def test_answers_to_the_last_requests_make_no_server_faster():
    slow = Outcome(seconds=2.0, in_time=300, statuses={"200": 300 + 128})
    assert slow.per_second == 150.0
