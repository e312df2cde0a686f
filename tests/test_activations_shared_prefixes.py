"""Samples that begin alike: each has the activations that the whole model gives it alone."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from selection.activations.batching import ActivationBatch, iter_activations, tokens_to_run
from selection.activations.model import ActivationModel, load_activation_model
from selection.core.sparse import to_dense
from selection.evaluation.baselines.dense import OutputReader, gate_of
from selection.models.hookpoints import Hookpoint, parse_hookpoint
from selection.models.resolve import resolve_model
from selection.records import Rendered
from selection.representation.heads import Head
from selection.representation.represent import represent_heads
from selection.sae.coder import SparseCoder
from tests.test_activations_model import (
    ENCODERS,
    N_VOCAB,
    activations_by_sample,
    saved_model,
    whole_model_hidden,
)
from tests.test_representation_represent import coder

__all__ = ["coder", "saved_model"]  # fixtures


def alike(seed: int = 0) -> list[Rendered]:
    """Nested common beginnings, one sample within another, one twice with other tokens counted."""
    rng = np.random.default_rng(seed)

    def some(n: int) -> NDArray[np.uint32]:
        return rng.integers(3, N_VOCAB, n).astype(np.uint32)

    system, question = some(12), some(9)
    tokens = [
        np.concatenate([system, question, some(6)]),
        some(20),
        np.concatenate([system, some(5)]),
        np.concatenate([system, question, some(1)]),
        np.concatenate([system, question]),
        np.concatenate([system[:4], some(8)]),
        np.concatenate([system, question, some(14)]),
    ]
    tokens.append(tokens[0])
    samples = []
    for each in tokens:
        counted = rng.random(len(each)) < 0.7
        counted[-1] = True
        samples.append(Rendered(each, counted, len(each), False, False))
    return samples


class Ran:
    """Tokens of each row that the model ran."""

    def __init__(self, model: ActivationModel) -> None:
        self.rows: list[int] = []
        model.module.register_forward_pre_hook(self._keep, with_kwargs=True)

    def _keep(self, module: object, args: object, kwargs: dict[str, Any]) -> None:
        self.rows.append(kwargs["input_ids"].shape[1])


@pytest.mark.parametrize("tokens_per_batch", [1000, 40])
def test_activations_are_those_of_the_whole_model(saved_model: Path, tokens_per_batch: int) -> None:
    resolved, samples = resolve_model(saved_model), alike()
    is_encoder = saved_model.name.startswith(ENCODERS)
    model = load_activation_model(resolved, Hookpoint("resid", 2), device="cpu")
    ran = Ran(model)
    found = activations_by_sample(model, samples, tokens_per_batch)
    for row, sample in enumerate(samples):
        whole = whole_model_hidden(saved_model, sample.tokens, 2)
        expected = whole[torch.from_numpy(sample.content_mask)]
        torch.testing.assert_close(found[row], expected, rtol=1e-4, atol=1e-4)
    n_tokens = sum(len(sample.tokens) for sample in samples)
    assert model.shares != is_encoder
    assert sum(ran.rows) == tokens_to_run(model, samples, tokens_per_batch)
    if is_encoder:
        assert sum(ran.rows) == n_tokens
    elif tokens_per_batch == 1000:  # by hand, sorted: 12 + 9 shared thrice, 12 once, 27 once
        assert sum(ran.rows) == n_tokens - 3 * 21 - 12 - 27


def test_without_sharing_every_token_is_run(tiny_model_dir: Path) -> None:
    resolved, samples = resolve_model(tiny_model_dir), alike()
    shared, alone = (
        load_activation_model(resolved, Hookpoint("resid", 2), "cpu", share_prefixes=share)
        for share in (True, False)
    )
    ran = Ran(alone)
    expected, found = (activations_by_sample(m, samples, 1000) for m in (alone, shared))
    assert sum(ran.rows) == sum(len(sample.tokens) for sample in samples)
    for row, hidden in expected.items():
        torch.testing.assert_close(found[row], hidden, rtol=1e-4, atol=1e-5)


def test_tokens_have_their_own_activations_whatever_is_shared_or_left_out() -> None:
    distinct = torch.arange(6.0).reshape(3, 2)
    which = np.array([0, 1, 2, 0, 1])
    batch = ActivationBatch(
        np.arange(2), (distinct,), np.arange(3), which, np.array([0, 0, 0, 1, 1]), np.arange(5)
    )
    assert torch.equal(batch.hidden, distinct[which])
    as_many = batch.only(np.array([True, False, True, True, False]))
    assert torch.equal(as_many.hidden, distinct[[0, 2, 0]])
    assert as_many.sample_of_token.tolist() == [0, 0, 1]
    assert as_many.token_ids.tolist() == [0, 2, 3]
    assert torch.equal(as_many.only(np.array([True, True, False])).hidden, distinct[[0, 2]])


def test_hidden_states_come_sample_by_sample(tiny_model_dir: Path) -> None:
    tokens = [sample.tokens for sample in alike()]
    order = sorted(range(len(tokens)), key=lambda row: tokens[row].tolist())
    model = load_activation_model(resolve_model(tiny_model_dir), Hookpoint("resid", 1), "cpu")
    together = model.hidden([tokens[row] for row in order])
    for place, row in enumerate(order):
        [alone] = model.hidden([tokens[row]])
        torch.testing.assert_close(together[place, : len(alone)], alone, rtol=1e-4, atol=1e-5)


def test_gates_are_read_at_the_tokens_of_every_sample(tiny_model_dir: Path) -> None:
    resolved, samples = resolve_model(tiny_model_dir), alike()
    found: list[dict[int, torch.Tensor]] = []
    for share in (True, False):
        model = load_activation_model(resolved, Hookpoint("resid", 1), "cpu", share_prefixes=share)
        gates: dict[int, torch.Tensor] = {}
        with OutputReader(gate_of(model.blocks[1])) as reader:
            for batch in iter_activations(model, samples, 1000):
                values = reader.counted(batch)
                assert len(values) == len(batch.token_ids)
                for i, row in enumerate(batch.rows.tolist()):
                    gates[row] = values[torch.from_numpy(batch.sample_of_token == i)]
        found.append(gates)
    assert sorted(found[0]) == sorted(found[1]) == list(range(len(samples)))
    for row, expected in found[1].items():
        torch.testing.assert_close(found[0][row], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("limited", [False, True])
def test_vectors_are_those_of_samples_that_share_nothing(
    tiny_model_dir: Path, coder: SparseCoder, limited: bool
) -> None:
    resolved, samples = resolve_model(tiny_model_dir), alike()
    variants = [samples, [s for s in samples]]
    variants[1] = [
        Rendered(s.tokens, ~s.content_mask, s.n_full, s.truncated, s.response_lost) for s in samples
    ]
    place = parse_hookpoint("resid@2", resolved.n_layers)
    found = []
    for share in (True, False):
        model = load_activation_model(resolved, place, "cpu", share_prefixes=share)
        norms = torch.cat([b.hidden.norm(dim=1) for b in iter_activations(model, samples, 1000)])
        limit = float(norms.median()) + 1e-3 if limited else None
        heads = [Head(place, coder, how, 1e-3, max_norm=limit) for how in ("mean", "max")]
        found.append(represent_heads(samples, model, heads, 1000, samples_by_head=variants))
    for (shared, report), (alone, own) in zip(*found, strict=True):
        assert np.abs(to_dense(shared).astype(int) - to_dense(alone)).max() <= 1
        assert len(alone.values) > 0
        assert (report.n_tokens, report.n_outliers) == (own.n_tokens, own.n_outliers)
        assert (own.n_outliers > 0) == limited
