"""What the controller and the builder say to each other: model versions, build orders, build results."""

from enum import StrEnum

from pydantic import Field

from servery_common.contracts.message import Message, Value
from servery_common.contracts.states import BuildState


class ResolveModel(Message, type="servery.model.resolve.v1"):
    """Ask which registered version a name and a version or ``@alias`` mean."""

    name: str
    version: str
    """A version number, or ``@alias``."""


class ModelResolved(Message, type="servery.model.resolved.v1"):
    """The version exists; ``version`` is always a number as a string."""

    name: str
    version: str
    run_id: str | None = None
    source: str | None = None
    registry_type: str = "WORKSPACE_MODEL"
    """Answered as ``served_entities[].type``: ``UC_MODEL`` for three-level names, else ``WORKSPACE_MODEL``."""


class BuildRequested(Message, type="servery.build.requested.v1"):
    """Work order. Repeating it with the same ``build_id`` changes nothing."""

    build_id: str
    endpoint_id: str
    served_entity_id: str
    model_name: str
    model_version: str
    """A number, as resolved."""


class ReadModelEnvironment(Message, type="servery.model.environment.read.v1"):
    """Ask for the environment variables of a served entity's model, secrets resolved. Never stored on the way."""

    served_entity_id: str


class ModelEnvironment(Message, type="servery.model.environment.v1"):
    """Given to the model process when it is verified, as it will be when it serves."""

    variables: dict[str, str] = Field(repr=False)
    workload_type: str = "CPU"
    """What its replicas may use of a machine."""


class ReadBuildsInUse(Message, type="servery.builds.in_use.read.v1"):
    """Ask which builds endpoints need, or may go back to."""


class BuildsInUse(Message, type="servery.builds.in_use.v1"):
    """All that are served, at zero, stopped or on their way; what others left may be removed."""

    build_ids: tuple[str, ...]


class Artifacts(Value):
    """What a successful build leaves behind and a worker starts from. Paths are on the shared artifact volume."""

    model_path: str
    """Directory that holds ``MLmodel``."""
    environment_path: str
    """Root of the virtual environment."""
    python: str
    """Interpreter inside it."""
    environment_key: str
    """Content hash of the environment: replicas with the same key share a warm parent."""
    image: str | None = None
    """Content id (``sha256:…``) of the OCI image that holds a worker and both, under the same paths. None: there are
    only the files."""


class BuildStarted(Message, type="servery.build.started.v1"):
    """A builder claimed the build."""

    build_id: str


class BuildSucceeded(Message, type="servery.build.succeeded.v1"):
    """Environment and model are in place, the model loaded and predicted its input example."""

    build_id: str
    artifacts: Artifacts
    environment_cached: bool
    seconds: float


class FailureCode(StrEnum):
    """Why a build cannot succeed."""

    MODEL_NOT_FOUND = "MODEL_NOT_FOUND"
    ARTIFACT_MISSING = "ARTIFACT_MISSING"
    PACKAGE_NOT_FOUND = "PACKAGE_NOT_FOUND"
    VERSION_CONFLICT = "VERSION_CONFLICT"
    PYTHON_NOT_AVAILABLE = "PYTHON_NOT_AVAILABLE"
    ENVIRONMENT_VARIABLE = "ENVIRONMENT_VARIABLE"
    INSTALL_FAILED = "INSTALL_FAILED"
    IMAGE_FAILED = "IMAGE_FAILED"
    IMPORT_ERROR = "IMPORT_ERROR"
    LOAD_FAILED = "LOAD_FAILED"
    PREDICT_FAILED = "PREDICT_FAILED"
    TIMED_OUT = "TIMED_OUT"
    INTERNAL_ERROR = "INTERNAL_ERROR"


class BuildFailed(Message, type="servery.build.failed.v1"):
    """The build cannot succeed without a change by a person."""

    build_id: str
    reason: str
    """One plain sentence: what is wrong and what to do."""
    code: FailureCode


class DescribeBuild(Message, type="servery.build.describe.v1"):
    """Ask where a build stands."""

    build_id: str


class BuildStatus(Message, type="servery.build.status.v1"):
    """Where a build stands; ``state`` is None when the builder does not know it."""

    build_id: str
    state: BuildState | None
    step: str = ""
    """What it is doing, for people: "Installing 42 packages"."""
    reason: str = ""
    code: str = ""
    artifacts: Artifacts | None = None


class DescribeModel(Message, type="servery.model.describe.v1"):
    """Ask what the model of a build takes and gives."""

    build_id: str


class ModelDescription(Message, type="servery.model.description.v1"):
    """What the model was logged with. All fields are JSON as MLflow writes it; None: logged without."""

    build_id: str
    inputs: str | None = None
    """The signature's input schema."""
    outputs: str | None = None
    params: str | None = None
    input_example: str | None = None
    """A request body that the model was logged with; None also when it is too long to be shown."""


class ReadBuildLog(Message, type="servery.build.log.read.v1"):
    """Ask for the log of a build."""

    build_id: str


class BuildLog(Message, type="servery.build.log.v1"):
    """The whole log kept for a build (at most 1 MiB: the middle of a longer one is cut out and says so)."""

    build_id: str
    text: str
