"""A lock between processes on one machine, with a bounded wait that names the holder.

The system gives a lock to whoever asks while it is free, and that is mostly the one who has just
released it. `held_in_turn` keeps a queue beside the lock, so that nobody is passed over.
"""

import fcntl
import json
import os
import random
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from selection.core.errors import InputError
from selection.core.json_text import parsed

_MODE = 0o666  # as files are made otherwise: the umask says who else of a team may lock
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.005, 0.25
_PAUSE_IN_TURN_S = 0.02  # only the first of a queue asks for the lock, so it may ask often


def pauses(wait_s: float, longest_s: float = _LONGEST_PAUSE_S) -> Iterator[float]:
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
        pause = min(pause * 2, longest_s)


@contextmanager
def held(path: Path, wait_s: float) -> Iterator[None]:
    """Hold the lock file `path` in the block; the system releases it when a process dies.

    Also excludes other threads of this process. Raises InputError after `wait_s` seconds.
    """
    with opened(path) as descriptor:
        for _ in pauses(wait_s):
            if try_lock(descriptor, fcntl.LOCK_EX):
                break
        else:
            raise _refusal(path, descriptor, wait_s)
        _write_holder(descriptor)
        yield


@contextmanager
def held_in_turn(path: Path, wait_s: float) -> Iterator[None]:
    """The same, first come, first served among all who hold it in turn.

    Who waits keeps a numbered file in `<path>.turns/` locked. A file that is not locked is of a
    process that has died: it is removed and keeps nobody waiting.
    """
    with opened(path) as descriptor:
        with _turn(path.with_name(f"{path.name}.turns")) as turn:
            for _ in pauses(wait_s, _PAUSE_IN_TURN_S):
                if _is_first(turn) and try_lock(descriptor, fcntl.LOCK_EX):
                    break
            else:
                raise _refusal(path, descriptor, wait_s)
        _write_holder(descriptor)
        yield


@contextmanager
def shared(path: Path) -> Iterator[None]:
    """Be counted, with others, by `is_shared` in the block; never waits for long."""
    with opened(path) as descriptor:
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        yield


def is_shared(path: Path) -> bool:
    """Whether anybody is inside a `shared` block of `path`."""
    with opened(path) as descriptor:
        return not try_lock(descriptor, fcntl.LOCK_EX)


@contextmanager
def _turn(folder: Path) -> Iterator[Path]:
    """A locked file of the folder, numbered behind all that are there; gone after the block."""
    folder.mkdir(exist_ok=True)
    while True:
        number = int(max(_files(folder), default="0")) + 1
        file = folder / f"{number:012}"
        try:
            descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_EXCL, _MODE)
        except FileExistsError:
            continue
        # Before it was locked, another process may have taken it for a dead one's.
        if try_lock(descriptor, fcntl.LOCK_EX) and _is_at(descriptor, file):
            break
        os.close(descriptor)
    try:
        yield file
    finally:
        file.unlink(missing_ok=True)
        os.close(descriptor)


def _is_first(turn: Path) -> bool:
    """Whether no living process is before this one; removes what dead ones left."""
    earlier = sorted(name for name in _files(turn.parent) if name < turn.name)
    return all(_removed_if_dead(turn.parent / name) for name in earlier)


def _removed_if_dead(file: Path) -> bool:
    try:
        descriptor = _open(file)
    except FileNotFoundError:
        return True
    try:
        if not try_lock(descriptor, fcntl.LOCK_EX):
            return False
        # Under this lock nobody else removes it, so what is removed is what was looked at.
        if _is_at(descriptor, file):
            file.unlink()
        return True
    finally:
        os.close(descriptor)


def _files(folder: Path) -> list[str]:
    return [name for name in os.listdir(folder) if name.isdecimal()]


def _is_at(descriptor: int, file: Path) -> bool:
    """Whether the open file is still the one of this name."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(file))
    except FileNotFoundError:
        return False


@contextmanager
def opened(path: Path) -> Iterator[int]:
    """A lock file open in the block; everybody who may write beside it may use it."""
    descriptor = _open(path, os.O_CREAT)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _open(path: Path, flags: int = 0) -> int:
    try:
        return os.open(path, os.O_RDWR | flags, _MODE)
    except PermissionError:  # made by another account; to lock it, reading is enough
        return os.open(path, os.O_RDONLY)


def try_lock(descriptor: int, kind: int) -> bool:
    """Whether the lock was free; kind: LOCK_SH or LOCK_EX."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _refusal(path: Path, descriptor: int, wait_s: float) -> InputError:
    return InputError(
        f"another process is writing ({_holder(descriptor)}); waited {wait_s:.0f} s",
        file=path,
        remedy="Wait until it is done, or end that process, and run again.",
    )


def _write_holder(descriptor: int) -> None:
    """Leave a note for those who wait; it grants nothing, so it needs no sync."""
    since = datetime.now(UTC).isoformat(timespec="seconds")
    note = {"pid": os.getpid(), "host": socket.gethostname(), "since": since}
    with suppress(OSError):  # another account's file
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(note).encode(), 0)


def _holder(descriptor: int) -> str:
    try:
        note = parsed(os.pread(descriptor, 4096, 0))
        return f"PID {note['pid']} on {note['host']} since {note['since']}"
    except (ValueError, KeyError, TypeError):
        return "an unknown process"
