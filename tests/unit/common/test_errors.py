import pytest

from servery_common import errors
from servery_common.errors import HTTP_STATUS, ServeryError

CLASSES = [cls for cls in vars(errors).values() if isinstance(cls, type) and issubclass(cls, ServeryError)]


@pytest.mark.parametrize("cls", CLASSES)
def test_an_error_arrives_as_it_was_raised(cls: type[ServeryError]) -> None:
    sent = cls("what happened", retry_after=3)
    received = ServeryError.from_wire(sent.to_wire())
    assert (received.error_code, received.message, received.retry_after) == (
        cls.error_code,
        "what happened",
        3,
    )
    assert cls is ServeryError or type(received) is cls


@pytest.mark.parametrize("cls", CLASSES)
def test_every_error_has_a_status(cls: type[ServeryError]) -> None:
    assert cls("x").status == HTTP_STATUS[cls.error_code]


def test_an_error_nobody_knows_keeps_its_code_and_counts_as_a_fault() -> None:
    received = ServeryError.from_wire({"error_code": "NEW_CODE", "message": "m"})
    assert (type(received), received.error_code, received.status) == (ServeryError, "NEW_CODE", 500)


def test_the_body_shows_a_stack_trace_only_if_there_is_one() -> None:
    assert errors.BadRequest("m").body() == {"error_code": "BAD_REQUEST", "message": "m"}
    assert errors.BadRequest("m", stack_trace="t").body()["stack_trace"] == "t"


def test_unavailable_asks_to_come_back() -> None:
    assert errors.Unavailable("m").retry_after == 1
