"""Batches that do not fit into the memory of a device are halved, and leave nothing behind."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import selection.activations.batching
import selection.representation.heads
from selection.activations.batching import ActivationBatch
from selection.activations.model import ActivationModel
from selection.core.errors import InputError
from selection.models.resolve import ResolvedModel
from selection.representation.represent import represent_heads
from selection.sae.coder import SparseCoder
from tests.cuda_cases import (
    SAMPLES,
    assert_equal_within_a_step,
    by_head,
    coder,
    device,
    heads_of,
    loaded,
    resolved,
)
from tests.fake_cuda import CUDA, FakeCuda

__all__ = ["coder", "device", "resolved"]  # fixtures


def tried_batches(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """Filled with the rows of each batch that is begun."""
    tried: list[list[int]] = []
    run = selection.activations.batching._run_batch

    def running(
        model: ActivationModel, samples: Any, rows: NDArray[np.int64], lengths: Any
    ) -> ActivationBatch:
        tried.append(rows.tolist())
        return run(model, samples, rows, lengths)

    monkeypatch.setattr(selection.activations.batching, "_run_batch", running)
    return tried


def halved(rows: list[int], fits: Callable[[list[int]], bool]) -> list[list[int]]:
    """Batches in the order in which the rule begins them, the first half first."""
    if fits(rows):
        return [rows]
    half = len(rows) // 2
    return [rows, *halved(rows[:half], fits), *halved(rows[half:], fits)]


@pytest.mark.parametrize(
    ("place", "name"),
    [
        (ActivationModel, "_run"),
        (selection.representation.heads, "encode"),
        (selection.representation.heads, "aggregate_device"),
        (selection.representation.heads, "cells_of"),
    ],
    ids=["model", "encode", "aggregate", "cells"],
)
def test_a_batch_that_does_not_fit_is_halved_wherever_memory_ends(
    place: Any,
    name: str,
    device: FakeCuda,
    resolved: ResolvedModel,
    coder: SparseCoder,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = loaded(resolved)
    expected = by_head(model, coder)
    tried, whole = tried_batches(monkeypatch), getattr(place, name)

    def limited(*given: Any) -> Any:
        if len(tried[-1]) > 3:
            raise torch.OutOfMemoryError("no memory")
        return whole(*given)

    with monkeypatch.context() as patch:
        patch.setattr(place, name, limited)
        found = by_head(model, coder)
    lengths = [len(s.tokens) if s.content_mask.any() else 0 for s in SAMPLES]
    longest_first = sorted(np.flatnonzero(lengths).tolist(), key=lambda row: -needed(row))
    assert tried == halved(longest_first, lambda rows: len(rows) <= 3)
    assert len(tried) == 7
    assert_equal_within_a_step(found, expected)
    assert {report.plan for _, report in expected} == {"full"}
    assert {report.plan for _, report in found} == {"reduced"}
    assert {report.plan for _, report in by_head(model, coder)} == {"full"}


def needed(row: int) -> int:
    """Tokens of a sample up to its last counted one."""
    return int(np.flatnonzero(SAMPLES[row].content_mask)[-1]) + 1


def test_a_failed_batch_leaves_nothing_on_the_device(
    device: FakeCuda,
    resolved: ResolvedModel,
    coder: SparseCoder,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Memory ends at every place in turn, as it does where the batch is just too large."""
    model = loaded(resolved)
    heads = [replace(head, coder=coder.to(CUDA)) for head in heads_of(model, coder)]
    expected = represent_heads(SAMPLES, model, heads)
    weights, whole = device.n_bytes, device.peak
    for share in np.linspace(0.99, 0.3, 12):
        device.capacity = weights + int(share * (whole - weights))
        device.n_bytes_when_emptied.clear()
        with monkeypatch.context() as patch:
            tried = tried_batches(patch)
            found = represent_heads(SAMPLES, model, heads)
        assert len(tried) == 1 + 2 * len(device.n_bytes_when_emptied) >= 3
        assert set(device.n_bytes_when_emptied) == {weights}
        assert device.n_bytes == weights
        assert_equal_within_a_step(found, expected)


def test_one_sample_that_does_not_fit_is_said_clearly(
    device: FakeCuda, resolved: ResolvedModel, coder: SparseCoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = loaded(resolved)
    heads = [replace(head, coder=coder.to(CUDA)) for head in heads_of(model, coder)]
    device.capacity = device.n_bytes + 4000
    tried = tried_batches(monkeypatch)
    with pytest.raises(InputError, match="too little memory for one sample") as error:
        represent_heads(SAMPLES, model, heads)
    assert [len(rows) for rows in tried] == [9, 4, 2, 1]
    assert "Lower max_length" in str(error.value)


# A pool on the device.
