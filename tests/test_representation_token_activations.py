"""Tokens that fired, against the vectors that the same tokens make."""

import numpy as np
import pytest

from selection.activations.model import ActivationModel
from selection.representation.heads import Head
from selection.representation.represent import represent_heads
from selection.representation.token_activations import (
    TokenActivations,
    strongest,
    token_activations,
)
from selection.sae.coder import SparseCoder
from tests.test_representation_represent import SAMPLES, coder, model

__all__ = ["coder", "model"]  # fixtures


def test_strengths_add_up_to_the_vectors(model: ActivationModel, coder: SparseCoder) -> None:
    head = Head(model.hookpoint, coder, "sum", unit=1e-2)
    [(rows, _)] = represent_heads(SAMPLES, model, [head], 128)
    wanted = [rows.latents[a:b] for a, b in zip(rows.indptr[:-1], rows.indptr[1:], strict=True)]
    found = token_activations(SAMPLES, wanted, model, Head(model.hookpoint, coder, "sum"), 128)
    for number, latents in enumerate(wanted):
        for latent, value in zip(latents, rows.values[rows.indptr[number] :], strict=False):
            here = (found.samples == number) & (found.latents == latent)
            assert abs(found.strengths[here].sum() / 1e-2 - value) <= 1
            assert (np.diff(found.tokens[here]) > 0).all()
            assert found.tokens[here].max() < SAMPLES[number].content_mask.sum()
    assert (found.strengths > 0).all()


def test_only_what_is_wanted_is_found_and_long_tokens_are_left_out(
    model: ActivationModel, coder: SparseCoder
) -> None:
    every = [np.arange(len(coder.encoder_bias))] * len(SAMPLES)
    head = Head(model.hookpoint, coder, "mean")
    whole = token_activations(SAMPLES, every, model, head, 64)
    some = [np.unique(whole.latents[whole.samples == i])[:2] for i in range(len(SAMPLES))]
    part = token_activations(SAMPLES, some, model, head, 64)
    kept = [i for i in range(len(whole.samples)) if whole.latents[i] in some[whole.samples[i]]]
    assert_same(part, whole.at(np.array(kept)))
    none = Head(model.hookpoint, coder, "mean", max_norm=1e-9)
    assert len(token_activations(SAMPLES, every, model, none, 64).tokens) == 0
    assert len(token_activations([], [], model, head).tokens) == 0


@pytest.mark.parametrize("most", [1, 2, 5])
def test_the_strongest_tokens_of_each_pair_stay(most: int) -> None:
    rng = np.random.default_rng(most)
    keys = sorted({tuple(rng.integers(0, n) for n in (3, 4, 6)) for _ in range(60)})
    samples, latents, tokens = (np.array(c, np.int64) for c in zip(*keys, strict=True))
    strengths = rng.integers(1, 4, len(keys)).astype(np.float32)
    found = strongest(TokenActivations(samples, latents, tokens, strengths), most)
    expected = []
    for pair in sorted({key[:2] for key in keys}):
        mine = [i for i, key in enumerate(keys) if key[:2] == pair]
        expected += sorted(sorted(mine, key=lambda i: (-strengths[i], tokens[i]))[:most])
    assert_same(found, TokenActivations(samples, latents, tokens, strengths).at(np.array(expected)))


def assert_same(one: TokenActivations, two: TokenActivations) -> None:
    for name in ("samples", "latents", "tokens", "strengths"):
        assert np.array_equal(getattr(one, name), getattr(two, name))
