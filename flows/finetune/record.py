"""A finished benchmark as rows of the catalog, one a run."""

from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from flows.finetune.run import FinetuneOutcome
from flows.finetune.selections import outcome_rows
from selection.finetuning.summary import ZERO
from storage.catalog.arrow_rows import to_arrow


def finetune_rows(outcome: FinetuneOutcome) -> dict[str, pa.Table]:
    """Catalog table -> rows; outcomes of selections only where something was measured anew."""
    runs = list(run_rows(outcome))
    rows = {"finetune": to_arrow("finetune", runs)}
    if outcome.n_made and outcome.selections:
        recorded = {"trainee": outcome.request.trainee, "recorded_at": outcome.started}
        measured = outcome_rows(runs, outcome.selections)
        rows["outcome"] = to_arrow("outcome", ({**row, **recorded} for row in measured))
    return rows


def run_rows(outcome: FinetuneOutcome) -> Iterator[dict[str, Any]]:
    """A row of the table `finetune` for every run; gain: of its own rows' bits, what it saved."""
    kinds = {target.name: target.kind for target in outcome.targets}
    is_unknown = outcome.request.exclude is None
    before = {r["target"]: sum(r["bits"]) for r in outcome.results if r["arm"] == ZERO}
    for run in outcome.results:
        yield {
            "benchmark_id": outcome.benchmark_id,
            "created_at": outcome.started,
            "pool": outcome.request.pool,
            "trainee": outcome.request.trainee,
            "tune": outcome.request.tune,
            "setting": outcome.request.setting,
            "target": run["target"],
            "kind": kinds[run["target"]],
            "is_seen": None if is_unknown else run["target"] in outcome.seen,
            "arm": run["arm"],
            "budget": run["budget"],
            "seed": run["seed"],
            "n_rows": run["n_rows"],
            "response_tokens": run["response_tokens"],
            "bits_per_byte": sum(run["bits"]) / max(sum(run["n_bytes"]), 1),
            "gain": 1 - sum(run["bits"]) / before[run["target"]],
            "exact": _mean(run["exact"]),
            "label_accuracy": _mean(run["right"]),
            "general_bits_per_byte": run["general"],
            "seconds": sum(run["seconds"].values()),
        }


def _mean(flags: list[int] | None) -> float | None:
    return sum(flags) / len(flags) if flags else None
