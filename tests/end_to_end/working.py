"""Requests that the model ``misbehaves`` works on for as long as a test wants."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
from tests.end_to_end.client import Client, describe, fine
from tests.end_to_end.deadlines import eventually


class Working:
    """Requests that the model works on until ``finish``. Each is of a kind of its own, so its answer is too."""

    def __init__(self, client: Client, endpoint: str, directory: Path, count: int) -> None:
        self._files = [directory / str(number) for number in range(count)]
        self._threads = ThreadPoolExecutor(count)
        self._client = client
        self._endpoint = endpoint
        self._answers = [self._threads.submit(self._score, file) for file in self._files]
        begun = [file.with_name(f"{file.name}.begun") for file in self._files]
        eventually(lambda: all(file.exists() for file in begun), within=60, what="the model works on them")

    def _score(self, file: Path) -> httpx.Response:
        return self._client.score(self._endpoint, fine(f"wait:{file}"))

    def finish(self) -> list[dict[str, Any]]:
        """Let the model go on. Returns the predictions, all of which have to be the right ones."""
        assert not any(answer.done() for answer in self._answers), [_told(one) for one in self._answers]
        self.release()
        answers = [one.result(timeout=60) for one in self._answers]
        assert {one.status_code for one in answers} == {200}, [describe(one) for one in answers]
        predictions = [one.json()["predictions"][0] for one in answers]
        assert [one["kind"] for one in predictions] == [f"wait:{file}" for file in self._files]
        return predictions

    def lost(self) -> list[httpx.Response]:
        """Wait for the answers of requests that the model never finishes."""
        return [one.result(timeout=60) for one in self._answers]

    def release(self) -> None:
        """Let the model go on."""
        for file in self._files:
            file.touch()
        self._threads.shutdown(wait=False)


def _told(answer: Future[httpx.Response]) -> str:
    return describe(answer.result()) if answer.done() else "waits"
