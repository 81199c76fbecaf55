"""``python -m servery_gateway``."""

import sys
from collections.abc import Callable
from functools import partial

import structlog
from pydantic import ValidationError

from servery_common.logging import configure_logging
from servery_common.service import run
from servery_gateway.app import main
from servery_gateway.processes import Processes, RunChild
from servery_gateway.settings import GatewaySettings
from servery_gateway.shared_port import Address, join_port, reserved_port

log = structlog.get_logger(__name__)


def start() -> None:
    """Run one gateway in this process, or several below it."""
    configure_logging("gateway")
    try:
        settings = GatewaySettings()
    except ValidationError:
        log.critical("service_failed", exc_info=True)
        sys.exit(1)
    if settings.processes == 1:
        run("gateway", main)
    try:
        with reserved_port(settings.host, settings.port) as addresses:
            sys.exit(Processes(settings.processes, _child(addresses)).run())
    except OSError as error:
        log.critical("service_failed", error=f"cannot listen on {settings.host}:{settings.port}: {error}")
        sys.exit(1)


def _child(addresses: list[Address]) -> RunChild:
    def run_child(number: int, ready: Callable[[], None]) -> int:
        try:
            run("gateway", partial(main, sockets=join_port(addresses), ready=ready), process=number)
        except SystemExit as ended:
            return ended.code if isinstance(ended.code, int) else 1

    return run_child


if __name__ == "__main__":
    start()
