"""Live runs: each holds a lock on a file of its own until its process ends.

The system releases the lock when the process dies, whatever killed it, so a stopped process stays
alive and a reused process id is never mistaken for a run. Prefect's own heartbeats take 90 seconds
to notice a death, and take a stopped process for dead.
"""

import json
import logging
import os
import signal
import socket
import time
from contextlib import AbstractContextManager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

from storage.files import locks

log = logging.getLogger(__name__)

WAIT_S = 5.0  # Another process may be testing whether the run is alive.
OPEN = ("RUNNING", "PENDING", "CANCELLING")
YOUNG_S = 5.0  # A run that has just begun takes its lock within this time.
PENDING_S = 30.0  # A pending run without a process for this time has lost its worker.
CANCEL_S = 20.0  # The worker ends a cancelled run within this time.
CRASHED = "The process of this run was killed. Run it again with the same fields: it resumes."
QUEUED = "Its worker ended before the run began; it is queued again."


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
        note = json.loads((folder / run_id).read_text(encoding="utf-8"))
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


def reconcile(
    client: httpx.Client, folder: Path, pool: str, *, is_start: bool = False
) -> list[str]:
    """Set the state of every open run that no process runs; returns the changes in words.

    folder:   of the locks of live runs.
    is_start: no worker runs yet, so nothing is given time.

    Raises httpx.HTTPError where the server does not answer as it should.
    """
    query = {
        "flow_runs": {"state": {"type": {"any_": list(OPEN)}}},
        "work_pools": {"name": {"any_": [pool]}},
        "limit": 200,
    }
    changes = []
    for run in ask(client, "POST", "/flow_runs/filter", query):
        change = _reconcile_one(client, folder, run, is_start)
        if change:
            log.warning("%s: %s", run["name"], change)
            changes.append(f"{run['name']}: {change}")
    return changes


def ask(client: httpx.Client, method: str, path: str, body: object = None) -> Any:
    """The answer of the API as JSON. Raises httpx.HTTPError for every failure."""
    answer = client.request(method, path, json=body)
    answer.raise_for_status()
    try:
        return answer.json() if answer.content else None
    except ValueError:
        raise httpx.DecodingError("the answer is no JSON", request=answer.request) from None


def _reconcile_one(
    client: httpx.Client, folder: Path, run: dict[str, Any], is_start: bool
) -> str | None:
    run_id, kind = str(run["id"]), str(run["state"]["type"])
    changed = datetime.fromisoformat(str(run["state"]["timestamp"]).replace("Z", "+00:00"))
    age = (datetime.now(UTC) - changed).total_seconds()
    if is_elsewhere(folder, run_id):
        return None
    if is_alive(folder, run_id):
        if kind == "CANCELLING" and (is_start or age > CANCEL_S) and stop(folder, run_id, 5.0):
            return _set(client, run_id, "CANCELLED", "Cancelled; its process was ended.")
        return None
    if ask(client, "GET", f"/flow_runs/{run_id}")["state"]["type"] != kind:
        return None  # It reported its end between the two questions.
    if kind == "RUNNING" and (is_start or age > YOUNG_S):
        return _set(client, run_id, "CRASHED", CRASHED)
    if kind == "CANCELLING" and (is_start or age > YOUNG_S):
        return _set(client, run_id, "CANCELLED", "Cancelled.")
    if kind == "PENDING" and (is_start or age > PENDING_S):
        return _set(client, run_id, "SCHEDULED", QUEUED)
    return None


def _set(client: httpx.Client, run_id: str, kind: str, message: str) -> str:
    """Force a state on a run, and the same end on its open task runs."""
    state = {"state": {"type": kind, "message": message}, "force": True}
    if kind != "SCHEDULED":
        open_tasks = {
            "flow_run_id": {"any_": [run_id]},
            "state": {"type": {"any_": ["RUNNING", "PENDING"]}},
        }
        for task in ask(client, "POST", "/task_runs/filter", {"task_runs": open_tasks}):
            ask(client, "POST", f"/task_runs/{task['id']}/set_state", state)
    ask(client, "POST", f"/flow_runs/{run_id}/set_state", state)
    return f"{kind.lower()}: {message}"
