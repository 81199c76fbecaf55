"""NATS restarted under load: in flight fails at once, normal again soon, nothing stale is run.

What is promised of a request that was answered 503: sent while NATS was away, it is never run; in flight when NATS
went, it was run once if a worker had it by then, and is never begun after what was sent after the restart.
"""

import asyncio
from itertools import dropwhile
from pathlib import Path

from tests.resilience.system import AT_ONCE, System
from tests.waiting import until

LOST = "The connection to the replicas was lost. Try again in a moment."


async def test_what_is_in_flight_fails_at_once_and_nothing_that_was_refused_is_run(
    system: System, tmp_path: Path
):
    nats = system.processes.nats
    both = await system.deploy(0, 1)
    release = tmp_path / "release"
    async with both.load() as load:
        working = both.begin(f"wait:{release}", 3)
        await both.until_running(working)
        sent_with_nats = set(load.sent)
        nats.kill()
        async with asyncio.timeout(AT_ONCE):
            failed = await asyncio.gather(*working)
        assert {(one.status, one.message) for one in failed} == {(503, LOST)}
        # The model goes on with them; nobody is told any more, and nobody is told the answers of others.
        release.touch()
        refused = [await both.score() for _ in range(20)]
        assert {one.status for one in refused} == {503}
        count = len(load.of_status(503))
        await until(lambda: len(load.of_status(503)) > count + 10)
        sent_before = set(load.sent)
        nats.start()
        async with asyncio.timeout(AT_ONCE):
            await load.succeeded(50)
    assert load.statuses() <= {200, 503}
    load.assert_run_once(both.ran())
    told = {one.id for one in [*failed, *refused, *load.of_status(503)]}
    while_away = told - sent_with_nats - {one.id for one in failed}
    assert len(while_away) > 20
    assert while_away & set(both.ran()) == set()
    later = set(load.sent) - sent_before
    for replica in (0, 1):
        since = list(dropwhile(lambda one: one not in later, both.ran(replica)))
        assert since, "it takes requests again"
        assert told & set(since) == set()
