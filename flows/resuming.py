"""SIGTERM ends a long command cleanly, with an exit code that says: start me again."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

RESUME_ME = 75
"""Exit code after SIGTERM: finished units are kept, and the same command goes on (EX_TEMPFAIL)."""


class Terminated(BaseException):
    """SIGTERM came; raised in the main thread so that everything is given back on the way out."""


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
