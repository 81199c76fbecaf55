"""Logs on a real disk: rotation, and reading across it."""

from pathlib import Path

import pytest

from servery_local.logs import RotatingLog, backup_path, follow, last_lines


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "gateway.log"


def test_a_full_log_is_rotated_and_the_oldest_is_dropped(path: Path) -> None:
    log = RotatingLog(path, max_bytes=10, backups=2)
    for number in range(5):
        log.write(f"line {number:03}\n".encode())
    log.close()
    assert path.read_text() == "line 004\n"
    assert backup_path(path, 1).read_text() == "line 003\n"
    assert backup_path(path, 2).read_text() == "line 002\n"
    assert not backup_path(path, 3).exists()


def test_a_reopened_log_is_continued(path: Path) -> None:
    for text in (b"one\n", b"two\n"):
        log = RotatingLog(path)
        log.write(text)
        log.close()
    assert path.read_text() == "one\ntwo\n"


def test_the_last_lines_reach_back_into_the_rotated_file(path: Path) -> None:
    log = RotatingLog(path, max_bytes=12)
    log.write(b"one\ntwo\n")
    log.write(b"three\nfour\n")
    log.close()
    assert last_lines(path, 3) == ["two", "three", "four"]


def test_the_last_lines_of_a_missing_log_are_none(path: Path) -> None:
    assert last_lines(path, 3) == []


def test_following_goes_on_after_a_rotation(path: Path) -> None:
    log = RotatingLog(path, max_bytes=40)
    log.write(b"before\n")
    steps = iter([b"in the old one\n" * 2, b"in the new one\n", None])

    def write_more() -> bool:
        step = next(steps, None)
        if step is not None:
            log.write(step)
        return step is not None

    seen = list(follow(path, offset=0, keep_waiting=write_more, interval=0.0))
    log.close()
    assert seen == ["before", "in the old one", "in the old one", "in the new one"]


def test_following_begins_where_it_is_told_to_and_waits_for_the_file(path: Path) -> None:
    answers = iter([True, False])

    def keep_waiting() -> bool:
        path.write_text("old\nnew")
        return next(answers)

    assert list(follow(path, offset=4, keep_waiting=keep_waiting, interval=0.0)) == ["new"]
