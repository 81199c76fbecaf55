"""To zero and back: requests wait for the first replica, and are told at once when there will be none."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable

import httpx
from tests.end_to_end.client import Client, describe, fine
from tests.end_to_end.replicas import await_counts, scale

Version = Callable[..., str]
Figure = Callable[[str, object], None]

AT_ONCE = 500


def test_as_many_requests_as_come_at_once_wake_it_and_are_answered(
    steady: Client, version: Version, name: str, figure: Figure
):
    _deploy_at_zero(steady, version("1"), name)
    kinds = [f"request {number}" for number in range(AT_ONCE)]
    answers = asyncio.run(_score_at_once(steady, name, kinds))
    took = sorted(answer.elapsed.total_seconds() for answer in answers)
    figure("seconds of the fastest and of the slowest answer", (took[0], took[-1]))
    assert {answer.status_code for answer in answers} == {200}, [
        describe(answer) for answer in answers if answer.status_code != 200
    ][:3]
    assert [answer.json()["predictions"][0]["kind"] for answer in answers] == kinds


def test_a_model_that_cannot_be_started_again_is_told_of_at_once(steady: Client, version: Version, name: str):
    """Its files were taken away behind our back: nobody waits for the time limit of the request."""
    _deploy_at_zero(steady, version("files go", spared="nothing"), name)
    models = steady.stack.directory / "artifacts" / "models"
    newest = max(models.iterdir(), key=lambda path: path.stat().st_ctime)
    shutil.move(newest, steady.stack.directory / "taken away")
    for _ in range(3):
        told = steady.assert_error(steady.score(name, fine()), "TEMPORARILY_UNAVAILABLE", guard=30)
        assert "No replica of the served entity could be started" in told
        assert f"No such artifact: '{newest.name}'" in told


def _deploy_at_zero(client: Client, version: str, name: str) -> None:
    client.deploy(name, "misbehaves", version, scale_to_zero_enabled=True)
    scale(client, name, 0)
    await_counts(client, name, ready=0, stopping=0)


async def _score_at_once(client: Client, endpoint: str, kinds: list[str]) -> list[httpx.Response]:
    async with httpx.AsyncClient(
        base_url=client.access.host,
        headers={"Authorization": f"Bearer {client.access.token}"},
        timeout=180,
        limits=httpx.Limits(max_connections=len(kinds)),
    ) as http:
        path = f"/serving-endpoints/{endpoint}/invocations"
        bodies = [fine(kind) for kind in kinds]
        return await asyncio.gather(
            *[
                http.post(path, content=body.content, headers={"Content-Type": "application/json"})
                for body in bodies
            ]
        )
