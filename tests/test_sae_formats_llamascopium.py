"""Llamascopium 2.x and Llama Scope R1: latents are those of the definition; the rest is refused.

Checkpoints are written here by hand from the specification. The oracle is the definition, one
token and one latent after another, in float64.
"""

import json
import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from selection.core.errors import InputError
from selection.sae.coder import scaled_by_decoder_norm
from selection.sae.encode import encode, reconstruct
from selection.sae.formats.load import load_sae, read_sae_info
from tests.test_sae_formats_oracles import SAES, Hostile, copy, edit

D, M, K, N = 5, 12, 3, 16
HOOK = "blocks.7.hook_resid_post"
MEAN_NORM = f"dataset_average_activation_norm.{HOOK}"
THRESHOLD = {"2.x": "activation_function.log_jumprelu_threshold", "R1": "log_jumprelu_threshold"}
Parts = dict[str, Tensor]


def parts() -> Parts:
    """Weights in the shapes of the formulas: w (M, D), b (M,), d (M, D), c (D,), log (M,)."""
    g = torch.Generator().manual_seed(3)
    shapes = {"w": (M, D), "b": (M,), "d": (M, D), "c": (D,), "log": (M,)}
    return {name: 0.8 * torch.randn(shape, generator=g) for name, shape in shapes.items()}


def config_of(layout: str, **changes: Any) -> dict[str, Any]:
    config = {
        "sae_type": "sae", "d_model": D, "expansion_factor": M / D, "use_decoder_bias": True,
        "act_fn": "topk", "norm_activation": "dataset-wise", "sparsity_include_decoder_norm": True,
        "top_k": K, "hook_point_in": HOOK, "hook_point_out": HOOK, "use_glu_encoder": False,
        "jumprelu_threshold_window": 2.0,
    }  # fmt: skip
    config |= {"apply_decoder_bias_to_pre_encoder": False} if layout == "R1" else {}
    return config | changes


def write(folder: Path, weights: Parts, layout: str = "2.x", **changes: Any) -> dict[str, Any]:
    """A checkpoint as the library lays it out; returns its configuration."""
    config = config_of(layout, **changes)
    w, b, d, c = (weights[name] for name in "wbdc")
    if layout == "R1":
        tensors = {"encoder.weight": w, "encoder.bias": b, "decoder.weight": d.T, "decoder.bias": c}
    else:
        tensors = {"W_E": w.T, "b_E": b, "W_D": d, "b_D": c}
    if not config["use_decoder_bias"]:
        del tensors["decoder.bias" if layout == "R1" else "b_D"]
    if config["act_fn"] == "jumprelu":
        tensors[THRESHOLD[layout]] = weights["log"]
    tensors[MEAN_NORM] = torch.tensor(3.7)
    folder.mkdir(exist_ok=True)
    save_file({n: t.contiguous() for n, t in tensors.items()}, folder / "sae_weights.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    return config


def oracle(x: Tensor, weights: Parts, config: dict[str, Any]) -> tuple[list[Any], list[Any]]:
    """Latents and reconstructions of the tokens x, by the definition."""
    w, b, d, c, log = (weights[name].double().tolist() for name in ("w", "b", "d", "c", "log"))
    c = c if config["use_decoder_bias"] else [0.0] * D
    latents, recons = [], []
    for token in x.double().tolist():
        length = math.sqrt(sum(value**2 for value in token))
        divisor = {"dataset-wise": float(torch.tensor(3.7)), "token-wise": length,
                   "inference": math.sqrt(D)}[config["norm_activation"]]  # fmt: skip
        scale = math.sqrt(D) / divisor
        scaled = [value * scale for value in token]
        if config.get("apply_decoder_bias_to_pre_encoder"):
            scaled = [value - bias for value, bias in zip(scaled, c, strict=True)]
        pre, score = [], []
        for j in range(M):
            pre.append(sum(w[j][i] * scaled[i] for i in range(D)) + b[j])
            norm = math.sqrt(sum(value**2 for value in d[j]))
            score.append(pre[j] * (norm if config["sparsity_include_decoder_norm"] else 1.0))
        if config["act_fn"] == "topk":
            best = sorted(range(M), key=lambda j: -score[j])[: config["top_k"]]
            active = [j in best and score[j] > 0 for j in range(M)]
        elif config["act_fn"] == "jumprelu":
            active = [score[j] > math.exp(log[j]) for j in range(M)]
        else:
            active = [score[j] > 0 for j in range(M)]
        found = [pre[j] if active[j] else 0.0 for j in range(M)]
        latents.append(found)
        recons.append(
            [(sum(found[j] * d[j][i] for j in range(M)) + c[i]) / scale for i in range(D)]
        )
    return latents, recons


def dense(folder: Path, x: Tensor) -> tuple[Any, Any]:
    """Our latents and reconstructions."""
    coder = load_sae(folder)
    found = encode(coder, x)
    latents = torch.zeros(len(x), M).scatter_add_(1, found.top_indices, found.top_acts)
    return latents.numpy(), reconstruct(coder, found, x).numpy()


def tokens() -> Tensor:
    g = torch.Generator().manual_seed(4)
    return 2 * torch.randn(N, D, generator=g) + torch.randn(D, generator=g)


@pytest.mark.parametrize("by_norm", [True, False])
@pytest.mark.parametrize("norm", ["dataset-wise", "inference", "token-wise"])
@pytest.mark.parametrize("function", ["relu", "jumprelu", "topk"])
@pytest.mark.parametrize(
    ("layout", "changes"),
    [
        ("2.x", {}),
        ("2.x", {"use_decoder_bias": False}),
        ("R1", {}),
        ("R1", {"apply_decoder_bias_to_pre_encoder": True}),
        ("R1", {"apply_decoder_bias_to_pre_encoder": True, "use_decoder_bias": False}),
    ],
)
def test_latents_and_reconstructions_are_those_of_the_definition(
    layout: str, changes: dict[str, Any], function: str, norm: str, by_norm: bool, tmp_path: Path
) -> None:
    config = write(tmp_path, parts(), layout, act_fn=function, norm_activation=norm,
                   sparsity_include_decoder_norm=by_norm, **changes)  # fmt: skip
    latents, recons = oracle(tokens(), parts(), config)
    ours, recon = dense(tmp_path, tokens())
    np.testing.assert_allclose(ours, latents, rtol=1e-5, atol=1e-5)
    assert np.array_equal(ours != 0, np.array(latents) != 0)
    assert 0 < (ours != 0).sum() < ours.size
    np.testing.assert_allclose(recon, recons, rtol=1e-4, atol=1e-4)


def test_decoder_rows_decide_what_is_active_and_are_no_part_of_its_value(tmp_path: Path) -> None:
    plain = write(tmp_path / "plain", parts(), sparsity_include_decoder_norm=False)
    by_norm = write(tmp_path / "by_norm", parts())
    ours, _ = dense(tmp_path / "plain", tokens())
    theirs, _ = dense(tmp_path / "by_norm", tokens())
    both = (ours != 0) & (theirs != 0)
    assert plain != by_norm
    assert not np.array_equal(ours != 0, theirs != 0)
    np.testing.assert_allclose(ours[both], theirs[both], rtol=1e-5)


def test_the_scale_of_decoder_norms_gives_what_was_selected_on(tmp_path: Path) -> None:
    config = write(tmp_path, parts(), norm_activation="inference")
    latents, _ = oracle(tokens(), parts(), config)
    coder = scaled_by_decoder_norm(load_sae(tmp_path))
    found = encode(coder, tokens())
    ours = torch.zeros(N, M).scatter_add_(1, found.top_indices, found.top_acts)
    scores = np.array(latents) * parts()["d"].norm(dim=1).numpy()
    np.testing.assert_allclose(ours.numpy(), scores, rtol=1e-5, atol=1e-5)


def test_a_value_at_the_threshold_is_not_active(tmp_path: Path) -> None:
    weights = {"w": torch.eye(M, D), "b": torch.zeros(M), "d": torch.ones(M, D) / 2,
               "c": torch.zeros(D), "log": torch.zeros(M)}  # fmt: skip
    write(tmp_path, weights, act_fn="jumprelu", norm_activation="inference",
          sparsity_include_decoder_norm=False)  # fmt: skip
    ours, _ = dense(tmp_path, torch.tensor([[1.0, 1.5, 0.5, -2.0, 0.0]]))
    assert ours[0].tolist() == [0.0, 1.5] + [0.0] * (M - 2)


def test_the_norm_of_folded_weights_is_not_applied_again(tmp_path: Path) -> None:
    write(tmp_path / "one", parts(), norm_activation="inference")
    write(tmp_path / "other", parts(), norm_activation="inference")
    file = tmp_path / "other" / "sae_weights.safetensors"
    save_file(load_file(file) | {MEAN_NORM: torch.tensor(float("nan"))}, file)
    ours, theirs = (load_sae(tmp_path / name) for name in ("one", "other"))
    assert ours.info.sha256 == theirs.info.sha256
    assert ours.info.input_scale == 1


def test_both_layouts_of_equal_weights_are_one_sae(tmp_path: Path) -> None:
    write(tmp_path / "a", parts(), "2.x", act_fn="jumprelu")
    write(tmp_path / "b", parts(), "R1", act_fn="jumprelu")
    assert load_sae(tmp_path / "a").info.sha256 == load_sae(tmp_path / "b").info.sha256


def test_a_matryoshka_sae_encodes_as_any_other(tmp_path: Path) -> None:
    write(tmp_path / "a", parts())
    write(tmp_path / "b", parts(), sae_type="matryoshka_sae", matryoshka_widths=[4, M],
          matryoshka_loss_weights=[0.5, 0.5], use_matryoshka_aux_loss=False)  # fmt: skip
    assert load_sae(tmp_path / "a").info.sha256 == load_sae(tmp_path / "b").info.sha256


def test_what_is_known_about_it(tmp_path: Path) -> None:
    place = tmp_path / "models--OpenMOSS-Team--Llama-Scope-R1-Distill" / "snapshots" / "c" / "L7R"
    place.parent.mkdir(parents=True)
    write(place, parts(), "R1", act_fn="jumprelu")
    info = load_sae(place).info
    assert (info.family, info.hookpoint, info.k) == ("llamascopium", "layers.7", 0)
    assert info.model_name == "deepseek-ai/DeepSeek-R1-Distill-Llama-8B"
    assert info.input_scale == pytest.approx(math.sqrt(D) / 3.7)
    write(tmp_path / "b", parts())
    assert (read_sae_info(tmp_path / "b").k, load_sae(tmp_path / "b").info.model_name) == (K, None)
    (tmp_path / "b" / "lm_config.json").write_text('{"model_name": "Qwen/Qwen3-1.7B"}')
    assert read_sae_info(tmp_path / "b").model_name == "Qwen/Qwen3-1.7B"


def test_half_precision_weights_are_read(tmp_path: Path) -> None:
    weights = {name: tensor.to(torch.bfloat16) for name, tensor in parts().items()}
    config = write(tmp_path, weights, act_fn="jumprelu", norm_activation="inference")
    latents, _ = oracle(tokens(), weights, config)
    ours, _ = dense(tmp_path, tokens())
    np.testing.assert_allclose(ours, latents, rtol=1e-5, atol=1e-5)
    assert load_sae(tmp_path).info.dtype == "bfloat16"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sae_type": "crosscoder"}, "`sae_type`: only these are read: sae"),
        ({"sae_type": "clt"}, r"found: 'clt'"),
        ({"sae_type": "lorsa"}, r"found: 'lorsa'"),
        ({"sae_type": "molt"}, r"found: 'molt'"),
        ({"sae_type": None}, "`sae_type`: only these"),
        ({"hook_point_out": "blocks.7.hook_mlp_out"}, "`hook_point_in`: this is a transcoder"),
        ({"hook_point_in": "blocks.7.attn.hook_q",
          "hook_point_out": "blocks.7.attn.hook_q"}, "activations that saelect cannot"),
        ({"use_glu_encoder": True}, "`use_glu_encoder`: a gated linear encoder"),
        ({"act_fn": "batchtopk"}, "`act_fn`: which latents are active depends on all tokens"),
        ({"act_fn": "layertopk"}, "`act_fn`: only these are read: relu, jumprelu, topk"),
        ({"act_fn": None}, "`act_fn`: only these are read"),
        ({"norm_activation": "batch-wise"}, "`norm_activation`: the input norm depends on all"),
        ({"norm_activation": "none"}, "`norm_activation`: this input norm is not known"),
        ({"norm_activation": None}, "this input norm is not known"),
        ({"sparsity_include_decoder_norm": None}, "decoder_norm`: expected true or false"),
        ({"apply_decoder_bias_to_pre_encoder": 1}, "pre_encoder`: expected true or false"),
        ({"top_k": M + 1}, rf"`top_k`: expected 1 to {M} \(found: {M + 1}\)"),
        ({"top_k": 0}, f"`top_k`: expected 1 to {M}"),
        ({"top_k": True}, f"`top_k`: expected 1 to {M}"),
        ({"d_model": D + 1}, f"`d_model`: the weights are {D} wide"),
        ({"expansion_factor": 2}, f"`expansion_factor`: the weights have {M} latents"),
        ({"expansion_factor": float("inf")}, "`expansion_factor`: the weights have"),
        ({"hook_point_in": "blocks.8.hook_resid_post", "hook_point_out": None},
         r"norm\.blocks\.8\.hook_resid_post`: the mean norm of activations is not stored"),
        ({"post_norm": 2.0}, r"`post_norm`: this key is not known.*\(found: 2\.0\)"),
    ],
)  # fmt: skip
def test_what_the_configuration_asks_for_and_is_not_read_is_refused(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    write(tmp_path, parts())
    edit(tmp_path / "config.json", **changes)
    with pytest.raises(InputError, match=rf"(config\.json|weights\.safetensors): .*{message}"):
        load_sae(tmp_path)
    with pytest.raises(InputError, match=message) as told:
        read_sae_info(tmp_path)
    assert told.value.remedy


def test_r1_must_say_whether_its_decoder_bias_is_subtracted(tmp_path: Path) -> None:
    config = write(tmp_path, parts(), "R1")
    del config["apply_decoder_bias_to_pre_encoder"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="apply_decoder_bias_to_pre_encoder`: expected true"):
        load_sae(tmp_path)


@pytest.mark.parametrize(
    ("layout", "name"),
    [
        *(("2.x", name) for name in ("W_E", "b_E", "W_D", "b_D", THRESHOLD["2.x"], MEAN_NORM)),
        *(("R1", name) for name in ("encoder.bias", "decoder.weight", THRESHOLD["R1"])),
    ],
)
def test_a_missing_tensor_is_named(layout: str, name: str, tmp_path: Path) -> None:
    write(tmp_path, parts(), layout, act_fn="jumprelu")
    file = tmp_path / "sae_weights.safetensors"
    save_file({n: t for n, t in load_file(file).items() if n != name}, file)
    for read in (read_sae_info, load_sae):
        with pytest.raises(InputError, match=rf"safetensors: `{name}`: .*(is missing|not stored)"):
            read(tmp_path)


@pytest.mark.parametrize("name", ["W_E_glu", "b_D_shared", THRESHOLD["2.x"]])
def test_a_tensor_too_many_is_named(name: str, tmp_path: Path) -> None:
    write(tmp_path, parts())
    file = tmp_path / "sae_weights.safetensors"
    save_file(load_file(file) | {name: torch.zeros(M)}, file)
    with pytest.raises(InputError, match=f"`{name}`: this tensor is no part of an SAE"):
        load_sae(tmp_path)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("W_E", (D, M, 1)),
        ("W_E", (0, M)),
        ("W_E", (D, M + 1)),
        ("b_E", (M, 1)),
        ("W_D", (D, M)),
        ("b_D", (D + 1,)),
        (THRESHOLD["2.x"], ()),
        (MEAN_NORM, (2,)),
    ],
)
def test_a_tensor_of_another_shape_is_refused(
    name: str, shape: tuple[int, ...], tmp_path: Path
) -> None:
    write(tmp_path, parts(), act_fn="jumprelu")
    file = tmp_path / "sae_weights.safetensors"
    save_file(load_file(file) | {name: torch.ones(shape)}, file)
    with pytest.raises(InputError, match=r"sae_weights\.safetensors: `.*expected"):
        load_sae(tmp_path)


def test_an_sae_of_no_width_is_refused(tmp_path: Path) -> None:
    weights = {"w": torch.zeros(M, 0), "b": torch.zeros(M), "d": torch.zeros(M, 0)}
    write(tmp_path, weights | {"c": torch.zeros(0)}, d_model=0)
    with pytest.raises(InputError, match="`W_E`: expected a matrix"):
        read_sae_info(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({MEAN_NORM: torch.tensor(0.0)}, r"expected the mean norm.*found: 0\.0"),
        ({MEAN_NORM: torch.tensor(-1.0)}, "expected the mean norm"),
        ({MEAN_NORM: torch.tensor(float("nan"))}, "expected the mean norm"),
        ({MEAN_NORM: torch.tensor(float("inf"))}, "expected the mean norm"),
        ({"W_D": torch.eye(M, D)}, "`W_D`: a decoder row of norm 0"),
        ({"b_E": torch.full((M,), float("nan"))}, "encoder_bias has values that are not finite"),
        ({THRESHOLD["2.x"]: torch.full((M,), 1e3)}, "threshold has values that are not finite"),
    ],
)
def test_values_that_no_training_gives_are_refused(
    changes: dict[str, Tensor], message: str, tmp_path: Path
) -> None:
    write(tmp_path, parts(), act_fn="jumprelu")
    file = tmp_path / "sae_weights.safetensors"
    save_file(load_file(file) | changes, file)
    with pytest.raises(InputError, match=message):
        load_sae(tmp_path)


@pytest.mark.parametrize("name", ["sae_weights.dcp", "sae_weights.pt"])
def test_weights_in_another_container_are_refused_with_what_to_do(
    name: str, tmp_path: Path
) -> None:
    write(tmp_path, parts())
    (tmp_path / "sae_weights.safetensors").unlink()
    if name.endswith("dcp"):
        (tmp_path / name).mkdir()
    else:
        torch.save({"sae": {}}, tmp_path / name)
    with pytest.raises(InputError, match=rf"{name} is not read; .* sae_weights\.safetensors"):
        load_sae(tmp_path)


def test_a_pickle_in_place_of_weights_is_refused_and_its_code_not_run(tmp_path: Path) -> None:
    where = copy("llamascopium_topk", tmp_path)
    bad = pickle.dumps({"W_E": Hostile(tmp_path / "owned")})
    (where / "sae_weights.safetensors").write_bytes(bad)
    with pytest.raises(InputError, match="weights cannot be read"):
        load_sae(where)
    assert not (tmp_path / "owned").exists()
    assert load_sae(SAES / "llamascopium_topk").k == 4
