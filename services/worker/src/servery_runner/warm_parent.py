"""The warm parent: has imported everything, holds no model and no thread, and forks runners on order.

It never predicts: thread pools that a prediction starts do not survive a fork. It lives as long as the
worker holds the other end of the control socket, and takes its runners with it.
"""

from __future__ import annotations

import gc
import os
import select
import signal
import socket
import sys
from typing import Any, NoReturn

from servery_runner import control, process


def serve(control_socket: socket.socket, *, seconds: float, unforkable: str) -> socket.socket:
    """Fork runners until the worker is gone. Returns only in a fork: the socket that runner serves."""
    # Objects that exist now are never collected, so collections in the forks do not copy their pages.
    gc.collect()
    gc.freeze()
    parent = _WarmParent(control_socket)
    parent.report(control.WARM, seconds=round(seconds, 3), unforkable=unforkable)
    return parent.serve()


class _WarmParent:
    def __init__(self, control_socket: socket.socket) -> None:
        self._pid = os.getpid()
        self._control = control_socket
        self._orders = control.OrderReader(control_socket)
        self._runners: set[int] = set()
        self._wake_read, wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(wake_write, False)
        # Imported packages may have set handlers of their own; from here on these two are ours.
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        signal.signal(signal.SIGTERM, lambda _number, _frame: self._end())
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)

    def serve(self) -> socket.socket:
        poller = select.poll()
        poller.register(self._control, select.POLLIN)
        poller.register(self._wake_read, select.POLLIN)
        while True:
            ready = {fd for fd, _ in poller.poll()}
            if self._wake_read in ready:
                self._reap()
            if self._control.fileno() not in ready:
                continue
            for order in self._receive():
                if order["what"] == control.KILL:
                    self._kill(order["pid"])
                elif order["what"] == control.FORK:
                    runner = self._fork(order)
                    if runner is not None:
                        return runner

    def report(self, what: str, **fields: Any) -> None:
        try:
            self._control.sendall(control.encode(what, **fields))
        except OSError:
            self._end()

    def _receive(self) -> list[dict[str, Any]]:
        try:
            orders = self._orders.receive()
        except OSError:
            orders = None
        if orders is None:
            self._end()
        return orders

    def _fork(self, order: dict[str, Any]) -> socket.socket | None:
        channel_fd, output_fd = order["fds"]
        # What is still buffered would be printed once more by the fork.
        sys.stdout.flush()
        sys.stderr.flush()
        try:
            pid = os.fork()
        except OSError as error:
            self.report(control.REFUSED, id=order["id"], error=str(error))
            pid = None
        if pid == 0:
            return socket.socket(fileno=process.become_runner(self._pid, channel_fd, output_fd))
        os.close(channel_fd)
        os.close(output_fd)
        if pid is not None:
            self._runners.add(pid)
            self.report(control.FORKED, id=order["id"], pid=pid)
        return None

    def _kill(self, pid: int) -> None:
        # Not reaped yet, so the number cannot belong to another process.
        if pid in self._runners:
            process.kill_group(pid)

    def _reap(self) -> None:
        try:
            while os.read(self._wake_read, 4096):
                pass
        except BlockingIOError:
            pass
        for pid in sorted(self._runners):
            if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
                continue
            # Before it is reaped: until then nobody else can get its process and group number.
            process.kill_group(pid)
            _, status = os.waitpid(pid, 0)
            self._runners.discard(pid)
            self.report(control.EXITED, pid=pid, status=os.waitstatus_to_exitcode(status))

    def _end(self) -> NoReturn:
        for pid in self._runners:
            process.kill_group(pid)
        os._exit(0)
