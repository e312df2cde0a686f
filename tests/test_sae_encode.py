from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from selection.sae.coder import SparseCoder, make_coder
from selection.sae.encode import TopActs, chunk_rows, decode, encode, rounded
from selection.sae.formats.load import load_sae
from selection.sae.metadata import SaeInfo

D, M, K = 16, 96, 6
DEMO_SAE = Path(__file__).parents[1] / "flows" / "demo" / "sae" / "layers.2"


def coder(activation: str = "topk", bias: float = 0.0) -> SparseCoder:
    g = torch.Generator().manual_seed(0)
    return make_coder(
        torch.randn(M, D, generator=g),
        torch.randn(M, generator=g) + bias,
        torch.randn(M, D, generator=g),
        torch.randn(D, generator=g),
        info=SaeInfo("", None, D, M, K, activation),
    )


def slowly(c: SparseCoder, x: NDArray[np.float64], activation: str) -> NDArray[np.float64]:
    """Dense latents, token by token and latent by latent."""
    w, b = c.encoder_weight.double().numpy(), c.encoder_bias.double().numpy()
    center = c.decoder_bias.double().numpy()
    dense = np.zeros((len(x), M))
    for i, token in enumerate(x):
        pre = [max(0.0, float(np.dot(token - center, w[j]) + b[j])) for j in range(M)]
        if activation == "topk":
            chosen = sorted(range(M), key=lambda j: -pre[j])[:K]
        else:
            width = M // K
            groups = [range(g * width, (g + 1) * width) for g in range(K)]
            chosen = [max(group, key=lambda j: pre[j]) for group in groups]
        for j in chosen:
            dense[i, j] = pre[j]
    return dense


def scattered(c: SparseCoder, x: torch.Tensor) -> torch.Tensor:
    found = encode(c, x)
    return torch.zeros(len(x), M).scatter_(1, found.top_indices, found.top_acts)


@pytest.mark.parametrize("activation", ["topk", "groupmax"])
@pytest.mark.parametrize("bias", [0.0, -15.0])  # with -15 most tokens have fewer than k latents
def test_encode_equals_the_definition(activation: str, bias: float) -> None:
    c = coder(activation, bias)
    x = torch.randn(40, D, generator=torch.Generator().manual_seed(1)) * 2
    expected = slowly(c, x.double().numpy(), activation)
    np.testing.assert_allclose(scattered(c, x).numpy(), expected, rtol=1e-5, atol=1e-5)
    if bias:
        assert ((expected > 0).sum(1) < K).any()


def test_encode_gives_distinct_indices_and_no_negative_acts() -> None:
    found = encode(coder(bias=-15.0), torch.randn(50, D))
    assert (found.top_acts >= 0).all()
    assert all(len(set(row)) == K for row in found.top_indices.tolist())
    assert found.top_acts.dtype == torch.float32


def test_chunks_do_not_change_what_is_found() -> None:
    c = coder()
    n = 2 * chunk_rows(M, torch.device("cpu")) + 17
    x = torch.randn(n, D, generator=torch.Generator().manual_seed(2))
    whole = scattered(c, x)
    rows = torch.tensor([0, n // 2, n - 1])
    torch.testing.assert_close(whole[rows], scattered(c, x[rows]), rtol=1e-5, atol=1e-5)
    assert torch.equal(whole, scattered(c, x))


def test_encode_takes_any_float_dtype_and_no_tokens() -> None:
    c = coder()
    x = torch.randn(5, D).to(torch.bfloat16)
    assert torch.equal(encode(c, x).top_acts, encode(c, x.float()).top_acts)
    assert encode(c, torch.empty(0, D)).top_acts.shape == (0, K)


def test_another_width_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\(3, 17\), expected \(n, 16\)"):
        encode(coder(), torch.zeros(3, D + 1))


def test_decode_is_the_dense_product() -> None:
    c, x = coder(), torch.randn(30, D)
    expected = scattered(c, x) @ c.decoder_weight + c.decoder_bias
    torch.testing.assert_close(decode(c, encode(c, x)), expected)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_agrees_with_the_cpu() -> None:
    c, x = coder(), torch.randn(300, D)
    found = encode(c.to("cuda"), x.cuda())
    dense = torch.zeros(300, M).scatter_(1, found.top_indices.cpu(), found.top_acts.cpu())
    torch.testing.assert_close(dense, scattered(c, x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("inputs", "n_bits"), [("bfloat16", 8), ("tf32", 11)])
def test_inputs_of_the_product_are_rounded_to_so_many_bits(inputs: str, n_bits: int) -> None:
    x = torch.randn(1000, 3, generator=torch.Generator().manual_seed(2)) * 1e3
    mantissa, exponent = np.frexp(x.double().numpy())
    expected = np.ldexp(np.round(mantissa * 2**n_bits) / 2**n_bits, exponent)
    assert np.array_equal(rounded(x, inputs).double().numpy(), expected)


@pytest.mark.parametrize("inputs", ["bfloat16", "tf32"])
@pytest.mark.parametrize("activation", ["topk", "groupmax"])
def test_a_product_of_rounded_inputs_is_summed_in_float32(activation: str, inputs: str) -> None:
    c = coder(activation)
    x = torch.randn(40, D, generator=torch.Generator().manual_seed(1)) * 2
    exact = replace(
        c, encoder_weight=rounded(c.encoder_weight, inputs), decoder_bias=torch.zeros(D)
    )
    rough = rounded(x - c.decoder_bias, inputs)
    expected = slowly(exact, rough.double().numpy(), activation)
    found = scattered(c.rounded(inputs), x).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    assert not np.allclose(found, scattered(c, x).numpy(), rtol=1e-5, atol=1e-5)


def test_rounded_inputs_leave_the_latents_of_the_packaged_sae_almost_as_they_are() -> None:
    """Activations of that SAE's width with its own directions in them, as in the model."""
    c = load_sae(DEMO_SAE)
    g = torch.Generator().manual_seed(3)
    chosen = torch.randint(0, c.info.num_latents, (400, c.k), generator=g)
    x = decode(c, TopActs(torch.rand(400, c.k, generator=g) * 4, chosen))
    x += 0.3 * torch.randn(x.shape, generator=g)
    exact = encode(c, x)
    for inputs, least in (("tf32", 0.98), ("bfloat16", 0.9)):
        rough = encode(c.rounded(inputs), x)
        a, b = (
            torch.zeros(400, c.info.num_latents).scatter_(1, t.top_indices, t.top_acts) > 0
            for t in (exact, rough)
        )
        jaccard = float(((a & b).sum(1) / (a | b).sum(1)).mean())
        assert least < jaccard < 1, (inputs, jaccard)
