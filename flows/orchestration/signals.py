"""Clean ends of long runs: SIGTERM with an exit code that asks for a restart, and a time limit."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

EX_TEMPFAIL = 75
"""Exit code after SIGTERM: finished units are kept, and the same command resumes."""


class Terminated(BaseException):
    """SIGTERM, as an exception in the main thread, so that locks are released on the way out."""


@contextmanager
def ending_on_sigterm() -> Iterator[None]:
    """In the block SIGTERM raises Terminated, once; for the main thread of a command."""

    def stop(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise Terminated

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


RETRY_S = 60.0
"""After which the limit is raised again, in case a library caught the first exception."""


class TimeLimitExceeded(Exception):
    """The run reached its `max_hours`."""


@contextmanager
def time_limit(seconds: float | None) -> Iterator[None]:
    """Raise TimeLimitExceeded in the block after so many seconds; None means no limit.

    Works in the main thread, where a deployment's run is; elsewhere there is no limit.
    """
    if seconds is None or threading.current_thread() is not threading.main_thread():
        yield
        return

    def raise_limit(number: int, frame: FrameType | None) -> None:
        del number, frame
        raise TimeLimitExceeded(
            f"stopped after {seconds / 3600:g} hours (max_hours); finished work is kept,"
            " and a new run with the same fields resumes"
        )

    before = signal.signal(signal.SIGALRM, raise_limit)
    signal.setitimer(signal.ITIMER_REAL, seconds, RETRY_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
