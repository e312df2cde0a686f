"""Results of runs as gains by budget and group of targets, with the contrasts named in advance."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from selection.evaluation.metrics import Interval
from selection.finetuning.statistics import (
    Contrast,
    contrasts_of,
    gains_of,
    gap_closed,
    interval,
    resampled_gains,
)

ZERO, RANDOM, ORACLE = "zero", "random", "oracle"

Result = Mapping[str, Any]
"""One run as its file holds it: target, arm, budget, seed, bits, n_bytes, ..."""


@dataclass(frozen=True)
class ArmGain:
    """One arm over the targets of a group.

    gain:      share of the untrained model's bits that training saved.
    gap:       share of the way from random to oracle rows; None without both.
    exact, right: share of held-out rows, mean over the targets that have the measure.
    forgotten: bits a byte of the general mix, less those of the untrained model; None without one.
    """

    arm: str
    gain: Interval
    gap: Interval | None
    exact: float | None
    right: float | None
    forgotten: float | None
    response_tokens: float


@dataclass(frozen=True)
class GroupSummary:
    """All arms at one budget over one group of targets, most gain first."""

    budget: int
    group: str
    targets: list[str]
    arms: list[ArmGain]
    contrasts: list[Contrast]


def summarize(
    results: Sequence[Result], arms: Sequence[str], groups: Mapping[str, Sequence[str]]
) -> list[GroupSummary]:
    """Every budget and group; a target counts where all arms are measured with all seeds.

    groups: name -> its targets.
    """
    trained = [name for name in arms if name != ZERO]
    known = {(r["target"], r["arm"], r["budget"], r["seed"]): r for r in results}
    seeds = sorted({r["seed"] for r in results if r["arm"] != ZERO})
    summaries = []
    for budget in sorted({r["budget"] for r in results if r["arm"] != ZERO}):
        for group, members in groups.items():
            whole = [
                target
                for target in members
                if (target, ZERO, 0, 0) in known
                and all((target, a, budget, s) in known for a in trained for s in seeds)
            ]
            if whole and trained:
                table = {
                    arm: [[known[target, arm, budget, seed] for seed in seeds] for target in whole]
                    for arm in trained
                }
                zero = [known[target, ZERO, 0, 0] for target in whole]
                summaries.append(_group(budget, group, whole, table, zero))
    return summaries


def _group(
    budget: int,
    group: str,
    targets: list[str],
    table: Mapping[str, Sequence[Sequence[Result]]],
    zero: Sequence[Result],
) -> GroupSummary:
    arms = list(table)
    bits = np.array([[[run["bits"] for run in runs] for runs in table[arm]] for arm in arms])
    before = np.array([run["bits"] for run in zero])
    gains, resampled = gains_of(bits, before), resampled_gains(bits, before)
    means = gains.mean(axis=(1, 2))
    gaps: dict[str, Interval] = {}
    if {RANDOM, ORACLE} <= set(arms):
        low, high = arms.index(RANDOM), arms.index(ORACLE)
        for number, arm in enumerate(arms):
            drawn = gap_closed(resampled[:, number], resampled[:, low], resampled[:, high])
            value = gap_closed(means[[number]], means[[low]], means[[high]])[0]
            if np.isfinite(value) and np.isfinite(drawn).all():
                gaps[arm] = interval(float(value), drawn)
    rows = [
        ArmGain(
            arm,
            interval(float(means[number]), resampled[:, number]),
            gaps.get(arm),
            _share(table[arm], "exact"),
            _share(table[arm], "right"),
            _forgotten(table[arm], zero),
            float(np.mean([run["response_tokens"] for runs in table[arm] for run in runs])),
        )
        for number, arm in enumerate(arms)
    ]
    rows.sort(key=lambda row: -row.gain.mean)
    return GroupSummary(budget, group, targets, rows, contrasts_of(arms, gains, resampled))


def _share(runs: Iterable[Sequence[Result]], name: str) -> float | None:
    """Mean over seeds and rows, then over the targets that have the measure."""
    means = [np.mean([run[name] for run in each]) for each in runs if each[0][name] is not None]
    return float(np.mean(means)) if means else None


def _forgotten(runs: Sequence[Sequence[Result]], zero: Sequence[Result]) -> float | None:
    if zero[0]["general"] is None:
        return None
    pairs = zip(runs, zero, strict=True)
    lost: list[NDArray[np.float64]] = [
        np.mean([run["general"] - before["general"] for run in each]) for each, before in pairs
    ]
    return float(np.mean(lost))


def as_json(summaries: Sequence[GroupSummary], head: Mapping[str, object]) -> dict[str, object]:
    """What the command prints as its last line: budget -> group -> arms and contrasts."""
    budgets: dict[str, dict[str, object]] = {}
    for summary in summaries:
        budgets.setdefault(str(summary.budget), {})[summary.group] = {
            "n_targets": len(summary.targets),
            "arms": {
                row.arm: {
                    "gain": round(row.gain.mean, 4),
                    "lo": round(row.gain.lo, 4),
                    "hi": round(row.gain.hi, 4),
                    "gap_closed": row.gap and round(row.gap.mean, 3),
                }
                for row in summary.arms
            },
            "best_against": {
                each.against: {
                    "difference": round(each.difference.mean, 4),
                    "lo": round(each.difference.lo, 4),
                    "hi": round(each.difference.hi, 4),
                    "p_holm": round(each.p_holm, 4),
                    "p_sign": round(each.p_sign, 4),
                    "verdict": each.verdict,
                }
                for each in summary.contrasts
            },
        }
    return {"budget": budgets, **head}
