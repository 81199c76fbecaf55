"""Paths of scoring requests. Pure."""

import functools

from servery_gateway.exchange import Target


@functools.lru_cache(maxsize=4096)
def scoring_target(path: str) -> Target | None:
    """Return what a scoring path names, or None when it is not one."""
    match path.rstrip("/").split("/"):
        case ["", "serving-endpoints", endpoint, "invocations"]:
            return Target(endpoint)
        case ["", "serving-endpoints", endpoint, "served-models", served, "invocations"]:
            return Target(endpoint, served)
        case _:
            return None
