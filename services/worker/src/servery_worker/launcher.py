"""Start runners: by fork from the environment's warm parent, or from nothing where a fork would not work."""

import asyncio
import hashlib
import json
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import structlog

from servery_common.contracts.builds import Artifacts
from servery_common.contracts.replicas import BATCHING_VARIABLE, WARM_UP_VARIABLE
from servery_common.redaction import Redactor
from servery_runner.batch_proof import Proof
from servery_runner.begun import BegunTable
from servery_runner.limits import Limits
from servery_worker import frameworks
from servery_worker.model_credentials import ModelCredentials
from servery_worker.model_log import ModelLog
from servery_worker.model_token import TokenSource
from servery_worker.process import kill_group, read_pipe, spawn
from servery_worker.runner import Runner, RunnerFailed
from servery_worker.starts import Starts
from servery_worker.warm_parent import WarmParent, WarmParentFailed
from servery_worker.warm_parents import WarmParents

log = structlog.get_logger(__name__)

REMEMBERED_MODELS = 1000
LONGEST_PROOF = 16 * 1024
"""Characters of JSON. It travels in the head of a record, beside other things."""
QUICK_LOAD_SECONDS = 2.0
"""A model that loads within this is worth holding requests for while its runner is replaced."""


class Launcher:
    """Starts runners and has them load their model."""

    def __init__(
        self,
        parents: WarmParents,
        tokens: TokenSource,
        starts: Starts,
        *,
        overlay: Path,
        scratch: Path,
        load_timeout: float,
        limits: Limits,
    ) -> None:
        self._parents = parents
        self._tokens = tokens
        self._starts = starts
        self._overlay = overlay
        self._scratch = scratch
        self._load_timeout = load_timeout
        self._limits = limits
        self._proofs: dict[str, Any] = {}
        """What was found out about predicting requests together: once, not by each replica. By model and environment,
        for the same code may do something else with other variables."""

    async def start(
        self,
        artifacts: Artifacts,
        output: ModelLog,
        *,
        served_entity_id: str,
        environment_vars: Mapping[str, str],
        slots: int,
        verify: bool = False,
        warm_up: bool = True,
    ) -> Runner:
        """Return a runner that has loaded the model. Raises RunnerFailed and nothing else; then no process is left.

        ``warm_up``: it has predicted its input example, too, if it can within some seconds. ``verify``: it fails if it
        cannot. The model acts as the creator of ``served_entity_id``; empty: as nobody. What it is given is not in
        the error.
        """
        try:
            with self._starts.one():
                return await self._start(
                    artifacts,
                    output,
                    served_entity_id,
                    environment_vars,
                    slots,
                    verify=verify,
                    warm_up=warm_up and environment_vars.get(WARM_UP_VARIABLE) != "off",
                )
        except RunnerFailed as failure:
            # Its error is the model's own exception, and is told in heartbeats, logs and the endpoint's state.
            redact = Redactor(environment_vars.values())
            raise RunnerFailed(
                failure.stage, redact(failure.error), redact(failure.traceback)
            ) from failure.__cause__
        except WarmParentFailed as error:
            raise RunnerFailed(error.stage, str(error)) from error
        except Exception as error:
            # A full disk or too many open files end this start, and not the worker with every replica in it.
            log.warning("runner_not_started", environment_key=artifacts.environment_key, exc_info=error)
            raise RunnerFailed("start", _reason(error)) from error

    async def dispose(self, runner: Runner) -> None:
        """Kill a runner, keep what it printed to the end, remove its directories."""
        runner.kill()
        await runner.drained()
        if runner.credentials is not None:
            await runner.credentials.close()
        runner.begun.close()
        await asyncio.to_thread(shutil.rmtree, runner.directory, ignore_errors=True)

    async def _start(
        self,
        artifacts: Artifacts,
        output: ModelLog,
        served_entity_id: str,
        environment_vars: Mapping[str, str],
        slots: int,
        *,
        verify: bool,
        warm_up: bool,
    ) -> Runner:
        started = time.monotonic()
        # Its own working directory: a file one model writes must not be found by another.
        directory = Path(tempfile.mkdtemp(prefix="runner-", dir=self._scratch))
        runner = Runner(directory, BegunTable(self._scratch, slots), self._limits.answer_bytes)
        try:
            runner.credentials = ModelCredentials(self._tokens, served_entity_id, self._scratch)
            forked, of_the_model = await self._start_process_and_open(
                runner, runner.credentials, artifacts, output
            )
            # With the order to load, not from the warm parent: that one is shared by models of many people.
            given = of_the_model | dict(environment_vars)
            known_as = _fingerprint(artifacts, environment_vars)
            head = {
                "model_path": artifacts.model_path,
                "directory": str(runner.directory),
                "slots": slots,
                "begun": runner.begun.path,
                **self._limits._asdict(),
                "verify": verify,
                # What is verified ends afterwards.
                "warm_up": warm_up and not verify,
                "batching": environment_vars.get(BATCHING_VARIABLE, "auto"),
                "proof": self._proofs.get(known_as),
            }
            async with asyncio.timeout(self._load_timeout):
                await runner.load(head, given)
            if head["batching"] == "auto":
                self._remember(known_as, runner.description.get("batching"))
            runner.quick = forked and runner.load_seconds < QUICK_LOAD_SECONDS
        except TimeoutError:
            await self.dispose(runner)
            raise RunnerFailed("load", f"Loading did not finish within {self._load_timeout:g} s.") from None
        except BaseException:
            await self.dispose(runner)
            raise
        log.info(
            "runner_started",
            pid=runner.pid,
            forked=forked,
            environment_key=artifacts.environment_key,
            seconds=round(time.monotonic() - started, 3),
            load_seconds=round(runner.load_seconds, 3),
        )
        return runner

    def _remember(self, known_as: str, proof: Any) -> None:
        """Keep what a runner says of its model for the next one, if that can be told so: it may say anything."""
        try:
            head = Proof.from_head(proof).head()
        except (KeyError, TypeError, ValueError, OverflowError):
            return
        if len(json.dumps(head)) > LONGEST_PROOF:
            return
        if len(self._proofs) >= REMEMBERED_MODELS:
            self._proofs.clear()
        self._proofs[known_as] = head

    async def _start_process_and_open(
        self, runner: Runner, credentials: ModelCredentials, artifacts: Artifacts, output: ModelLog
    ) -> tuple[bool, dict[str, str]]:
        """Start the process and ask for the model's token meanwhile: neither needs the other.

        Raises as ``_start_process``.
        """
        opening = asyncio.create_task(credentials.open(), name="credentials of a runner")
        try:
            forked = await self._start_process(runner, artifacts, output)
            return forked, await opening
        finally:
            # Over when they are closed, which may be next.
            opening.cancel()
            await asyncio.wait({opening})

    async def _start_process(self, runner: Runner, artifacts: Artifacts, output: ModelLog) -> bool:
        """Start the process; True when it was forked. Raises WarmParentFailed and OSError."""
        wanted = await asyncio.to_thread(frameworks.of_model, Path(artifacts.model_path))
        reason = wanted.unforkable
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        try:
            if not reason:
                reason = await self._fork(runner, artifacts, wanted.modules, ours, theirs, output)
                if not reason:
                    return True
            log.info("runner_not_forked", environment_key=artifacts.environment_key, reason=reason)
            await self._spawn(runner, artifacts, wanted.modules, ours, theirs, output)
            return False
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()

    async def _fork(
        self,
        runner: Runner,
        artifacts: Artifacts,
        modules: tuple[str, ...],
        ours: socket.socket,
        theirs: socket.socket,
        output: ModelLog,
    ) -> str:
        """Fork the runner, or return why the environment does not allow it. Raises WarmParentFailed."""
        async with self._parents.hold(artifacts, modules, output.append) as parent:
            if parent.unforkable:
                return parent.unforkable
            try:
                await self._fork_from(parent, runner, ours, theirs, output)
            except WarmParentFailed:
                if not parent.died.is_set():
                    raise
            else:
                return ""
        # Its end was not known yet: a runner that died with it is replaced before that news arrives.
        async with self._parents.hold(artifacts, modules, output.append) as parent:
            await self._fork_from(parent, runner, ours, theirs, output)
        return ""

    async def _fork_from(
        self,
        parent: WarmParent,
        runner: Runner,
        ours: socket.socket,
        theirs: socket.socket,
        output: ModelLog,
    ) -> None:
        read_end, write_end = os.pipe()
        try:
            pipe = await read_pipe(read_end, output)
            try:
                pid, exited = await parent.fork(theirs, write_end)
            except BaseException:
                pipe.close()
                raise
        finally:
            os.close(write_end)
        await runner.attach(ours, pid, exited=exited, kill=lambda: parent.kill(pid), output=pipe)

    async def _spawn(
        self,
        runner: Runner,
        artifacts: Artifacts,
        modules: tuple[str, ...],
        ours: socket.socket,
        theirs: socket.socket,
        output: ModelLog,
    ) -> None:
        arguments = ["-m", "servery_runner", "--runner-fd", str(theirs.fileno())]
        process, pipe = await spawn(
            artifacts.python,
            [*arguments, "--worker-pid", str(os.getpid()), *modules],
            theirs,
            overlay=self._overlay,
            environment=self._parents.environment_of(artifacts),
            log=output,
        )

        def kill() -> None:
            # Once it is waited for, its number may belong to somebody else.
            if process.returncode is None:
                kill_group(process.pid)

        exited = asyncio.ensure_future(process.wait())
        await runner.attach(ours, process.pid, exited=exited, kill=kill, output=pipe)


def _fingerprint(artifacts: Artifacts, environment_vars: Mapping[str, str]) -> str:
    """Names what a process of this model does. The variables may be secret: they are not in it."""
    parts = [artifacts.model_path, artifacts.environment_key, *map(str, sorted(environment_vars.items()))]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _reason(error: Exception) -> str:
    """One line, for people: what the system said, and about which file."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return f"{type(error).__name__}: {error}"
