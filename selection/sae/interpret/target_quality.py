"""How much of what tells a target's exemplars from random samples an SAE's latents carry.

After Makelov, Lange and Nanda (arXiv 2405.08366): what supervision finds in the activations bounds
what a dictionary of them can give. Everything is of means over a sample's content tokens, and every
score is of samples that neither the direction nor the choice of latents has seen.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from selection.activations.batching import iter_activations
from selection.activations.model import ActivationModel
from selection.models.hookpoints import Hookpoint
from selection.records import Rendered
from selection.sae.coder import SparseCoder
from selection.sae.encode import encode, reconstruct

Floats = NDArray[np.float64]

COUNTS = (1, 4, 16)
_RIDGE = 1.0  # in units of the mean eigenvalue of the standardized samples' products
_MOST_FOLDS = 10
_NORMAL_95 = 1.96  # standard deviations of a normal distribution that hold 95 % of it


@dataclass(frozen=True, slots=True)
class TargetQuality:
    """One target: exemplars against a draw of the pool, held out fold by fold.

    probe_auc:    chance that a ridge discriminant on the activations scores an exemplar above a
                  drawn sample; ties count half. The bound for the latents.
    latents_auc:  number of latents -> the same on these alone, the best of the other folds.
    kept:         share of the separation along the discriminant that reconstructions keep; None
                  where there are none, or nothing is separated.
    best:         columns of the latents that are best on all samples, best first.
    """

    n_exemplars: int
    n_drawn: int
    probe_auc: float
    latents_auc: Mapping[int, float]
    kept: float | None
    best: Sequence[int]

    def share(self, n_latents: int) -> float | None:
        """How far these latents come from chance (0) to the probe (1); None without a way."""
        way = self.probe_auc - 0.5
        return (self.latents_auc[n_latents] - 0.5) / way if way > 0 else None

    def interval(self, auc: float) -> tuple[float, float]:
        """95 % interval of an AUC of this target: Wilson's, each exemplar a trial.

        It is wide rather than narrow: the share of samples that an exemplar stands above lies
        within 0 and 1, and varies most where it is one of the two, as a trial is.
        """
        n, z2 = self.n_exemplars, _NORMAL_95**2
        middle, spread = auc + z2 / (2 * n), (auc * (1 - auc) / n + z2 / (4 * n * n)) ** 0.5
        half, scale = _NORMAL_95 * spread, 1 + z2 / n
        return (middle - half) / scale, (middle + half) / scale


@dataclass(frozen=True, slots=True)
class Pooled:
    """Means over the content tokens of n samples.

    activations, reconstructions: (n, d_model) float64; the latter None for a transcoder.
    latents: (n, a) float32 of those that are active anywhere; numbers: (a,) which these are.
    """

    activations: Floats
    reconstructions: Floats | None
    latents: NDArray[np.float32]
    numbers: NDArray[np.int64]

    def quality(self, exemplars: NDArray[np.int64], drawn: NDArray[np.int64]) -> TargetQuality:
        """Of some rows against others."""
        rows, recon = np.concatenate([exemplars, drawn]), self.reconstructions
        return target_quality(
            self.activations[rows],
            self.latents[rows],
            None if recon is None else recon[rows],
            np.arange(len(rows)) < len(exemplars),
        )


def pool_samples(
    samples: Sequence[Rendered],
    model: ActivationModel,
    coder: SparseCoder,
    hookpoint: Hookpoint,
    tokens_per_batch: int | None = None,
) -> Pooled:
    """One pass over samples, each of which has content tokens."""
    index, coder = model.hookpoints.index(hookpoint), coder.to(model.device)
    means = np.zeros((2, len(samples), coder.info.d_in))
    parts: list[tuple[NDArray[np.int64], NDArray[np.int64], Floats]] = []
    for batch in iter_activations(model, samples, tokens_per_batch):
        x = batch.at(index)
        top = encode(coder, x)
        first = np.searchsorted(batch.sample_of_token, np.arange(len(batch.rows)))
        n_tokens = np.diff(np.append(first, len(batch.sample_of_token)))
        each = (x,) if coder.info.is_transcoder else (x, reconstruct(coder, top, x))
        for mean, values in zip(means, each, strict=False):
            sums = np.add.reduceat(values.double().cpu().numpy(), first)
            mean[batch.rows] = sums / n_tokens[:, None]
        acts, indices = top.top_acts.cpu().numpy(), top.top_indices.cpu().numpy()
        token, slot = np.nonzero(acts > 0)
        owner = batch.sample_of_token[token]
        keys = owner * coder.info.num_latents + indices[token, slot]
        keys, at = np.unique(keys, return_inverse=True)
        owner, latents = np.divmod(keys, coder.info.num_latents)
        sums = np.bincount(at, acts[token, slot].astype(np.float64), len(keys))
        parts.append((batch.rows[owner], latents, sums / n_tokens[owner]))
    rows, latents, values_ = (np.concatenate(column) for column in zip(*parts, strict=True))
    numbers, column = np.unique(latents, return_inverse=True)
    dense = np.zeros((len(samples), len(numbers)), np.float32)
    dense[rows, column] = values_
    return Pooled(means[0], None if coder.info.is_transcoder else means[1], dense, numbers)


def target_quality(
    activations: Floats,
    latents: NDArray[np.floating],
    reconstructions: Floats | None,
    is_exemplar: NDArray[np.bool_],
    counts: Sequence[int] = COUNTS,
) -> TargetQuality:
    """Measure exemplars against the other rows; one exemplar is held out at a time, up to ten.

    activations, reconstructions: (n, d); latents: (n, a). Rows must be in random order within
    each class: they are dealt to the folds in turn. Raises ValueError for fewer than two of a kind.
    """
    n_exemplars, n_drawn = int(is_exemplar.sum()), int((~is_exemplar).sum())
    if min(n_exemplars, n_drawn) < 2:
        raise ValueError("there must be at least two exemplars and two other samples")
    probe, kept = list[Floats](), np.zeros(2)
    of_latents: dict[int, list[Floats]] = {count: [] for count in counts}
    for held in _folds(is_exemplar):
        seen, truth = ~held, is_exemplar[held]
        direction = discriminant(activations[seen], is_exemplar[seen])
        scores = activations[held] @ direction
        probe.append(_above(scores, truth))
        if reconstructions is not None:
            both = np.stack([reconstructions[held] @ direction, scores])
            kept += both[:, truth].mean(1) - both[:, ~truth].mean(1)
        order = best_latents(latents[seen], is_exemplar[seen])
        for count, wins in of_latents.items():
            chosen = latents[:, order[:count]].astype(np.float64)
            weights = discriminant(chosen[seen], is_exemplar[seen])
            wins.append(_above(chosen[held] @ weights, truth))
    return TargetQuality(
        n_exemplars,
        n_drawn,
        float(np.concatenate(probe).mean()),
        {count: float(np.concatenate(wins).mean()) for count, wins in of_latents.items()},
        float(kept[0] / kept[1]) if reconstructions is not None and kept[1] > 0 else None,
        best_latents(latents, is_exemplar)[: max(counts)].tolist(),
    )


def discriminant(x: Floats, is_exemplar: NDArray[np.bool_]) -> Floats:
    """Direction (d,) of x (n, d) that tells exemplars from the rest: ridge on standardized columns.

    That is Fisher's discriminant with a shrunken scatter; with a single column it is its sign and
    size. Computed by the n x n products, as there are far fewer samples than columns.
    """
    deviation = x.std(0)
    varies = deviation > 1e-9 * np.abs(x).max(0)  # a constant column says nothing
    scale = np.where(varies, deviation, np.inf)
    z = (x - x.mean(0)) / scale
    width = max(1, int(varies.sum()))
    products = z @ z.T / width + _RIDGE * np.eye(len(z))
    weights: Floats = z.T @ np.linalg.solve(products, is_exemplar - is_exemplar.mean()) / scale
    return weights


def best_latents(
    latents: NDArray[np.floating], is_exemplar: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """All columns, best first: difference of the class means over the deviation within classes."""
    ours, others = (latents[kind].astype(np.float64) for kind in (is_exemplar, ~is_exemplar))
    difference = np.abs(ours.mean(0) - others.mean(0))
    within = np.sqrt((ours.var(0) * len(ours) + others.var(0) * len(others)) / len(latents))
    with np.errstate(divide="ignore", invalid="ignore"):
        effect = np.where(difference > 0, difference / within, 0.0)
    return np.argsort(-effect, kind="stable")


def _folds(is_exemplar: NDArray[np.bool_]) -> Iterator[NDArray[np.bool_]]:
    """Rows to hold out together, each row once: both classes are dealt in turn."""
    n_folds = min(int(is_exemplar.sum()), int((~is_exemplar).sum()), _MOST_FOLDS)
    number = np.where(is_exemplar, np.cumsum(is_exemplar), np.cumsum(~is_exemplar)) % n_folds
    return (number == fold for fold in range(n_folds))


def _above(scores: Floats, is_exemplar: NDArray[np.bool_]) -> Floats:
    """For every pair of an exemplar and another row: 1 where it scores more, 0.5 for a tie."""
    gaps = scores[is_exemplar][:, None] - scores[~is_exemplar][None, :]
    return (np.sign(gaps).ravel() + 1) / 2
