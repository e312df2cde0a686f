r"""How well the label-free check of a run tells what labels tell.

    python -m benchmarks.label_free --pool pool.parquet --targets targets.jsonl \
        --subpool ids.txt --workspace DIR

One ordinary run of the preset `best` over the labelled rows and all targets (setting full), twice
with other seeds; labels are used for the comparison only. With `--redraws N` instead: exemplars are
drawn N times for every task from its labelled rows, and pools are made of known numbers of other
rows of it: how often intervals hold the truth, and how often what is said is right. The last line
is one JSON object.
"""

import argparse
import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from benchmarks.support.redraws import LabelledVectors, Redraw, labelled_vectors, redraws
from flows.benchmark.methods import find_methods
from flows.benchmark.setting import BenchPool
from flows.config.data import UnderTest
from flows.config.rules import BudgetConfig
from flows.orchestration.prefect_server import start_prefect
from flows.orchestration.progress import for_terminal, listening
from flows.select_data import select_data
from selection.evaluation.labelled import read_labelled_pool, read_labelled_targets
from selection.evaluation.metrics import TOP_GRADE, UNJUDGED
from selection.evaluation.ranking_depth import RankingDepth
from storage.catalog.snapshot import open_snapshot
from storage.files.workspace import open_workspace

BUDGET = 1000


@dataclass(frozen=True)
class Answer:
    """What the check said of one target, and what the labels say.

    alike, lo, hi: estimated samples as close as the exemplars are to each other, its interval,
                   None where the exemplars are too few for one.
    of_task:       samples of the target's own tasks.
    until:         rank that the check calls informative; split: the best one by labels.
    before, behind: share of relatives before `until`, and in as many ranks behind it.
    above_bm25:    whether held-out exemplars stand higher than by BM25.
    """

    target: str
    kind: str
    alike: float
    lo: float | None
    hi: float | None
    of_task: int
    until: int
    split: int
    before: float
    behind: float
    above_bm25: bool


def best_split(is_relative: NDArray[np.bool_]) -> int:
    """Rank before which relatives outnumber the others by most; 0 where they never do.

    is_relative: (n,) in ranked order.
    """
    lead = np.concatenate([[0], np.cumsum(np.where(is_relative, 1, -1))])
    return int(lead.argmax())


def share(values: NDArray[np.bool_]) -> float:
    """Share of true values; NaN of none."""
    return float(values.mean()) if len(values) else float("nan")


def answers_of(bench: BenchPool, seed: int) -> list[Answer]:
    """One run over all targets of a labelled pool, held against the labels."""
    [method] = find_methods(["best"], UnderTest())
    assert method.config is not None
    bench.prepared  # noqa: B018 - writes the files that the run reads
    bench.exemplars  # noqa: B018 - computed before the clock starts
    name = f"label-free-{seed}"
    changed = {"budget": BudgetConfig(examples=BUDGET), "name": name, "seed": seed, "controls": ()}
    config = bench.configured(method.config).model_copy(update=changed)
    results = select_data(config, str(bench.workspace.root), run_name=name)
    row_of_example = np.full(bench.prepared.n_examples, -1, np.int64)
    rows = np.arange(len(bench.pool))
    row_of_example[bench.example_of_row[rows]] = rows
    return [
        _answer(bench, str(result["selection_id"]), str(result["target"]), row_of_example)
        for result in results
    ]


def _answer(
    bench: BenchPool, selection_id: str, name: str, row_of_example: NDArray[np.int64]
) -> Answer:
    target = next(each for each in bench.targets if each.name == name)
    with open_snapshot(bench.workspace) as connection:
        rows = connection.execute(
            "SELECT own.n_close, own.n_close_lo, own.n_close_hi, own.depth,"
            " own.percentile > words.percentile FROM held_out_check own"
            " JOIN held_out_check words USING (selection_id, target)"
            " WHERE own.method = 'jaccard' AND words.method = 'bm25' AND selection_id = ?",
            [selection_id],
        ).fetchall()
    [(alike, lo, hi, until, above)] = rows
    table = pq.read_table(bench.workspace.scores / f"{selection_id}.parquet")
    order = np.argsort(table["score_rank"].to_numpy())
    grades = bench.pool.grades(target)[row_of_example[table["example_row"].to_numpy()[order]]]
    is_relative, judged = grades > 0, grades > UNJUDGED
    behind = slice(until, 2 * until)
    return Answer(
        name,
        target.kind[:2],
        alike,
        lo,
        hi,
        int((grades == TOP_GRADE).sum()),
        int(until),
        best_split(is_relative),
        share(is_relative[:until][judged[:until]]),
        share(is_relative[behind][judged[behind]]),
        bool(above),
    )


def summary(answers: Sequence[Answer]) -> dict[str, object]:
    """Figures over targets; errors are factors, 1 is none."""
    inside = [each for each in answers if each.of_task]
    absent = [each for each in answers if not each.of_task]
    ratios = np.array([max(each.alike, 1.0) / each.of_task for each in inside])
    factors = np.exp(np.abs(np.log(ratios)))
    holds = [
        each.lo <= each.of_task <= each.hi
        for each in inside
        if each.lo is not None and each.hi is not None
    ]
    depths = [np.log((a.until + 1) / (a.split + 1)) for a in answers if a.split or a.until]
    return {
        "targets": len(answers),
        "median_ratio": round(float(np.median(ratios)), 3),
        "median_factor": round(float(np.median(factors)), 3),
        "intervals_that_hold": f"{sum(holds)} of {len(holds)}",
        "estimates_where_absent": sorted(round(each.alike) for each in absent),
        "median_factor_of_depth": round(float(np.exp(np.median(np.abs(depths)))), 3),
        "depths_off_by_more_than_3": int((np.abs(depths) > np.log(3)).sum()),
        "share_before": round(float(np.nanmedian([each.before for each in answers])), 3),
        "share_behind": round(float(np.nanmedian([each.behind for each in answers])), 3),
        "above_bm25": f"{sum(each.above_bm25 for each in answers)} of {len(answers)}",
    }


EXEMPLARS = (2, 3, 5, 8)
POOLS = ((0, 1400), (10, 1400), (60, 1400), (60, 120), (60, 60))
"""Rows of the task, and all rows of the pool."""


def measure_redraws(made: LabelledVectors, n_draws: int) -> dict[str, dict[str, float | None]]:
    """Rates over draws, by numbers of exemplars and rows; None where nothing is said."""
    rates: dict[str, dict[str, float | None]] = {}
    print("exemplars, of the task, pool: draws; estimate; holds; absent; full; depth; holds next")
    for n, n_pool in POOLS:
        for m in EXEMPLARS:
            drawn = list(redraws(made, m, n, n_pool, n_draws, seed=m))
            depths = [each.depth for each in drawn if each.depth is not None]
            row = {
                "draws": float(len(drawn)),
                "estimate": float(np.median([each.alike.median for each in drawn])),
                "holds": _mean([each.holds for each in drawn if each.holds is not None]),
                "says_absent": _mean([each.says_absent for each in drawn]),
                "may_be_full": _mean([each.may_be_full for each in drawn]),
                "depth": float(np.median([each.depth for each in depths])) if depths else None,
                "depth_holds_the_next": _mean(_holds_the_next(drawn)),
            }
            rates[f"{m} exemplars, {n} of {n_pool}"] = row
            cells = ["-" if value is None else f"{value:.3g}" for value in row.values()]
            print(f"{m:3} {n:4} {n_pool:6}: {'; '.join(cells)}", flush=True)
    return rates


def _holds_the_next(drawn: Sequence[Redraw]) -> list[bool]:
    """Whether each interval of the depth holds the depth of another draw for the same task."""
    holds = []
    by_task: dict[int, list[RankingDepth]] = {}
    for each in drawn:
        if each.depth is not None and not each.may_be_full:
            by_task.setdefault(each.task, []).append(each.depth)
    for depths in by_task.values():
        for one, other in itertools.pairwise(depths):
            if one.depth_lo is not None and one.depth_hi is not None:
                holds.append(one.depth_lo <= other.depth <= one.depth_hi)
    return holds


def _mean(values: Sequence[bool]) -> float | None:
    return round(float(np.mean(values)), 3) if values else None


def main() -> None:
    """Run, print a table for each seed and the summaries."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pool", required=True, help="labelled pool, Parquet")
    parser.add_argument("--targets", required=True, help="target tasks, JSON lines")
    parser.add_argument("--subpool", help="ids of the rows to run on")
    parser.add_argument("--workspace", type=Path, required=True)
    parser.add_argument("--redraws", type=int, default=0, help="draws of exemplars for every task")
    arguments = parser.parse_args()
    pool = read_labelled_pool(arguments.pool, arguments.subpool)
    targets = read_labelled_targets(arguments.targets)
    if arguments.redraws:
        made = labelled_vectors(
            pool, targets, arguments.workspace / "redraws", n_others=1600, seed=0
        )
        print(json.dumps(measure_redraws(made, arguments.redraws)))
        return
    workspace = open_workspace(arguments.workspace)
    bench = BenchPool(pool, targets, "full", workspace, UnderTest())
    start_prefect()()
    by_seed = {}
    for seed in (0, 1):
        with listening(for_terminal()):
            answers = answers_of(bench, seed)
        print(f"\nseed {seed}: target, kind; alike [interval], of the task; rank, best by labels")
        for each in answers:
            print(
                f"{each.target:28}{each.kind}{each.alike:9,.0f}"
                f" [{each.lo or 0:,.0f}, {each.hi or 0:,.0f}]"
                f"{each.of_task:8,}{each.until:9,}{each.split:8,}"
            )
        by_seed[f"seed {seed}"] = summary(answers)
    print(json.dumps(by_seed))


if __name__ == "__main__":
    main()
