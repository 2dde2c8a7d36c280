"""Child processes of the tests: none outlives the process that started it, and each can be interrupted."""

import ctypes
import os
import signal
import sys
from collections.abc import Callable

PR_SET_PDEATHSIG = 1


def bound_to_parent(last: signal.Signals = signal.SIGKILL) -> Callable[[], None]:
    """A `preexec_fn`: the child gets the signal `last` when its parent dies, where the system can do that (Linux).

    It also takes SIGINT as a terminal's child does: a shell that runs a command in the background lets it ignore it.
    """
    parent = os.getpid()
    system = ctypes.CDLL(None) if sys.platform == "linux" else None

    def bind() -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if system is not None:
            system.prctl(PR_SET_PDEATHSIG, int(last), 0, 0, 0)
            if os.getppid() != parent:  # it died before
                os.kill(os.getpid(), last)

    return bind
