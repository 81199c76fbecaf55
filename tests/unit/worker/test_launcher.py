import errno
import os
from pathlib import Path
from typing import Any

import pytest

from servery_common.contracts.builds import Artifacts
from servery_common.messaging.testing import InMemoryBus
from servery_runner.limits import Limits
from servery_worker import launcher as launching
from servery_worker.launcher import Launcher
from servery_worker.model_log import ModelLog
from servery_worker.model_token import ModelTokens
from servery_worker.runner import RunnerFailed
from servery_worker.starts import Starts

ARTIFACTS = Artifacts(model_path="m", environment_path="e", python="p", environment_key="k")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EMFILE])
@pytest.mark.parametrize("call", ["tempfile.mkdtemp", "socket.socketpair"])
async def test_whatever_the_system_refuses_is_a_failed_start_with_its_reason(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, call: str, number: int
):
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise OSError(number, os.strerror(number))

    module, function = call.split(".")
    monkeypatch.setattr(getattr(launching, module), function, refuse)
    parents: Any = None
    tokens = ModelTokens(InMemoryBus())
    launcher = Launcher(
        parents,
        tokens,
        Starts(),
        overlay=tmp_path,
        scratch=tmp_path,
        load_timeout=1.0,
        limits=Limits(2**30, 2**20),
    )
    with pytest.raises(RunnerFailed) as caught:
        await launcher.start(ARTIFACTS, ModelLog(), served_entity_id="s1", environment_vars={}, slots=1)
    assert (caught.value.stage, caught.value.error) == ("start", os.strerror(number))
    assert list(tmp_path.iterdir()) == []
