"""Which tokens of a few samples activate given latents, and how strongly.

The same pass that makes vectors, kept token by token: over a sample's tokens a latent's strengths
have the mean, sum or maximum that its vector holds, before fixed point.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from selection.activations.batching import iter_activations
from selection.activations.model import ActivationModel
from selection.records import Rendered
from selection.rendering.offsets import TurnPositions
from selection.representation.heads import Head, without_sinks
from selection.sae.encode import encode


@dataclass(frozen=True, slots=True)
class TokenActivations:
    """One entry per sample, latent and token on which it is active; arrays of one length.

    samples:   int64 position in the list of samples, non-decreasing.
    latents:   int64, ascending within a sample.
    tokens:    int64 number among the sample's counted tokens, ascending within a latent.
    strengths: float32 activation of the latent, above zero.
    """

    samples: NDArray[np.int64]
    latents: NDArray[np.int64]
    tokens: NDArray[np.int64]
    strengths: NDArray[np.float32]

    def at(self, rows: NDArray[np.int64]) -> "TokenActivations":
        """Some of the entries, in this order."""
        return TokenActivations(
            self.samples[rows], self.latents[rows], self.tokens[rows], self.strengths[rows]
        )


def token_activations(
    samples: Sequence[Rendered],
    wanted: Sequence[Sequence[int] | NDArray[np.integer]],
    model: ActivationModel,
    head: Head,
    tokens_per_batch: int | None = None,
) -> TokenActivations:
    """Where the wanted latents of each sample are active; tokens left out of vectors are left out.

    wanted: for each sample the latents to look for.
    """
    coder, hookpoint = head.coder.to(model.device), model.hookpoints.index(head.hookpoint)
    width = len(coder.encoder_bias)
    owners = np.repeat(np.arange(len(wanted)), [len(each) for each in wanted])
    keys = owners * width + np.array([latent for each in wanted for latent in each], np.int64)
    parts: list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]] = []
    for batch in iter_activations(model, samples, tokens_per_batch):
        local, which = batch.sample_of_token, torch.from_numpy(batch.index)
        number, sample = batch.positions, batch.rows[local]
        distinct = batch.distinct[hookpoint]
        if head.max_norm is not None:
            norms = distinct.norm(dim=1)
            kept = (norms <= head.max_norm).cpu()[which]
            distinct = without_sinks(distinct, norms, head.max_norm)
            which, mask = which[kept], kept.numpy()
            number, sample = number[mask], sample[mask]
        latents = encode(coder, distinct)
        acts = latents.top_acts.cpu()[which].numpy()
        indices = latents.top_indices.cpu()[which].numpy()
        key = sample[:, None] * width + indices
        token, slot = np.nonzero((acts > 0) & np.isin(key, keys))
        parts.append((key[token, slot], number[token], acts[token, slot].astype(np.float32)))
    key = np.concatenate([np.zeros(0, np.int64), *(part[0] for part in parts)])
    tokens = np.concatenate([np.zeros(0, np.int64), *(part[1] for part in parts)])
    strengths = np.concatenate([np.zeros(0, np.float32), *(part[2] for part in parts)])
    owner, latent = np.divmod(key, width)
    return TokenActivations(owner, latent, tokens, strengths).at(np.lexsort((tokens, key)))


def strongest(activations: TokenActivations, most: int) -> TokenActivations:
    """At most `most` tokens of each sample and latent, the strongest, ties to the earlier one."""
    order = np.lexsort(
        (activations.tokens, -activations.strengths, activations.latents, activations.samples)
    )
    pairs = np.stack([activations.samples[order], activations.latents[order]])
    is_new = np.ones(len(order), np.bool_)
    is_new[1:] = (np.diff(pairs) != 0).any(axis=0)
    rank = np.arange(len(order)) - np.flatnonzero(is_new)[np.cumsum(is_new) - 1]
    return activations.at(np.sort(order[rank < most]))


def in_turns(
    activations: TokenActivations, positions: Sequence[TurnPositions]
) -> tuple[NDArray[np.generic], ...]:
    """Sample, latent, turn, first character, end and strength of the tokens that lie in a turn.

    positions: of each sample's counted tokens.
    """
    pairs = zip(activations.samples, activations.tokens, strict=True)
    spans = np.array([positions[sample].of(token) for sample, token in pairs], np.int64)
    turns, firsts, ends = spans.reshape(-1, 3).T
    columns = (activations.samples, activations.latents, turns, firsts, ends, activations.strengths)
    return tuple(column[turns >= 0] for column in columns)
