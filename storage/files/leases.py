"""Leases: who works on what, among processes that share a POSIX folder and nothing else.

A lease is a file that its owner touches while it works. One that nobody has touched for the expiry,
or whose process on this host is gone, belongs to a dead worker and may be taken over. Two workers
may then do the same work, when the first was only slow: what they write is the same, and the first
manifest counts.

Ages are differences of times that the file system gave, so clocks of hosts need not agree.
"""

import json
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from selection.core.json_text import parsed
from storage.files.atomic import (
    full_disk_explained,
    process_has_ended,
    remove_stale_temps,
    temp_path,
)

log = logging.getLogger(__name__)

EXPIRY_S = 60.0
_POLL_S = 0.5
_HOUR_S = 3600.0


class Leases:
    """The leases of one folder, as one process sees them.

    folder:   made when missing. expiry_s: age in seconds at which a lease counts as abandoned.
    """

    def __init__(self, folder: Path, expiry_s: float = EXPIRY_S) -> None:
        """Hold nothing yet."""
        self._folder, self._expiry_s = folder, expiry_s
        self._beats: dict[str, threading.Event] = {}
        folder.mkdir(parents=True, exist_ok=True)
        remove_stale_temps(folder, _HOUR_S)

    def take(self, name: str) -> bool:
        """Try to get a lease, a dead worker's too; False while somebody else works on it."""
        file = self._folder / f"{name}.lease"
        if not _create(file):
            if not _owner_is_gone(file) and self._age_s(file) < self._expiry_s:
                return False
            expired = temp_path(file)
            try:
                os.rename(file, expired)  # one of several heirs gets it
            except FileNotFoundError:
                return False
            expired.unlink(missing_ok=True)
            if not _create(file):
                return False
        stop = threading.Event()
        self._beats[name] = stop
        threading.Thread(target=self._beat, args=(file, stop), daemon=True).start()
        return True

    def release(self, name: str) -> None:
        """Give a lease back; one that is not held is left alone."""
        stop = self._beats.pop(name, None)
        if stop is not None:
            stop.set()
            (self._folder / f"{name}.lease").unlink(missing_ok=True)

    def release_all(self) -> None:
        """Give everything back, at the end of a worker."""
        for name in list(self._beats):
            self.release(name)

    @contextmanager
    def acquire(self, name: str) -> Iterator[None]:
        """Hold a lease in the block, after waiting for it as long as it takes."""
        is_told = False
        while not self.take(name):
            if not is_told:
                log.info("waiting for another process that works on the same (%s)", name)
                is_told = True
            time.sleep(_POLL_S)
        try:
            yield
        finally:
            self.release(name)

    def _beat(self, file: Path, stop: threading.Event) -> None:
        while not stop.wait(self._expiry_s / 4):
            with suppress(FileNotFoundError):
                os.utime(file)

    def _age_s(self, file: Path) -> float:
        probe = temp_path(self._folder / "clock")
        probe.touch()
        try:
            return probe.stat().st_mtime - file.stat().st_mtime
        except FileNotFoundError:  # just given back: the next try will get it
            return 0.0
        finally:
            probe.unlink()


def run_once(
    folder: Path, name: str, is_done: Callable[[], bool], work: Callable[[], object]
) -> bool:
    """Do a piece of work unless it is done, or waits for whoever does it; whether we did it.

    folder: of the leases.
    """
    if is_done():
        return False
    with Leases(folder).acquire(name):
        if is_done():
            return False
        work()
        return True


def iter_claimed(
    names: Sequence[str], is_done: Callable[[str], bool], leases: Leases, poll_s: float = _POLL_S
) -> Iterator[int]:
    """Numbers of pieces of work that this worker holds the lease of, until all are done.

    The caller releases the lease of each when `is_done` would say so, or gives it up.
    """
    waiting = list(range(len(names)))
    while waiting:
        busy = []
        for number in waiting:
            name = names[number]
            if is_done(name):
                continue
            if not leases.take(name):
                busy.append(number)
            elif is_done(name):  # between the look and the lease
                leases.release(name)
            else:
                yield number
        waiting = [number for number in busy if not is_done(names[number])]
        if waiting:
            time.sleep(poll_s)


def _create(file: Path) -> bool:
    """Whether the file was not there; it says who made it.

    It appears signed: one without its owner, left by a process that was killed between the two,
    would make everybody wait for its expiry.
    """
    if file.exists():
        return False
    owner, temp = json.dumps({"host": socket.gethostname(), "pid": os.getpid()}), temp_path(file)
    with full_disk_explained(file):
        try:
            descriptor = os.open(temp, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
            try:
                os.write(descriptor, owner.encode())
            finally:
                os.close(descriptor)
            os.link(temp, file)  # fails where the name is taken
        except FileExistsError:
            return False
        finally:
            temp.unlink(missing_ok=True)
    return True


def _owner_is_gone(file: Path) -> bool:
    """Whether the lease is of a process of this host that has ended; False when unsure."""
    try:
        owner = parsed(file.read_text())
        if owner["host"] != socket.gethostname():
            return False
        return process_has_ended(int(owner["pid"]))
    except (OSError, ValueError, KeyError, TypeError):  # being written, or given back
        return False
