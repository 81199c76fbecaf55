"""What makes a bare ``WorkspaceClient()`` inside a model authenticate: variables, and a file that is kept fresh.

Names and shapes are those of Databricks' containers, as databricks-sdk looks for them
(``ModelServingAuthProvider``): it reads the file again every five minutes and expects half an hour of life in what
it finds, so a token is replaced at half of its lifetime. The file lies in a directory of the runner's own, away from
the working directory, and goes with the runner.
"""

import asyncio
import json
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import structlog

from servery_common.backoff import full_jitter
from servery_worker.credential_files import replace_file
from servery_worker.model_token import ModelToken, TokenSource

log = structlog.get_logger(__name__)

TOKEN_FILE = "model-dependencies-oauth-token"
MARKERS = {"IS_IN_DB_MODEL_SERVING_ENV": "true", "IS_IN_DATABRICKS_MODEL_SERVING_ENV": "true"}
"""By these a model, MLflow and databricks-sdk can tell that they run in model serving."""
SHORTEST_PAUSE_SECONDS = 1.0
"""Between two attempts, whatever the clocks of two machines say about a token's lifetime."""
FIRST_RETRY_SECONDS, LONGEST_RETRY_SECONDS = 2.0, 60.0


def variables(directory: Path, host: str) -> dict[str, str]:
    """The environment variables of a model. A person's own, set on the served entity, go before these."""
    found = MARKERS | {"SERVING_CREDENTIALS_DIR": str(directory)}
    if host:
        found |= {"DATABRICKS_MODEL_SERVING_HOST_URL": host, "DB_MODEL_SERVING_HOST_URL": host}
    return found


class ModelCredentials:
    """The credentials directory of one runner."""

    def __init__(
        self, tokens: TokenSource, served_entity_id: str, scratch: Path, now: Callable[[], float] = time.time
    ) -> None:
        """Makes the directory under ``scratch``; raises OSError."""
        self.directory = Path(tempfile.mkdtemp(prefix="credentials-", dir=scratch))
        self._tokens = tokens
        self._served_entity_id = served_entity_id
        self._now = now
        self._written = ""
        self._renewal: asyncio.Task[None] | None = None

    async def open(self) -> dict[str, str]:
        """Write the file if a token is to be had, keep it fresh from now on, and return the model's variables."""
        if not self._served_entity_id:
            return dict(MARKERS)
        token = await self._refresh()
        self._renewal = asyncio.create_task(self._renew(token), name=f"token of {self._served_entity_id}")
        return variables(self.directory, token.host if token is not None else "")

    async def close(self) -> None:
        """Remove the directory."""
        if self._renewal is not None:
            self._renewal.cancel()
            await asyncio.wait({self._renewal})
        await asyncio.to_thread(shutil.rmtree, self.directory, ignore_errors=True)

    async def _renew(self, token: ModelToken | None) -> None:
        delays = full_jitter(FIRST_RETRY_SECONDS, LONGEST_RETRY_SECONDS)
        while True:
            due_in = token.renew_at - self._now() if token is not None else 0.0
            if due_in > 0:
                delays = full_jitter(FIRST_RETRY_SECONDS, LONGEST_RETRY_SECONDS)
            pause = due_in if due_in > 0 else next(delays)
            await asyncio.sleep(max(pause, SHORTEST_PAUSE_SECONDS))
            token = await self._refresh()

    async def _refresh(self) -> ModelToken | None:
        """Return the present token, in the file too; None when there is none. Raises nothing."""
        token = await self._tokens.get(self._served_entity_id)
        if token is not None and token.value != self._written:
            try:
                write_token(self.directory, token.value)
                self._written = token.value
            except OSError as error:
                log.warning(
                    "model_token_not_written", served_entity_id=self._served_entity_id, error=repr(error)
                )
        return token


def write_token(directory: Path, token: str) -> None:
    """Put the token in its file: at once for whoever reads, and for its owner only. Raises OSError."""
    content = json.dumps({"OAUTH_TOKEN": [{"oauthTokenValue": token}]})
    replace_file(directory / TOKEN_FILE, content)
