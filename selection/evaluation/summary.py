"""From results per target to means with intervals, differences to `best`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from selection.evaluation.labelled import LabelledTarget
from selection.evaluation.metrics import Interval, bootstrap_mean, nested_mean

BEST = "best"
MEASURES = ("ndcg", "r_precision", "recall_1", "recall_5", "recall_10", "average_precision")

Measured = Mapping[str, Mapping[str, Mapping[str, float]]]
"""Target -> variant -> measure -> value, of one method in one setting."""


class Compared(Protocol):
    """A method under comparison: its variants, and whether the best or their mean counts."""

    @property
    def name(self) -> str:
        """Of the method."""

    @property
    def variants(self) -> Sequence[str]:
        """What is measured."""

    @property
    def choose(self) -> Literal["best", "mean"]:
        """What stands for the method."""


@dataclass(frozen=True)
class MethodSummary:
    """One method in one setting.

    variant:   what stands for the method: the best by mean nDCG over all targets, or `mean` of all.
    n_tried:   variants that it is the best of; 1 where nothing was chosen on these targets.
    nested:    mean nDCG where half of the targets choose the variant that the others measure.
    measures:  measure -> (t,) values, in the order of the targets.
    ndcg:      kind of target (T1, T2, all) -> mean and interval.
    behind:    kind -> nDCG of `best` minus this method's, paired; empty for best and without it.
    best_wins: kind -> share of targets where `best` is strictly ahead.
    best_ties: kind -> share of targets where both have the same nDCG, at the ceiling mostly.
    lost_to:   targets where this method has a higher nDCG than `best`.
    """

    method: str
    variant: str
    n_tried: int
    nested: float
    measures: Mapping[str, NDArray[np.float64]]
    ndcg: Mapping[str, Interval]
    behind: Mapping[str, Interval]
    best_wins: Mapping[str, float]
    best_ties: Mapping[str, float]
    lost_to: tuple[str, ...]


def kinds_of(targets: Sequence[LabelledTarget]) -> dict[str, NDArray[np.bool_]]:
    """Kind -> (t,) its targets; T1 and T2 by the prefix of `kind`, where there are any, and all."""
    masks = {
        kind: np.array([target.kind.startswith(kind) for target in targets])
        for kind in ("T1", "T2")
    }
    present = {kind: mask for kind, mask in masks.items() if mask.any()}
    return present | {"all": np.ones(len(targets), np.bool_)}


def summarize(
    methods: Sequence[Compared], measured: Mapping[str, Measured], targets: Sequence[LabelledTarget]
) -> list[MethodSummary]:
    """All methods of one setting, best mean nDCG first.

    measured: method -> its results for every target.
    """
    kinds = kinds_of(targets)
    chosen = {method.name: _chosen(method, measured[method.name], targets) for method in methods}
    best = chosen[BEST][1]["ndcg"] if BEST in chosen else None
    summaries = []
    for method in methods:
        variant, measures, n_tried, nested = chosen[method.name]
        ndcg = measures["ndcg"]
        behind: dict[str, Interval] = {}
        wins: dict[str, float] = {}
        ties: dict[str, float] = {}
        lost: tuple[str, ...] = ()
        if best is not None and method.name != BEST:
            behind = {kind: bootstrap_mean((best - ndcg)[mask]) for kind, mask in kinds.items()}
            wins = {kind: float((best > ndcg)[mask].mean()) for kind, mask in kinds.items()}
            ties = {kind: float((best == ndcg)[mask].mean()) for kind, mask in kinds.items()}
            lost = tuple(t.name for t, ahead in zip(targets, ndcg > best, strict=True) if ahead)
        means = {kind: bootstrap_mean(ndcg[mask]) for kind, mask in kinds.items()}
        summaries.append(
            MethodSummary(
                method.name, variant, n_tried, nested, measures, means, behind, wins, ties, lost
            )
        )
    return sorted(summaries, key=lambda summary: (-summary.ndcg["all"].mean, summary.method))


def _chosen(
    method: Compared, measured: Measured, targets: Sequence[LabelledTarget]
) -> tuple[str, dict[str, NDArray[np.float64]], int, float]:
    """The variant that stands for the method, its values per measure, n_tried and nested."""
    values = {
        variant: {
            name: np.array([measured[target.name][variant][name] for target in targets])
            for name in MEASURES
        }
        for variant in method.variants
    }
    if method.choose == "mean":
        stacked = {
            name: np.mean([values[variant][name] for variant in method.variants], axis=0)
            for name in MEASURES
        }
        return "mean", stacked, 1, float(stacked["ndcg"].mean())
    variant = max(method.variants, key=lambda each: values[each]["ndcg"].mean())
    nested = nested_mean(np.array([values[each]["ndcg"] for each in method.variants]))
    return variant, values[variant], len(method.variants), nested


def as_json(
    summaries: Mapping[str, Sequence[MethodSummary]],
    model: str,
    pool_sha256: str,
    n_targets: int,
    cost: Mapping[str, Mapping[str, float]],
) -> dict[str, object]:
    """What the command prints as its last line.

    cost: setting -> method -> seconds, of methods that train a model; it stands beside theirs.
    """
    settings: dict[str, dict[str, dict[str, object]]] = {}
    for setting, methods in summaries.items():
        for summary in methods:
            seconds = cost[setting].get(summary.method)
            for kind, interval in summary.ndcg.items():
                settings.setdefault(setting, {}).setdefault(kind, {})[summary.method] = {
                    "ndcg": round(interval.mean, 4),
                    "lo": round(interval.lo, 4),
                    "hi": round(interval.hi, 4),
                    **({} if seconds is None else {"seconds": round(seconds, 1)}),
                }
    return {
        "setting": settings,
        "model": model,
        "pool_sha256": pool_sha256,
        "n_targets": n_targets,
    }
