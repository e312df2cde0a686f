"""Best-effort Prefect artifacts: progress per stage, markdown, tables, links.

Where the server cannot be reached, the work goes on without them.
"""

import json
import logging
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass, field
from uuid import UUID

import httpx
from prefect import get_client, runtime
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.client.schemas.actions import ArtifactCreate

from flows.orchestration.progress import Listener, listening
from selection.core.numbers import duration

log = logging.getLogger(__name__)

UPDATE_SECONDS = 3.0  # A shorter stage leaves no progress artifact: an API call costs more than it.
CELL_CHARACTERS = 60  # The UI shows cells whole, and cuts wide tables off.
ROOMS = ("flows", "selection", "storage")


@dataclass
class PrefectProgress(Listener):
    """One progress artifact per stage that takes a while, updated by a thread every few seconds.

    So a stage is seen to work however seldom it calls `advance`.
    """

    artifact: UUID | None = None
    ended: threading.Event = field(default_factory=threading.Event)
    thread: threading.Thread | None = None

    def begin(self, name: str, total: int | None, unit: str) -> None:
        """Start the thread, in the context of the stage's task run."""
        super().begin(name, total, unit)
        self.artifact, self.ended = None, threading.Event()
        context = copy_context()
        self.thread = threading.Thread(target=context.run, args=(self._watch,), daemon=True)
        self.thread.start()

    def end(self, detail: str) -> None:
        """Record the stage and close its artifact."""
        super().end(detail)
        self.ended.set()
        if self.thread is not None:
            self.thread.join()
        if self.artifact is not None:
            percent = self._percent if detail == "stopped" else 100.0
            self._publish(percent, f"{self.name}: {detail}")

    def _watch(self) -> None:
        while not self.ended.wait(UPDATE_SECONDS):
            self._publish(self._percent, self._pace)

    @property
    def _percent(self) -> float:
        return min(100.0, 100.0 * self.done / self.total) if self.total else 0.0

    @property
    def _pace(self) -> str:
        """What is done, how fast, and the time left where both are known."""
        if not self.done or not self.total:
            amount = f" of {self.total:,} {self.unit}" if self.total else ""
            return f"{self.name}: {self.done:,}{amount} after {duration(self.seconds)}"
        left = duration((self.total - self.done) * self.seconds / self.done)
        return (
            f"{self.name}: {self.done:,} of {self.total:,} {self.unit}, {self.rate},"
            f" about {left} left"
        )

    def _publish(self, percent: float, description: str) -> None:
        with best_effort():
            if self.artifact is None:
                key = f"progress-{key_of(self.name)}"
                created = create_progress_artifact(percent, key=key, description=description)
                self.artifact = created if isinstance(created, UUID) else None
            else:
                update_progress_artifact(self.artifact, progress=percent, description=description)


@contextmanager
def reported() -> Iterator[PrefectProgress]:
    """Within the block, stages report to the Prefect run: artifacts, and lines under Logs."""
    if runtime.deployment.id:  # The command line prints stages itself.
        for room in ROOMS:
            logging.getLogger(room).setLevel(logging.INFO)
    progress = PrefectProgress()
    with listening(progress):
        yield progress


@contextmanager
def best_effort() -> Iterator[None]:
    """An unreachable server costs the run its artifacts, not its work."""
    try:
        yield
    except httpx.HTTPError as error:
        log.warning("the Prefect server did not answer (%s); the work goes on", error)


def publish(*artifacts: ArtifactCreate) -> None:
    """Leave artifacts on the page of the flow run; equal keys are versions of one artifact."""
    with best_effort(), get_client(sync_client=True) as client:
        for artifact in artifacts:
            client.create_artifact(artifact)


def markdown(key: str, text: str, description: str) -> ArtifactCreate:
    """A markdown artifact of this flow run."""
    return _of_run("markdown", key, text, description)


def table(key: str, rows: Sequence[Mapping[str, object]], description: str) -> ArtifactCreate:
    """A table artifact of this flow run, with long cells cut and decimals rounded."""
    short = [{name: _cell(value) for name, value in row.items()} for row in rows]
    return _of_run("table", key, json.dumps(short), description)


def _of_run(kind: str, key: str, data: str, description: str) -> ArtifactCreate:
    run_id = UUID(runtime.flow_run.id) if runtime.flow_run.id else None
    return ArtifactCreate(
        type=kind, key=key_of(key), data=data, description=description, flow_run_id=run_id
    )


def key_of(text: str) -> str:
    """The text as an artifact key: lower-case letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "run"


def _cell(value: object) -> object:
    if isinstance(value, float):
        return f"{value:.4f}"
    if isinstance(value, str) and len(value) > CELL_CHARACTERS:
        return value[:CELL_CHARACTERS] + "…"
    return value
