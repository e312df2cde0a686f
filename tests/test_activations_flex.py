"""Rows run as a whole by flex attention: each sample has what the whole model gives it alone."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.nn.attention import flex_attention
from torch.nn.functional import scaled_dot_product_attention

from selection.activations import packing
from selection.activations.model import load_activation_model
from selection.activations.packing import Sees, Visibility, visibility_of
from selection.activations.prefixes import positions_in_row, shared_with_previous, sorted_by_tokens
from selection.models.hookpoints import Hookpoint
from selection.models.resolve import ResolvedModel, resolve_model
from selection.sae.coder import SparseCoder
from tests.cuda_cases import assert_equal_within_a_step, by_head, coder, device, loaded, resolved
from tests.fake_cuda import FakeCuda
from tests.test_activations_model import (
    ENCODERS,
    activations_by_sample,
    saved_model,
    whole_model_hidden,
)
from tests.test_activations_shared_prefixes import alike

__all__ = ["coder", "device", "resolved", "saved_model"]  # fixtures


@pytest.fixture(autouse=True)
def plainly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flex attention as Python says it: compiling takes seconds, and a compiler."""
    monkeypatch.setattr(flex_attention, "_FLEX_ATTENTION_DISABLE_COMPILE_DEBUG", True)


def dense(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    sees: Sees,
    softcap: float | None,
    scaling: float | None,
) -> torch.Tensor:
    """The same with a mask over the whole row."""
    assert softcap is None
    at = torch.arange(query.shape[2], device=query.device)
    mask = sees(None, None, at[:, None], at[None, :])
    return scaled_dot_product_attention(
        query, key, value, attn_mask=mask, scale=scaling, enable_gqa=True
    )


def rows_seen(tokens: list[NDArray[np.uint32]]) -> list[tuple[int, int]]:
    """By the definition: each token of the row, and those of its sample up to it."""
    shared = shared_with_previous(tokens)
    positions = positions_in_row([len(each) for each in tokens], shared)
    pairs = []
    for own, n in zip(positions, shared.tolist(), strict=True):
        pairs += [(int(own[at]), int(own[k])) for at in range(n, len(own)) for k in range(at + 1)]
    return pairs


@pytest.mark.parametrize("seed", range(5))
def test_a_token_sees_its_own_sample_up_to_itself(seed: int) -> None:
    """Also of samples that are the beginning of another, or the same once more."""
    rng = np.random.default_rng(seed)
    stem = rng.integers(0, 9, 60).astype(np.uint32)
    tokens = [
        np.concatenate([stem[: rng.integers(0, 60)], rng.integers(0, 9, rng.integers(1, 30))])
        for _ in range(12)
    ]
    tokens += [stem, stem, stem[:20]]
    tokens = [tokens[row].astype(np.uint32) for row in sorted_by_tokens(tokens)]
    shared = shared_with_previous(tokens)
    assert (shared > 0).sum() > 5
    positions = positions_in_row([len(each) for each in tokens], shared)
    seen = Visibility(*map(torch.from_numpy, visibility_of(positions, shared)))
    n = len(seen.sample)
    at = torch.arange(n)
    found = packing._sees(seen, True, None)(None, None, at[:, None], at[None, :])
    expected = torch.zeros(n, n, dtype=torch.bool)
    for one, other in rows_seen(tokens):
        expected[one, other] = True
    assert torch.equal(found, expected)


def test_activations_are_those_of_the_whole_model(saved_model: Path) -> None:
    model = load_activation_model(
        resolve_model(saved_model), Hookpoint("resid", 2), "cpu", packing="flex"
    )
    assert (model.packs, model.plan.flex) == (True, True)
    assert model.shares != saved_model.name.startswith(ENCODERS)
    samples = alike()
    found = activations_by_sample(model, samples, 80)
    for row, sample in enumerate(samples):
        whole = whole_model_hidden(saved_model, sample.tokens, 2)
        expected = whole[torch.from_numpy(sample.content_mask)]
        torch.testing.assert_close(found[row], expected, rtol=1e-4, atol=1e-4)


def test_the_device_gives_the_vectors_of_the_cpu(
    device: FakeCuda, resolved: ResolvedModel, coder: SparseCoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The row, who sees whom and the shared beginnings; there with a mask, which needs no GPU."""
    monkeypatch.setattr(packing, "attend", dense)
    there = loaded(resolved, packing="flex")
    assert (there.shares, there.device.type) == (True, "cuda")
    device.copies.clear()
    found = by_head(there, coder)
    sent = [copy for copy in device.to_device() if not copy.dtype.is_floating_point]
    assert sent
    assert all(copy.pinned and copy.non_blocking for copy in sent)
    assert device.waits == ["synchronize"] * 2
    assert_equal_within_a_step(found, by_head(loaded(resolved, "cpu"), coder))


def test_a_way_that_fails_is_not_taken(
    resolved: ResolvedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> torch.Tensor:
        raise RuntimeError("no kernel for this device")

    monkeypatch.setattr(packing, "attend", broken)
    model = load_activation_model(
        resolved, Hookpoint("resid", 1), "cpu", packing="flex", checks=tmp_path
    )
    assert model.plan.batching == "padded"
    assert "no kernel for this device" in model.plan.reason
