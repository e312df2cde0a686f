"""How sure one can be that one arm beats another: resampled gains, contrasts named in advance.

A gain is the share of the untrained model's bits that training saved, 1 - bits / bits before, of
one target; it is averaged over seeds, then over targets. Bits of two targets are never added.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, comb

import numpy as np
from numpy.typing import NDArray

from selection.evaluation.metrics import N_RESAMPLES, Interval

MARGIN = 0.01
"""Gains that differ by less are worth the same: one hundredth of the bits before training."""

FEWEST = 6
"""Of fewer targets no flipped signs reach 5 %, and resamples vary too little to show equality."""

_EXACT = 14

FIRST = "best"
AGAINST = ("random", "length_matched", "bm25", "paper")
"""The contrasts: `best` against each of these, corrected together."""


@dataclass(frozen=True)
class Contrast:
    """The gain of `best` less that of another arm.

    p, p_holm: of flipped signs of targets, alone and corrected for all contrasts together.
    wins, losses, p_sign: targets on which `best` is ahead or behind, and the sign test of them.
    verdict: `ahead`, `behind`, `equivalent` (the interval is within the margin, of FEWEST targets
             or more) or `not distinguishable`.
    n_targets: about how many targets would tell a difference of this size, with a power of 0.8.
    """

    against: str
    difference: Interval
    p: float
    p_holm: float
    wins: int
    losses: int
    p_sign: float
    verdict: str
    n_targets: int | None


def gains_of(bits: NDArray[np.float64], before: NDArray[np.float64]) -> NDArray[np.float64]:
    """(a, t, s) gain of each arm, target and seed.

    bits: (a, t, s, r) of the held-out rows. before: (t, r) of the untrained model.
    """
    whole = np.sum(before, axis=1, keepdims=True)
    return np.asarray(1.0 - np.sum(bits, axis=3) / whole)


def resampled_gains(
    bits: NDArray[np.float64],
    before: NDArray[np.float64],
    n_resamples: int = N_RESAMPLES,
    seed: int = 0,
) -> NDArray[np.float64]:
    """(b, a) mean gains of resampled targets, in each of resampled seeds and rows.

    All arms share what is drawn, so that differences of columns are paired.
    """
    _, n_targets, n_seeds, n_rows = bits.shape
    rng = np.random.default_rng(seed)
    gains = np.empty((n_resamples, len(bits)))
    for resample in range(n_resamples):
        target = rng.integers(0, n_targets, (n_targets,))[:, None, None]
        seeds = rng.integers(0, n_seeds, (n_targets, n_seeds))[:, :, None]
        rows = rng.integers(0, n_rows, (n_targets, n_rows))[:, None, :]
        drawn = bits[:, target, seeds, rows].sum(axis=3)
        gains[resample] = (1.0 - drawn / before[target, rows].sum(axis=2)).mean(axis=(1, 2))
    return gains


def interval(value: float, resampled: NDArray[np.float64]) -> Interval:
    """A value with the 2.5 and 97.5 % points of its resamples."""
    lo, hi = np.quantile(resampled, [0.025, 0.975])
    return Interval(value, float(lo), float(hi))


def gap_closed(
    gains: NDArray[np.float64], random: NDArray[np.float64], oracle: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Share of the way from random rows to random rows of the same task; NaN without a way."""
    way = oracle - random
    return np.divide(gains - random, way, out=np.full_like(gains, np.nan), where=way > 0)


def contrasts_of(
    arms: Sequence[str], gains: NDArray[np.float64], resampled: NDArray[np.float64]
) -> list[Contrast]:
    """The contrasts whose arms are there.

    gains: (a, t, s). resampled: (b, a) of the same arms.
    """
    if FIRST not in arms:
        return []
    others = [name for name in AGAINST if name in arms]
    first, by_target = arms.index(FIRST), gains.mean(axis=2)
    drawn = {name: resampled[:, first] - resampled[:, arms.index(name)] for name in others}
    differences = {name: by_target[first] - by_target[arms.index(name)] for name in others}
    p_values = {name: flip_test(each) for name, each in differences.items()}
    corrected = holm(p_values)
    contrasts = []
    for name in others:
        each = differences[name]
        difference = interval(float(each.mean()), drawn[name])
        wins, losses = int((each > 0).sum()), int((each < 0).sum())
        contrasts.append(
            Contrast(
                name,
                difference,
                p_values[name],
                corrected[name],
                wins,
                losses,
                sign_test(wins, losses),
                verdict(difference, corrected[name], len(each)),
                targets_to_tell(each),
            )
        )
    return contrasts


def verdict(difference: Interval, p: float, n_targets: int) -> str:
    """What an interval and a corrected p value say together."""
    if p <= 0.05:
        return "ahead" if difference.mean > 0 else "behind"
    within = difference.lo > -MARGIN and difference.hi < MARGIN
    return "equivalent" if within and n_targets >= FEWEST else "not distinguishable"


def flip_test(differences: NDArray[np.float64]) -> float:
    """Two-sided probability of so large a mean over targets if each sign were a fair coin's.

    Exact up to _EXACT targets, else of drawn signs. Unlike resamples it knows that two targets
    prove nothing.
    """
    n = len(differences)
    if n <= _EXACT:
        signs = 1 - 2 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)
    else:
        signs = np.random.default_rng(0).choice([-1, 1], (2**_EXACT, n))
        signs[0] = 1  # as it was
    sums, own = np.abs(signs @ differences), abs(differences.sum())
    return float((sums >= own * (1 - 1e-9)).mean())


def sign_test(wins: int, losses: int) -> float:
    """Two-sided probability of so uneven a number of wins by chance; ties are left out."""
    n = wins + losses
    tail = sum(comb(n, k) for k in range(min(wins, losses) + 1)) / 2.0**n
    return min(1.0, 2.0 * tail)


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Holm's step-down correction."""
    corrected: dict[str, float] = {}
    least = 0.0
    for rank, (name, p) in enumerate(sorted(p_values.items(), key=lambda item: item[1])):
        least = max(least, min(1.0, (len(p_values) - rank) * p))
        corrected[name] = least
    return corrected


def targets_to_tell(differences: NDArray[np.float64]) -> int | None:
    """Targets for a power of 0.8 at 5 %, if mean and spread stay; None without a difference."""
    if len(differences) < 2 or not differences.mean():
        return None
    effect = differences.mean() / differences.std(ddof=1) if differences.std(ddof=1) else np.inf
    return max(FEWEST, ceil(((1.96 + 0.842) / effect) ** 2))
