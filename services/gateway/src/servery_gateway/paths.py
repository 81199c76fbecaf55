"""Paths of scoring requests. Pure."""

import functools

from servery_gateway.exchange import Target

MAX_PATH_LENGTH = 1024
"""Longer than any two names an endpoint and a served entity may have. What is remembered is bounded so."""


def scoring_target(path: str) -> Target | None:
    """Return what a scoring path names, or None when it is not one."""
    return None if len(path) > MAX_PATH_LENGTH else _known_target(path)


@functools.lru_cache(maxsize=4096)
def _known_target(path: str) -> Target | None:
    match path.rstrip("/").split("/"):
        case ["", "serving-endpoints", endpoint, "invocations"]:
            return Target(endpoint)
        case ["", "serving-endpoints", endpoint, "served-models", served, "invocations"]:
            return Target(endpoint, served)
        case _:
            return None
