"""A finished benchmark as rows of the catalog."""

from collections.abc import Iterator

import pyarrow as pa

from flows.benchmark.run import Outcome
from storage.catalog.arrow_rows import to_arrow


def benchmark_rows(outcome: Outcome) -> dict[str, pa.Table]:
    """Catalog table -> rows."""
    head = {
        "benchmark_id": outcome.benchmark_id,
        "created_at": outcome.started,
        "seconds": outcome.seconds,
        "pool": outcome.request.pool,
        "pool_sha256": outcome.pool.sha256,
        "n_rows": len(outcome.pool),
        "n_targets": len(outcome.targets),
        "model": outcome.request.model,
        "sae": outcome.request.sae,
        "methods": {
            method.name: {
                **method.settings,
                "variants": list(method.variants),
                **_cost(outcome, method.name),
            }
            for method in outcome.methods
        },
    }
    return {
        "benchmark": to_arrow("benchmark", [head]),
        "benchmark_result": to_arrow("benchmark_result", _results(outcome)),
        "benchmark_mean": to_arrow("benchmark_mean", _means(outcome)),
    }


def _cost(outcome: Outcome, method: str) -> dict[str, object]:
    """Seconds by setting, of a method that trains a model."""
    by_setting = {
        setting: round(cost[method], 1) for setting, cost in outcome.cost.items() if method in cost
    }
    return {"seconds": by_setting} if by_setting else {}


def _results(outcome: Outcome) -> Iterator[dict[str, object]]:
    for setting, methods in outcome.measured.items():
        standing = {each.method: each.variant for each in outcome.summaries[setting]}
        for method, by_target in methods.items():
            for target in outcome.targets:
                for variant, measures in by_target[target.name].items():
                    yield {
                        "benchmark_id": outcome.benchmark_id,
                        "setting": setting,
                        "method": method,
                        "variant": variant,
                        "target": target.name,
                        "kind": target.kind,
                        "is_chosen": standing[method] in (variant, "mean"),
                        **measures,
                    }


def _means(outcome: Outcome) -> Iterator[dict[str, object]]:
    for setting, summaries in outcome.summaries.items():
        for summary in summaries:
            for kind, interval in summary.ndcg.items():
                behind = summary.behind.get(kind)
                yield {
                    "benchmark_id": outcome.benchmark_id,
                    "setting": setting,
                    "kind": kind,
                    "method": summary.method,
                    "variant": summary.variant,
                    "ndcg": interval.mean,
                    "lo": interval.lo,
                    "hi": interval.hi,
                    "behind_best": behind and behind.mean,
                    "behind_lo": behind and behind.lo,
                    "behind_hi": behind and behind.hi,
                    "best_wins": summary.best_wins.get(kind),
                    "n_targets": outcome.n_of_kind(kind),
                }
