"""Live runs: each holds a lock on a file of its own until its process ends.

The system releases the lock when the process dies, whatever killed it, so a stopped process stays
alive and a reused process id is never mistaken for a run. Prefect's own heartbeats take 90 seconds
to notice a death, and take a stopped process for dead.
"""

import os
import signal
import socket
import time
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

from selection.core.json_text import parsed
from storage.files import locks

WAIT_S = 5.0  # Another process may be testing whether the run is alive.

_HELD: list[AbstractContextManager[None]] = []


def hold(folder: Path, run_id: str) -> None:
    """Hold the lock of a run until this process ends, after the run has reported its end.

    Raises InputError if another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = locks.held(folder / run_id, WAIT_S)
    lock.__enter__()
    _HELD.append(lock)


def is_elsewhere(folder: Path, run_id: str) -> bool:
    """Whether another host holds the lock of a run, which may not be visible from here."""
    return _holder(folder, run_id).get("host", socket.gethostname()) != socket.gethostname()


def _holder(folder: Path, run_id: str) -> dict[str, Any]:
    """Process id and host that hold the lock of a run."""
    try:
        note = parsed((folder / run_id).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return note if isinstance(note, dict) else {}


def is_alive(folder: Path, run_id: str) -> bool:
    """Whether a process holds the lock of a run."""
    return (folder / run_id).exists() and locks.is_shared(folder / run_id)


def live_runs(folder: Path) -> list[str]:
    """Ids of the live runs."""
    names = sorted(file.name for file in folder.iterdir()) if folder.is_dir() else []
    return [name for name in names if is_alive(folder, name)]


def stop(folder: Path, run_id: str, grace_s: float) -> bool:
    """End the process of a live run, politely, then by force; whether it has ended."""
    pid = _holder(folder, run_id).get("pid")
    if not isinstance(pid, int) or is_elsewhere(folder, run_id):
        return not is_alive(folder, run_id)
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.kill(pid, number)
        deadline = time.monotonic() + grace_s
        while is_alive(folder, run_id) and time.monotonic() < deadline:
            time.sleep(0.1)
        if not is_alive(folder, run_id):
            return True
    return False
