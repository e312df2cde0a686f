"""How much of a selection is relevant, beside its random and BM25 controls, on labelled data.

Run after `saelect run configs/four_targets.yaml`:
    python -m benchmarks.relevance --workspace W --pool pool.parquet --targets targets.jsonl

A pick is relevant when its label's category is the target's (grade 1), its family too (2) or its
task (3). Picks from unlabelled sources are unjudged and left out of the share; their number is
printed. The last line is one JSON object.
"""

import argparse
import json
from pathlib import Path

import polars as pl

from selection.labelled import read_labelled_pool, read_labelled_targets
from storage.sql import run_sql
from storage.workspace import find_workspace


def main() -> None:
    """Print one row per target and method."""
    parser = argparse.ArgumentParser(description="share of relevant picks per target and method")
    parser.add_argument("--workspace", type=Path, required=True)
    parser.add_argument("--pool", type=Path, required=True)
    parser.add_argument("--targets", type=Path, required=True)
    parser.add_argument("--run", default=None, help="name of the run; default: the latest")
    arguments = parser.parse_args()
    pool = read_labelled_pool(arguments.pool)
    picks = picks_of(arguments.workspace, arguments.run)
    result: dict[str, dict[str, dict[str, float]]] = {}
    print(f"{'target':<20} {'method':<8} {'picks':>6} {'unjudged':>8} {'relevant':>8} {'pool':>7}")
    for target in read_labelled_targets(arguments.targets):
        graded = pl.DataFrame({"id": pool.ids, "grade": pool.grades(target)})
        base = share(graded)
        for (method,), chosen in picks.filter(target=target.name).group_by(
            "method", maintain_order=True
        ):
            joined = chosen.join(graded, left_on="own_id", right_on="id", how="left")
            n_unjudged = joined.filter(pl.col("grade") < 0).height
            relevant = share(joined)
            result.setdefault(target.name, {})[str(method)] = {
                "relevant": relevant,
                "picks": chosen.height,
                "unjudged": n_unjudged,
                "pool": base,
            }
            print(
                f"{target.name:<20} {method:<8} {chosen.height:>6} {n_unjudged:>8}"
                f" {relevant:>8.3f} {base:>7.3f}"
            )
    print(json.dumps(result))


def picks_of(workspace: Path, run: str | None) -> pl.DataFrame:
    """target, method and own id of every pick of a run."""
    wanted = (
        "(SELECT run_id FROM run ORDER BY created_at DESC LIMIT 1)"
        if run is None
        else f"(SELECT run_id FROM run WHERE name = '{run}')"
    )
    rows = run_sql(
        find_workspace(workspace),
        "SELECT s.target, s.method, v.own_id FROM selection s JOIN v_selection v"
        f" USING (selection_id) WHERE s.run_id = {wanted} ORDER BY s.selection_id, v.rank",
    )
    return pl.DataFrame(rows.to_pylist(), schema=["target", "method", "own_id"])


def share(graded: pl.DataFrame) -> float:
    """Share of relevant rows among the judged ones."""
    judged = graded.filter(pl.col("grade") >= 0)
    return judged.filter(pl.col("grade") >= 1).height / max(1, judged.height)


if __name__ == "__main__":
    main()
