"""What look-ups in the snapshot return: one record per kind of row."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class RunRow:
    """One run; times are UTC."""

    run_id: str
    name: str
    created_at: datetime
    finished_at: datetime | None
    who: str | None
    model: str | None
    hookpoint: str | None
    is_demo: bool | None
    n_selections: int


@dataclass(frozen=True, slots=True)
class SelectionRow:
    """One selection with the name and time of its run."""

    selection_id: str
    name: str
    run_id: str
    run: str
    created_at: datetime
    target: str | None
    method: str
    role: str
    n_eligible: int
    n_selected: int
    n_tokens: int | None
    unused_tokens: int | None
    cut_score: float | None
    n_exports: int


@dataclass(frozen=True, slots=True)
class PickRow:
    """One chosen example (or near miss) and where it first came from."""

    rank: int
    score: float | None
    target: str | None
    example_id: str
    own_id: str | None
    source: str | None
    file: str | None
    row: int | None
    licence: str | None
    tokens: int | None
    text: str | None


@dataclass(frozen=True, slots=True)
class OccurrenceRow:
    """One row of a pool file that holds an example; several runs may have read it."""

    run: str
    file: str
    row: int
    source: str
    own_id: str | None
    licence: str | None
    language: str | None
    group: str | None


@dataclass(frozen=True, slots=True)
class UsedRow:
    """One selection that holds an example, and one export of it; path is None if not exported."""

    selection: str
    selection_id: str
    role: str
    rank: int
    score: float | None
    format: str | None
    path: str | None
    sha256: str | None
    exported_at: datetime | None


@dataclass(frozen=True, slots=True)
class Difference:
    """Two selections compared: examples in both and in only one of them, by rank."""

    first: SelectionRow
    second: SelectionRow
    n_both: int
    only_first: Sequence[PickRow]
    only_second: Sequence[PickRow]
