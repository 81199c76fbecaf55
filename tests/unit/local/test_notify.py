from servery_local.notify import parse_notification


def test_assignments_are_read_line_by_line() -> None:
    assert parse_notification(b"READY=1\nSTATUS=a=b") == {"READY": "1", "STATUS": "a=b"}


def test_what_is_no_assignment_is_ignored() -> None:
    assert parse_notification(b"hello\n\nREADY=1\n") == {"READY": "1"}


def test_bytes_that_are_no_text_do_no_harm() -> None:
    assert parse_notification(b"\xff\nREADY=1")["READY"] == "1"
