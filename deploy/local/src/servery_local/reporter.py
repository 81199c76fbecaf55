"""Tell the person at the terminal what happens, one line per event.

On a terminal the components that are still starting are shown below the lines while they change;
into a pipe or a file go the lines alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

from rich.console import Console
from rich.markup import escape
from rich.status import Status


class Reporter:
    """Prints the progress of the stack to `console`."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._waiting: list[str] = []
        self._status: Status | None = None

    def starting(self, components: Sequence[str]) -> AbstractContextManager[object]:
        """All components are being started; the answer is open until all are ready."""
        self._waiting = list(components)
        if not self._console.is_terminal:
            return nullcontext()
        self._status = self._console.status(self._waiting_for(), spinner="dots")
        return self._status

    def ready(self, component: str, seconds: float) -> None:
        """A component became ready for the first time, `seconds` after the start."""
        self._waiting = [name for name in self._waiting if name != component]
        self._line("green", "✓", f"{component:<10} ready in {seconds:.1f} s")
        if self._status is not None and self._waiting:
            self._status.update(self._waiting_for())

    def died(self, component: str, ending: str, delay: float) -> None:
        """A component ended by itself and starts again in `delay` seconds."""
        self._line("yellow", "!", f"{component:<10} {ending}; starts again in {delay:.1f} s")

    def restarted(self, component: str) -> None:
        """A component that had died is ready again."""
        self._line("green", "✓", f"{component:<10} ready again")

    def stack_ready(
        self, gateway_url: str, mlflow_url: str, seconds: float, starting: int, hint: str
    ) -> None:
        """Everything runs, but `starting` endpoints do not serve yet."""
        self._status = None
        self._console.print(f"\n[bold]Servery is ready[/] after {seconds:.1f} s", highlight=False)
        self._console.print(f"  Serving  {escape(gateway_url)}", highlight=False)
        self._console.print(f"  MLflow   {escape(mlflow_url)}", highlight=False)
        if starting:
            endpoints = "1 endpoint is" if starting == 1 else f"{starting} endpoints are"
            self._console.print(f"{endpoints} starting", highlight=False)
        self._console.print(f"{escape(hint)}\n", highlight=False, soft_wrap=True)

    def database_elsewhere(self, path: str) -> None:
        """The database's files are not in the data directory, which its user may not enter."""
        self._line(
            "blue", "-", f"postgres   runs as a user that may not enter the data directory: it is in {path}"
        )

    def external_mlflow(self, shown_uri: str) -> None:
        """An MLflow that is not the stack's own is used."""
        self._line("blue", "-", f"using the MLflow at {shown_uri} (MLFLOW_TRACKING_URI)")

    def mlflow_elsewhere(self, wanted: int, port: int) -> None:
        """The stack's own MLflow cannot have the port it had before, or has by default."""
        self._line("blue", "-", f"{'mlflow':<10} is on port {port}: port {wanted} is taken")

    def stopping(self) -> None:
        """The stack was asked to stop."""
        self._line("blue", "-", "stopping")

    def stopped(self, seconds: float) -> None:
        """Nothing runs any more."""
        self._line("blue", "-", f"stopped after {seconds:.1f} s")

    def cleaned_up(self, count: int) -> None:
        """Processes of an earlier run that did not end well were ended."""
        self._line("yellow", "!", f"ended {count} process(es) left over from an earlier run")

    def _line(self, colour: str, mark: str, text: str) -> None:
        self._console.print(f"[{colour}]{mark}[/] {escape(text)}", highlight=False, soft_wrap=True)

    def _waiting_for(self) -> str:
        return f"waiting for {', '.join(self._waiting)}"
