"""Selections of the catalog as arms, and what training on them gave as rows of `outcome`."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from selection.core.errors import InputError
from selection.evaluation.labelled import Rows
from storage.catalog.snapshot import open_snapshot
from storage.files.workspace import Workspace
from storage.queries.lookup import selection_in

PREFIX = "selection:"

_PICKS = """
SELECT o.own_id FROM pick p JOIN selection s USING (selection_id)
JOIN occurrence o ON o.run_id = s.run_id AND o.example_id = p.example_id
WHERE p.selection_id = ? AND o.own_id IS NOT NULL ORDER BY p.rank, o.own_id"""


def read_selections(workspace: Workspace, arms: Sequence[str]) -> dict[str, tuple[str, list[str]]]:
    """Arm -> id of its selection and the own ids of its picks, best first. Raises InputError."""
    named = [arm for arm in arms if arm.startswith(PREFIX)]
    if not named:
        return {}
    picked = {}
    with open_snapshot(workspace) as connection:
        for arm in named:
            row = selection_in(connection, workspace, arm.removeprefix(PREFIX))
            rows = connection.execute(_PICKS, [row.selection_id]).fetchall()
            picked[arm] = row.selection_id, [str(own_id) for (own_id,) in rows]
    return picked


def rows_of(own_ids: Sequence[str], pool_ids: Sequence[str], arm: str) -> Rows:
    """Eligible rows of the picks, in their order. Raises InputError where there is none."""
    at = {own_id: row for row, own_id in enumerate(pool_ids)}
    rows = [at[own_id] for own_id in dict.fromkeys(own_ids) if own_id in at]
    if not rows:
        raise InputError(
            "no pick of the selection is an eligible row of the pool",
            field="arms",
            value=arm,
            remedy="The selection's own ids must be those of the labelled pool.",
        )
    return np.array(rows, np.int64)


def outcome_rows(
    runs: Sequence[Mapping[str, Any]], selections: dict[str, tuple[str, list[str]]]
) -> Iterator[dict[str, object]]:
    """Mean gain over seeds of each selection, target and budget, as `outcome` has it."""
    gains: dict[tuple[str, str, int], list[float]] = defaultdict(list)
    for run in runs:
        if run["arm"] in selections:
            gains[run["arm"], run["target"], run["budget"]].append(run["gain"])
    for (arm, target, budget), values in gains.items():
        metric = f"gain on {target}, {budget} tokens"
        mean = sum(values) / len(values)
        yield {"selection_id": selections[arm][0], "metric": metric, "value": mean}
