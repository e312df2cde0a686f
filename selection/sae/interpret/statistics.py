"""What activates a latent: its tokens, its density, the tokens on which it is strongest.

Numpy only. Nothing here is an explanation: a latent's top tokens and examples are hints, and are
shown as such.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

_PENDING = 1 << 22  # (latent, token) pairs that wait to be added up


@dataclass(frozen=True, slots=True)
class LatentProfile:
    """What M latents did on some text; lists are strongest first and end with -1 where short.

    n_tokens:       counted tokens that were seen.
    density:        (M,) float64 share of them on which the latent is active.
    max_act:        (M,) float32 largest value.
    tokens:         (M, a) int64 token ids with the largest sum of values, ties to the smaller id.
    token_share:    (M, a) float64 part of the latent's whole sum on that token.
    token_lift:     (M, a) float64 that part over the token's part of all counted tokens: 1 means
                    the latent does not care.
    samples:        (M, b) int64 samples with the largest values, each once, ties to the smaller.
    positions:      (M, b) int64 which of the sample's counted tokens it is, from 0.
    acts:           (M, b) float32 the value there.
    """

    n_tokens: int
    density: NDArray[np.float64]
    max_act: NDArray[np.float32]
    tokens: NDArray[np.int64]
    token_share: NDArray[np.float64]
    token_lift: NDArray[np.float64]
    samples: NDArray[np.int64]
    positions: NDArray[np.int64]
    acts: NDArray[np.float32]


class _Peaks(NamedTuple):
    """Tokens on which latents were active; arrays of the same shape."""

    latent: NDArray[np.int64]
    sample: NDArray[np.int64]
    position: NDArray[np.int64]
    act: NDArray[np.float32]

    def at(self, rows: NDArray[np.int64]) -> "_Peaks":
        """Some of them, in this order."""
        return _Peaks(self.latent[rows], self.sample[rows], self.position[rows], self.act[rows])


class LatentStatistics:
    """Sums over text that comes in batches; a sample's tokens must come in one batch."""

    def __init__(self, n_latents: int, n_vocab: int, n_examples: int = 3) -> None:
        """n_examples: samples that are kept per latent."""
        self.n_latents, self.n_vocab, self.n_examples = n_latents, n_vocab, n_examples
        self._active = np.zeros(n_latents, np.int64)
        self._token_count = np.zeros(n_vocab, np.int64)
        self._pairs: list[tuple[NDArray[np.int64], NDArray[np.float64]]] = []
        none = np.zeros(0, np.int64)
        self._peaks = _Peaks(none, none, none, np.zeros(0, np.float32))

    def add(
        self,
        top_acts: NDArray[np.float32],
        top_indices: NDArray[np.integer],
        token_ids: NDArray[np.integer],
        samples: NDArray[np.integer],
        positions: NDArray[np.integer],
    ) -> None:
        """Take in t tokens.

        top_acts, top_indices: (t, k), as `selection.sae.encode` gives them; zeros are no latents.
        token_ids, samples:    (t,) the token, and which sample it belongs to.
        positions:             (t,) which of the sample's counted tokens it is.
        """
        self._token_count += np.bincount(token_ids, minlength=self.n_vocab)
        token, slot = np.nonzero(top_acts > 0)
        latent = top_indices[token, slot].astype(np.int64)
        act = top_acts[token, slot].astype(np.float32)
        self._active += np.bincount(latent, minlength=self.n_latents)
        self._pairs.append(_summed(latent * self.n_vocab + token_ids[token], act))
        if sum(len(keys) for keys, _ in self._pairs) > _PENDING:
            self._add_up()
        where = (samples[token].astype(np.int64), positions[token].astype(np.int64))
        self._keep_peaks(_Peaks(latent, *where, act))

    def _add_up(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        keys = np.concatenate([np.zeros(0, np.int64), *(keys for keys, _ in self._pairs)])
        sums = np.concatenate([np.zeros(0), *(sums for _, sums in self._pairs)])
        self._pairs = [_summed(keys, sums)]
        return self._pairs[0]

    def _keep_peaks(self, peaks: _Peaks) -> None:
        """The strongest token of each sample, then the strongest samples of each latent."""
        order = np.lexsort((peaks.position, -peaks.act, peaks.sample, peaks.latent))
        new = peaks.at(order)
        first = np.ones(len(order), np.bool_)
        first[1:] = (np.diff(new.latent) != 0) | (np.diff(new.sample) != 0)
        both = _Peaks(
            np.concatenate([self._peaks.latent, new.latent[first]]),
            np.concatenate([self._peaks.sample, new.sample[first]]),
            np.concatenate([self._peaks.position, new.position[first]]),
            np.concatenate([self._peaks.act, new.act[first]]),
        )
        order = np.lexsort((both.sample, -both.act, both.latent))
        rank = _rank_in_runs(both.latent[order])
        self._peaks = both.at(order[rank < self.n_examples])

    def profile(self, n_top: int = 5) -> LatentProfile:
        """What was seen so far. n_top: tokens that are listed per latent."""
        keys, sums = self._add_up()
        latent, token = np.divmod(keys, self.n_vocab)
        whole = np.bincount(latent, sums, self.n_latents)
        n_tokens = int(self._token_count.sum())
        order = np.lexsort((token, -sums, latent))
        rank = _rank_in_runs(latent[order])
        order, rank = order[rank < n_top], rank[rank < n_top]
        latent, token = latent[order], token[order]
        share = sums[order] / whole[latent]
        lift = share * n_tokens / self._token_count[token]
        shape, cells = (self.n_latents, n_top), (latent, rank)
        peaks, examples = self._peaks, (self.n_latents, self.n_examples)
        peak = peaks.latent, _rank_in_runs(peaks.latent)
        acts = _table(examples, 0, peak, peaks.act)
        return LatentProfile(
            n_tokens=n_tokens,
            density=self._active / max(1, n_tokens),
            max_act=acts[:, 0].copy(),
            tokens=_table(shape, -1, cells, token),
            token_share=_table(shape, 0, cells, share),
            token_lift=_table(shape, 0, cells, lift),
            samples=_table(examples, -1, peak, peaks.sample),
            positions=_table(examples, -1, peak, peaks.position),
            acts=acts,
        )


def _summed(
    keys: NDArray[np.int64], values: NDArray[np.floating]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Distinct keys, ascending, and the sum of the values of each."""
    unique, position = np.unique(keys, return_inverse=True)
    return unique, np.bincount(position, values, len(unique)).astype(np.float64)


def _rank_in_runs(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """0, 1, 2, ... within each run of equal neighbors."""
    starts = np.flatnonzero(np.diff(values, prepend=-1))
    return np.arange(len(values)) - np.repeat(starts, np.diff([*starts, len(values)]))


def _table(
    shape: tuple[int, int],
    missing: float,
    cells: tuple[NDArray[np.int64], NDArray[np.int64]],
    values: NDArray[Any],
) -> NDArray[Any]:
    """A table of `missing`, with values at some (row, column) cells."""
    table = np.full(shape, missing, values.dtype)
    table[cells] = values
    return table
