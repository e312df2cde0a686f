"""A lock between processes on one machine, with a bounded wait that names the holder."""

import fcntl
import json
import os
import random
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from selection.errors import InputError

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.005, 0.25


def pauses(wait_s: float) -> Iterator[float]:
    """Sleep between attempts, longer each time, until `wait_s` seconds have passed; then end.

    Yields seconds left before each attempt. The jitter keeps processes from moving in step.
    """
    deadline, pause = time.monotonic() + wait_s, _FIRST_PAUSE_S
    while True:
        left = deadline - time.monotonic()
        yield max(left, 0.0)
        if left <= 0:
            return
        time.sleep(min(left, pause * random.uniform(0.5, 1.5)))
        pause = min(pause * 2, _LONGEST_PAUSE_S)


@contextmanager
def held(path: Path, wait_s: float) -> Iterator[None]:
    """Hold the lock file `path` in the block; the system releases it when a process dies.

    Also excludes other threads of this process. Raises InputError after `wait_s` seconds.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        for _ in pauses(wait_s):
            if _try_lock(descriptor, fcntl.LOCK_EX):
                break
        else:
            raise InputError(
                f"another process is writing ({_holder(descriptor)}); waited {wait_s:.0f} s",
                file=path,
                remedy="Wait until it is done, or end that process, and run again.",
            )
        _write_holder(descriptor)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def shared(path: Path) -> Iterator[None]:
    """Be counted, with others, by `is_shared` in the block; never waits for long."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        yield
    finally:
        os.close(descriptor)


def is_shared(path: Path) -> bool:
    """Whether anybody is inside a `shared` block of `path`."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        return not _try_lock(descriptor, fcntl.LOCK_EX)
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _write_holder(descriptor: int) -> None:
    """Leave a note for those who wait; it grants nothing, so it needs no sync."""
    since = datetime.now(UTC).isoformat(timespec="seconds")
    note = {"pid": os.getpid(), "host": socket.gethostname(), "since": since}
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(note).encode(), 0)


def _holder(descriptor: int) -> str:
    try:
        note = json.loads(os.pread(descriptor, 4096, 0))
        return f"PID {note['pid']} on {note['host']} since {note['since']}"
    except (ValueError, KeyError, TypeError):
        return "an unknown process"
