"""Every selection rule and input norm against its definition, token by token, in float64."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from selection.sae import encode as encoding
from selection.sae.coder import SparseCoder, card, make_coder, scaled_by_decoder_norm
from selection.sae.encode import encode, reconstruct
from selection.sae.metadata import SaeInfo

D, M, K = 8, 30, 5
RULES = ["topk", "groupmax", "relu", "jumprelu", "gated"]


def coder(activation: str, *, norm: str = "none", centers: bool = True) -> SparseCoder:
    g = torch.Generator().manual_seed(3)
    extra: dict[str, torch.Tensor] = {}
    if activation == "jumprelu":
        extra["threshold"] = torch.rand(M, generator=g) * 3
    if activation == "gated":
        extra["magnitude_scale"] = torch.randn(M, generator=g).exp()
        extra["magnitude_bias"] = torch.randn(M, generator=g)
    k = K if activation in ("topk", "groupmax") else 0
    return make_coder(
        torch.randn(M, D, generator=g),
        torch.randn(M, generator=g) - 1,
        torch.randn(M, D, generator=g),
        torch.randn(D, generator=g),
        info=SaeInfo("", None, D, M, k, activation, centers=centers, input_norm=norm),
        **extra,
    )


def normed(x: NDArray[np.float64], norm: str) -> NDArray[np.float64]:
    if norm == "layer_norm":
        return (x - x.mean()) / (x.std(ddof=1) + 1e-5)
    return x * np.sqrt(len(x)) / np.linalg.norm(x) if norm == "sqrt_d" else x


def slowly(c: SparseCoder, tokens: NDArray[np.float64]) -> NDArray[np.float64]:
    """Dense latents by the definition."""
    info, dense = c.info, np.zeros((len(tokens), M))
    w, b, center = (t.double().numpy() for t in (c.encoder_weight, c.encoder_bias, c.decoder_bias))
    for t, token in enumerate(tokens):
        x = normed(token, info.input_norm) - (center if info.centers else 0)
        pre = [float(x @ w[j] + b[j]) for j in range(M)]
        relu = [max(0.0, value) for value in pre]
        if info.activation == "topk":
            active = sorted(range(M), key=lambda j: -relu[j])[:K]
        elif info.activation == "groupmax":
            groups = [range(g * M // K, (g + 1) * M // K) for g in range(K)]
            active = [max(group, key=lambda j: relu[j]) for group in groups]
        elif info.activation == "jumprelu" and c.threshold is not None:
            active = [j for j in range(M) if pre[j] > float(c.threshold[j])]
        else:
            active = [j for j in range(M) if pre[j] > 0]
        for j in active:
            dense[t, j] = relu[j]
            if c.magnitude_scale is not None and c.magnitude_bias is not None:
                without = pre[j] - b[j]
                magnitude = float(c.magnitude_scale[j]) * without + float(c.magnitude_bias[j])
                dense[t, j] = max(0.0, magnitude)
    return dense


def dense(c: SparseCoder, x: torch.Tensor) -> NDArray[np.float32]:
    found = encode(c, x)
    out = torch.zeros(len(x), M).scatter_add_(1, found.top_indices, found.top_acts)
    return out.numpy()


def some_tokens(n: int = 40) -> torch.Tensor:
    return 2 * torch.randn(n, D, generator=torch.Generator().manual_seed(1)) + 0.5


@pytest.mark.parametrize("norm", ["none", "layer_norm", "sqrt_d"])
@pytest.mark.parametrize("centers", [True, False])
@pytest.mark.parametrize("activation", RULES)
def test_latents_are_those_of_the_definition(activation: str, centers: bool, norm: str) -> None:
    c, x = coder(activation, norm=norm, centers=centers), some_tokens()
    expected = slowly(c, x.double().numpy())
    np.testing.assert_allclose(dense(c, x), expected, rtol=1e-4, atol=1e-5)
    assert 0 < (expected > 0).sum(1).mean() < M


@pytest.mark.parametrize("activation", RULES)
@pytest.mark.parametrize("size", [1, 4, 7, 12])
def test_latents_in_slices_are_the_same_latents(
    activation: str, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    c, x = coder(activation), some_tokens(300)
    whole, found = dense(c, x), encode(c, x)
    monkeypatch.setattr(encoding, "_SLICE_LATENTS", size)
    sliced = encode(c, x)
    assert sliced.top_acts.shape == found.top_acts.shape
    np.testing.assert_allclose(dense(c, x), whole, rtol=1e-5, atol=1e-6)


def test_a_value_equal_to_the_threshold_is_no_latent() -> None:
    eye = torch.eye(2)
    c = make_coder(eye, torch.zeros(2), eye, torch.zeros(2),
                   info=SaeInfo("", None, 2, 2, 0, "jumprelu", centers=False),
                   threshold=torch.tensor([1.0, 0.0]))  # fmt: skip
    above = float(np.nextafter(np.float32(1), np.float32(2)))
    found = encode(c, torch.tensor([[1.0, 0.0], [above, 0.0], [1.0, 0.5]]))
    assert found.top_acts.max(dim=1).values.tolist() == [0.0, above, 0.5]
    assert int(found.top_indices[2][found.top_acts[2] > 0]) == 1


def test_a_negative_value_above_a_negative_threshold_is_no_latent() -> None:
    c = make_coder(torch.eye(2), torch.zeros(2), torch.eye(2), torch.zeros(2),
                   info=SaeInfo("", None, 2, 2, 0, "jumprelu", centers=False),
                   threshold=torch.tensor([-5.0, -5.0]))  # fmt: skip
    assert encode(c, torch.tensor([[-1.0, -2.0]])).top_acts.max() == 0


@pytest.mark.parametrize("activation", RULES)
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_tokens_that_are_not_finite_show(activation: str, bad: float) -> None:
    x = some_tokens(3)
    x[1, 2] = bad
    finite = torch.isfinite(encode(coder(activation), x).top_acts).all(dim=1)
    assert finite.tolist() == [True, False, True]


@pytest.mark.parametrize("activation", RULES)
@pytest.mark.parametrize("norm", ["none", "layer_norm", "sqrt_d"])
def test_the_scale_of_the_decoder_moves_values_but_not_what_is_active(
    activation: str, norm: str
) -> None:
    c, x = coder(activation, norm=norm), some_tokens()
    scaled = scaled_by_decoder_norm(c)
    lengths = c.decoder_weight.norm(dim=1).numpy()
    np.testing.assert_allclose(dense(scaled, x), dense(c, x) * lengths, rtol=1e-5)
    before, after = (reconstruct(a, encode(a, x), x) for a in (c, scaled))
    torch.testing.assert_close(before, after, rtol=1e-4, atol=1e-4)
    assert scaled.info.sae_id != c.info.sae_id
    assert "times a factor per latent" in dict(card(scaled))["values"]


def test_a_per_token_norm_is_undone() -> None:
    for norm in ("layer_norm", "sqrt_d"):
        c, x = coder("relu", norm=norm), some_tokens()
        found = slowly(c, x.double().numpy()) @ c.decoder_weight.double().numpy()
        found += c.decoder_bias.double().numpy()
        raw = x.double().numpy()
        if norm == "layer_norm":
            expected = found * raw.std(1, ddof=1, keepdims=True) + raw.mean(1, keepdims=True)
        else:
            expected = found * np.linalg.norm(raw, axis=1, keepdims=True) / np.sqrt(D)
        ours = reconstruct(c, encode(c, x), x).numpy()
        np.testing.assert_allclose(ours, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("activation", RULES)
def test_nothing_active_and_no_tokens(activation: str) -> None:
    c = coder(activation)
    quiet = make_coder(
        torch.zeros(M, D), torch.full((M,), -9.0), c.decoder_weight, c.decoder_bias, info=c.info,
        threshold=c.threshold, magnitude_scale=c.magnitude_scale, magnitude_bias=c.magnitude_bias,
    )  # fmt: skip
    x = some_tokens(4)
    found = encode(quiet, x)
    assert not found.top_acts.any()
    torch.testing.assert_close(reconstruct(quiet, found, x), c.decoder_bias.expand(4, D))
    assert encode(c, x[:0]).top_acts.shape[0] == 0


@pytest.mark.parametrize(
    ("activation", "extra", "message"),
    [
        ("jumprelu", {}, "needs also"),
        ("gated", {"threshold": torch.zeros(M)}, "needs also"),
        ("topk", {"threshold": torch.zeros(M)}, "topk has the tensors"),
        ("jumprelu", {"threshold": torch.zeros(M + 1)}, "threshold has shape"),
        ("jumprelu", {"threshold": torch.full((M,), torch.nan)}, "threshold has values"),
        ("sigmoid", {}, "no such convention"),
    ],
)
def test_tensors_that_contradict_the_rule_are_refused(
    activation: str, extra: dict[str, Any], message: str
) -> None:
    info = SaeInfo("", None, D, M, K, activation)
    weights = torch.zeros(M, D), torch.zeros(M), torch.zeros(M, D), torch.zeros(D)
    with pytest.raises(ValueError, match=message):
        make_coder(*weights, info=info, **extra)


def test_every_convention_changes_the_id(tmp_path: Path) -> None:
    found = {coder(rule).info.sae_id for rule in RULES}
    found |= {coder("topk", norm=norm).info.sae_id for norm in ("layer_norm", "sqrt_d")}
    found.add(coder("topk", centers=False).info.sae_id)
    assert len(found) == len(RULES) + 3


def test_the_card_tells_the_conventions() -> None:
    shown = dict(card(coder("jumprelu", centers=False)))
    assert shown["decoder bias"] == "not subtracted"
    assert shown["selection"].startswith("above a threshold of 0")
    assert dict(card(coder("topk", norm="layer_norm")))["input"].startswith("each token to mean 0")
    assert dict(card(coder("groupmax")))["selection"] == "the largest in each of 5 groups"
