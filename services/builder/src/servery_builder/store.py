"""All SQL of the builder.

Every write after the claim names the lock token, so a builder that lost its lease changes nothing: it gets
False and drops what it was doing. Which states may follow which comes from ``domain.build``.
"""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from servery_builder.domain.build import TRANSITIONS, Build, BuildEvent, Failure, Success
from servery_common.contracts import subjects
from servery_common.contracts.builds import (
    Artifacts,
    BuildFailed,
    BuildRequested,
    BuildStarted,
    BuildStatus,
    BuildSucceeded,
)
from servery_common.contracts.states import BuildState
from servery_common.postgres import Pool, outbox

# Written into the statement, not given as a parameter: only so can Postgres use the partial index of open builds.
_CLAIMABLE = ", ".join(f"'{state}'" for state in TRANSITIONS[BuildEvent.CLAIMED].before)


@dataclass(frozen=True)
class Claim:
    """A build this process may work on until its lease ends."""

    build: Build
    lock_token: str
    taken_over: bool
    """Whether another builder held it and fell silent."""
    trace_context: Mapping[str, str]
    age_seconds: float
    """Time since the build was first started."""


class BuildStore:
    """The tables ``builds`` and ``build_log_chunks``."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def insert(self, order: BuildRequested, trace_context: Mapping[str, str]) -> bool:
        """Accept an order; False when it was accepted before."""
        status = await self._pool.execute(
            """
            INSERT INTO builds (build_id, endpoint_id, served_entity_id, model_name, model_version,
                                trace_context)
            VALUES ($1, $2, $3, $4, $5, $6)
            ON CONFLICT (build_id) DO NOTHING
            """,
            order.build_id,
            order.endpoint_id,
            order.served_entity_id,
            order.model_name,
            order.model_version,
            dict(trace_context),
        )
        return _changed(status)

    async def claim(self, lease: timedelta) -> Claim | None:
        """Take the oldest build that waits or whose builder fell silent, and announce that it started."""
        token = secrets.token_hex(16)
        async with self._pool.acquire() as connection, connection.transaction():
            row = await connection.fetchrow(
                f"""
                WITH next AS (
                    SELECT build_id, lock_token FROM builds
                    WHERE state IN ({_CLAIMABLE}) AND (lock_expires_at IS NULL OR lock_expires_at < now())
                    ORDER BY queued_at
                    LIMIT 1
                    FOR UPDATE SKIP LOCKED
                )
                UPDATE builds SET
                    state = $3, lock_token = $1, lock_expires_at = now() + $2, attempts = attempts + 1,
                    started_at = coalesce(started_at, now())
                FROM next WHERE builds.build_id = next.build_id
                RETURNING builds.build_id, model_name, model_version, attempts,
                    served_entity_id, trace_context,
                    next.lock_token IS NOT NULL AS taken_over,
                    extract(epoch FROM now() - started_at)::float8 AS age_seconds
                """,
                token,
                lease,
                TRANSITIONS[BuildEvent.CLAIMED].after,
            )
            if row is None:
                return None
            build_id: str = row["build_id"]
            await outbox.append(
                connection, subjects.build_event("started", build_id), BuildStarted(build_id=build_id)
            )
        build = Build(
            build_id,
            row["model_name"],
            row["model_version"],
            row["served_entity_id"],
            row["attempts"],
        )
        return Claim(build, token, row["taken_over"], row["trace_context"], row["age_seconds"])

    async def open_builds(self) -> dict[str, tuple[int, float]]:
        """Return how many builds have not ended, and the age of the oldest in seconds, by state."""
        rows = await self._pool.fetch(
            f"""
            SELECT state, count(*) AS builds, extract(epoch FROM now() - min(queued_at))::float8 AS age
            FROM builds WHERE state IN ({_CLAIMABLE}) GROUP BY state
            """
        )
        return {row["state"]: (row["builds"], row["age"]) for row in rows}

    async def extend(self, claim: Claim, lease: timedelta) -> bool:
        """Keep the build; False when somebody else has it."""
        status = await self._pool.execute(
            "UPDATE builds SET lock_expires_at = now() + $3 WHERE build_id = $1 AND lock_token = $2",
            claim.build.build_id,
            claim.lock_token,
            lease,
        )
        return _changed(status)

    async def set_step(self, claim: Claim, step: str) -> None:
        """Say what the build is doing."""
        await self._pool.execute(
            "UPDATE builds SET step = $3 WHERE build_id = $1 AND lock_token = $2",
            claim.build.build_id,
            claim.lock_token,
            step,
        )

    async def release(self, claim: Claim) -> None:
        """Give the build back, so that another builder takes it at once. Not counted as an attempt."""
        transition = TRANSITIONS[BuildEvent.RELEASED]
        await self._pool.execute(
            """
            UPDATE builds
            SET state = $3, lock_token = NULL, lock_expires_at = NULL, attempts = attempts - 1, step = ''
            WHERE build_id = $1 AND lock_token = $2 AND state = ANY($4)
            """,
            claim.build.build_id,
            claim.lock_token,
            transition.after,
            transition.before,
        )

    async def finish(self, claim: Claim, result: Success | Failure) -> bool:
        """Store the result and announce it in one transaction; False when the build is somebody else's."""
        build_id = claim.build.build_id
        values: tuple[Any, ...]
        if isinstance(result, Success):
            event = BuildEvent.SUCCEEDED
            message = BuildSucceeded(
                build_id=build_id,
                artifacts=result.artifacts,
                environment_cached=result.environment_cached,
                seconds=result.seconds,
            )
            values = (result.artifacts.model_dump(), result.environment_cached, result.seconds, "", "")
        else:
            event = BuildEvent.FAILED
            message = BuildFailed(build_id=build_id, reason=result.reason, code=result.code)
            values = (None, None, None, result.reason, result.code)
        async with self._pool.acquire() as connection, connection.transaction():
            status = await connection.execute(
                """
                UPDATE builds SET
                    state = $3, artifacts = $4, environment_cached = $5, seconds = $6,
                    reason = $7, code = $8, step = '', lock_token = NULL,
                    lock_expires_at = NULL, finished_at = now()
                WHERE build_id = $1 AND lock_token = $2 AND state = ANY($9)
                """,
                build_id,
                claim.lock_token,
                TRANSITIONS[event].after,
                *values,
                TRANSITIONS[event].before,
            )
            if not _changed(status):
                return False
            await outbox.append(connection, subjects.build_event(event.value, build_id), message)
        return True

    async def status(self, build_id: str) -> BuildStatus:
        """Return where a build stands; its state is None when nobody ordered it here."""
        row = await self._pool.fetchrow(
            "SELECT state, step, reason, code, artifacts FROM builds WHERE build_id = $1",
            build_id,
        )
        if row is None:
            return BuildStatus(build_id=build_id, state=None)
        artifacts = row["artifacts"]
        return BuildStatus(
            build_id=build_id,
            state=BuildState(row["state"]),
            step=row["step"],
            reason=row["reason"],
            code=row["code"],
            artifacts=None if artifacts is None else Artifacts.model_validate(artifacts),
        )

    async def append_log(self, claim: Claim, lines: list[str], limit_bytes: int) -> bool:
        """Append to the log, cut its middle out beyond the limit; False when the build is somebody else's."""
        build_id = claim.build.build_id
        async with self._pool.acquire() as connection, connection.transaction():
            status = await connection.execute(
                """
                INSERT INTO build_log_chunks (build_id, first_line, lines, text)
                SELECT build_id,
                    coalesce((SELECT max(first_line + lines) FROM build_log_chunks WHERE build_id = $1), 0),
                    $3, $4
                FROM builds WHERE build_id = $1 AND lock_token = $2
                """,
                build_id,
                claim.lock_token,
                len(lines),
                "".join(f"{line}\n" for line in lines),
            )
            if not _changed(status):
                return False
            await connection.execute(
                """
                DELETE FROM build_log_chunks USING (
                    SELECT first_line,
                           sum(octet_length(text)) OVER (ORDER BY first_line) AS to_here,
                           sum(octet_length(text)) OVER (ORDER BY first_line DESC) AS from_here
                    FROM build_log_chunks WHERE build_id = $1
                ) AS sizes
                WHERE build_id = $1 AND build_log_chunks.first_line = sizes.first_line
                  AND to_here > $2 AND from_here > $2
                """,
                build_id,
                limit_bytes // 2,
            )
        return True

    async def read_log(self, build_id: str) -> str:
        """Return the log that was kept, saying where and how much was cut out."""
        rows = await self._pool.fetch(
            "SELECT first_line, lines, text FROM build_log_chunks WHERE build_id = $1 ORDER BY first_line",
            build_id,
        )
        parts: list[str] = []
        expected = 0
        for row in rows:
            if row["first_line"] > expected:
                parts.append(f"... {row['first_line'] - expected} lines were cut out here ...\n")
            parts.append(row["text"])
            expected = row["first_line"] + row["lines"]
        return "".join(parts)


def _changed(status: str) -> bool:
    return not status.endswith(" 0")
