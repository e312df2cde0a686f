"""The report page of a benchmark by fine-tuning: one plot a target, no script, no request.

Reads the published snapshot only, so the page shows what SQL shows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path

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
_MEANS = """
SELECT budget, arm, count(DISTINCT target) AS n_targets, avg(gain) AS gain,
    avg(response_tokens) AS response_tokens, avg(exact) AS exact,
    avg(label_accuracy) AS label_accuracy, avg(general_bits_per_byte) AS general
FROM v_finetune WHERE benchmark_id = ? GROUP BY budget, arm ORDER BY budget, gain DESC, arm"""


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
        means = json_rows(connection, _MEANS, [benchmark_id])
    if not runs:
        raise InputError(
            "no such benchmark",
            file=workspace.snapshot,
            value=benchmark_id,
            remedy="`saelect sql 'FROM v_finetune'` lists them.",
        )
    plots = [plot_of(str(name), list(rows)) for name, rows in groupby(runs, itemgetter("target"))]
    text = (
        page_environment()
        .get_template("finetune.html.j2")
        .render(benchmark_id=benchmark_id, head=runs[0], means=means, plots=plots, runs=runs)
    )
    path = workspace.reports / f"finetune-{benchmark_id}.html"
    write_bytes(path, text.encode())
    commit_if_writable(workspace, reported(workspace, path, []))
    return path


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
