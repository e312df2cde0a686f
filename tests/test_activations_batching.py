"""Batches: what runs beside what, what is handed on, and what happens where memory ends."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from selection.activations.batching import batch_plan, iter_activations, needed_lengths
from selection.activations.model import ActivationModel, load_activation_model
from selection.core.errors import InputError
from selection.models.hookpoints import Hookpoint
from selection.models.resolve import resolve_model
from selection.records import Rendered

N_VOCAB, N_BLOCKS = 96, 4


def sample(
    rng: np.random.Generator, n_tokens: int, counted: NDArray[np.bool_] | None = None
) -> Rendered:
    tokens = rng.integers(3, N_VOCAB, n_tokens).astype(np.uint32)
    if counted is None:
        counted = rng.random(n_tokens) < 0.7
    return Rendered(tokens, counted, n_tokens, False, False)


def samples_of(lengths: Sequence[int], seed: int = 0) -> list[Rendered]:
    rng = np.random.default_rng(seed)
    return [sample(rng, n) for n in lengths]


def activations_by_sample(
    model: ActivationModel, samples: Sequence[Rendered], tokens_per_batch: int
) -> dict[int, torch.Tensor]:
    found: dict[int, torch.Tensor] = {}
    for batch in iter_activations(model, samples, tokens_per_batch):
        for i, row in enumerate(batch.rows.tolist()):
            assert row not in found
            found[row] = batch.hidden[torch.from_numpy(batch.sample_of_token == i)]
    return found


@pytest.fixture(scope="module", params=["packed", "padded"])
def tiny_model(tiny_model_dir: Path, request: pytest.FixtureRequest) -> ActivationModel:
    return load_activation_model(
        resolve_model(tiny_model_dir), Hookpoint("resid", 2), device="cpu", packing=request.param
    )


@pytest.mark.parametrize("tokens_per_batch", [1, 20, 64, 10_000])
def test_a_sample_has_the_same_activations_in_every_batch(
    tiny_model: ActivationModel, tokens_per_batch: int
) -> None:
    samples = samples_of([12, 40, 7, 7, 33, 1, 25])
    alone = {
        row: activations_by_sample(tiny_model, [rendered], 64).get(0)
        for row, rendered in enumerate(samples)
    }
    together = activations_by_sample(tiny_model, samples, tokens_per_batch)
    for row, expected in alone.items():
        if expected is None:
            assert row not in together
        else:
            torch.testing.assert_close(together[row], expected, rtol=1e-4, atol=1e-5)


def test_the_order_of_samples_does_not_change_their_activations(
    tiny_model: ActivationModel,
) -> None:
    samples = samples_of([12, 40, 7, 7, 33, 9, 25])
    order = np.random.default_rng(3).permutation(len(samples))
    plain = activations_by_sample(tiny_model, samples, 80)
    shuffled = activations_by_sample(tiny_model, [samples[i] for i in order], 80)
    for position, row in enumerate(order.tolist()):
        torch.testing.assert_close(shuffled[position], plain[row], rtol=1e-4, atol=1e-5)


def test_the_same_list_gives_the_same_bytes(tiny_model: ActivationModel) -> None:
    samples = samples_of([12, 40, 7, 7, 33])
    once, again = (
        [batch.hidden.numpy().tobytes() for batch in iter_activations(tiny_model, samples, 64)]
        for _ in range(2)
    )
    assert once == again


def test_tokens_that_do_not_count_are_not_returned(tiny_model: ActivationModel) -> None:
    samples = samples_of([12, 5, 20, 8])
    nothing = sample(np.random.default_rng(9), 6, np.zeros(6, dtype=np.bool_))
    samples.insert(1, nothing)
    seen: dict[int, list[int]] = {}
    for batch in iter_activations(tiny_model, samples, 30):
        assert batch.hidden.dtype == torch.float32
        assert batch.hidden.shape == (len(batch.token_ids), tiny_model.d_model)
        assert (np.diff(batch.sample_of_token) >= 0).all()
        for i, token in zip(batch.sample_of_token, batch.token_ids, strict=True):
            seen.setdefault(int(batch.rows[i]), []).append(int(token))
    expected = {
        row: rendered.tokens[rendered.content_mask].tolist() for row, rendered in enumerate(samples)
    }
    assert seen == {row: tokens for row, tokens in expected.items() if tokens}
    assert 1 not in seen


def test_a_causal_model_is_not_run_behind_the_last_counted_token() -> None:
    counted = np.array([False, True, True, False, False])
    rendered = sample(np.random.default_rng(0), 5, counted)
    assert needed_lengths([rendered], is_causal=True).tolist() == [3]
    assert needed_lengths([rendered], is_causal=False).tolist() == [5]
    nothing = sample(np.random.default_rng(0), 5, np.zeros(5, dtype=np.bool_))
    assert needed_lengths([nothing], is_causal=False).tolist() == [0]


def test_an_sae_can_be_trained_on_activations(tiny_model: ActivationModel) -> None:
    [batch] = iter_activations(tiny_model, samples_of([12]), 64)
    weight = torch.ones(tiny_model.d_model, requires_grad=True)
    (batch.hidden * weight).sum().backward()
    assert weight.grad is not None


def slow_plan(lengths: Sequence[int], tokens_per_batch: int, packs: bool) -> list[list[int]]:
    """One sample after the other, longest first, into the open batch as long as it fits."""
    batches: list[list[int]] = []
    for row in sorted(range(len(lengths)), key=lambda row: (-lengths[row], row)):
        if lengths[row] == 0:
            continue
        wider = [*(batches[-1] if batches else []), row]
        size = sum(lengths[i] for i in wider) if packs else lengths[wider[0]] * len(wider)
        if len(wider) > 1 and size <= tokens_per_batch:
            batches[-1].append(row)
        else:
            batches.append([row])
    return batches


@pytest.mark.parametrize("packs", [True, False])
@pytest.mark.parametrize("tokens_per_batch", [1, 7, 50, 1000])
def test_the_batch_plan_fills_batches_longest_first(tokens_per_batch: int, packs: bool) -> None:
    rng = np.random.default_rng(tokens_per_batch)
    for n in (0, 1, 5, 200):
        lengths = rng.integers(0, 60, n)
        plan = batch_plan(lengths, tokens_per_batch, packs)
        expected = slow_plan(lengths.tolist(), tokens_per_batch, packs)
        assert [rows.tolist() for rows in plan] == expected


def test_the_batch_plan_depends_on_lengths_alone() -> None:
    lengths = np.random.default_rng(0).integers(1, 60, 100)
    order = np.random.default_rng(1).permutation(100)
    plan = [lengths[rows].tolist() for rows in batch_plan(lengths, 200)]
    permuted = lengths[order]
    assert [permuted[rows].tolist() for rows in batch_plan(permuted, 200)] == plan


def test_a_batch_that_does_not_fit_in_memory_is_halved(
    tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load_activation_model(resolve_model(tiny_model_dir), Hookpoint("resid", 1), "cpu")
    samples = samples_of([10, 11, 12, 13, 14])
    expected = activations_by_sample(model, samples, 1000)
    run = model.read_tokens

    def too_large(
        tokens: Sequence[NDArray[np.uint32]], counted: Sequence[NDArray[np.bool_]]
    ) -> tuple[object, ...]:
        if len(tokens) > 2:
            raise torch.OutOfMemoryError("no memory")
        return run(tokens, counted)

    monkeypatch.setattr(model, "read_tokens", too_large)
    assert not model.plan_reduced
    found = activations_by_sample(model, samples, 1000)
    assert model.plan_reduced
    assert sorted(found) == sorted(expected)
    for row, hidden in found.items():
        torch.testing.assert_close(hidden, expected[row], rtol=1e-4, atol=1e-5)


def test_one_sample_that_does_not_fit_in_memory_is_an_input_error(
    tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load_activation_model(resolve_model(tiny_model_dir), Hookpoint("resid", 1), "cpu")

    def too_large(*given: object) -> torch.Tensor:
        raise torch.OutOfMemoryError("no memory")

    monkeypatch.setattr(model, "read_tokens", too_large)
    with pytest.raises(InputError, match="Lower max_length"):
        list(iter_activations(model, samples_of([10, 11]), 1000))


def test_samples_beyond_the_models_positions_are_refused(tiny_model: ActivationModel) -> None:
    counted = np.ones(600, dtype=np.bool_)
    rendered = sample(np.random.default_rng(0), 600, counted)
    with pytest.raises(InputError, match="max_length to 512 or less"):
        list(iter_activations(tiny_model, [rendered], 1000))


def test_ids_that_the_model_does_not_know_are_refused(tiny_model: ActivationModel) -> None:
    tokens = np.array([5, 4000], dtype=np.uint32)
    with pytest.raises(InputError, match="belongs to the model"):
        tiny_model.hidden([tokens])
