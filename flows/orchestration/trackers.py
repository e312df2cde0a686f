"""Runs in MLflow, Weights & Biases or trackio: config, counts, held-out check and paths of files.

Everything comes from the catalog, as it was recorded; no sample is sent. Where to, and with which
key, each tracker learns from its own environment variables.
"""

import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from flows.orchestration.progress import stage
from selection.core.errors import InputError
from selection.core.redaction import without_secrets
from storage.catalog.snapshot import open_snapshot
from storage.export.facts import json_rows
from storage.files.workspace import Workspace

log = logging.getLogger(__name__)

PROJECT = "saelect"
"""Project or experiment, where the tracker's own variables name none."""

_MOST_PARAMETERS = 100  # that a server of MLflow takes at once
_SELECTIONS = """
SELECT name, n_eligible, n_selected, n_replay, n_tokens, cut_score FROM selection
WHERE run_id = ? ORDER BY name"""
_CHECKS = """
SELECT s.name || '/check/' || c.target || '/' || c.method AS name, c.percentile, c.percentile_lo,
    c.percentile_hi, c.p_random, c.n_close, c.depth, c.n_beyond
FROM held_out_check c JOIN selection s USING (selection_id) WHERE s.run_id = ? ORDER BY ALL"""
_PATHS = """
SELECT DISTINCT s.name || '/export/' || parse_filename(e.path) AS name, e.path
FROM export e JOIN selection s USING (selection_id) WHERE s.run_id = $1
UNION ALL SELECT DISTINCT s.name || '/report', v.detail->>'path'
FROM event v JOIN selection s USING (selection_id)
WHERE s.run_id = $1 AND v.action = 'reported' ORDER BY 1, 2"""


@dataclass(frozen=True, slots=True)
class TrackedRun:
    """What a tracker is given. config, numbers: by name; paths: of exports and reports by name."""

    name: str
    config: Mapping[str, object]
    numbers: Mapping[str, float]
    paths: Mapping[str, str]


def check_tracker(name: str) -> None:
    """Raise InputError where the package of a tracker is not installed."""
    if find_spec(name) is None:
        raise InputError(
            "the tracker is not installed",
            field="track",
            value=name,
            remedy=f"Run `pip install 'saelect[{name}]'`, or leave `track` out.",
        )


def track(name: str, workspace: Workspace, run: str) -> None:
    """Log a finished run with a tracker. Whatever is raised becomes a warning."""
    with stage("track") as handle:
        try:
            tracked = tracked_run(workspace, run)
            TRACKERS[name](tracked)
        except Exception as error:  # noqa: BLE001 - the run is done, a tracker must not lose it
            text = without_secrets(" ".join(f"{type(error).__name__}: {error}".split()))
            log.warning("%s did not take the run (%s); the run itself is complete", name, text)
            handle.detail = f"{name} failed"
            return
        handle.detail = f"{len(tracked.numbers):,} numbers logged with {name}"


def tracked_run(workspace: Workspace, run: str) -> TrackedRun:
    """A run of the catalog, by its name, as trackers take it."""
    with open_snapshot(workspace) as connection:
        query = "SELECT run_id, config, counts FROM run WHERE name = ?"
        (row,) = json_rows(connection, query, [run])
        key = [row["run_id"]]
        numbers = dict(_leaves(row["counts"], "counts"))
        for each in (_SELECTIONS, _CHECKS):
            for values in json_rows(connection, each, key):
                numbers |= dict(_leaves(values, str(values.pop("name"))))
        paths = {"workspace": str(workspace.root.resolve())}
        for name, path in connection.execute(_PATHS, key).fetchall():
            paths[name] = path if "://" in path else str((workspace.root / path).resolve())
    real = {name: float(n) for name, n in numbers.items() if isinstance(n, int | float)}
    return TrackedRun(run, dict(_leaves(row["config"], "")), real, paths)


def _leaves(value: object, name: str) -> Iterator[tuple[str, Any]]:
    """The values of nested mappings, with their keys joined by `/`, in letters every tracker takes.

    Lists stay whole.
    """
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _leaves(inner, f"{name}/{key}" if name else str(key))
    else:
        yield re.sub(r"[^\w./ -]", "-", name), value


def _mlflow(run: TrackedRun) -> None:
    import mlflow

    if not {"MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID"} & os.environ.keys():
        mlflow.set_experiment(PROJECT)
    with mlflow.start_run(run_name=run.name, tags=dict(run.paths)):
        given = list(run.config.items())
        for first in range(0, len(given), _MOST_PARAMETERS):
            mlflow.log_params(dict(given[first : first + _MOST_PARAMETERS]))
        mlflow.log_metrics(dict(run.numbers))


def _wandb(run: TrackedRun) -> None:
    import wandb

    project = os.environ.get("WANDB_PROJECT", PROJECT)
    with wandb.init(project=project, name=run.name, config={**run.config, **run.paths}) as made:
        made.log(dict(run.numbers))


def _trackio(run: TrackedRun) -> None:
    import trackio

    project = os.environ.get("TRACKIO_PROJECT", PROJECT)
    trackio.init(project, name=run.name, config={**run.config, **run.paths}, embed=False)
    try:
        trackio.log(dict(run.numbers))
    finally:
        trackio.finish()


TRACKERS: Mapping[str, Callable[[TrackedRun], None]] = {
    "mlflow": _mlflow,
    "wandb": _wandb,
    "trackio": _trackio,
}
