"""Which runs are alive: each holds a lock on a file of its own while its process lives.

The system releases the lock when the process dies, whatever killed it, so nothing can be stuck
and a process id that was given to somebody else is never mistaken for a run.
"""

import json
import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from selection.errors import InputError
from storage import lock

WAIT_S = 5.0  # Somebody may be asking whether the run is alive.


@contextmanager
def alive(folder: Path, run_id: str) -> Iterator[None]:
    """Be the live process of a run. Raises InputError if another process is."""
    folder.mkdir(parents=True, exist_ok=True)
    with lock.held(folder / run_id, WAIT_S):
        yield
        (folder / run_id).unlink(missing_ok=True)


def is_alive(folder: Path, run_id: str) -> bool:
    """Whether the run's process lives."""
    return (folder / run_id).exists() and lock.is_shared(folder / run_id)


def is_elsewhere(folder: Path, run_id: str) -> bool:
    """Whether the run was last seen on another host, of which nothing can be said from here."""
    return _note(folder, run_id).get("host", socket.gethostname()) != socket.gethostname()


def live_runs(folder: Path) -> list[str]:
    """Ids of the live runs."""
    names = sorted(file.name for file in folder.iterdir()) if folder.is_dir() else []
    return [name for name in names if is_alive(folder, name)]


def stop(folder: Path, run_id: str, grace_s: float) -> bool:
    """End the process of a live run of this host: politely, then by force; whether it is gone."""
    pid = _note(folder, run_id).get("pid")
    if not isinstance(pid, int) or is_elsewhere(folder, run_id):
        return not is_alive(folder, run_id)
    for number in (signal.SIGTERM, signal.SIGKILL):
        if not is_alive(folder, run_id):
            return True
        with suppress(ProcessLookupError):
            os.kill(pid, number)
        deadline = time.monotonic() + grace_s
        while is_alive(folder, run_id) and time.monotonic() < deadline:
            time.sleep(0.1)
    return not is_alive(folder, run_id)


def clear(folder: Path, run_id: str) -> None:
    """Remove the mark of a dead run."""
    with suppress(InputError, FileNotFoundError), lock.held(folder / run_id, 0.0):
        (folder / run_id).unlink(missing_ok=True)


def _note(folder: Path, run_id: str) -> dict[str, object]:
    try:
        note = json.loads((folder / run_id).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return note if isinstance(note, dict) else {}
