"""The report page of a benchmark by fine-tuning: one plot a target, no script, no request.

Reads the published snapshot only, so the page shows what SQL shows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from operator import itemgetter
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from selection.core.errors import InputError
from storage.catalog.commit import commit_if_writable
from storage.catalog.recorded import reported
from storage.catalog.snapshot import open_snapshot
from storage.export.facts import JsonRow, json_rows
from storage.files.atomic import write_bytes
from storage.files.workspace import Workspace
from storage.report.charts import Tick, nice_ticks
from storage.report.templates import page_environment

_RUNS = "SELECT * FROM finetune WHERE benchmark_id = ? ORDER BY target, arm, budget, seed"
N_RESAMPLES = 2000
UNTRAINED = "zero"


@dataclass(frozen=True, slots=True)
class Range:
    """A mean over targets with its 95 % bootstrap interval over them.

    at, left, width: where it stands in a plot, in percent.
    """

    mean: float
    lo: float
    hi: float
    at: float = 0.0
    left: float = 0.0
    width: float = 0.0


@dataclass(frozen=True, slots=True)
class ArmMeans:
    """One arm at one budget, over the targets that all arms of that budget have.

    ahead: what `best` gains more than this arm, paired by target; None for best and without it.
    others: exact, label_accuracy, general_bits_per_byte and response_tokens; None where none has.
    """

    budget: int
    arm: str
    n_targets: int
    gain: Range
    ahead: Range | None
    others: dict[str, float | None]


@dataclass(frozen=True, slots=True)
class Line:
    """One arm in a plot; path in a box of 100 x 100, y downwards."""

    arm: str
    path: str
    color: str
    is_dashed: bool


@dataclass(frozen=True, slots=True)
class Plot:
    """One target: budget against bits a byte; band: range of random's seeds."""

    target: str
    lines: list[Line]
    band: str
    x_ticks: list[Tick]
    y_ticks: list[Tick]


def write_finetune_report(workspace: Workspace, benchmark_id: str) -> Path:
    """Write `reports/finetune-<id>.html`; returns its path. Raises InputError for no such id."""
    with open_snapshot(workspace) as connection:
        runs = json_rows(connection, _RUNS, [benchmark_id])
    if not runs:
        raise InputError(
            "no such benchmark",
            file=workspace.snapshot,
            value=benchmark_id,
            remedy="`saelect sql 'FROM v_finetune'` lists them.",
        )
    plots = [plot_of(str(name), list(rows)) for name, rows in groupby(runs, itemgetter("target"))]
    groups = groups_of(runs)
    means = next(iter(groups.values()))
    largest = max(each.budget for each in means)
    first, zero = placed([each for each in means if each.budget == largest])
    text = (
        page_environment()
        .get_template("finetune.html.j2")
        .render(
            benchmark_id=benchmark_id,
            head=runs[0],
            groups=groups,
            first=first,
            zero=zero,
            best=next((each for each in first if each.arm == "best"), first[0]),
            random=next((each for each in first if each.arm == "random"), None),
            plots=plots,
            n_runs=sum(run["arm"] != UNTRAINED for run in runs),
        )
    )
    path = workspace.reports / f"finetune-{benchmark_id}.html"
    write_bytes(path, text.encode())
    commit_if_writable(workspace, reported(workspace, path, []))
    return path


def groups_of(runs: Sequence[JsonRow]) -> dict[str, list[ArmMeans]]:
    """Means of new tasks and of those that the model was trained on before, where it is known."""
    groups: dict[str, list[ArmMeans]] = {}
    for name, is_seen in (("new tasks", False), ("tasks of its own training", True)):
        means = means_of([run for run in runs if run["is_seen"] is is_seen])
        if means:
            groups[name] = means
    return groups or {"tasks": means_of(runs)}


def means_of(runs: Sequence[JsonRow]) -> list[ArmMeans]:
    """Means of every budget and arm; the smallest budget first, then the arm that gains most."""
    means: list[ArmMeans] = []
    for budget in sorted({int(str(run["budget"])) for run in runs if run["arm"] != UNTRAINED}):
        cells: dict[tuple[str, str], list[JsonRow]] = {}
        for run in runs:
            if run["budget"] == budget and run["arm"] != UNTRAINED:
                cells.setdefault((str(run["arm"]), str(run["target"])), []).append(run)
        arms = sorted({arm for arm, _ in cells})
        every = sorted({target for _, target in cells})
        targets = [t for t in every if all((arm, t) in cells for arm in arms)]
        if targets:
            means += _of_budget(budget, arms, targets, cells)
    return means


def _of_budget(
    budget: int,
    arms: Sequence[str],
    targets: Sequence[str],
    cells: Mapping[tuple[str, str], Sequence[JsonRow]],
) -> list[ArmMeans]:
    def mean(arm: str, target: str, name: str) -> float:
        return float(np.mean([float(str(run[name])) for run in cells[arm, target]]))

    gains = {arm: np.array([mean(arm, each, "gain") for each in targets]) for arm in arms}
    drawn = np.random.default_rng(0).integers(0, len(targets), (N_RESAMPLES, len(targets)))
    measures = ("exact", "label_accuracy", "general_bits_per_byte", "response_tokens")
    rows = []
    for arm in arms:
        others: dict[str, float | None] = {}
        for name in measures:
            known = [each for each in targets if cells[arm, each][0][name] is not None]
            means = [mean(arm, each, name) for each in known]
            others[name] = float(np.mean(means)) if means else None
        has_ahead = "best" in gains and arm != "best"
        ahead = _range(gains["best"] - gains[arm], drawn) if has_ahead else None
        rows.append(ArmMeans(budget, arm, len(targets), _range(gains[arm], drawn), ahead, others))
    return sorted(rows, key=lambda row: (-row.gain.mean, row.arm))


def _range(values: NDArray[np.float64], drawn: NDArray[np.int64]) -> Range:
    lo, hi = np.quantile(values[drawn].mean(1), [0.025, 0.975])
    return Range(float(values.mean()), float(lo), float(hi))


def placed(rows: Sequence[ArmMeans]) -> tuple[list[ArmMeans], float]:
    """The rows with places in one plot, and the place of 0 in it."""
    low = min(0.0, *(row.gain.lo for row in rows))
    span = max(0.0, *(row.gain.hi for row in rows)) - low or 1.0

    def at(value: float) -> float:
        return round(100 * (value - low) / span, 2)

    gains = [
        replace(row.gain, at=at(row.gain.mean), left=left, width=round(at(row.gain.hi) - left, 2))
        for row in rows
        for left in (at(row.gain.lo),)
    ]
    return [replace(row, gain=gain) for row, gain in zip(rows, gains, strict=True)], at(0.0)


def plot_of(target: str, runs: Sequence[JsonRow]) -> Plot:
    """Lay out the runs of one target; every line begins at the untrained model."""
    by_arm: dict[str, dict[int, list[float]]] = {}
    for run in runs:
        at = by_arm.setdefault(str(run["arm"]), {})
        at.setdefault(int(str(run["budget"])), []).append(float(str(run["bits_per_byte"])))
    zero = by_arm.pop("zero", {})
    values = [value for arm in [*by_arm.values(), zero] for each in arm.values() for value in each]
    budgets = sorted({budget for arm in by_arm.values() for budget in arm})
    y_values = nice_ticks(min(values), max(values))
    most = max([*budgets, 1])

    def point(budget: int, value: float) -> str:
        y = 100 - 100 * (value - y_values[0]) / (y_values[-1] - y_values[0])
        return f"{100 * budget / most:.2f},{y:.2f}"

    lines = []
    for number, (arm, at) in enumerate(sorted(by_arm.items())):
        points = [point(b, sum(v) / len(v)) for b, v in sorted({**zero, **at}.items())]
        hue = round(360 * number / len(by_arm))
        color = "#111" if arm == "best" else f"hsl({hue} 60% 45%)"
        is_dashed = arm in ("random", "length_matched", "oracle")
        lines.append(Line(arm, "M" + " L".join(points), color, is_dashed))
    random = sorted({**zero, **by_arm.get("random", {})}.items())
    edge = [point(b, max(v)) for b, v in random] + [point(b, min(v)) for b, v in random[::-1]]
    band = "M" + " L".join(edge) + " Z" if "random" in by_arm else ""
    low, high = y_values[0], y_values[-1]
    return Plot(
        target,
        lines,
        band,
        [Tick(100 * b / most, f"{b:,}") for b in [0, *budgets]],
        [Tick(100 * (v - low) / (high - low), f"{v:g}") for v in y_values],
    )
