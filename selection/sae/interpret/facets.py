"""Which source, language or other label a latent prefers: lift over the pool. Numpy only."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MIN_SAMPLES = 5


@dataclass(frozen=True, slots=True)
class Facets:
    """The label that each of M latents prefers most.

    label: (M,) int64 index into `names`, -1 where no label has enough samples with the latent.
    share: (M,) float64 of the samples with the latent, the part with that label.
    lift:  (M,) float64 that part over the label's part of all samples; 1 means no preference.
    n:     (M,) int64 samples on which the latent is active.
    names: labels, ascending.
    """

    label: NDArray[np.int64]
    share: NDArray[np.float64]
    lift: NDArray[np.float64]
    n: NDArray[np.int64]
    names: tuple[str, ...]


class FacetCounts:
    """Counts over samples that come in batches; a sample's tokens must come in one batch."""

    def __init__(self, n_latents: int, labels: Sequence[str]) -> None:
        """labels: one for each sample; "" where there is none."""
        names, self._of_sample = np.unique(np.array(labels, dtype=np.str_), return_inverse=True)
        self.names = tuple(str(name) for name in names)
        self._seen = np.zeros(len(names), np.int64)
        self._active = np.zeros((n_latents, len(names)), np.int64)

    def add(
        self,
        top_acts: NDArray[np.float32],
        top_indices: NDArray[np.integer],
        samples: NDArray[np.integer],
    ) -> None:
        """Take in t tokens: (t, k) latents as `encode` gives them, (t,) sample of each token."""
        self._seen += np.bincount(self._of_sample[np.unique(samples)], minlength=len(self.names))
        token, slot = np.nonzero(top_acts > 0)
        n_latents = len(self._active)
        keys = samples[token].astype(np.int64) * n_latents + top_indices[token, slot]
        sample, latent = np.divmod(np.unique(keys), n_latents)
        np.add.at(self._active, (latent, self._of_sample[sample]), 1)

    def facets(self, min_samples: int = MIN_SAMPLES) -> Facets:
        """The most lifted label of each latent, among those with `min_samples` active samples.

        Ties go to the label that comes first. Samples without a label count in the totals alone.
        """
        n = self._active.sum(axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            share = self._active / n[:, None]
            lift = share * self._seen.sum() / self._seen
        enough = (self._active >= min_samples) & (np.array(self.names) != "")
        best = np.where(enough, lift, -1.0)
        label = best.argmax(axis=1)
        rows, none = np.arange(len(n)), ~enough.any(axis=1)
        return Facets(
            np.where(none, -1, label),
            np.where(none, 0.0, share[rows, label]),
            np.where(none, 0.0, lift[rows, label]),
            n,
            self.names,
        )
