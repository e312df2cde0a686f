"""How far down a ranking is still closer to the exemplars than chance: random samples as exemplars.

**Why scores of two sets of exemplars are not compared as they are.** A score depends on the
candidate (long and common samples resemble everything) and on the exemplars (their length, and how
alike they are). So each candidate is its own reference: its closeness to the exemplars is held
against its closeness to random samples of the pool, and it beats them if it is larger than for 95 %
of the draws. Three things make that fair:

* Length: a pseudo-exemplar has about as many entries as the exemplar that it stands for.
* Likeness: the mean over m unrelated samples hardly varies between draws, that over m exemplars of
  one task varies like a single similarity. Against m random samples, a quarter of all unrelated
  candidates would "beat" them. A draw therefore has as many samples as the exemplars are worth,
  m / (1 + (m - 1) r), r being the correlation of their similarities over candidates (the design
  effect of Kish for clustered samples); 1 for exemplars all alike, m for unrelated ones. A maximum
  grows with the number of unrelated samples, so a draw of m is already the stricter test for it.
* Base rate: where a tenth of the pool is of the target task, so is a tenth of random samples, and
  the best candidates could not beat 95 % of them. Pseudo-exemplars are drawn from below the samples
  that held-out exemplars cannot be told from (`held_out.samples_alike`).

One candidate in twenty beats its draws by chance. A ranking is informative down to the rank that
splits it best: before it more than half beat their draws, behind it fewer do.
"""

from math import ceil, exp, floor
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from selection.picking.controls import length_matched, random_scores
from selection.similarity.kernels.reduce import SCORE_BITS

Statistic = Literal["mean", "max"]

LEVEL = 0.95
_SCALE = float(1 << SCORE_BITS)  # Similarities as integers: sums have no order.
PAIRS_LIMIT = (1 << (63 - SCORE_BITS)) - 1
"""Most exemplars times samples of a draw: sums of fixed points, multiplied, stay below 2^63."""
FEWEST_RESAMPLED = 5  # Exemplars that resampling can tell something of.
DEPTH_NOISE = 0.1  # Deviation of ln(depth) that other random samples make, measured.
_STEPS_PER_DOUBLING = 4  # Lengths within a step of 19 % count as equal.


def draw_samples(
    exemplar_sizes: NDArray[np.int64],
    sizes: NDArray[np.int64],
    candidate_ids: list[str],
    n_draws: int,
    seed: int,
) -> NDArray[np.int64]:
    """Random candidates of the exemplars' sizes, taking turns over exemplars, each at most once.

    exemplar_sizes: (m,) entries of the exemplars' vectors. sizes: (c,) those of the candidates.
    Returns (min(n_draws, c),) int64 positions; the t-th stands for exemplar t mod m.
    """
    m, c = len(exemplar_sizes), len(sizes)
    steps = np.log2(np.concatenate([sizes, exemplar_sizes]) + 1.0) * _STEPS_PER_DOUBLING
    is_candidate = np.arange(c + m) < c
    scores = np.zeros(c + m)
    scores[:c] = random_scores(candidate_ids, seed)
    wanted = c + np.arange(n_draws) % m
    return length_matched(wanted, np.rint(steps).astype(np.int64), scores, is_candidate)


def effective_exemplars(own: NDArray[np.float64], drawn: NDArray[np.float64]) -> float:
    """How many unrelated samples the exemplars are worth, in [1, m].

    own: (c, m) similarities of candidates to the exemplars. drawn: (c, b) to random samples, by
    which each candidate's similarities are put on one scale. Their mean over the b samples, taken
    off, adds 1 / b to the variance of a similarity and of a mean alike.
    """
    m, shared = own.shape[1], 1.0 / drawn.shape[1]
    spread = drawn.std(axis=1)
    scaled = (own - drawn.mean(axis=1)[:, None])[spread > 0] / spread[spread > 0][:, None]
    if not len(scaled):
        return float(m)
    of_mean = max(float(scaled.mean(axis=1).var()) - shared, 1e-9)
    return float(np.clip((scaled.var(axis=0).mean() - shared) / of_mean, 1.0, m))


def draw_sets(n_samples: int, size: int, n_sets: int, seed: int) -> NDArray[np.int64]:
    """(n_sets, size) int64, each row different columns of the drawn samples."""
    rng = np.random.default_rng(seed)
    columns = np.tile(np.arange(n_samples), (n_sets, 1))
    return rng.permuted(columns, axis=1)[:, :size]


def closeness(own: NDArray[np.float64], size: int, statistic: Statistic) -> NDArray[np.int64]:
    """(c,) closeness to the exemplars, as `draw_thresholds` of draws of `size` samples state it.

    own: (c, m) similarities to the exemplars. statistic: the largest, or the mean as a sum times
    `size`. Exact.
    """
    return _closeness(_amounts(own), np.ones(own.shape[1], np.int64), size, statistic)


def _closeness(
    amounts: NDArray[np.int64], times: NDArray[np.int64], size: int, statistic: Statistic
) -> NDArray[np.int64]:
    """The same of exemplars that count `times`, (m,), each."""
    if statistic == "max":
        return np.asarray(amounts[:, times > 0].max(axis=1))
    return np.asarray(amounts @ times * size)


def draw_thresholds(
    drawn: NDArray[np.float64],
    sets: NDArray[np.int64],
    n_exemplars: int,
    statistic: Statistic,
    level: float = LEVEL,
) -> NDArray[np.int64]:
    """(c,) closeness that a candidate must exceed to beat `level` of the draws.

    drawn: (c, b) similarities to the samples; sets: (d, k) columns of `drawn` that make a draw. A
    mean of k samples against one of m exemplars: each sum is multiplied by the number of the other.
    Raises ValueError where m k is beyond PAIRS_LIMIT.
    """
    if n_exemplars * sets.shape[1] > PAIRS_LIMIT:
        raise ValueError(f"{n_exemplars} exemplars and draws of {sets.shape[1]} are too many")
    to_samples = _amounts(drawn)
    of_draws = np.zeros((len(drawn), len(sets)), np.int64)
    for column in sets.T:
        if statistic == "max":
            np.maximum(of_draws, to_samples[:, column], out=of_draws)
        else:
            of_draws += to_samples[:, column]
    position = int(np.ceil(level * len(sets))) - 1
    threshold = np.partition(of_draws, position, axis=1)[:, position]
    return threshold if statistic == "max" else threshold * n_exemplars


def near_exemplars(
    own: NDArray[np.float64], drawn: NDArray[np.float64], level: float = LEVEL
) -> NDArray[np.bool_]:
    """Which candidates are closer to which exemplars than to `level` of the samples, (c, m)."""
    to_exemplars, to_samples = _amounts(own), np.sort(_amounts(drawn), axis=1)
    position = int(np.ceil(level * to_samples.shape[1])) - 1
    return np.asarray(to_exemplars > to_samples[:, position, None])


def informative_until(beats: NDArray[np.bool_]) -> int:
    """Rank before which more than half of the candidates beat their draws, and behind it fewer.

    beats: (r,) bool in order of the ranking. The rank k with the largest sum over the first k of
    (1 if it beats, else -1), the smallest such; 0 where even the first ranks do not beat theirs.
    It is the maximum-likelihood position of one change from a rate p to 1 - p.
    """
    walk = np.concatenate([[0], np.cumsum(np.where(beats, 1, -1))])
    return int(np.argmax(walk))


def depth_interval(
    own: NDArray[np.float64],
    thresholds: NDArray[np.int64],
    size: int,
    statistic: Statistic,
    seed: int,
    n_resamples: int = 200,
) -> tuple[int, int] | None:
    """The rank that other exemplars and samples of the kind would give, in 8 of 10 cases.

    own: (r, m) similarities of the examined candidates, thresholds: (r,) as `draw_thresholds`. For
    every resample of the exemplars the candidates are ranked anew. The ends are the depth times and
    divided by exp(4 (1 + 2 / (m - 1)) s); s is the deviation of ln(1 + depth) over resamples, at
    least DEPTH_NOISE. That is wider than Student's interval for the difference of two draws, which
    redraws of real pools leave too often.
    None with fewer than FEWEST_RESAMPLED exemplars.
    """
    m, amounts = own.shape[1], _amounts(own)
    if m < FEWEST_RESAMPLED:
        return None
    rng = np.random.default_rng(seed)
    depths = []
    for _ in range(n_resamples):
        times = np.bincount(rng.integers(0, m, m), minlength=m)
        close = _closeness(amounts, times, size, statistic)
        order = np.argsort(-close, kind="stable")
        depths.append(informative_until(close[order] > thresholds[order]))
    beats = _closeness(amounts, np.ones(m, np.int64), size, statistic) > thresholds
    depth = 1 + informative_until(beats)
    spread = max(float(np.log1p(depths).std()), DEPTH_NOISE)
    factor = exp(4 * (1 + 2 / (m - 1)) * spread)
    return max(0, floor(depth / factor) - 1), ceil(depth * factor) - 1


def _amounts(similarities: NDArray[np.float64]) -> NDArray[np.int64]:
    return np.rint(similarities * _SCALE).astype(np.int64)
