import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from selection.activations.batching import iter_activations
from selection.activations.model import ActivationModel, load_activation_model
from selection.core.errors import InputError
from selection.core.sparse import to_dense
from selection.models.hookpoints import parse_hookpoint
from selection.models.resolve import resolve_model
from selection.records import Rendered, SparseRows
from selection.representation.aggregate import TokenAggregate
from selection.representation.heads import Head
from selection.representation.represent import (
    UnitReport,
    calibrate_head,
    represent_heads,
    representation_id,
)
from selection.sae.coder import SparseCoder, make_coder
from selection.sae.encode import TopActs, encode
from selection.sae.formats.load import load_sae
from selection.sae.metadata import SaeInfo


@pytest.fixture(scope="module")
def model(tiny_model_dir: Path) -> ActivationModel:
    resolved = resolve_model(str(tiny_model_dir))
    return load_activation_model(resolved, parse_hookpoint("resid@2", resolved.n_layers), "cpu")


@pytest.fixture(scope="module")
def coder(tiny_sae_dir: Path) -> SparseCoder:
    return load_sae(tiny_sae_dir)


def sample(n: int, seed: int, n_counted: int | None = None) -> Rendered:
    rng = np.random.default_rng(seed)
    counted = np.zeros(n, np.bool_)
    counted[rng.permutation(n)[: n // 2 if n_counted is None else n_counted]] = True
    return Rendered(rng.integers(0, 300, n).astype(np.uint32), counted, n, False, False)


SAMPLES = [sample(20, 0), sample(3, 1, 0), sample(60, 2), sample(5, 3, 1), sample(33, 4)]


def vectors(
    samples: list[Rendered],
    model: ActivationModel,
    coder: SparseCoder,
    **more: Any,
) -> tuple[SparseRows, UnitReport]:
    settings: dict[str, Any] = {
        "token_aggregate": "mean",
        "unit": 1e-3,
        "keep_top": None,
        "tokens_per_batch": 128,
    }
    settings |= more
    tokens_per_batch = settings.pop("tokens_per_batch")
    head = Head(model.hookpoint, coder, **settings)
    return represent_heads(samples, model, [head], tokens_per_batch)[0]


def slowly(
    one: Rendered, model: ActivationModel, coder: SparseCoder, how: str, unit: float
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Dense units of one sample: alone through the model, latents by a full sort."""
    m = len(coder.encoder_bias)
    if not one.content_mask.any():
        return np.zeros(m)
    hidden = model.hidden([one.tokens])[0][torch.from_numpy(one.content_mask)].double()
    pre = (hidden - coder.decoder_bias) @ coder.encoder_weight.double().T + coder.encoder_bias
    dense = np.maximum(pre.numpy(), 0)
    for row in dense:
        row[np.argsort(row)[: m - coder.k]] = 0
    total = {"mean": dense.mean(0), "sum": dense.sum(0), "max": dense.max(0)}[how]
    return np.minimum(np.rint(total / unit), 65535)


@pytest.mark.parametrize("how", ["mean", "sum", "max"])
def test_vectors_equal_the_definition(
    how: TokenAggregate, model: ActivationModel, coder: SparseCoder
) -> None:
    found, report = vectors(SAMPLES, model, coder, token_aggregate=how)
    expected = np.stack([slowly(s, model, coder, how, 1e-3) for s in SAMPLES])
    # Floats of a batch and of a single sample may differ by one step of rounding.
    assert np.abs(to_dense(found).astype(np.int64) - expected).max() <= 1
    assert report.n_samples == 5
    assert report.n_tokens == sum(s.content_mask.sum() for s in SAMPLES)
    assert (report.n_values, report.n_empty, report.plan) == (len(found.values), 1, "full")


def test_the_same_unit_gives_the_same_bytes(model: ActivationModel, coder: SparseCoder) -> None:
    first, again = vectors(SAMPLES, model, coder), vectors(SAMPLES, model, coder)
    assert first[1] == again[1]
    for name in ("indptr", "latents", "values"):
        assert np.array_equal(getattr(first[0], name), getattr(again[0], name))


def test_rows_are_in_the_order_of_the_samples(model: ActivationModel, coder: SparseCoder) -> None:
    order = [4, 2, 0, 3, 1]
    forward = to_dense(vectors(SAMPLES, model, coder)[0]).astype(np.int64)
    moved = to_dense(vectors([SAMPLES[i] for i in order], model, coder)[0]).astype(np.int64)
    assert np.abs(moved - forward[order]).max() <= 1
    assert not forward[1].any()


def test_keep_top_keeps_the_largest_and_records_the_lost_mass(
    model: ActivationModel, coder: SparseCoder
) -> None:
    every, full_report = vectors(SAMPLES, model, coder)
    kept, report = vectors(SAMPLES, model, coder, keep_top=3)
    assert np.diff(kept.indptr).tolist() == [3, 0, 3, 3, 3]
    for all_values, few in zip(to_dense(every), to_dense(kept), strict=True):
        assert np.array_equal(np.sort(few)[-3:], np.sort(all_values)[-3:])
    assert report.mass == pytest.approx(full_report.mass)
    left_out = (every.values.sum(dtype=np.int64) - kept.values.sum(dtype=np.int64)) * 1e-3
    assert report.mass_cut == pytest.approx(left_out, rel=0.01)


def test_only_counted_tokens_enter(model: ActivationModel, coder: SparseCoder) -> None:
    one = sample(30, 9)
    last = int(np.flatnonzero(one.content_mask)[-1])
    tokens = one.tokens.copy()
    tokens[last + 1 :] = 7  # behind the last counted token of a causal model
    changed = Rendered(tokens, one.content_mask, 30, False, False)
    assert last < 29
    before, after = vectors([one], model, coder)[0], vectors([changed], model, coder)[0]
    assert np.array_equal(to_dense(before), to_dense(after))


def test_the_unit_is_the_median_over_256(model: ActivationModel, coder: SparseCoder) -> None:
    head = Head(model.hookpoint, coder, "mean")
    unit = calibrate_head(SAMPLES, model, head, tokens_per_batch=128).unit
    found, report = vectors(SAMPLES, model, coder, unit=unit)
    assert 250 <= np.median(found.values) <= 262
    assert report.mass_changed / report.mass < 0.005


def test_a_unit_that_does_not_suit_is_reported(
    model: ActivationModel, coder: SparseCoder, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        _, coarse = vectors(SAMPLES, model, coder, unit=100.0)
        _, fine = vectors(SAMPLES, model, coder, unit=1e-9)
    assert coarse.n_zeroed
    assert not coarse.n_clipped
    assert fine.n_clipped
    assert not fine.n_zeroed
    assert caplog.text.count("does not suit this pool") == 2


def test_an_sae_in_which_nothing_fires_cannot_be_calibrated(
    model: ActivationModel, coder: SparseCoder
) -> None:
    silent = make_coder(
        coder.encoder_weight,
        coder.encoder_bias - 1e6,
        coder.decoder_weight,
        coder.decoder_bias,
        info=SaeInfo("", None, 32, 64, 4),
    )
    with pytest.raises(InputError, match="no latent fires on"):
        calibrate_head(SAMPLES, model, Head(model.hookpoint, silent, "mean"))


def test_activations_that_are_not_finite_are_refused(
    model: ActivationModel, coder: SparseCoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    picked = ActivationModel.read_tokens

    def infinite(*given: Any) -> tuple[object, ...]:
        found, *where = picked(*given)
        return tuple(part * float("inf") for part in found), *where

    monkeypatch.setattr(ActivationModel, "read_tokens", infinite)
    with pytest.raises(InputError, match=r"`model\.dtype`: the model's activations are not finite"):
        vectors(SAMPLES, model, coder)


def test_an_sae_whose_values_overflow_is_named_and_not_the_model(
    model: ActivationModel, coder: SparseCoder
) -> None:
    huge = make_coder(
        coder.encoder_weight * 1e38,
        coder.encoder_bias,
        coder.decoder_weight,
        coder.decoder_bias,
        info=SaeInfo("saes/huge", None, 32, 64, 4),
    )
    with pytest.raises(InputError, match="`sae`: an SAE makes values that are not finite"):
        calibrate_head(SAMPLES, model, Head(model.hookpoint, huge, "mean"))


def test_several_heads_of_one_pass_equal_each_alone(
    tiny_model_dir: Path, coder: SparseCoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolved = resolve_model(str(tiny_model_dir))
    places = [parse_hookpoint(text, resolved.n_layers) for text in ("resid@2", "mlp@1", "attn@0")]
    model = load_activation_model(resolved, places, "cpu")
    heads = [Head(place, coder, "mean", 1e-3) for place in places]
    heads += [Head(places[0], coder, "max", 1e-2), Head(places[0], coder, "sum", 1e-2, 3)]
    encoded: list[int] = []

    def counting(coder: SparseCoder, x: torch.Tensor) -> TopActs:
        encoded.append(len(x))
        return encode(coder, x)

    monkeypatch.setattr("selection.representation.heads.encode", counting)
    together = represent_heads(SAMPLES, model, heads, 1000)
    assert len(encoded) == 3  # one batch, three hookpoints
    assert len({rows.values.tobytes() for rows, _ in together}) == len(heads)
    for head, (rows, report) in zip(heads, together, strict=True):
        [(alone, own_report)] = represent_heads(SAMPLES, model, [head], 1000)
        assert np.array_equal(to_dense(alone), to_dense(rows))
        assert own_report == report


def test_tokens_of_outlying_norm_do_not_count(model: ActivationModel, coder: SparseCoder) -> None:
    [batch] = iter_activations(model, [SAMPLES[2]], 1000)
    norms = batch.hidden.norm(dim=1)
    limit = float(norms.median())
    head = Head(model.hookpoint, coder, "mean", 1e-3, max_norm=limit)
    [(rows, report)] = represent_heads([SAMPLES[2]], model, [head])
    assert report.n_outliers == int((norms > limit).sum()) > 0
    mask = SAMPLES[2].content_mask.copy()
    mask[np.flatnonzero(mask)[(norms > limit).numpy()]] = False
    fewer = Rendered(SAMPLES[2].tokens, mask, len(mask), False, False)
    expected, _ = vectors([fewer], model, coder)
    assert np.abs(to_dense(rows).astype(np.int64) - to_dense(expected)).max() <= 1


def test_ever_present_latents_are_counted_and_can_be_left_out(
    model: ActivationModel, coder: SparseCoder
) -> None:
    head = Head(model.hookpoint, coder, "mean", 1e-3)
    samples = [sample(40, seed) for seed in range(8)]
    every, report = represent_heads(samples, model, [head])[0]
    constant = np.flatnonzero((to_dense(every) > 0).sum(0) > 0.9 * len(samples))
    assert report.n_ever_present == len(constant) > 0
    known = calibrate_head(samples, model, head, ever_present_share=0.9)
    assert list(known.ever_present) == constant.tolist()
    without = replace(head, excluded=np.array(known.ever_present, np.int32))
    rows, cut = represent_heads(samples, model, [without])[0]
    expected = to_dense(every)
    expected[:, constant] = 0
    assert np.array_equal(to_dense(rows), expected)
    assert cut.mass_excluded == pytest.approx(report.mass_ever_present)
    assert cut.mass == pytest.approx(report.mass)


def test_no_samples_have_no_vectors(model: ActivationModel, coder: SparseCoder) -> None:
    found, report = vectors([], model, coder)
    assert (len(found), report.n_values, found.n_latents) == (0, 0, 64)


def test_the_id_depends_on_everything_that_decides_a_vector() -> None:
    base: dict[str, Any] = {
        "model_sha256": "m",
        "hookpoint": "resid@2",
        "sae_id": "s",
        "token_aggregate": "mean",
        "keep_top": None,
        "unit": 0.1,
        "dtype": "float32",
    }
    changes: list[dict[str, Any]] = [
        {"model_sha256": "n"},
        {"hookpoint": "resid@3"},
        {"sae_id": "t"},
        {"unit": 0.2},
    ]
    changes += [{"token_aggregate": "max"}, {"keep_top": 5}, {"dtype": "bfloat16"}, {}]
    changes += [{"limits": {"largest_norm": 3.0}}]
    ids = {representation_id(**(base | change)) for change in changes}
    assert len(ids) == len(changes)
    assert representation_id(**base) in ids


def test_heads_that_count_other_tokens_read_the_same_pass(
    model: ActivationModel, coder: SparseCoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    variants = [
        SAMPLES,
        [replace(s, content_mask=np.ones_like(s.content_mask)) for s in SAMPLES],
        [replace(s, content_mask=~s.content_mask) for s in SAMPLES],
    ]
    heads = [Head(model.hookpoint, coder, how, 1e-3) for how in ("mean", "mean", "max")]
    passes: list[int] = []
    run = ActivationModel._run

    def counting(self: ActivationModel, tokens: Any) -> Any:
        passes.append(len(tokens))
        return run(self, tokens)

    monkeypatch.setattr(ActivationModel, "_run", counting)
    seen: list[int] = []
    together = represent_heads(
        SAMPLES, model, heads, 1000, lambda batch: seen.append(len(batch.token_ids)), variants
    )
    assert passes == [5]  # every sample, also the one that `SAMPLES` counts nothing of
    assert seen == [sum(int(s.content_mask.sum()) for s in SAMPLES)]
    for head, variant, (rows, report) in zip(heads, variants, together, strict=True):
        [(alone, own_report)] = represent_heads(variant, model, [head], 1000)
        a, b = to_dense(alone).astype(np.int64), to_dense(rows).astype(np.int64)
        assert np.abs(a - b).max() <= 1  # other tokens lie in a batch beside it
        assert (report.n_tokens, report.n_empty) == (own_report.n_tokens, own_report.n_empty)


def test_samples_of_other_tokens_are_refused(model: ActivationModel, coder: SparseCoder) -> None:
    head = Head(model.hookpoint, coder, "mean", 1e-3)
    other = [replace(s, tokens=s.tokens + np.uint32(1)) for s in SAMPLES]
    with pytest.raises(ValueError, match="other tokens"):
        represent_heads(SAMPLES, model, [head], 1000, None, [other])


def test_tokens_that_are_left_out_do_not_widen_the_others(
    model: ActivationModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Attention sinks have thousands of latents: their rows would be made for every token."""
    hidden = torch.cat([part.hidden for part in iter_activations(model, SAMPLES, 128)])
    limit = float(hidden.norm(dim=1).sort().values[-4])  # three are above it
    d, m = hidden.shape[1], 256
    rows = torch.randn(m, d, generator=torch.Generator().manual_seed(0))
    rows = torch.nn.functional.normalize(rows, dim=1)
    info = SaeInfo("", None, d, m, 0, "jumprelu", centers=False)
    threshold = torch.full((m,), 0.4 * limit)
    sinks = make_coder(rows, torch.zeros(m), rows, torch.zeros(d), info=info, threshold=threshold)
    expected, report = vectors(SAMPLES, model, sinks, max_norm=limit)
    assert report.n_outliers == 3
    seen: list[float] = []

    def watched(coder: SparseCoder, x: torch.Tensor) -> TopActs:
        seen.append(float(x.norm(dim=1).max()))
        return encode(coder, x)

    monkeypatch.setattr("selection.representation.heads.encode", watched)
    again, _ = vectors(SAMPLES, model, sinks, max_norm=limit)
    assert max(seen) <= limit
    assert np.array_equal(to_dense(again), to_dense(expected))
    assert len(again.values)
    for row, one in enumerate(SAMPLES):
        for part in iter_activations(model, [one], 128):
            found = encode(sinks, part.hidden)
            dense = torch.zeros(len(part.hidden), m)
            dense.scatter_add_(1, found.top_indices, found.top_acts)
            inside = part.hidden.norm(dim=1) <= limit
            mean = dense[inside].sum(0) / max(1, int(inside.sum()))
            np.testing.assert_allclose(to_dense(again)[row] * 1e-3, mean, atol=6e-4)
