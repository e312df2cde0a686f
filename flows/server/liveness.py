"""Live runs: each holds a lock on a file of its own until its process ends.

The system releases the lock when the process dies, whatever killed it, so a stopped process stays
alive and a reused process id is never mistaken for a run. Prefect's worker ends runs, and says so;
what is left are runs that were killed with their worker: a thread beside the API ends those.
"""

import logging
import os
import time
import traceback
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter, TaskRunFilter, WorkPoolFilter
from prefect.client.schemas.objects import FlowRun, State
from prefect.exceptions import PrefectException
from prefect.states import Crashed, Scheduled

from flows.server.deployments import register
from flows.server.settings import POOL_NAME, WORKER_NAME
from storage.files import locks

WAIT_S = 5.0  # Another process may be testing whether the run is alive.
EVERY_S = 5.0
YOUNG_S = 5.0  # A run that has just begun takes its lock within this time.
PENDING_S = 30.0  # A pending run without a process for this time has lost its worker.
CRASHED = "The process of this run was killed. Run it again with the same fields: it resumes."
QUEUED = "Its worker ended before the run began; it is queued again."

log = logging.getLogger(__name__)
_HELD: list[AbstractContextManager[None]] = []


def hold(folder: Path, run_id: str) -> None:
    """Hold the lock of a run until this process ends, after the run has reported its end.

    Raises InputError if another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = locks.held(folder / run_id, WAIT_S)
    lock.__enter__()
    _HELD.append(lock)


def is_alive(folder: Path, run_id: str) -> bool:
    """Whether a process holds the lock of a run."""
    return (folder / run_id).exists() and locks.is_shared(folder / run_id)


def keep(live: Path, ready: Path) -> None:
    """Register once the API answers, say so in a file, and then look after the runs for good.

    Ends the process where the deployments cannot be registered.

    live: folder of the locks of live runs. ready: file that gets the changes, one a line.
    """
    with get_client(sync_client=True) as client:
        try:
            while client.api_healthcheck() is not None:
                time.sleep(0.1)
            ready.write_text("\n".join(register(client)), encoding="utf-8")
        except Exception:  # noqa: BLE001 - whatever it is, a server without deployments is no use
            traceback.print_exc()
            os._exit(1)
        while True:
            try:
                for line in reconcile(client, live):
                    log.warning("reconciled %s", line)
            except (httpx.HTTPError, PrefectException) as error:
                # The database is busy; the next round asks again.
                log.warning("not reconciled: %r", error)
            time.sleep(EVERY_S)


def reconcile(client: SyncPrefectClient, folder: Path) -> list[str]:
    """Set the state of every open run that no process runs; returns the changes in words.

    Runs of workers elsewhere are left to Prefect's heartbeats.

    folder: of the locks of live runs.
    """
    runs = client.read_flow_runs(
        flow_run_filter=FlowRunFilter.model_validate(_in_states("RUNNING", "PENDING")),
        work_pool_filter=WorkPoolFilter.model_validate({"name": {"any_": [POOL_NAME]}}),
    )
    changes = []
    for run in runs:
        state = _state_without_process(run)
        if (
            state is None
            or run.labels.get("prefect.worker.name", WORKER_NAME) != WORKER_NAME
            or is_alive(folder, str(run.id))
            # It may have reported its end between the two questions.
            or client.read_flow_run(run.id).state_type != run.state_type
        ):
            continue
        if state.is_final():
            _end_tasks(client, run, state)
        client.set_flow_run_state(run.id, state, force=True)
        changes.append(f"{run.name}: {state.type.value.lower()}: {state.message}")
    return changes


def _state_without_process(run: FlowRun) -> State | None:
    """The state of an open run that has no process; None while it may still get one."""
    assert run.state is not None
    age = (datetime.now(UTC) - run.state.timestamp).total_seconds()
    if run.state.is_pending():
        return Scheduled(message=QUEUED) if age > PENDING_S else None
    return Crashed(message=CRASHED) if age > YOUNG_S else None


def _end_tasks(client: SyncPrefectClient, run: FlowRun, state: State) -> None:
    """Give the open task runs of a run the same end."""
    tasks = {"flow_run_id": {"any_": [run.id]}, **_in_states("RUNNING", "PENDING")}
    for task in client.read_task_runs(task_run_filter=TaskRunFilter.model_validate(tasks)):
        client.set_task_run_state(task.id, state, force=True)


def _in_states(*types: str) -> dict[str, object]:
    """The part of a filter that asks for runs in these states."""
    return {"state": {"type": {"any_": types}}}
