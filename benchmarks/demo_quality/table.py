"""Figures of many methods to a table for people and a record for programs."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.demo_quality.scoring import PRESET, SAE_NAMES, Figures
from selection.evaluation import bootstrap_mean

KINDS = ("T1", "T2", "all")
TFIDF, DENSE, RANDOM = "TF-IDF centroid", "dense mean", "random weights"


def summary(
    figures: Mapping[str, Figures], names: Sequence[str], kinds: Sequence[str]
) -> dict[str, Any]:
    """Means by method and kind with intervals, differences of method pairs, and who loses where.

    names, kinds: of the targets, in the figures' order.
    """
    methods = {
        method: {
            **{kind: _mean(found.all_rows, kinds, kind) for kind in KINDS},
            **{f"{kind} unseen": _mean(found.unseen, kinds, kind) for kind in KINDS},
            "targets": dict(zip(names, _rounded(found.all_rows), strict=True)),
        }
        for method, found in figures.items()
    }
    return {"methods": methods, "differences": differences(figures, names, kinds)}


def differences(
    figures: Mapping[str, Figures], names: Sequence[str], kinds: Sequence[str]
) -> dict[str, Any]:
    """Paired differences of the pairs that decide, with the targets that the first one loses."""
    found = {}
    for better, worse in _pairs(figures):
        gaps = np.array(figures[better].all_rows) - np.array(figures[worse].all_rows)
        found[f"{better} - {worse}"] = {
            **{kind: _interval(gaps[of_kind(kinds, kind)]) for kind in KINDS},
            "lost": {names[i]: round(float(gaps[i]), 4) for i in np.argsort(gaps) if gaps[i] < 0},
        }
    return found


def of_kind(kinds: Sequence[str], kind: str) -> NDArray[np.bool_]:
    """Which targets are of a kind; "all" is every one."""
    return np.array([kind == "all" or own.startswith(kind) for own in kinds])


def best_sae(figures: Mapping[str, Figures]) -> str | None:
    """The SAE combination with the highest mean over all targets."""
    tried = [name for name in SAE_NAMES if name in figures]
    return max(tried, key=lambda name: float(np.mean(figures[name].all_rows)), default=None)


def _pairs(figures: Mapping[str, Figures]) -> list[tuple[str, str]]:
    best = best_sae(figures)
    wanted = [(DENSE, TFIDF), (best, DENSE), (best, TFIDF), (PRESET, DENSE), (DENSE, "BM25 mean")]
    pairs = [(a, b) for a, b in wanted if a is not None]
    return list(dict.fromkeys((a, b) for a, b in pairs if a in figures and b in figures))


def _mean(values: Sequence[float], kinds: Sequence[str], kind: str) -> dict[str, float]:
    return _interval(np.array(values)[of_kind(kinds, kind)])


def _interval(values: np.ndarray[Any, Any]) -> dict[str, float]:
    """Mean and interval, rounded; NaN where there is no target of a kind."""
    if not len(values):
        return dict.fromkeys(("mean", "lo", "hi"), float("nan"))
    found = bootstrap_mean(values)
    rounded = _rounded((found.mean, found.lo, found.hi))
    return dict(zip(("mean", "lo", "hi"), rounded, strict=True))


def _rounded(values: Sequence[float]) -> list[float]:
    return [round(float(value), 4) for value in values]


def _shown(kind: str, found: Mapping[str, float]) -> str:
    return f"{kind} {found['mean']:+.3f} [{found['lo']:+.3f}, {found['hi']:+.3f}]"


def lines(result: Mapping[str, Any], title: str) -> list[str]:
    """A table: a line a method, then a line a pair and the targets that its first method loses."""
    columns = [*KINDS, *(f"{kind} unseen" for kind in KINDS)]
    text = [title, f"{'mean nDCG@1000':<34}" + "".join(f"{column:>12}" for column in columns)]
    for method, found in result["methods"].items():
        cells = "".join(f"{found[column]['mean']:>12.3f}" for column in columns)
        text.append(f"{method:<34}{cells}")
    for pair, found in result["differences"].items():
        gaps = [_shown(kind, found[kind]) for kind in KINDS]
        lost = ", ".join(f"{name} {gap:+.3f}" for name, gap in found["lost"].items())
        text += [f"{pair}: {'; '.join(gaps)}", f"    loses {lost or 'no target'}"]
    return text
