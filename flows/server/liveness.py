"""Which runs are alive: each holds a lock on a file of its own while its process lives.

The system releases the lock when the process dies, whatever killed it, so nothing can be stuck
and a process id that was given to somebody else is never mistaken for a run.
"""

import json
import logging
import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from selection.core.errors import InputError
from storage.files import locks

WAIT_S = 5.0  # Somebody may be asking whether the run is alive.


@contextmanager
def alive(folder: Path, run_id: str) -> Iterator[None]:
    """Be the live process of a run. Raises InputError if another process is."""
    folder.mkdir(parents=True, exist_ok=True)
    with locks.held(folder / run_id, WAIT_S):
        yield
        (folder / run_id).unlink(missing_ok=True)


def is_alive(folder: Path, run_id: str) -> bool:
    """Whether the run's process lives."""
    return (folder / run_id).exists() and locks.is_shared(folder / run_id)


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
    with suppress(InputError, FileNotFoundError), locks.held(folder / run_id, 0.0):
        (folder / run_id).unlink(missing_ok=True)


def _note(folder: Path, run_id: str) -> dict[str, object]:
    try:
        note = json.loads((folder / run_id).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return note if isinstance(note, dict) else {}


log = logging.getLogger(__name__)

OPEN = ("RUNNING", "PENDING", "CANCELLING")
YOUNG_S = 5.0  # A process that has just ended may be about to say how.
PENDING_S = 60.0  # A pending run without a process after so long has lost its worker.
CANCEL_S = 20.0  # The worker ends a cancelled run; without one, we do.
CRASHED = "The process of this run is gone. Run it again with the same fields: it resumes."


def reconcile(client: Any, live: Path, pool: str, *, first: bool = False) -> list[str]:  # noqa: ANN401
    """Set the state of every open run to what its process says; returns what was changed.

    live:  folder of the marks of live runs.
    first: at the start of the server nobody else can be about to change anything.
    """
    done = []
    for run in open_runs(client, pool):
        told = _one(client, live, run, first)
        if told:
            log.warning("%s: %s", run["name"], told)
            done.append(f"{run['name']}: {told}")
    return done


def open_runs(client: Any, pool: str) -> list[dict[str, Any]]:  # noqa: ANN401
    """Runs of the work pool that have begun and not ended."""
    query = {
        "flow_runs": {"state": {"type": {"any_": list(OPEN)}}},
        "work_pools": {"name": {"any_": [pool]}},
        "limit": 200,
    }
    found: list[dict[str, Any]] = client.request("POST", "/flow_runs/filter", json=query).json()
    return found


def _one(client: Any, live: Path, run: dict[str, Any], first: bool) -> str | None:  # noqa: ANN401
    run_id, kind = str(run["id"]), str(run["state"]["type"])
    changed = datetime.fromisoformat(str(run["state"]["timestamp"]).replace("Z", "+00:00"))
    age = (datetime.now(UTC) - changed).total_seconds()
    if is_elsewhere(live, run_id):
        return None
    if is_alive(live, run_id):
        if kind == "CANCELLING" and (first or age > CANCEL_S) and stop(live, run_id, 5.0):
            return _set(client, run_id, "CANCELLED", "Cancelled; its process was ended.")
        return None
    clear(live, run_id)
    if _kind_now(client, run_id) != kind:
        return None  # It said how it ended after we had asked, before it ended.
    if kind == "RUNNING" and (first or age > YOUNG_S):
        return _set(client, run_id, "CRASHED", CRASHED)
    if kind == "CANCELLING" and (first or age > YOUNG_S):
        return _set(client, run_id, "CANCELLED", "Cancelled.")
    if kind == "PENDING" and (first or age > PENDING_S):
        return _set(client, run_id, "SCHEDULED", "Its worker was gone before it began.")
    return None


def _kind_now(client: Any, run_id: str) -> str:  # noqa: ANN401
    """The type of a run's state, asked after its process was seen to be gone: it is the last."""
    return str(client.request("GET", f"/flow_runs/{run_id}").json()["state"]["type"])


def _set(client: Any, run_id: str, kind: str, message: str) -> str:  # noqa: ANN401
    """Force a state, and the same end on task runs that are still marked running."""
    state = {"type": kind, "message": message}
    if kind != "SCHEDULED":
        query = {
            "task_runs": {
                "flow_run_id": {"any_": [run_id]},
                "state": {"type": {"any_": ["RUNNING", "PENDING"]}},
            }
        }
        for task in client.request("POST", "/task_runs/filter", json=query).json():
            path = f"/task_runs/{task['id']}/set_state"
            client.request("POST", path, json={"state": state, "force": True})
    client.request("POST", f"/flow_runs/{run_id}/set_state", json={"state": state, "force": True})
    return f"{kind.lower()}: {message}"
