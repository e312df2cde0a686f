"""What we write is what the libraries read: their files' keys and shapes, and themselves if here.

The libraries are not in the development environment; run this file in one that has them:
`pip install -e '.[oracles]' pytest`.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from selection.sae.coder import SparseCoder, make_coder
from selection.sae.encode import encode, reconstruct
from selection.sae.formats.load import load_sae
from selection.sae.formats.save import save_saelens, save_sparsify
from selection.sae.metadata import SaeInfo

SAES = Path(__file__).parent / "saes"
D, M, K = 8, 32, 4


def coder(activation: str, norm: str = "none", centers: bool = True) -> SparseCoder:
    g = torch.Generator().manual_seed(0)
    info = SaeInfo("", "layers.4", D, M, K if activation in ("topk", "groupmax") else 0, activation,
                   "org/tiny", "ab" * 32, "mit", centers=centers, input_norm=norm,
                   declared_l0=6.0 if activation == "jumprelu" else None)  # fmt: skip
    weights = [torch.randn(s, generator=g) for s in ((M, D), (M,), (M, D), (D,))]
    threshold = torch.full((M,), 0.7) if activation == "jumprelu" else None
    return make_coder(*weights, info=info, threshold=threshold)


def tokens() -> torch.Tensor:
    return 2 * torch.randn(30, D, generator=torch.Generator().manual_seed(1)) + 1


def dense(c: SparseCoder) -> torch.Tensor:
    found = encode(c, tokens())
    return torch.zeros(30, M).scatter_add_(1, found.top_indices, found.top_acts)


@pytest.mark.parametrize(
    ("case", "activation"),
    [("saelens_topk", "topk"), ("saelens_standard", "relu"), ("saelens_batchtopk", "jumprelu")],
)
def test_saelens_files_have_the_keys_and_shapes_of_the_librarys(
    case: str, activation: str, tmp_path: Path
) -> None:
    save_saelens(coder(activation), tmp_path)
    ours, theirs = (load_file(f / "sae_weights.safetensors") for f in (tmp_path, SAES / case))
    assert {n: t.shape for n, t in ours.items()} == {n: t.shape for n, t in theirs.items()}
    mine, original = (json.loads((f / "cfg.json").read_text()) for f in (tmp_path, SAES / case))
    assert {k: v for k, v in mine.items() if k != "metadata"} == {
        k: v for k, v in original.items() if k != "metadata"
    }
    assert mine["metadata"]["hook_name"] == original["metadata"]["hook_name"]


@pytest.mark.parametrize("activation", ["topk", "relu", "jumprelu"])
@pytest.mark.parametrize("norm", ["none", "layer_norm", "sqrt_d"])
def test_saelens_files_come_back_as_they_were(activation: str, norm: str, tmp_path: Path) -> None:
    for centers in (True, False):
        before = coder(activation, norm, centers)
        save_saelens(before, tmp_path, record={"training": {"seed": 3}})
        after = load_sae(tmp_path)
        assert after.info.sha256 == before.info.sha256
        for name in ("hookpoint", "model_name", "model_sha256", "licence", "declared_l0", "k"):
            assert getattr(after.info, name) == getattr(before.info, name), name
        assert after.info.record["training"] == {"seed": 3}


def test_what_a_format_cannot_hold_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="sparsify format cannot hold"):
        save_sparsify(coder("jumprelu"), tmp_path)
    with pytest.raises(ValueError, match="sparsify format cannot hold"):
        save_sparsify(coder("topk", "layer_norm"), tmp_path)
    with pytest.raises(ValueError, match="not written for this SAE"):
        save_saelens(coder("groupmax"), tmp_path)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("activation", ["topk", "groupmax"])
def test_eai_sparsify_reads_what_we_write(activation: str, tmp_path: Path) -> None:
    library: Any = pytest.importorskip("sparsify", reason="needs eai-sparsify (extra `oracles`)")
    c = coder(activation)
    save_sparsify(c, tmp_path / "layers.4")
    loaded = library.SparseCoder.load_from_disk(tmp_path / "layers.4")
    with torch.no_grad():
        found = loaded.encode(tokens())
        theirs = torch.zeros(30, M).scatter_add_(1, found.top_indices, found.top_acts)
        recon = theirs @ loaded.W_dec + loaded.b_dec
    torch.testing.assert_close(dense(c), theirs, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(reconstruct(c, encode(c, tokens()), tokens()), recon)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("activation", ["topk", "relu", "jumprelu"])
@pytest.mark.parametrize("norm", ["none", "layer_norm", "sqrt_d"])
def test_sae_lens_reads_what_we_write(activation: str, norm: str, tmp_path: Path) -> None:
    library: Any = pytest.importorskip("sae_lens", reason="needs sae-lens (extra `oracles`)")
    for centers in (True, False):
        c = coder(activation, norm, centers)
        save_saelens(c, tmp_path)
        loaded = library.SAE.load_from_disk(tmp_path)
        with torch.no_grad():
            theirs = loaded.encode(tokens())
            recon = loaded.decode(theirs)
        np.testing.assert_allclose(dense(c), theirs, rtol=1e-4, atol=1e-5)
        ours = reconstruct(c, encode(c, tokens()), tokens())
        torch.testing.assert_close(ours, recon, rtol=1e-4, atol=1e-4)
