"""Which head drives a latent: against a slow definition, with planted weights, and in words."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from selection.models.hookpoints import Hookpoint
from selection.sae.coder import SparseCoder, make_coder, scaled_by_decoder_norm
from selection.sae.encode import encode
from selection.sae.interpret.head_shares import HeadShares, HeadSums, head_sums
from selection.sae.metadata import SaeInfo

H, WIDTH, M, N = 4, 3, 6, 50
D = H * WIDTH
PLACE = Hookpoint("heads", 1)
KINDS: dict[str, dict[str, Any]] = {
    "topk": {"k": 2},
    "jumprelu": {"k": 0, "centers": False},
    "gated": {"k": 0},
    "relu": {"k": 0, "input_norm": "layer_norm"},
}


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def coder_of(kind: str, weights: Tensor, **more: Tensor) -> SparseCoder:
    given = {"k": 2, **KINDS.get(kind, {})}
    info = SaeInfo("", "heads@1", D, M, given.pop("k"), activation=kind, **given)
    extra: dict[str, Tensor] = {}
    if kind == "jumprelu":
        extra = {"threshold": torch.full((M,), 0.1)}
    if kind == "gated":
        extra = {"magnitude_scale": 0.5 + torch.rand(M), "magnitude_bias": drawn(M, seed=3) + 1}
    biases = {"b": drawn(M, seed=1), "c": drawn(D, seed=2)} | more
    return make_coder(weights, biases["b"], drawn(M, D), biases["c"], info=info, **extra)


def by_loops(coder: SparseCoder, x: Tensor) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Parts of each head and of the bias, summed over active tokens, by the formulas of an SAE."""
    w, centered = coder.encoder_weight.double().numpy(), coder.info.centers
    b, c = coder.encoder_bias.double().numpy(), coder.decoder_bias.double().numpy() * centered
    z = x.double().numpy()
    if coder.info.input_norm == "layer_norm":
        z = z - z.mean(1, keepdims=True)
        z = z / (z.std(1, ddof=1, keepdims=True) + 1e-5)
    scale = np.ones(M)
    if coder.magnitude_scale is not None and coder.magnitude_bias is not None:
        scale, b = coder.magnitude_scale.double().numpy(), coder.magnitude_bias.double().numpy()
    found = encode(coder, x)
    heads, bias, acts = np.zeros((M, H)), np.zeros(M), np.zeros(M)
    for t in range(len(x)):
        pairs = zip(found.top_acts[t].tolist(), found.top_indices[t].tolist(), strict=True)
        for act, j in pairs:
            if act > 0:
                for h in range(H):
                    some = slice(WIDTH * h, WIDTH * (h + 1))
                    heads[j, h] += scale[j] * (w[j, some] @ z[t, some])
                bias[j] += b[j] - scale[j] * (w[j] @ c)
                acts[j] += act
    np.testing.assert_allclose(heads.sum(1) + bias, acts, rtol=1e-4)  # the values themselves
    return heads / acts[:, None], bias / acts


@pytest.mark.parametrize("kind", list(KINDS))
def test_shares_are_their_definition_and_do_not_depend_on_batches(kind: str) -> None:
    coder, x = coder_of(kind, drawn(M, D)), drawn(N, D, seed=5)
    heads, bias = by_loops(coder, x)
    assert np.isfinite(heads).all()
    for size in (N, 7):
        sums = head_sums(coder, PLACE, H)
        assert sums is not None
        for part in x.split(size):
            sums.add(part, encode(coder, part))
        shares = sums.shares()
        np.testing.assert_allclose(shares.heads, heads, rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose(shares.bias, bias, rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose(shares.heads.sum(1) + shares.bias, 1)


def test_a_head_that_alone_is_read_has_it_all() -> None:
    weights = torch.zeros(M, D)
    for latent in range(M - 1):
        head = latent % H
        weights[latent, WIDTH * head : WIDTH * (head + 1)] = drawn(WIDTH, seed=latent)
    coder = coder_of("topk", weights, b=torch.zeros(M), c=torch.zeros(D))
    sums, x = HeadSums(coder, H), drawn(N, D, seed=5)
    sums.add(x, encode(coder, x))
    shares = sums.shares()
    for latent in range(M - 1):
        ((head, share),) = shares.strongest(latent)
        assert head == latent % H
        assert share == pytest.approx(1)
        assert shares.words(latent) == f"pre-activation 100 % from head {latent % H}, 0 % bias"
    assert np.isnan(shares.heads[M - 1]).all()  # it never fires
    scaled = scaled_by_decoder_norm(coder)
    again = HeadSums(scaled, H)
    again.add(x, encode(scaled, x))
    np.testing.assert_allclose(again.shares().heads, shares.heads)


def test_words_name_the_largest_of_either_sign_and_the_bias() -> None:
    heads = np.array([[0.62, 0.05, -0.31, 0.21, 0.12], [0.02, 0.03, 0.0, 0.01, 0.01]])
    shares = HeadShares(heads, np.array([0.31, 0.93]))
    assert shares.words(0) == (
        "pre-activation 62 % from head 0, -31 % from head 2, 21 % from head 3, 31 % bias"
    )
    assert shares.words(1) == "pre-activation 3 % from head 1, 93 % bias"


def test_what_is_no_sum_of_heads_has_no_shares() -> None:
    coder = coder_of("topk", drawn(M, D))
    assert head_sums(coder, Hookpoint("resid", 1), H) is None
    assert head_sums(coder, PLACE, None) is None
    assert head_sums(coder, PLACE, 5) is None
    info = SaeInfo("", "heads@1", D, M, 2, activation="seminmf", centers=False)
    parts = make_coder(drawn(M, D), torch.zeros(M), drawn(M, D), torch.zeros(D), info=info)
    assert head_sums(parts, PLACE, H) is None
