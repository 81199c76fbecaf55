"""What JetStream has to hold: the streams and buckets, declared by those services alike that write to them.

Declaring is idempotent and heals: a changed setting is updated, and what was lost with JetStream's disk is
made again, empty. That is enough, for JetStream never holds the only copy of anything: Postgres does, and
its outbox and the controller's resync fill the streams and buckets again.
"""

import contextlib

import structlog
from nats.js import JetStreamContext, errors
from nats.js.api import DiscardPolicy, RetentionPolicy, StorageType, StreamConfig

from servery_common.contracts import subjects

log = structlog.get_logger(__name__)

DUPLICATE_WINDOW_SECONDS = 120.0
DELETE_MARKER_SECONDS = 3600
"""How long a deleted key leaves a marker for those who watch the bucket. Who was away longer compares
lists."""

_DAY = 86400.0
_MIB = 1024 * 1024
_NAME_IN_USE = 10058


def bucket_stream(bucket: str) -> str:
    """Return the name of the stream a bucket is made of."""
    return f"KV_{bucket}"


def bucket_subject(bucket: str, key: str) -> str:
    """Return the subject of a key; ``>`` for all of them."""
    return f"$KV.{bucket}.{key}"


def _bucket(bucket: str) -> StreamConfig:
    return StreamConfig(
        name=bucket_stream(bucket),
        subjects=[bucket_subject(bucket, ">")],
        max_msgs_per_subject=1,
        max_bytes=64 * _MIB,
        discard=DiscardPolicy.NEW,
        storage=StorageType.FILE,
        duplicate_window=DUPLICATE_WINDOW_SECONDS,
        allow_rollup_hdrs=True,
        allow_direct=True,
        allow_msg_ttl=True,
        deny_delete=True,
    )


DECLARED: tuple[StreamConfig, ...] = (
    StreamConfig(
        name=subjects.EVENTS_STREAM,
        description="Facts, kept for a week",
        subjects=[subjects.EVENTS_WILDCARD],
        retention=RetentionPolicy.LIMITS,
        max_age=7 * _DAY,
        max_bytes=64 * _MIB,
        discard=DiscardPolicy.OLD,
        storage=StorageType.FILE,
        duplicate_window=DUPLICATE_WINDOW_SECONDS,
    ),
    StreamConfig(
        name=subjects.JOBS_STREAM,
        description="Work orders, until one consumer did them",
        subjects=[subjects.JOBS_WILDCARD],
        retention=RetentionPolicy.WORK_QUEUE,
        max_bytes=64 * _MIB,
        # A full queue refuses new work, which stays in the outbox, rather than forgetting old work.
        discard=DiscardPolicy.NEW,
        storage=StorageType.FILE,
        duplicate_window=DUPLICATE_WINDOW_SECONDS,
    ),
    _bucket(subjects.ROUTES_BUCKET),
    _bucket(subjects.PRINCIPALS_BUCKET),
    _bucket(subjects.TOKENS_BUCKET),
    _bucket(subjects.SIGNING_KEYS_BUCKET),
    _bucket(subjects.QUOTAS_BUCKET),
    _bucket(subjects.IP_ACCESS_BUCKET),
)


async def declare(js: JetStreamContext) -> None:
    """Make sure that every stream and bucket exists as declared. Raises nats errors while JetStream is
    away."""
    for config in DECLARED:
        try:
            await js.add_stream(config)
        except errors.BadRequestError as error:
            if error.err_code != _NAME_IN_USE:
                raise
            # A server that refuses the change (another storage, say) keeps what it has, which still works.
            with contextlib.suppress(errors.APIError):
                await js.update_stream(config)
                log.info("stream_updated", stream=config.name)
