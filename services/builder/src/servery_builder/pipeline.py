"""A build, as phases in order: resolve, fetch, environment, image (where replicas are containers), verify, publish.

Each phase is named in the log with the time it took. A phase that finds something a person has to change raises
``BuildError``; an MLflow or a Docker engine that does not answer is waited for for a while.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import TypeVar

from opentelemetry import trace

from servery_builder.artifacts.mlflow_registry import MlflowRegistry
from servery_builder.artifacts.model_cache import LocalModel, ModelCache
from servery_builder.artifacts.model_files import read_within
from servery_builder.domain.build import Build, BuildError, Success
from servery_builder.domain.build_output import of_model
from servery_builder.domain.environment_spec import read_environment_spec
from servery_builder.domain.explain_verification import explain_verification
from servery_builder.environments.bytecode import BytecodeCompiler
from servery_builder.environments.virtualenv import Environment, VirtualenvCache
from servery_builder.files import is_disk_full
from servery_builder.images.image_builder import ImageBuilder
from servery_builder.operator_metrics import phase_duration
from servery_builder.patience import Patience, patiently
from servery_builder.verification import ModelEnvironments, Verifier
from servery_common.contracts.builds import Artifacts, FailureCode, ModelEnvironment, ModelResolved
from servery_common.contracts.replicas import VerifyModel
from servery_common.docker_engine import EngineAway
from servery_common.errors import InvalidParameter, NotFound, PermissionDenied, ServeryError

T = TypeVar("T")
Say = Callable[[str], None]
Hide = Callable[[Iterable[str]], None]
"""Told of values that must not appear in the log."""
OnStep = Callable[[str], Awaitable[None]]
"""Told what the build is doing now, for people."""

_tracer = trace.get_tracer(__name__)


class Pipeline:
    """Makes builds."""

    def __init__(
        self,
        registry: MlflowRegistry,
        models: ModelCache,
        environments: VirtualenvCache,
        variables: ModelEnvironments,
        verifier: Verifier,
        images: ImageBuilder | None,
        compiler: BytecodeCompiler | None,
        registry_patience_seconds: float,
        engine_patience_seconds: float,
    ) -> None:
        self._registry = registry
        self._models = models
        self._environments = environments
        self._variables = variables
        self._verifier = verifier
        self._images = images
        self._compiler = compiler
        self._registry_patience = Patience(
            registry_patience_seconds,
            FailureCode.INTERNAL_ERROR,
            "; start it or correct MLFLOW_TRACKING_URI, then deploy again",
        )
        self._controller_patience = Patience(
            registry_patience_seconds, FailureCode.INTERNAL_ERROR, "; start a controller, then deploy again"
        )
        self._engine_patience = Patience(
            engine_patience_seconds, FailureCode.IMAGE_FAILED, ", then deploy again"
        )

    async def run(self, build: Build, seconds_left: float, say: Say, on_step: OnStep, hide: Hide) -> Success:
        """Make the build; raises ``BuildError`` when it cannot succeed. Cancel it when its time is over."""
        started = time.monotonic()
        deadline = started + seconds_left

        async def phase(name: str, step: str, work: Callable[[], Awaitable[T]]) -> T:
            await on_step(step)
            say(f"== {name}: {step}")
            begun = time.monotonic()
            try:
                with _tracer.start_as_current_span(f"build.{name}"):
                    result = await work()
            except (BuildError, OSError) as error:
                say(f"== {name} failed after {time.monotonic() - begun:.2f} s")
                if isinstance(error, OSError) and is_disk_full(error):
                    raise BuildError(FailureCode.INTERNAL_ERROR, _disk_full(error)) from error
                raise
            took = time.monotonic() - begun
            phase_duration.labels(name).observe(took)
            say(f"== {name} took {took:.2f} s")
            return result

        model_name = f"{build.model_name} version {build.model_version}"
        version = await phase("resolve", f"Looking up {model_name}", lambda: self._resolve(build, say))
        model = await phase("fetch", f"Fetching the files of {model_name}", lambda: self._fetch(version, say))
        environment = await phase(
            "environment", "Making the environment", lambda: self._environment(model, say)
        )
        artifacts = Artifacts(
            model_path=str(model.path),
            environment_path=str(environment.path),
            python=str(environment.python),
            environment_key=environment.key,
        )

        async def with_engine(step: str, work: Callable[[], Awaitable[T]]) -> T:
            shown = step

            async def show(now: str) -> None:
                nonlocal shown
                if now != shown:
                    await on_step(now)
                shown = now

            async def waiting(reason: str) -> None:
                say(f"{reason} Trying again.")
                await show(f"{step}: waiting for the Docker engine. {reason}")

            async def attempt() -> T:
                await show(step)
                return await work()

            return await patiently(attempt, self._engine_patience, waiting, waits_for=EngineAway)

        images = self._images
        if images is not None:
            step = "Making the image"
            made = await phase(
                "image",
                step,
                lambda: with_engine(step, lambda: images.make(build, model, environment, say)),
            )
            artifacts = artifacts.model_copy(update={"image": made})
        verifying = "Loading the model and predicting its input example"
        await phase(
            "verify",
            verifying,
            lambda: with_engine(
                verifying,
                lambda: self._verify(build, artifacts, deadline - time.monotonic(), say, hide),
            ),
        )
        await phase("publish", "Publishing the build", lambda: self._publish(environment))
        return Success(artifacts, environment.cached, round(time.monotonic() - started, 3))

    async def _resolve(self, build: Build, say: Say) -> ModelResolved:
        try:
            found = await self._patiently(
                lambda: self._registry.resolve(build.model_name, build.model_version), say
            )
        except (NotFound, InvalidParameter) as error:
            raise BuildError(FailureCode.MODEL_NOT_FOUND, error.message) from error
        say(
            f"Found {found.name} version {found.version}"
            + (f" of run {found.run_id}." if found.run_id else ".")
        )
        return found

    async def _fetch(self, version: ModelResolved, say: Say) -> LocalModel:
        return await self._patiently(lambda: self._models.fetch(version, say), say)

    async def _environment(self, model: LocalModel, say: Say) -> Environment:
        read = partial(read_within, model.path)
        spec = await asyncio.to_thread(read_environment_spec, model.mlmodel, model.path, read)
        for note in spec.notes:
            say(note)
        return await self._environments.ensure(spec, say)

    async def _verify(
        self, build: Build, artifacts: Artifacts, seconds_left: float, say: Say, hide: Hide
    ) -> None:
        given = await self._given(build, say, hide)

        def tell(line: str) -> None:
            if (shown := of_model(line)) is not None:
                say(shown)

        verified = await self._verifier.verify(
            VerifyModel(
                build_id=build.build_id,
                served_entity_id=build.served_entity_id,
                artifacts=artifacts,
                environment_vars=given.variables,
                workload_type=given.workload_type,
                timeout_seconds=max(seconds_left, 1.0),
            ),
            tell,
        )
        if not verified.ok:
            say(verified.traceback or verified.error)
            failure = explain_verification(verified, in_container=artifacts.image is not None)
            raise BuildError(failure.code, failure.reason)
        did = (
            "loads and predicts its input example"
            if verified.example_predicted
            else "loads; it has no input example"
        )
        say(f"The model {did} (Python {verified.python_version}, MLflow {verified.mlflow_version}).")

    async def _given(self, build: Build, say: Say, hide: Hide) -> ModelEnvironment:
        try:
            given = await self._patiently(
                lambda: self._variables.environment_of(build.served_entity_id), say, self._controller_patience
            )
        except (NotFound, InvalidParameter, PermissionDenied) as error:
            raise BuildError(FailureCode.ENVIRONMENT_VARIABLE, error.message) from error
        hide(given.variables.values())
        return given

    async def _publish(self, environment: Environment) -> None:
        if self._compiler is not None:
            self._compiler.request(environment)

    async def _patiently(
        self, attempt: Callable[[], Awaitable[T]], say: Say, patience: Patience | None = None
    ) -> T:
        async def waiting(reason: str) -> None:
            say(f"{reason} Trying again.")

        try:
            return await patiently(attempt, patience or self._registry_patience, waiting)
        except (NotFound, InvalidParameter, PermissionDenied):
            raise
        except ServeryError as error:
            raise BuildError(FailureCode.INTERNAL_ERROR, error.message) from error


def _disk_full(error: OSError) -> str:
    where = f" ({error.filename})" if error.filename else ""
    return f"A disk of the builder is full{where}: free some space on it, then deploy again."
