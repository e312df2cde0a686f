"""What a run leaves in the Prefect UI: progress while it works, a table of what it chose."""

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from uuid import UUID

from prefect.artifacts import (
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)

from flows.progress import listening

log = logging.getLogger(__name__)

UPDATE_SECONDS = 3.0  # An update is an API call; one per shard of a large pool would be too many.
CELL_CHARACTERS = 120  # The UI shows cells whole.


class PrefectProgress:
    """One progress artifact per stage, updated every few seconds."""

    def __init__(self) -> None:
        """Wait for the first stage."""
        self.artifact: UUID | None = None
        self.total: int | None = None
        self.done = 0
        self.spoken = 0.0

    def begin(self, name: str, total: int | None, unit: str) -> None:
        """Open an artifact named after the stage."""
        self.total, self.done, self.spoken = total, 0, time.monotonic()
        created = create_progress_artifact(
            progress=0.0, key=f"progress-{name.replace(' ', '-')}", description=f"{name}, in {unit}"
        )
        self.artifact = created if isinstance(created, UUID) else None

    def advance(self, amount: int) -> None:
        """Count; tell the server now and then."""
        self.done += amount
        if self.total and time.monotonic() - self.spoken > UPDATE_SECONDS:
            self.spoken = time.monotonic()
            self._update(min(100.0, 100.0 * self.done / self.total))

    def end(self, detail: str) -> None:
        """Say what came out and close the artifact."""
        self._update(100.0, detail)
        self.artifact = None

    def _update(self, percent: float, detail: str | None = None) -> None:
        if self.artifact is not None:
            update_progress_artifact(self.artifact, progress=percent, description=detail or None)


@contextmanager
def reported() -> Iterator[None]:
    """Within the block, stages report to the Prefect run beside their other listeners."""
    with listening(PrefectProgress()):
        yield


def publish_table(key: str, rows: Sequence[Mapping[str, object]], description: str) -> None:
    """A table artifact with long cells cut."""
    cut = [{name: _cell(value) for name, value in row.items()} for row in rows]
    create_table_artifact(table=cut, key=key, description=description)


def _cell(value: object) -> object:
    text = value if isinstance(value, str) else None
    return value if text is None or len(text) <= CELL_CHARACTERS else text[:CELL_CHARACTERS] + "…"
