"""A limit on the hours of a run: it ends as failed, and what is finished stays."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

AGAIN_S = 60.0
"""Somebody else's code may have swallowed the first one."""


class TimeIsUp(Exception):
    """The run reached its `max_hours`."""


@contextmanager
def within(seconds: float | None) -> Iterator[None]:
    """Raise TimeIsUp in the block after so many seconds; None means no limit.

    Works in the main thread, where a deployment's run is; elsewhere there is no limit.
    """
    if seconds is None or threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(number: int, frame: FrameType | None) -> None:
        del number, frame
        raise TimeIsUp(
            f"stopped after {seconds / 3600:g} hours (max_hours); finished work is kept,"
            " and a new run with the same fields resumes"
        )

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds, AGAIN_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
