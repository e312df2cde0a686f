import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from selection.sae.coder import SparseCoder, make_coder
from selection.sae.encode import chunk_rows, decode, encode
from selection.sae.metadata import SaeInfo

D, M, K = 16, 96, 6


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
