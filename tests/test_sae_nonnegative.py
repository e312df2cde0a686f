"""Non-negative codes on fixed parts: against scipy, against slow loops, and pass by pass."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.optimize import nnls
from torch import Tensor

from selection.core.errors import InputError
from selection.sae.coder import SparseCoder, card, make_coder, scaled_by_decoder_norm
from selection.sae.encode import decode, encode, reconstruct
from selection.sae.formats.load import load_sae, read_sae_info
from selection.sae.formats.save import save_saelens, save_sparsify, save_trained
from selection.sae.metadata import SaeInfo
from selection.sae.nonnegative import REFITS, SWEEPS, nonnegative_codes, sparse_codes
from selection.sae.quality import measure

D, M = 12, 9


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def coder_of(parts: Tensor, k: int) -> SparseCoder:
    m, d = parts.shape
    info = SaeInfo("", "mlp_hidden@1", d, m, k, activation="seminmf", family="saelens",
                   centers=False)  # fmt: skip
    return make_coder(parts, torch.zeros(m), parts, torch.zeros(d), info=info)


def dense(latents: Any, m: int) -> NDArray[np.float64]:
    found = torch.zeros(len(latents.top_acts), m, dtype=torch.float64)
    found.scatter_add_(1, latents.top_indices, latents.top_acts.double())
    return np.asarray(found)


def exact(x: Tensor, parts: Tensor) -> NDArray[np.float64]:
    return np.array([nnls(parts.double().T.numpy(), row)[0] for row in x.double().numpy()])


def by_loops(x: NDArray[np.float64], parts: NDArray[np.float64], k: int) -> NDArray[np.float64]:
    """The codes of one token by the definition, a coordinate at a time, in float64."""
    gram, products = parts @ parts.T, parts @ x
    start = np.maximum(products, 0)
    rebuilt = start @ parts
    y = start * (x @ rebuilt) / (rebuilt @ rebuilt) if rebuilt.any() else start
    for _ in range(SWEEPS):
        for j in range(len(parts)):
            y[j] = max(0.0, y[j] + (products[j] - gram[j] @ y) / gram[j, j])
    kept = np.argsort(-y * np.sqrt(np.diag(gram)), kind="stable")[:k]
    codes = np.zeros(len(parts))
    codes[kept] = y[kept]
    # The order within a pass is that of torch's topk; it matters little once a pass changes little.
    for _ in range(REFITS):
        for j in kept:
            codes[j] = max(0.0, codes[j] + (products[j] - gram[j] @ codes) / gram[j, j])
    return codes


def test_all_codes_are_those_of_scipy() -> None:
    parts, x = drawn(M, D), drawn(40, D, seed=1)
    expected = exact(x, parts)
    assert 0.2 < (expected > 0).mean() < 0.8
    found = nonnegative_codes(x, parts, 300)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    near = dense(encode(coder_of(parts, M), x), M)  # with the passes of an encoding alone
    assert np.abs(near - expected).max() < 0.02
    errors = [((codes @ parts.numpy() - x.numpy()) ** 2).sum() for codes in (near, expected)]
    assert errors[0] <= errors[1] * (1 + 1e-3)


@pytest.mark.parametrize("m", [M, 150])  # 150 parts are several blocks, more than D
def test_the_k_largest_are_fitted_again_alone(m: int) -> None:
    parts, x, k = drawn(m, D) * (0.5 + torch.rand(m, 1)), drawn(30, D, seed=1), 3
    found = dense(encode(coder_of(parts, k), x), m)
    expected = np.array([by_loops(t, parts.double().numpy(), k) for t in x.double().numpy()])
    np.testing.assert_array_equal(found > 0, expected > 0)
    np.testing.assert_allclose(found, expected, rtol=5e-3, atol=5e-3)
    for row, codes in zip(x.double().numpy(), found, strict=True):
        kept = np.flatnonzero(codes)
        alone, _ = nnls(parts.double().numpy()[kept].T, row)
        np.testing.assert_allclose(codes[kept], alone, atol=0.02)
    first = nonnegative_codes(x, parts)
    largest = (first * parts.norm(dim=1)).topk(k, dim=1).indices
    unfitted = torch.zeros_like(first).scatter_(1, largest, first.gather(1, largest))
    before, after = ((torch.as_tensor(c, dtype=torch.float32) @ parts - x).square().sum(1)
                     for c in (unfitted, found))  # fmt: skip
    assert (after <= before * (1 + 1e-5)).all()
    assert after.sum() < 0.98 * before.sum()


def test_the_error_never_rises_over_the_passes() -> None:
    parts, x = drawn(150, D) + 0.5, drawn(30, D, seed=1) + 1
    errors = [(nonnegative_codes(x, parts, n) @ parts - x).square().sum(1) for n in range(6)]
    for before, after in pairwise(errors):
        assert (after <= before + 1e-4).all()
    assert errors[-1].sum() < 0.5 * errors[0].sum()


def test_tokens_are_encoded_alone_and_those_that_no_part_points_to_are_silent() -> None:
    parts = drawn(M, D).abs()
    x = drawn(700, D, seed=1)
    x[3], x[4] = 0.0, -1.0
    coder = coder_of(parts, 4)
    whole = dense(encode(coder, x), M)
    assert not whole[3:5].any()
    assert np.isfinite(whole).all()
    assert (whole >= 0).all()
    single = np.concatenate([dense(encode(coder, row[None]), M) for row in x[:20]])
    np.testing.assert_allclose(whole[:20], single, atol=1e-5)
    assert encode(coder, x[:0]).top_acts.shape == (0, 4)
    with pytest.raises(ValueError, match="expected \\(n, 12\\)"):
        encode(coder, x[:, 1:])


def test_a_part_of_nothing_is_never_used() -> None:
    parts = drawn(M, D)
    parts[2] = 0.0
    values, latents = sparse_codes(drawn(50, D, seed=1), parts, M)
    assert not values[latents == 2].any()
    assert torch.isfinite(values).all()


def test_it_decodes_and_scales_as_every_sae() -> None:
    coder, x = coder_of(drawn(M, D), 4), drawn(60, D, seed=1)
    found = encode(coder, x)
    rebuilt = torch.as_tensor(dense(found, M), dtype=torch.float32) @ coder.decoder_weight
    torch.testing.assert_close(decode(coder, found), rebuilt)
    scaled = scaled_by_decoder_norm(coder)
    again = encode(scaled, x)
    norms = coder.decoder_weight.norm(dim=1)
    torch.testing.assert_close(again.top_acts, found.top_acts * norms[found.top_indices])
    torch.testing.assert_close(reconstruct(scaled, again, x), reconstruct(coder, found, x))
    quality = measure(coder, [x])
    rest = (x - rebuilt).square().sum() / (x - x.mean(0)).square().sum()
    assert quality.fvu == pytest.approx(float(rest), rel=1e-4)
    assert quality.l0 == pytest.approx(float((found.top_acts > 0).sum()) / 60)
    assert quality.dead_share == pytest.approx(1 - len(found.top_indices.unique()) / M)


def test_it_is_saved_and_loaded_to_the_bit(tmp_path: Path) -> None:
    coder = coder_of(drawn(M, D), 4).trained_on("tiny", "ab" * 32, "mlp_hidden@1")
    coder = replace(coder, info=replace(coder.info, declared_l0=3.5))
    save_trained(coder, tmp_path / "sae", {})
    again = load_sae(tmp_path / "sae")
    assert again.info.sha256 == coder.info.sha256
    assert torch.equal(again.encoder_weight, coder.encoder_weight)
    assert torch.equal(again.decoder_weight, coder.encoder_weight)
    x = drawn(50, D, seed=1)
    for ours, theirs in zip(encode(again, x), encode(coder, x), strict=True):
        assert torch.equal(ours, theirs)
    info = read_sae_info(tmp_path / "sae")
    assert (info.activation, info.k, info.d_in, info.num_latents, info.hookpoint, info.declared_l0,
            info.centers) == ("seminmf", 4, D, M, "mlp_hidden@1", 3.5, False)  # fmt: skip
    rows = dict(card(again))
    assert rows["selection"] == "non-negative codes that fit best, the 4 largest"
    assert rows["hookpoint"] == "mlp_hidden@1"
    with pytest.raises(ValueError, match="sparsify format cannot hold"):
        save_sparsify(coder, tmp_path / "other")
    with pytest.raises(ValueError, match="not written"):
        save_saelens(scaled_by_decoder_norm(coder), tmp_path / "other")
    others = [coder_of(drawn(M, D), 5), coder_of(drawn(M, D, seed=2), 4)]
    assert len({c.info.sha256 for c in (coder, *others)}) == 3


def test_it_is_encoded_in_float32_alone() -> None:
    coder = coder_of(drawn(M, D), 4)
    assert coder.rounded("float32").inputs == "float32"
    with pytest.raises(InputError, match="encoded in float32") as refused:
        coder.rounded("bfloat16")
    assert refused.value.field == "representation.encoder_inputs"
