"""``python -m servery_worker.verification``: verify one model without any network, for the builder.

One line with a VerifyModel comes on standard input. What a worker would answer over NATS goes to standard output, a
line for each message: its type, a space, its JSON. Nothing else is written there: logs, and whatever else prints, go
to standard error.
"""

import asyncio
import os
import sys
import tempfile
from pathlib import Path
from typing import BinaryIO

from servery_common.contracts.message import Message
from servery_common.contracts.replicas import VerifyModel
from servery_common.logging import configure_logging
from servery_runner.limits import Limits
from servery_worker import overlay
from servery_worker.launcher import Launcher
from servery_worker.model_token import NoTokens
from servery_worker.starts import Starts
from servery_worker.verify import Verifier
from servery_worker.warm_parents import WarmParents

LONGEST_ANSWER = 64 * 1024 * 1024


def main() -> None:
    """Verify and end. The exit code says nothing: the last line does."""
    answers = _take_standard_output()
    configure_logging("verification")
    order = VerifyModel.model_validate_json(sys.stdin.readline())
    asyncio.run(_verify(order, answers))


async def _verify(order: VerifyModel, answers: BinaryIO) -> None:
    with tempfile.TemporaryDirectory(prefix="verify-") as directory:
        scratch = Path(directory) / "runners"
        scratch.mkdir()
        files = overlay.materialise(Path(directory))
        parents = WarmParents(
            overlay=files, home=scratch, memory_bytes=0, warm_up_timeout=order.timeout_seconds
        )
        launcher = Launcher(
            parents,
            NoTokens(),
            Starts(),
            overlay=files,
            scratch=scratch,
            load_timeout=order.timeout_seconds,
            limits=Limits(_model_memory(), LONGEST_ANSWER),
        )
        try:
            async for message in Verifier(launcher).verify(order):
                _write(answers, message)
        finally:
            await parents.close()


def _write(answers: BinaryIO, message: Message) -> None:
    answers.write(f"{message.message_type} {message.model_dump_json()}\n".encode())
    answers.flush()


def _take_standard_output() -> BinaryIO:
    """Return standard output for the answers alone; what others write there goes to standard error."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return answers


def _model_memory() -> int:
    """What the model's replicas may use; without a word of it the container's own limit is the limit."""
    said = os.environ.get("SERVERY_WORKER_MODEL_MEMORY_BYTES")
    return int(said) if said else os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


if __name__ == "__main__":
    main()
