"""The thread beside the API that registers deployments and keeps the states of runs true.

Prefect's worker ends runs, and says so; what is left are runs whose worker or process was killed.
"""

import os
import sys
import time
import traceback
from datetime import UTC, datetime
from pathlib import Path

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter, TaskRunFilter, WorkPoolFilter
from prefect.client.schemas.objects import FlowRun, State
from prefect.exceptions import PrefectException
from prefect.states import Cancelled, Crashed, Scheduled

from flows.server.deployments import register
from flows.server.liveness import is_alive, is_elsewhere, stop
from flows.server.settings import POOL_NAME

EVERY_S = 5.0
YOUNG_S = 5.0  # A run that has just begun takes its lock within this time.
PENDING_S = 30.0  # A pending run without a process for this time has lost its worker.
CANCEL_S = 20.0  # The worker ends a cancelled run within this time.
CRASHED = "The process of this run was killed. Run it again with the same fields: it resumes."
QUEUED = "Its worker ended before the run began; it is queued again."
OPEN = ("RUNNING", "PENDING", "CANCELLING")


def keep(live: Path, ready: Path) -> None:
    """Register once the API answers, say so in a file, and then look after the runs for good.

    Ends the process where the deployments cannot be registered.

    live: folder of the locks of live runs. ready: file that gets the changes, one a line.
    """
    try:
        while True:
            with get_client(sync_client=True) as client:
                if client.api_healthcheck() is None:
                    changes = register(client)
                    break
            time.sleep(0.1)
        ready.write_text("\n".join(changes), encoding="utf-8")
    except Exception:  # noqa: BLE001 - whatever it is, the server is of no use without deployments
        traceback.print_exc()
        os._exit(1)
    while True:
        try:
            with get_client(sync_client=True) as client:
                for line in reconcile(client, live):
                    print_line(f"reconciled {line}")
        except (httpx.HTTPError, PrefectException) as error:
            # The database is busy; the next round asks again.
            print_line(f"not reconciled: {error!r}")
        time.sleep(EVERY_S)


def print_line(line: str) -> None:
    """A line in the log of the server."""
    sys.stderr.write(f"{time.strftime('%F %T')} {line}\n")


def reconcile(client: SyncPrefectClient, folder: Path) -> list[str]:
    """Set the state of every open run that no process runs; returns the changes in words.

    folder: of the locks of live runs.
    """
    runs = client.read_flow_runs(
        flow_run_filter=FlowRunFilter.model_validate({"state": {"type": {"any_": OPEN}}}),
        work_pool_filter=WorkPoolFilter.model_validate({"name": {"any_": [POOL_NAME]}}),
    )
    changes = []
    for run in runs:
        state = None if is_elsewhere(folder, str(run.id)) else _true_state(folder, run)
        # It may have reported its end between the two questions.
        if state and client.read_flow_run(run.id).state_type == run.state_type:
            _set(client, run, state)
            changes.append(f"{run.name}: {state.type.value.lower()}: {state.message}")
    return changes


def _true_state(folder: Path, run: FlowRun) -> State | None:
    """The state of an open run by its process; None where the one that it has is true."""
    assert run.state is not None
    kind = run.state.type.value
    age = (datetime.now(UTC) - run.state.timestamp).total_seconds()
    if is_alive(folder, str(run.id)):
        is_stuck = kind == "CANCELLING" and age > CANCEL_S
        if is_stuck and stop(folder, str(run.id), 5.0):
            return Cancelled(message="Cancelled; its process was ended.")
        return None
    if kind == "PENDING":
        return Scheduled(message=QUEUED) if age > PENDING_S else None
    if age < YOUNG_S:
        return None
    return Cancelled(message="Cancelled.") if kind == "CANCELLING" else Crashed(message=CRASHED)


def _set(client: SyncPrefectClient, run: FlowRun, state: State) -> None:
    """Force a state on a run, and the same end on its open task runs."""
    if state.is_final():
        open_tasks = {
            "flow_run_id": {"any_": [run.id]},
            "state": {"type": {"any_": ["RUNNING", "PENDING"]}},
        }
        for task in client.read_task_runs(task_run_filter=TaskRunFilter.model_validate(open_tasks)):
            client.set_task_run_state(task.id, state, force=True)
    client.set_flow_run_state(run.id, state, force=True)
