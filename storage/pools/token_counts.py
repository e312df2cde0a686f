"""Trainee tokens of a pool's samples, after the training max_length: what a token budget pays."""

import numpy as np
from numpy.typing import NDArray

from selection.data.samples import conversations_of
from selection.picking.budget import TokenCount
from selection.rendering.renderer import Renderer
from storage.pools.pool import PreparedPool
from storage.pools.renderings import RenderedPool


def counts_as_rendered(rendered: RenderedPool, max_length: int) -> TokenCount:
    """Tokens of the pool's own rendering, at most `max_length` of each sample."""
    full = rendered.full_lengths()
    return lambda rows: np.minimum(full[rows], max_length).astype(np.int64)


def counts_by_renderer(pool: PreparedPool, renderer: Renderer) -> TokenCount:
    """Tokens by another tokenizer. Every row is rendered once: all selections ask for the same."""
    known = np.full(pool.n_examples, -1, np.int64)

    def count(rows: NDArray[np.int64]) -> NDArray[np.int64]:
        new = np.unique(rows[known[rows] < 0])
        if len(new):
            known[new] = renderer.count_tokens(conversations_of(pool.examples_at(new)))
        return known[rows]

    return count
