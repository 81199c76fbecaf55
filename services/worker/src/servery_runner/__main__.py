"""Start a warm parent, or one runner from nothing.

``--control-fd``: import, then fork a runner for each order that arrives on this socket.
``--runner-fd``: be the runner on this socket, for environments that do not survive a fork.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import signal
import socket
import sys
import threading
import time
import traceback

from servery_runner import process, runner, warm_parent

SERVING_MODULES = ("mlflow.pyfunc", "mlflow.pyfunc.scoring_server", "pandas")
LATE_MODULES = (
    # zipfile, for models that are archives
    "encodings.cp437",
    # scikit-learn, for the names of a table's columns: 50 ms together
    "narwhals._interchange.dataframe",
    "narwhals._namespace",
    "narwhals._pandas_like.namespace",
    "narwhals.stable.v2._namespace",
    # pandas, for columns of texts
    "pyarrow.pandas_compat",
    "pyarrow.vendored.version",
)
"""Modules that libraries import when they are first used, which every fork would do anew."""


def main() -> None:
    arguments = _parse()
    if arguments.runner_fd is not None:
        process.die_with_parent(arguments.worker_pid, signal.SIGKILL)
        runner.run(socket.socket(fileno=arguments.runner_fd))
    process.die_with_parent(arguments.worker_pid, signal.SIGTERM)
    started = time.monotonic()
    for module in (*SERVING_MODULES, *arguments.modules):
        import_best_effort(module)
    import_late_modules()
    # Only the child of a fork comes back from here, with the socket it shall serve.
    channel = warm_parent.serve(
        socket.socket(fileno=arguments.control_fd),
        seconds=time.monotonic() - started,
        unforkable=_why_unforkable(),
    )
    runner.run(channel)


def import_best_effort(module: str) -> None:
    """Import a module if it can be: a missing one is reported by the runner that needs it."""
    process.say(f"importing {module}")
    try:
        importlib.import_module(module)
    except Exception:
        # Printed, not raised: the runner meets the same error and reports it as FAILED.
        traceback.print_exc(limit=1)


def import_late_modules() -> None:
    """Import those whose package is there already: nobody asked for the others."""
    for module in LATE_MODULES:
        if module.partition(".")[0] in sys.modules:
            # Whatever is wrong with one is met by the prediction that needs it, if one does.
            with contextlib.suppress(Exception):
                importlib.import_module(module)


def _why_unforkable() -> str:
    """A thread exists only in the process that started it, and the locks it holds stay locked in a fork."""
    names = [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]
    return f"importing started threads: {', '.join(names)}" if names else ""


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="servery_runner", description=__doc__)
    channel = parser.add_mutually_exclusive_group(required=True)
    channel.add_argument("--control-fd", type=int)
    channel.add_argument("--runner-fd", type=int)
    parser.add_argument("--worker-pid", type=int, required=True)
    parser.add_argument("modules", nargs="*", help="imported before the first fork")
    return parser.parse_args(sys.argv[1:])


if __name__ == "__main__":
    main()
