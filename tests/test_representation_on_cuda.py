"""Vectors of samples on CUDA are those of the CPU, on a device made of the CPU's memory."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import selection.activations.batching
import selection.representation.heads
from selection.models.resolve import ResolvedModel
from selection.representation.heads import Head
from selection.representation.represent import calibrate_head, represent_heads
from selection.sae.coder import SparseCoder, make_coder
from selection.sae.encode import encode
from selection.sae.metadata import ACTIVATIONS, SaeInfo
from tests.cuda_cases import (
    LENGTHS,
    SAMPLES,
    UNIT,
    assert_equal_within_a_step,
    by_head,
    coder,
    device,
    heads_of,
    loaded,
    resolved,
    sample,
)
from tests.fake_cuda import CUDA, FakeCuda
from tests.tiny_model import TINY_D_MODEL, TINY_K

__all__ = ["coder", "device", "resolved"]  # fixtures


# The fake device itself: what it would not notice, no test below would.


def test_the_fake_refuses_tensors_of_two_places(device: FakeCuda) -> None:
    there, here = torch.ones(3, device="cuda"), torch.ones(3)
    assert there.device == CUDA
    with pytest.raises(RuntimeError, match="found cuda:0 and cpu"):
        there + here
    with pytest.raises(RuntimeError):
        there.numpy()
    assert (there * 2).cpu().tolist() == [2.0, 2.0, 2.0]
    assert float((there + 1).sum()) == 6.0
    assert [copy.shape for copy in device.to_host()] == [(3,), ()]


def test_a_copy_that_is_not_waited_for_is_wrong_on_the_fake(device: FakeCuda) -> None:
    there = torch.arange(4, device="cuda")
    into = torch.empty(4, dtype=torch.int64, pin_memory=True)
    into.copy_(there, non_blocking=True)
    early = into.clone()
    torch.cuda.current_stream(CUDA).synchronize()
    assert (early != into).all()
    assert into.tolist() == [0, 1, 2, 3]
    [copy] = device.copies
    assert (copy.to_host, copy.pinned, copy.non_blocking) == (True, True, True)


def test_the_fakes_memory_is_counted_and_ends(device: FakeCuda) -> None:
    first = torch.zeros(1000, device="cuda")
    view = first[:10]
    assert device.n_bytes == 4000
    del first
    assert device.n_bytes == 4000
    del view
    assert device.n_bytes == 0
    device.capacity = 5000
    kept = torch.zeros(1000, device="cuda")
    with pytest.raises(torch.OutOfMemoryError):
        kept + 1
    assert (device.n_bytes, device.peak) == (4000, 4000)


# One unit on the device.


def test_the_device_gives_the_vectors_of_the_cpu(
    device: FakeCuda, resolved: ResolvedModel, coder: SparseCoder
) -> None:
    here, there = loaded(resolved, "cpu"), loaded(resolved)
    assert (here.device.type, there.device) == ("cpu", CUDA)
    for tokens_per_batch in (None, 100):  # all in one batch, and several
        expected, found = (by_head(m, coder, tokens_per_batch) for m in (here, there))
        assert_equal_within_a_step(found, expected)
    assert found[2][1].n_outliers > 10
    assert len({rows.values.tobytes() for rows, _ in found}) == 4


def test_batches_are_padded_and_larger_on_the_device(
    device: FakeCuda, resolved: ResolvedModel, coder: SparseCoder
) -> None:
    here, there = loaded(resolved, "cpu"), loaded(resolved)
    assert (here.packs, there.packs) == (True, False)
    assert there.tokens_per_batch(None) > here.tokens_per_batch(None)
    assert there.tokens_per_batch(300) == 300
    device.copies.clear()
    represent_heads(SAMPLES, there, [heads_of(there, coder)[0]], 300)
    runs = [copy.shape for copy in device.to_device() if copy.pinned and len(copy.shape) == 2]
    assert len(runs) > 1
    assert sum(rows for rows, _ in runs) == len(LENGTHS)
    assert all(rows * longest <= 300 for rows, longest in runs)


@pytest.mark.parametrize(
    ("free", "n_tokens"),
    [(1 << 50, 65_536), (2 * 128 * TINY_D_MODEL * 10_000, 8192), (100, 2048)],
)
def test_batches_are_as_large_as_the_free_memory_of_the_device_allows(
    device: FakeCuda, resolved: ResolvedModel, free: int, n_tokens: int
) -> None:
    """Once a model: what a batch takes later changes nothing."""
    model = loaded(resolved)
    device.capacity = device.n_bytes + free
    assert model.tokens_per_batch(None) == n_tokens
    device.capacity = None
    assert model.tokens_per_batch(None) == n_tokens


def test_packed_batches_run_on_the_device_where_they_are_asked_for(
    device: FakeCuda, resolved: ResolvedModel, coder: SparseCoder
) -> None:
    there = loaded(resolved, packing="packed")
    assert there.packs
    assert_equal_within_a_step(by_head(there, coder), by_head(loaded(resolved, "cpu"), coder))


def test_auto_means_the_device_and_bfloat16(
    device: FakeCuda, resolved: ResolvedModel, coder: SparseCoder
) -> None:
    there = loaded(resolved, "auto", "auto")
    assert (there.device, there.dtype) == (CUDA, "bfloat16")
    [batch] = selection.activations.batching.iter_activations(there, SAMPLES, None)
    assert all((part.device, part.dtype) == (CUDA, torch.float32) for part in batch.distinct)
    here = loaded(resolved, "cpu", "bfloat16")
    [(rows, _), *_], [(others, _), *_] = by_head(there, coder), by_head(here, coder)
    assert abs(len(rows.values) - len(others.values)) < 0.05 * len(others.values)


def test_only_sparse_rows_leave_the_device(
    device: FakeCuda, resolved: ResolvedModel, coder: SparseCoder
) -> None:
    model = loaded(resolved)
    head = Head(model.hookpoint, coder, "mean", UNIT)
    device.copies.clear()
    [(rows, report)] = represent_heads(SAMPLES, model, [head], 10_000)
    back = device.to_host()
    # Latents, sums and maxima, the lengths of rows, the norm of every token, and three sizes; one
    # number is read by transformers, before a pass.
    allowed = 3 * report.n_values + len(LENGTHS) + report.n_tokens + 3 + 1
    assert sum(copy.n_values for copy in back) == allowed
    largest = max(copy.n_values for copy in back)
    assert largest == report.n_values == len(rows.values)
    assert 1.5 * largest < report.n_tokens * TINY_K  # less than the latents of the tokens
    assert 10 * largest < report.n_tokens * TINY_D_MODEL
    assert all(copy.pinned for copy in back if copy.non_blocking)


def test_the_host_waits_for_the_device_twice_a_batch(
    device: FakeCuda, resolved: ResolvedModel, coder: SparseCoder
) -> None:
    """However many heads there are; what they leave out is left out on the device.

    Once more, while nothing is under way yet, transformers looks whether the positions are packed.
    """
    model = loaded(resolved)
    every = [replace(s, content_mask=np.ones_like(s.content_mask)) for s in SAMPLES]
    heads = [replace(head, coder=coder.to(CUDA)) for head in heads_of(model, coder)]
    device.copies.clear()
    device.waits.clear()
    found = represent_heads(SAMPLES, model, heads, 300, None, [SAMPLES, every, SAMPLES, every])
    assert found[2][1].n_outliers > 0
    n_batches = len([copy for copy in device.to_device() if len(copy.shape) == 2])
    assert n_batches > 1
    assert device.waits == ["synchronize"] * (2 + 1) * n_batches
    waited_for = [copy for copy in device.copies if not (copy.pinned and copy.non_blocking)]
    assert [copy.shape for copy in waited_for] == [()] * n_batches


def test_an_sae_without_a_fixed_number_of_latents_waits_once_more(
    device: FakeCuda, resolved: ResolvedModel, coder: SparseCoder
) -> None:
    """For the number of latents of the token that has most of them."""
    model = loaded(resolved)
    open_ended = replace(coder, k=0, info=replace(coder.info, activation="relu", k=0))
    head = Head(model.hookpoint, open_ended.to(CUDA), "mean", UNIT, max_norm=8.0)
    device.waits.clear()
    [(_, report)] = represent_heads(SAMPLES, model, [head], 10_000)
    assert report.n_outliers > 0
    assert device.waits == ["synchronize"] * (3 + 1)


def test_heads_that_count_other_tokens_read_one_pass_on_the_device(
    device: FakeCuda, resolved: ResolvedModel, coder: SparseCoder
) -> None:
    """One reading counts nothing at all, so that a batch of it is empty."""
    every = [replace(s, content_mask=np.ones_like(s.content_mask)) for s in SAMPLES]
    none = [replace(s, content_mask=np.zeros_like(s.content_mask)) for s in SAMPLES]
    found, expected = (
        represent_heads(SAMPLES, m, heads_of(m, coder)[:3], None, None, [SAMPLES, every, none])
        for m in (loaded(resolved), loaded(resolved, "cpu"))
    )
    assert_equal_within_a_step(found[:2], expected[:2])
    assert (found[2][1].n_values, found[2][1].n_empty) == (0, 10)


def test_a_batch_in_which_no_latent_is_active_has_empty_rows(
    device: FakeCuda, resolved: ResolvedModel, coder: SparseCoder
) -> None:
    silent = make_coder(
        coder.encoder_weight,
        coder.encoder_bias - 1e6,
        coder.decoder_weight,
        coder.decoder_bias,
        info=replace(coder.info, activation="relu", k=0),
    )
    model = loaded(resolved)
    [(rows, report)] = represent_heads(SAMPLES, model, [Head(model.hookpoint, silent, "mean")])
    assert (len(rows), report.n_values, report.n_empty) == (10, 0, 10)


def test_tokens_go_to_the_device_without_being_waited_for(
    device: FakeCuda, resolved: ResolvedModel, coder: SparseCoder
) -> None:
    model = loaded(resolved)
    there = coder.to(CUDA)
    device.copies.clear()
    represent_heads(SAMPLES, model, [Head(model.hookpoint, there, "mean", UNIT)], 10_000)
    sent = device.to_device()
    ids = [copy for copy in sent if len(copy.shape) == 2]
    assert [copy.shape for copy in ids] == [(len(LENGTHS), max(LENGTHS))]
    assert all(copy.pinned and copy.non_blocking for copy in ids)
    assert not any(copy.dtype.is_floating_point for copy in sent)  # no weights with a unit


def test_a_calibration_on_the_device_is_that_of_the_cpu(
    device: FakeCuda, resolved: ResolvedModel, coder: SparseCoder
) -> None:
    found, expected = (
        calibrate_head(
            SAMPLES,
            model,
            Head(model.hookpoint, coder, "max"),
            max_norm_ratio=1.2,
            ever_present_share=0.5,
        )
        for model in (loaded(resolved), loaded(resolved, "cpu"))
    )
    assert found.unit == pytest.approx(expected.unit, rel=1e-5)
    assert found.median_norm == pytest.approx(expected.median_norm, rel=1e-3)
    assert found.ever_present == expected.ever_present


VARYING = ("relu", "jumprelu", "gated")


@pytest.mark.parametrize(
    ("activation", "inputs"),
    [
        (activation, inputs)
        for activation in ACTIVATIONS
        for inputs in ("float32", "bfloat16")
        if (activation, inputs) != ("seminmf", "bfloat16")  # refused: test_sae_nonnegative
    ],
)
def test_every_kind_of_sae_encodes_on_the_device(
    device: FakeCuda, activation: str, inputs: str
) -> None:
    g = torch.Generator().manual_seed(0)
    d, m = 16, 96
    extra = {
        "jumprelu": {"threshold": torch.rand(m, generator=g)},
        "gated": {
            "magnitude_scale": torch.rand(m, generator=g),
            "magnitude_bias": torch.randn(m, generator=g),
        },
    }
    made = make_coder(
        torch.randn(m, d, generator=g),
        torch.randn(m, generator=g),
        torch.randn(m, d, generator=g),
        torch.randn(d, generator=g),
        info=SaeInfo("", None, d, m, 0 if activation in VARYING else 6, activation),
        act_scale=torch.rand(m, generator=g) + 0.5,
        **extra.get(activation, {}),
    ).rounded(inputs)
    x = torch.randn(50, d, generator=g)
    found, expected = encode(made.to(CUDA), x.to(CUDA)), encode(made, x)
    assert (found.top_acts.device, found.top_indices.device) == (CUDA, CUDA)
    dense = torch.zeros(50, m).scatter_(1, found.top_indices.cpu(), found.top_acts.cpu())
    here = torch.zeros(50, m).scatter_(1, *expected[::-1])
    torch.testing.assert_close(dense, here, rtol=0, atol=0 if inputs == "float32" else 1e-5)


# Memory of the device.


def test_earlier_batches_hold_no_memory_of_the_device(
    device: FakeCuda, resolved: ResolvedModel, coder: SparseCoder
) -> None:
    model = loaded(resolved)
    heads = [replace(head, coder=coder.to(CUDA)) for head in heads_of(model, coder)]
    before, peaks = device.n_bytes, []
    for n in (1, 10):
        device.peak = before
        represent_heads([sample(40, seed) for seed in range(2 * n)], model, heads, 80)
        peaks.append(device.peak - before)
        assert device.n_bytes == before
    assert peaks[1] < 1.2 * peaks[0]
