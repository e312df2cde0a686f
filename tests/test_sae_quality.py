import numpy as np
import pytest
import torch

from selection.core.errors import InputError
from selection.sae.coder import SparseCoder, make_coder
from selection.sae.metadata import SaeInfo
from selection.sae.quality import measure

D, M, K = 6, 10, 2


def coder(seed: int = 0) -> SparseCoder:
    g = torch.Generator().manual_seed(seed)
    weight = torch.randn(M, D, generator=g)
    bias = torch.randn(M, generator=g)
    bias[4] = -1e6  # never fires
    return make_coder(
        weight, bias, weight / 3, torch.randn(D, generator=g), info=SaeInfo("", None, D, M, K)
    )


def test_quality_is_its_definition_and_does_not_depend_on_batches() -> None:
    c = coder()
    x = torch.randn(500, D, generator=torch.Generator().manual_seed(1)) * 2 + 100
    pre = (x - c.decoder_bias).double() @ c.encoder_weight.double().T + c.encoder_bias
    dense = np.maximum(pre.numpy(), 0)
    for row in dense:
        row[np.argsort(row)[: M - K]] = 0
    error = dense @ c.decoder_weight.double().numpy() + c.decoder_bias.numpy() - x.numpy()
    spread = x.double().numpy() - x.double().numpy().mean(0)
    for size in (500, 64, 1):
        found = measure(c, x.split(size))
        assert found.fvu == pytest.approx((error**2).sum() / (spread**2).sum(), rel=1e-5)
        assert found.l0 == pytest.approx((dense > 0).sum() / 500)
        assert found.dead_share == pytest.approx((~(dense > 0).any(0)).mean())
        assert found.n_tokens == 500
    assert found.dead_share >= 1 / M


def test_a_perfect_coder_has_no_unexplained_variance() -> None:
    eye = torch.eye(D)
    perfect = make_coder(eye, torch.zeros(D), eye, torch.zeros(D), info=SaeInfo("", None, D, D, D))
    assert measure(perfect, [torch.rand(50, D)]).fvu == pytest.approx(0)


def test_quality_needs_tokens_that_differ() -> None:
    for batches in ([], [torch.ones(3, D)]):
        with pytest.raises(InputError, match="two different tokens"):
            measure(coder(), batches)
