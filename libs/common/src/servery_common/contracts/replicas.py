"""What the controller, the builder and the workers say to each other about replicas."""

from pydantic import Field

from servery_common.contracts.builds import Artifacts
from servery_common.contracts.message import Message, Value
from servery_common.contracts.states import ReplicaState

BATCHING_VARIABLE = "SERVERY_BATCHING"
"""Environment variable of a served entity that says whether requests that wait may be predicted together."""
BATCHING_MODES = ("auto", "on", "off")
"""``auto``: where the model was shown to be row-wise."""

WARM_UP_VARIABLE = "SERVERY_WARM_UP"
"""Environment variable of a served entity: with ``off`` replicas do not predict the input example before they serve."""
WARM_UP_MODES = ("on", "off")

BATCH_BOUNDS = (1, 2, 4, 8, 16, 32, 64)
"""Upper bounds of the histogram of how many requests were predicted together; one more bucket holds what is above."""


class ReplicaLaunch(Value):
    """Everything a worker needs to run one replica."""

    replica_id: str
    workspace_id: str = ""
    """Whose replica it is."""
    workload_type: str = "CPU"
    """What the replica may use of a machine, as Databricks names it."""
    endpoint_id: str
    endpoint_name: str
    served_entity_id: str
    served_entity_name: str
    artifacts: Artifacts
    environment_vars: dict[str, str] = Field(default={}, repr=False)
    slots: int
    """Predictions the replica makes side by side."""
    timeout_seconds: float = 60.0
    """Longest a model may compute before its runner is replaced."""
    epoch: int = 0
    """Leader epoch of the controller that ordered this; a worker refuses an older one."""


class EnsureReplica(Message, type="servery.replica.ensure.v1"):
    """Make the replica exist. Repeating it for the same id changes nothing."""

    launch: ReplicaLaunch


class StopReplica(Message, type="servery.replica.stop.v1"):
    """Take nothing new, finish what was accepted for at most ``grace_seconds``, stop. Unknown: already stopped."""

    replica_id: str
    grace_seconds: float
    epoch: int = 0


class Done(Message, type="servery.done.v1"):
    """The order was taken."""


class ReadReplicaLog(Message, type="servery.replica.log.read.v1"):
    """Ask for the last lines a replica's model printed."""

    replica_id: str
    tail: int = 1000


class ReplicaLog(Message, type="servery.replica.log.v1"):
    """Newest lines last. Kept for a while after the replica is gone."""

    replica_id: str
    text: str


class ReplicaObservation(Value):
    """One replica as its worker sees it."""

    replica_id: str
    endpoint_id: str
    served_entity_id: str
    state: ReplicaState
    reason: str = ""
    """Why it is FAILED or RESTARTING, for people."""
    slots: int = 1
    """Predictions it makes side by side: what it takes of a worker's capacity."""
    max_in_flight: int = 1
    """Requests it accepts at a time: more than ``slots`` when it predicts several requests together."""
    in_flight: int = 0
    restarts: int = 0
    never_ready: bool = False
    """No start of it has succeeded yet: while it is RESTARTING nothing says that the next one will."""
    batches: tuple[int, ...] = ()
    """Requests answered since the replica began, by how many were predicted together (``BATCH_BOUNDS``); not
    cumulative. A request that was predicted by itself counts as one of one."""
    cpu_percent: float | None = None
    """Of the processors the model's process may use, 0 to 100; None as long as nothing was measured."""
    memory_bytes: int | None = None
    """Resident memory of the model's process, without the files it maps."""
    memory_limit_bytes: int | None = None
    """Most it may have; a model's process that holds more is replaced."""


class WarmEnvironment(Value):
    """A process of one model environment that has imported its packages and forks the model processes of replicas."""

    environment_key: str
    memory_bytes: int
    """What would be free if it ended: resident, without mapped files."""
    runners: int
    """Model processes of replicas that were forked from it and are alive."""
    unused_seconds: float
    """Since it last had one, or was started; 0 as long as it has."""


class WorkerHeartbeat(Message, type="servery.worker.heartbeat.v1"):
    """A worker is alive and holds these replicas: all of them, also ones nobody asked for."""

    worker_id: str
    incarnation: str
    """Changes each time the worker process starts."""
    capacity_slots: int
    """Slots this worker may host at most."""
    replicas: tuple[ReplicaObservation, ...] = ()
    warm_environments: tuple[str, ...] = ()
    """Environment keys with a live warm parent: a replica starts here in a fraction of a second."""
    warm: tuple[WarmEnvironment, ...] = ()
    """All warm parents, also those that cannot fork; the ones used last first."""
    access_left: float | None = None
    """Share of the lifetime of what lets it into NATS that is left, 0 to 1; None: that has no end."""
    warm_memory_bytes: int = 0
    """What those of them without runners may hold together; beyond it the least recently used are ended."""


class WorkerSpans(Message, type="servery.worker.spans.v1", ser_json_bytes="base64", val_json_bytes="base64"):
    """Spans that ended in a worker which reaches NATS but no collector."""

    worker_id: str
    otlp: bytes
    """An ``ExportTraceServiceRequest`` of OTLP, as protobuf."""


class RenewCredentials(Message, type="servery.replica.credentials.renew.v1"):
    """A replica asks for what lets it into NATS, anew. No secret travels: it makes its keys itself."""

    replica_id: str
    user_key: str
    """The public half of a key pair (nkey) that it has made for this."""
    certificate: str = ""
    """The certificate it shows now, in PEM: the new one is for the same key. Empty where NATS asks for none."""


class CredentialsRenewed(Message, type="servery.replica.credentials.renewed.v1"):
    """Opens NATS to who has the keys, until it ends."""

    token: str = Field(repr=False)
    """For ``user_key``; it says itself until when."""
    certificate: str = ""
    """PEM; empty when none was shown."""


class VerifyModel(Message, type="servery.model.verify.v1"):
    """Load the model in its environment and predict its input example, in an untrusted process."""

    build_id: str
    served_entity_id: str = ""
    """For whose creator the model acts while it is verified."""
    artifacts: Artifacts
    environment_vars: dict[str, str] = Field(default={}, repr=False)
    workload_type: str = "CPU"
    """What a replica of it may use: where replicas are containers, it is verified with as much memory."""
    timeout_seconds: float = 600.0


class VerifyProgress(Message, type="servery.model.verify.progress.v1"):
    """A line for the build log; also sent every 2 s without a line, so that silence means the worker is gone."""

    build_id: str
    line: str | None = None


class ModelVerified(Message, type="servery.model.verified.v1"):
    """The last answer to VerifyModel."""

    build_id: str
    ok: bool
    stage: str = ""
    """Where it failed: ``start``, ``import``, ``load`` or ``predict``."""
    error: str = ""
    """One line: the exception as Python prints it."""
    traceback: str = ""
    example_predicted: bool = False
    """False when the model was logged without an input example: then only loading was verified."""
    python_version: str = ""
    mlflow_version: str = ""
