"""What the database keeps of a build, and from whom it takes changes."""

from datetime import timedelta

import asyncpg
import pytest

from servery_builder.domain.build import Failure
from servery_builder.store import BuildStore, Claim
from servery_common.contracts.builds import BuildRequested, FailureCode
from servery_common.postgres import Pool

LEASE = timedelta(seconds=10)
FAILURE = Failure(FailureCode.IMPORT_ERROR, "No module named 'foo'.")


@pytest.fixture
async def store(pool: Pool) -> BuildStore:
    return BuildStore(pool)


async def ordered(store: BuildStore, build_id: str = "b1") -> None:
    order = BuildRequested(
        build_id=build_id,
        endpoint_id="ep1",
        served_entity_id="se1",
        model_name="iris",
        model_version="1",
    )
    await store.insert(order, {})


async def claimed(store: BuildStore, lease: timedelta = LEASE) -> Claim:
    claim = await store.claim(lease)
    assert claim is not None
    return claim


async def test_a_build_is_held_by_one_builder_until_its_lease_ends(store: BuildStore, pool: Pool) -> None:
    await ordered(store)
    first = await claimed(store)
    assert await store.claim(LEASE) is None

    await pool.execute("UPDATE builds SET lock_expires_at = now() - interval '1 second'")
    second = await claimed(store)
    assert (second.taken_over, second.build.attempts) == (True, 2)

    assert not await store.extend(first, LEASE)
    assert not await store.append_log(first, ["late"], 1024)
    assert not await store.finish(first, FAILURE)
    assert await store.extend(second, LEASE)
    assert await store.finish(second, FAILURE)


async def test_a_result_is_stored_and_announced_once_and_never_changes(store: BuildStore, pool: Pool) -> None:
    await ordered(store)
    claim = await claimed(store)
    assert await store.finish(claim, FAILURE)
    assert not await store.finish(claim, FAILURE)
    types = await pool.fetch("SELECT type FROM outbox WHERE owner = 'builder' ORDER BY id")
    assert [row["type"] for row in types] == ["servery.build.started.v1", "servery.build.failed.v1"]
    with pytest.raises(asyncpg.RaiseError, match="has ended as FAILED"):
        await pool.execute("UPDATE builds SET state = 'QUEUED', code = ''")


async def test_a_long_log_keeps_its_head_and_tail_and_says_what_is_missing(store: BuildStore) -> None:
    await ordered(store)
    claim = await claimed(store)
    for number in range(100):
        await store.append_log(claim, [f"line {number} " + "x" * 100], 4096)
    log = await store.read_log("b1")
    lines = log.splitlines()
    assert lines[0].startswith("line 0 ")
    assert lines[-1].startswith("line 99 ")
    cut = [line for line in lines if "were cut out here" in line]
    assert cut == [f"... {100 - (len(lines) - 1)} lines were cut out here ..."]
    assert 3000 < len(log.encode()) < 5000
