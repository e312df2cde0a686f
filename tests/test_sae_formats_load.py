import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from selection.core.errors import InputError
from selection.models.hookpoints import Hookpoint, hookpoint_of
from selection.sae.coder import make_coder
from selection.sae.compatibility import check_fits
from selection.sae.encode import encode
from selection.sae.formats.find import list_local_saes
from selection.sae.formats.load import load_sae, read_sae_info
from selection.sae.formats.save import save_sparsify
from selection.sae.metadata import SaeInfo

D, M, K = 8, 24, 3


def tensors(dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    shapes = {"encoder.weight": (M, D), "encoder.bias": (M,), "W_dec": (M, D), "b_dec": (D,)}
    return {name: torch.randn(shape, generator=g).to(dtype) for name, shape in shapes.items()}


def write(folder: Path, weights: dict[str, torch.Tensor] | None = None, **cfg: Any) -> Path:
    """A checkpoint by the format's description, not by our writer."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors() if weights is None else weights, folder / "sae.safetensors")
    config = {
        "activation": "topk",
        "expansion_factor": 3,
        "normalize_decoder": True,
        "num_latents": M,
        "k": K,
        "multi_topk": False,
        "skip_connection": False,
        "transcode": False,
        "d_in": D,
    }
    (folder / "cfg.json").write_text(json.dumps(config | cfg))
    return folder


@dataclass
class Model:
    name: str = "org/tiny"
    weights_sha256: str = "aa"
    d_model: int = D
    d_heads: int | None = None
    d_mlp: int | None = None
    n_layers: int = 6


def at(site: str = "resid", block: int = 4) -> Hookpoint:
    return Hookpoint(site, block)


def test_a_checkpoint_is_read_as_it_is_written(tmp_path: Path) -> None:
    coder = load_sae(write(tmp_path / "layers.4"))
    expected = tensors()
    assert torch.equal(coder.encoder_weight, expected["encoder.weight"])
    assert torch.equal(coder.encoder_bias, expected["encoder.bias"])
    assert torch.equal(coder.decoder_weight, expected["W_dec"])  # not normalized again
    assert torch.equal(coder.decoder_bias, expected["b_dec"])
    info = coder.info
    assert (info.hookpoint, info.d_in, info.num_latents, info.k) == ("layers.4", D, M, K)
    assert info.sae_id == (info.sha256 or "")[:16]


@pytest.mark.parametrize("normalize_decoder", [True, False])
def test_num_latents_zero_means_the_expansion_factor(
    tmp_path: Path, normalize_decoder: bool
) -> None:
    folder = write(tmp_path / "h.1", num_latents=0, normalize_decoder=normalize_decoder)
    coder = load_sae(folder)
    assert coder.info.num_latents == M
    assert torch.equal(coder.decoder_weight, tensors()["W_dec"])


def test_bfloat16_weights_become_float32_and_keep_their_id(tmp_path: Path) -> None:
    half = tensors(torch.bfloat16)
    coder = load_sae(write(tmp_path / "half", half))
    assert coder.encoder_weight.dtype == torch.float32
    assert torch.equal(coder.encoder_weight, half["encoder.weight"].float())
    same = load_sae(write(tmp_path / "full", {n: t.float() for n, t in half.items()}))
    assert same.info.sha256 == coder.info.sha256


def test_the_id_depends_on_weights_and_k(tmp_path: Path) -> None:
    ids = {load_sae(write(tmp_path / f"{k}", k=k)).info.sae_id for k in (2, 3)}
    changed = tensors()
    changed["b_dec"][0] += 1
    ids.add(load_sae(write(tmp_path / "changed", changed)).info.sae_id)
    assert len(ids) == 3


@pytest.mark.parametrize(
    ("cfg", "message"),
    [
        ({"transcode": True}, r"cfg\.json: `transcode`: it reads the input of a module"),
        ({"skip_connection": True}, "`skip_connection`: beside its latents"),
        ({"activation": "relu"}, r"`activation`: expected topk or groupmax \(found: 'relu'\)"),
        ({"signed": True}, "`signed`"),
        ({"k": 0}, "`k`: expected a whole number, 1 or more"),
        ({"k": M + 1}, "`k`: expected 1 to 24"),
        ({"k": 5, "activation": "groupmax"}, "`k`: expected a divisor"),
        ({"num_latents": -1}, "`num_latents`"),
        ({"num_latents": 0, "expansion_factor": None}, "`expansion_factor`"),
        ({"d_in": None}, "`d_in`: expected a whole number, 1 or more"),
        ({"num_latents": 23}, r"encoder_weight has shape \(24, 8\), expected \(23, 8\)"),
    ],
)
def test_what_cannot_be_read_correctly_is_refused(
    tmp_path: Path,
    cfg: dict[str, Any],
    message: str,
) -> None:
    folder = write(tmp_path / "layers.0", **cfg)
    with pytest.raises(InputError, match=message):
        load_sae(folder)


def test_damaged_checkpoints_are_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "layers.0")
    (folder / "sae.safetensors").write_bytes(b"\x05\x00\x00\x00\x00\x00\x00\x00nothing")
    with pytest.raises(InputError, match=r"sae\.safetensors: the weights cannot be read"):
        load_sae(folder)
    broken = tensors()
    broken["W_dec"][0, 0] = float("nan")
    with pytest.raises(InputError, match="decoder_weight has values that are not finite"):
        load_sae(write(tmp_path / "nan", broken))
    del broken["W_dec"]
    with pytest.raises(InputError, match="the tensors W_dec are missing"):
        load_sae(write(tmp_path / "encoder", broken))
    (folder / "cfg.json").write_text('{"d_in": 8,\n nothing}')
    with pytest.raises(InputError, match=r"cfg\.json, line 2: not readable as JSON"):
        load_sae(folder)
    (folder / "sae.safetensors").unlink()
    with pytest.raises(InputError, match=r"is missing beside cfg"):
        load_sae(folder)


def test_a_folder_above_one_sae_stands_for_it_and_above_several_lists_them(tmp_path: Path) -> None:
    write(tmp_path / "run" / "layers.3")
    assert load_sae(tmp_path / "run").info.hookpoint == "layers.3"
    write(tmp_path / "run" / "layers.5")
    with pytest.raises(InputError, match=r"2 SAEs in this folder.*layers\.3.*layers\.5"):
        load_sae(tmp_path / "run")


@pytest.mark.parametrize(
    "name", ["./nowhere", "nowhere", "/no/such/folder", "org/unknown/layers.3"]
)
def test_a_missing_sae_lists_the_local_ones(tmp_path: Path, name: str) -> None:
    write(tmp_path / "saes" / "mine" / "layers.4")
    with pytest.raises(InputError, match=r"`sae`.*on this machine: .*layers\.4 \(width 8"):
        load_sae(name, local=[tmp_path / "saes"])
    with pytest.raises(InputError, match=r"Give the folder.* train one"):
        load_sae(name)


def test_of_many_saes_in_a_folder_ten_are_listed_or_those_that_fit(tmp_path: Path) -> None:
    for i in range(12):
        write(tmp_path / "run" / f"layers.{i}")
    refused = r"12 SAEs in this folder; name one.*"
    with pytest.raises(InputError, match=refused + r"These are there: .*; and 2 more\.$") as error:
        load_sae(tmp_path / "run")
    assert str(error.value).count("(width 8") == 10
    assert "fit" not in str(error.value)
    with pytest.raises(InputError, match=refused + "These would fit: ") as error:
        read_sae_info(tmp_path / "run", model=Model(n_layers=2))
    assert str(error.value).count("(width 8") == 2
    with pytest.raises(InputError, match=refused + "None of them fits org/tiny. These are there:"):
        read_sae_info(tmp_path / "run", model=Model(d_model=9))


def test_saving_and_loading_keeps_everything(tmp_path: Path) -> None:
    info = SaeInfo("", "layers.2", D, M, K, "topk", "org/tiny", "ab" * 32, "mit")
    w = tensors()
    coder = make_coder(w["encoder.weight"], w["encoder.bias"], w["W_dec"], w["b_dec"], info=info)
    folder = tmp_path / "any name"
    save_sparsify(coder, folder, record={"quality": {"fvu": 0.25}})
    again = load_sae(folder)
    assert again.info.sha256 == coder.info.sha256
    assert (again.info.hookpoint, again.info.licence) == ("layers.2", "mit")
    assert (again.info.model_name, again.info.model_sha256) == ("org/tiny", "ab" * 32)
    assert again.info.record["quality"] == {"fvu": 0.25}
    x = torch.randn(9, D)
    assert torch.equal(encode(again, x).top_acts, encode(coder, x).top_acts)
    assert sorted(p.name for p in folder.iterdir()) == [
        "cfg.json",
        "sae.safetensors",
        "saelect.json",
    ]
    save_sparsify(again, tmp_path / "copy")
    for name in ("cfg.json", "sae.safetensors", "saelect.json"):
        assert (tmp_path / "copy" / name).read_bytes() == (folder / name).read_bytes()


def test_the_model_is_read_from_the_run_above_and_the_licence_from_its_card(tmp_path: Path) -> None:
    folder = write(tmp_path / "run" / "layers.4")
    (tmp_path / "run" / "config.json").write_text('{"model": "org/tiny"}')
    (tmp_path / "run" / "README.md").write_text("---\ntags: [sae]\nlicense: apache-2.0\n---\n# A")
    info = read_sae_info(folder)
    assert (info.model_name, info.licence, info.model_sha256) == ("org/tiny", "apache-2.0", None)


def test_local_saes_are_listed_in_order_without_broken_ones(tmp_path: Path) -> None:
    write(tmp_path / "b" / "layers.1")
    write(tmp_path / "a" / "deep" / "er" / "layers.2")
    write(tmp_path / "broken", k=0)
    (tmp_path / "no_weights").mkdir()
    (tmp_path / "no_weights" / "cfg.json").write_text("{}")
    found = list_local_saes([tmp_path, tmp_path / "b", tmp_path / "missing"])
    assert [s.hookpoint for s in found] == ["layers.2", "layers.1"]
    with pytest.raises(ValueError, match="not read"):
        _ = found[0].sae_id


@pytest.mark.parametrize(
    ("model", "point", "message"),
    [
        (Model(d_model=9), at(), "reads activations of width 8, org/tiny has 9"),
        (Model(), at(block=5), r"reads layers\.4 \(resid@4\), the hookpoint is resid@5"),
        (Model(), at(site="mlp"), "the hookpoint is mlp@4"),
        (Model(name="org/other"), at(), "trained on someone/Tiny, not on org/other"),
    ],
)
def test_an_sae_of_another_model_width_or_place_is_refused(
    model: Model, point: Hookpoint, message: str
) -> None:
    sae = SaeInfo("saes/x/layers.4", "layers.4", D, M, K, model_name="someone/Tiny")
    check_fits(sae, Model(), at())
    fitting = SaeInfo("saes/y", None, model.d_model, M, K)
    with pytest.raises(InputError, match=message) as error:
        check_fits(sae, model, point, local=[sae, fitting])
    assert "These would fit: saes/y (" in str(error.value)
    assert "saes/x/layers.4 (" not in str(error.value)


def test_where_only_the_place_differs_the_saes_own_is_the_remedy() -> None:
    sae = SaeInfo("saes/x", "layers.4", D, M, K)
    with pytest.raises(InputError) as error:
        check_fits(sae, Model(), at(block=3), written="resid@0.66")
    assert str(error.value) == (
        "`sae`: the SAE reads layers.4 (resid@4), the hookpoint is resid@0.66 (resid@3)"
        " (found: 'saes/x'). Leave `model.hookpoint` out, or write `resid@4`."
    )
    with pytest.raises(InputError, match=r"the hookpoint is resid@3 \(found"):
        check_fits(sae, Model(), at(block=3), written="resid@3")


def test_where_no_place_was_asked_for_every_sae_of_the_model_fits() -> None:
    """Only the model's own number of blocks bounds it."""
    fitting = [SaeInfo(f"saes/{i}", f"layers.{i}", D, M, K) for i in range(6)]
    for sae in fitting:
        check_fits(sae, Model(), None)
    deep = SaeInfo("saes/deep", "layers.6", D, M, K)
    with pytest.raises(InputError) as error:
        check_fits(deep, Model(), None, [*fitting, deep], field="other.sae")
    assert str(error.value).startswith(
        "`other.sae`: the SAE reads layers.6 (resid@6), org/tiny has 6 blocks (found: 'saes/deep')."
        " These would fit: saes/0 ("
    )
    assert str(error.value).count("width 8") == 6
    foreign = SaeInfo("saes/wide", "layers.6", D + 1, M, K)
    with pytest.raises(InputError, match=r"of width 9, org/tiny has 8.*No SAE that was found here"):
        check_fits(foreign, Model(), None, [foreign, deep])
    at_their_own = r"of width 9.*These would fit, at their own hookpoint: saes/1 \(width 8"
    with pytest.raises(InputError, match=at_their_own):
        check_fits(foreign, Model(), at(), fitting[1:2])


def test_recorded_weights_decide_over_names(tmp_path: Path) -> None:
    sae = SaeInfo("x", None, D, M, K, model_name="org/other", model_sha256="aa")
    check_fits(sae, Model(), at())
    with pytest.raises(InputError, match="trained on other weights"):
        check_fits(sae, Model(weights_sha256="bb"), at())
    unhashed = SaeInfo("x", None, D, M, K, model_name="org/other")
    check_fits(unhashed, Model(name=str(tmp_path)), at())  # a folder may have any name


@pytest.mark.parametrize(
    ("name", "block"),
    [
        ("layers.4", 4),
        ("gpt_neox.layers.11", 11),
        ("h.3", 3),
        ("encoder.layer.7", 7),
        ("layers.4.mlp", None),
        ("embed_tokens", None),
        (None, None),
    ],
)
def test_block_of_a_module_name(name: str | None, block: int | None) -> None:
    found = hookpoint_of(name)
    assert (found.block if found and found.site == "resid" else None) == block


def test_the_shared_tiny_sae_loads(tiny_sae_dir: Path) -> None:
    coder = load_sae(tiny_sae_dir)
    assert coder.info.hookpoint == "layers.2"
    assert np.allclose(coder.decoder_weight.norm(dim=1).numpy(), 1.0)
