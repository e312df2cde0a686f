"""What a run leaves in the Prefect UI while it works: one progress artifact per stage.

Everything here is an ornament of the run: where the server cannot be reached, the work goes on.
"""

import logging
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from uuid import UUID

import httpx
from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)

from flows.orchestration.progress import StageRecord, listening

log = logging.getLogger(__name__)

UPDATE_SECONDS = 3.0  # An update is an API call; one per shard of a large pool would be too many.
CELL_CHARACTERS = 120  # The UI shows cells whole.


@dataclass
class PrefectProgress:
    """One progress artifact per stage that takes a while, with rate and time left.

    A stage of less than `UPDATE_SECONDS` makes no artifact: an API call would cost more than it.
    stages: what finished stages said.
    """

    stages: list[StageRecord] = field(default_factory=list)
    name: str = ""
    unit: str = ""
    total: int | None = None
    done: int = 0
    started: float = 0.0
    spoken: float = 0.0
    artifact: UUID | None = None

    def begin(self, name: str, total: int | None, unit: str) -> None:
        """Remember the stage."""
        self.name, self.unit, self.total, self.done, self.artifact = name, unit, total, 0, None
        self.started = self.spoken = time.monotonic()

    def advance(self, amount: int) -> None:
        """Count; tell the server now and then."""
        self.done += amount
        if self.total and time.monotonic() - self.spoken > UPDATE_SECONDS:
            self.spoken = time.monotonic()
            self._tell(min(100.0, 100.0 * self.done / self.total), self._pace())

    def end(self, detail: str) -> None:
        """Say what came out and close the artifact."""
        self.stages.append(StageRecord(self.name, detail, time.monotonic() - self.started))
        if self.artifact is not None:
            percent = 100.0 * self.done / self.total if self.total else 100.0
            stopped = detail == "stopped"
            self._tell(min(100.0, percent) if stopped else 100.0, f"{self.name}: {detail}")
            self.artifact = None

    def _pace(self) -> str:
        seconds = max(time.monotonic() - self.started, 1e-9)
        rate = self.done / seconds
        left = (self.total or 0) - self.done
        words = f"{self.done:,} of {self.total:,} {self.unit}, {rate:,.0f} {self.unit}/s"
        return f"{self.name}: {words}, about {duration(left / max(rate, 1e-9))} left"

    def _tell(self, percent: float, description: str) -> None:
        with unreachable_is_no_error():
            if self.artifact is None:
                created = create_progress_artifact(
                    progress=percent, key=f"progress-{key_of(self.name)}", description=description
                )
                self.artifact = created if isinstance(created, UUID) else None
            else:
                update_progress_artifact(self.artifact, progress=percent, description=description)


@contextmanager
def reported() -> Iterator[PrefectProgress]:
    """Within the block, stages report to the Prefect run beside their other listeners."""
    progress = PrefectProgress()
    with listening(progress):
        yield progress


@contextmanager
def unreachable_is_no_error() -> Iterator[None]:
    """A server that is away costs the run its ornaments, not its work."""
    try:
        yield
    except httpx.HTTPError as error:
        log.warning("the Prefect server could not be told (%s); the work goes on", error)


def publish_markdown(key: str, text: str, description: str) -> None:
    """A markdown artifact."""
    with unreachable_is_no_error():
        create_markdown_artifact(markdown=text, key=key_of(key), description=description)


def publish_table(key: str, rows: Sequence[Mapping[str, object]], description: str) -> None:
    """A table artifact with long cells cut."""
    cut = [{name: _cell(value) for name, value in row.items()} for row in rows]
    with unreachable_is_no_error():
        create_table_artifact(table=cut, key=key_of(key), description=description)


def key_of(text: str) -> str:
    """The text as an artifact key: lower-case letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "run"


def duration(seconds: float) -> str:
    """Seconds for people."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _cell(value: object) -> object:
    text = value if isinstance(value, str) else None
    return value if text is None or len(text) <= CELL_CHARACTERS else text[:CELL_CHARACTERS] + "…"
