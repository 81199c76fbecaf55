"""Say what is wrong with an artifact store that MLflow reached for itself. Pure.

MLflow goes to ``s3://`` and its like directly, with the builder's own credentials and a library that has to be
installed; a store behind MLflow's server (``mlflow-artifacts:``) or at an http(s) address needs neither.
"""

from collections.abc import Iterator

_LIBRARIES = {
    "boto3": ("s3://", "install servery-builder[s3], or boto3, in the builder's environment"),
    "google": ("gs://", "install google-cloud-storage in the builder's environment"),
    "azure": (
        "wasbs:// or abfss://",
        "install azure-storage-blob and azure-identity in the builder's environment",
    ),
}
_PROXY = "or let MLflow's server pass the files on (mlflow server --serve-artifacts)"

_REFUSED = {
    "AccessDenied",
    "AllAccessDisabled",
    "ExpiredToken",
    "InvalidAccessKeyId",
    "NoSuchBucket",
    "SignatureDoesNotMatch",
    "401",
    "403",
}
"""Codes of S3 that no second try changes."""


def explain(error: Exception) -> str | None:
    """Return what is wrong and what to do; None when trying again may help, or it is not about a store."""
    for cause in _causes(error):
        if isinstance(cause, ModuleNotFoundError) and cause.name:
            known = _LIBRARIES.get(cause.name.partition(".")[0])
            if known is not None:
                scheme, way_out = known
                return f"The model's files are at {scheme}, and {cause.name} is not installed: {way_out}, {_PROXY}."
        # By name: the store's library is not imported here.
        kinds = {kind.__name__ for kind in type(cause).__mro__}
        if kinds & {"NoCredentialsError", "PartialCredentialsError"}:
            return (
                "The model's files are at s3://, and the builder has no credentials for it: set AWS_ACCESS_KEY_ID and"
                f" AWS_SECRET_ACCESS_KEY (and MLFLOW_S3_ENDPOINT_URL) for the builder, {_PROXY}."
            )
        if "ClientError" in kinds and (code := _client_error_code(cause)) in _REFUSED:
            return (
                f"The artifact store with the model's files refused the builder ({code}): correct the AWS_ variables"
                f" and MLFLOW_S3_ENDPOINT_URL of the builder, {_PROXY}."
            )
    return None


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and what it was raised from: MLflow wraps what its stores raise."""
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or seen.__context__


def _client_error_code(error: BaseException) -> str:
    response = getattr(error, "response", None)
    return str(response.get("Error", {}).get("Code", "")) if isinstance(response, dict) else ""
