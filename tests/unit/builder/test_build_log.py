"""Lines reach the store in order, once, without secrets, also after an outage."""

from datetime import UTC, datetime

import pytest

from servery_builder.build_log import BuildLog
from servery_builder.domain.build import Build
from servery_builder.store import Claim
from servery_common.redaction import Redactor

CLAIM = Claim(Build("b1", "iris", "1", {}, 1), "token", False, {}, 0.0)


class Store:
    """Takes chunks, unless told to be away."""

    def __init__(self) -> None:
        self.chunks: list[list[str]] = []
        self.away = False

    async def append_log(self, claim: Claim, lines: list[str], limit_bytes: int) -> bool:
        if self.away:
            raise OSError("no database")
        self.chunks.append(lines)
        return True

    @property
    def lines(self) -> list[str]:
        return [line for chunk in self.chunks for line in chunk]


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def log(store: Store) -> BuildLog:
    now = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)
    return BuildLog(store, CLAIM, Redactor(["hunter2"]), 1 << 20, now=lambda: now)  # type: ignore[arg-type]


async def test_lines_carry_the_time_and_no_secret(log: BuildLog, store: Store) -> None:
    log.say("one\ntwo hunter2 \0")
    await log.flush()
    assert store.lines == ["[2026-01-01 12:00:00] one", "[2026-01-01 12:00:00] two [REDACTED]"]


async def test_nothing_is_lost_or_doubled_by_an_outage(log: BuildLog, store: Store) -> None:
    log.say("one")
    store.away = True
    with pytest.raises(OSError, match="no database"):
        await log.flush()
    log.say("two")
    store.away = False
    await log.flush()
    await log.flush()
    assert [line[-3:] for line in store.lines] == ["one", "two"]


async def test_a_flood_is_stored_in_pieces_and_long_lines_are_cut(log: BuildLog, store: Store) -> None:
    log.say("x" * 100_000)
    for _ in range(1000):
        log.say("y" * 100)
    await log.flush()
    assert len(store.lines) == 1001
    assert len(store.lines[0]) < 10_000
    assert all(sum(map(len, chunk)) <= 16 * 1024 for chunk in store.chunks)
