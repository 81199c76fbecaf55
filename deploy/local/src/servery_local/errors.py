"""What can go wrong while running the stack, in words for the person at the terminal.

LocalError
├── AlreadyRunning      another supervisor holds the data directory
├── PortTaken           a port that was asked for is in use
├── ComponentFailed     a component did not come up; carries its name
└── NotRunning          a command needs a running stack and there is none
"""


class LocalError(Exception):
    """Base of all errors shown to the user without a traceback; `str(error)` is the whole text."""


class AlreadyRunning(LocalError):
    """Another supervisor holds the lock of the data directory."""


class PortTaken(LocalError):
    """A port that was asked for is in use by another process."""


class NotRunning(LocalError):
    """The command needs a running stack."""


class ComponentFailed(LocalError):
    """A component could not be started.

    `component` is its name, also the name of its log file.
    """

    def __init__(self, component: str, reason: str) -> None:
        super().__init__(f"{component} {reason}")
        self.component = component
        self.reason = reason
