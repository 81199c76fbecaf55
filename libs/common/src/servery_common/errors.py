"""Everything that can go wrong on purpose, as one tree with stable codes.

::

    ServeryError
    ├── BadRequest               BAD_REQUEST
    ├── InvalidParameter         INVALID_PARAMETER_VALUE
    ├── InvalidState             INVALID_STATE
    ├── QuotaExceeded            QUOTA_EXCEEDED
    ├── AlreadyExists            RESOURCE_ALREADY_EXISTS
    ├── Unauthenticated          UNAUTHENTICATED
    ├── PermissionDenied         PERMISSION_DENIED
    ├── NotFound                 RESOURCE_DOES_NOT_EXIST
    │   └── EndpointNotFound     ENDPOINT_NOT_FOUND
    ├── Conflict                 RESOURCE_CONFLICT
    ├── RequestLimitExceeded     REQUEST_LIMIT_EXCEEDED
    ├── ResourceExhausted        RESOURCE_EXHAUSTED
    ├── Internal                 INTERNAL_ERROR
    ├── NotImplementedByServery  NOT_IMPLEMENTED
    ├── Unavailable              TEMPORARILY_UNAVAILABLE
    └── DeadlineExceeded         DEADLINE_EXCEEDED

The codes are the ones Databricks' and MLflow's clients know; a code they do not know is retried as a 500.
Errors cross process borders as their code and message and are raised again as the same class. Only the
HTTP edge looks a status up, in ``HTTP_STATUS``.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar

HTTP_STATUS: Mapping[str, int] = MappingProxyType(
    {
        "BAD_REQUEST": 400,
        "INVALID_PARAMETER_VALUE": 400,
        "QUOTA_EXCEEDED": 400,
        "RESOURCE_ALREADY_EXISTS": 400,
        "UNAUTHENTICATED": 401,
        "CUSTOMER_UNAUTHORIZED": 401,
        "PERMISSION_DENIED": 403,
        "NOT_FOUND": 404,
        "ENDPOINT_NOT_FOUND": 404,
        "RESOURCE_DOES_NOT_EXIST": 404,
        "ABORTED": 409,
        "ALREADY_EXISTS": 409,
        "RESOURCE_CONFLICT": 409,
        "REQUEST_LIMIT_EXCEEDED": 429,
        "RESOURCE_EXHAUSTED": 429,
        "CANCELLED": 499,
        "DATA_LOSS": 500,
        "INTERNAL_ERROR": 500,
        "INVALID_STATE": 500,
        "NOT_IMPLEMENTED": 501,
        "TEMPORARILY_UNAVAILABLE": 503,
        "DEADLINE_EXCEEDED": 504,
    }
)
"""error_code -> HTTP status; the same pairs MLflow's client derives, so that both ends agree."""


class ServeryError(Exception):
    """An error with a stable code. Raise a subclass; catch this one at a border.

    ``retry_after`` is in whole seconds, the only form the clients read. ``stack_trace`` is the model's, for
    errors of the model's own code; never Servery's. ``reason`` tells errors of one code apart where they are counted;
    it stays in the process.
    """

    error_code: str = "INTERNAL_ERROR"
    _by_code: ClassVar[dict[str, type["ServeryError"]]] = {}

    def __init__(
        self,
        message: str,
        *,
        error_code: str | None = None,
        retry_after: int | None = None,
        stack_trace: str | None = None,
        reason: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason
        self.retry_after = retry_after
        self.stack_trace = stack_trace
        if error_code is not None:
            self.error_code = error_code

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "error_code" in cls.__dict__:
            ServeryError._by_code.setdefault(cls.error_code, cls)

    @property
    def status(self) -> int:
        """The HTTP status of this error."""
        return HTTP_STATUS.get(self.error_code, 500)

    def body(self) -> dict[str, Any]:
        """Return the JSON body an HTTP client is answered with."""
        body: dict[str, Any] = {"error_code": self.error_code, "message": self.message}
        if self.stack_trace is not None:
            body["stack_trace"] = self.stack_trace
        return body

    def to_wire(self) -> dict[str, Any]:
        """Return what travels to another service; ``from_wire`` makes an equal error of it."""
        return self.body() | {"retry_after": self.retry_after}

    @staticmethod
    def from_wire(wire: Mapping[str, Any]) -> "ServeryError":
        """Make the error another service raised. An unknown code stays as it is, on the base class."""
        code = str(wire.get("error_code") or "INTERNAL_ERROR")
        cls = ServeryError._by_code.get(code, ServeryError)
        return cls(
            str(wire.get("message") or code),
            error_code=code,
            retry_after=wire.get("retry_after"),
            stack_trace=wire.get("stack_trace"),
        )


class BadRequest(ServeryError):
    """The request cannot be understood."""

    error_code = "BAD_REQUEST"


class InvalidParameter(ServeryError):
    """A value in the request is not allowed; the message names it."""

    error_code = "INVALID_PARAMETER_VALUE"


class InvalidState(ServeryError):
    """The request makes no sense in the present state."""

    error_code = "INVALID_STATE"


class QuotaExceeded(ServeryError):
    """More than the workspace may have of something; the message says how much that is."""

    error_code = "QUOTA_EXCEEDED"


class AlreadyExists(ServeryError):
    """A resource of this name exists."""

    error_code = "RESOURCE_ALREADY_EXISTS"


class Unauthenticated(ServeryError):
    """No token, or not a valid one."""

    error_code = "UNAUTHENTICATED"


class PermissionDenied(ServeryError):
    """The caller is known and may not do this."""

    error_code = "PERMISSION_DENIED"


class NotFound(ServeryError):
    """There is no such resource."""

    error_code = "RESOURCE_DOES_NOT_EXIST"


class EndpointNotFound(NotFound):
    """There is no endpoint of this name to score with."""

    error_code = "ENDPOINT_NOT_FOUND"


class Conflict(ServeryError):
    """Somebody else is changing the resource, or changed it first."""

    error_code = "RESOURCE_CONFLICT"


class RequestLimitExceeded(ServeryError):
    """The caller sends more than it may."""

    error_code = "REQUEST_LIMIT_EXCEEDED"


class ResourceExhausted(ServeryError):
    """The endpoint has no room for another request."""

    error_code = "RESOURCE_EXHAUSTED"


class Internal(ServeryError):
    """A fault of Servery."""

    error_code = "INTERNAL_ERROR"


class NotImplementedByServery(ServeryError):
    """Part of the API that Servery does not offer."""

    error_code = "NOT_IMPLEMENTED"


class Unavailable(ServeryError):
    """Something needed does not answer right now; the same request may work soon."""

    error_code = "TEMPORARILY_UNAVAILABLE"

    def __init__(
        self,
        message: str,
        *,
        error_code: str | None = None,
        retry_after: int | None = 1,
        stack_trace: str | None = None,
        reason: str | None = None,
    ) -> None:
        super().__init__(
            message, error_code=error_code, retry_after=retry_after, stack_trace=stack_trace, reason=reason
        )


class DeadlineExceeded(ServeryError):
    """The time allowed for the request is over."""

    error_code = "DEADLINE_EXCEEDED"
