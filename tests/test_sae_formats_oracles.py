"""What the original libraries encode is what we encode; what we cannot read correctly is refused.

`tests/saes` holds tiny SAEs written by those libraries (or by hand where there is none to install)
with their latents and reconstructions; `benchmarks/support/make_sae_fixtures.py` made them.
"""

import json
import pickle
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from selection.core.errors import InputError
from selection.sae.coder import card
from selection.sae.encode import encode, reconstruct
from selection.sae.formats.find import FAMILIES, family_of, list_local_saes
from selection.sae.formats.load import load_sae, read_sae_info
from selection.sae.metadata import SaeInfo

SAES = Path(__file__).parent / "saes"
CASES = sorted(folder.name for folder in SAES.iterdir() if folder.is_dir())
OPENAI = "resid_post_mlp_v5_32k/autoencoders/8.pt"
GEMMA = "gemma-scope-2b-pt-res/layer_20/width_16k/average_l0_71"
GEMMA_2 = "resid_post/layer_9_width_16k_l0_small"


QWEN = "SAE-Res-Qwen3-1.7B-Base-W32K-L0_4/layer14.sae.pt"


def place(case: str) -> Path:
    if case == "qwen_scope":
        return SAES / case / QWEN
    if case == "circuit_tracer":
        return SAES / case / "layer_3.safetensors"
    return SAES / case / OPENAI if case.startswith("openai") else SAES / case


def copy(case: str, to: Path) -> Path:
    """A copy that a test may spoil; returns the folder of the SAE itself."""
    shutil.copytree(SAES / case, to / case)
    inner = {"gemma_scope": GEMMA, "gemma_scope_2": GEMMA_2}.get(case, "")
    return to / case / (OPENAI if case.startswith("openai") else inner)


def edit(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


@pytest.mark.parametrize("case", CASES)
def test_latents_and_reconstructions_are_the_originals(case: str) -> None:
    expected = np.load(SAES / case / "expected.npz")
    coder, x = load_sae(place(case)), torch.from_numpy(expected["x"])
    found = encode(coder, x)
    dense = torch.zeros(len(x), coder.info.num_latents)
    dense.scatter_add_(1, found.top_indices, found.top_acts)
    if case == "saelens_abstopk":  # the second half is the negative side
        dense = dense[:, : dense.shape[1] // 2] - dense[:, dense.shape[1] // 2 :]
    np.testing.assert_allclose(dense.numpy(), expected["dense"], rtol=1e-5, atol=1e-5)
    assert np.array_equal(dense.numpy() != 0, expected["dense"] != 0)
    recon = reconstruct(coder, found, x).numpy()
    np.testing.assert_allclose(recon, expected["recon"], rtol=1e-4, atol=1e-4)
    assert (found.top_acts >= 0).all()


@pytest.mark.parametrize("case", CASES)
def test_what_is_known_before_the_weights_is_what_the_weights_say(case: str) -> None:
    before, after = read_sae_info(place(case)), load_sae(place(case)).info
    for name in ("family", "hookpoint", "d_in", "num_latents", "k", "activation", "model_name",
                 "centers", "input_norm", "declared_l0"):  # fmt: skip
        assert getattr(before, name) == getattr(after, name), name
    assert (after.d_in, after.num_latents) == (8, 64 if case == "saelens_abstopk" else 32)
    assert dict(card(load_sae(place(case))))["format"] == after.family


@pytest.mark.parametrize(
    ("case", "facts"),
    [
        ("sparsify_groupmax", {"hookpoint": "mlp_module@2", "k": 4}),
        ("goodfire", {"hookpoint": "layers.19", "centers": False, "activation": "relu"}),
        ("goodfire", {"model_name": "meta-llama/Llama-3.1-8B-Instruct"}),
        ("sparsify_factor", {"hookpoint": "h.1", "centers": True}),
        ("saelens_flat", {"hookpoint": "layers.4", "model_name": "org/tiny"}),
        ("saelens_jumprelu", {"positions": "BOS prepended, context 128", "centers": True}),
        ("saelens_no_subtraction", {"centers": False, "expected_l0": None}),
        ("saelens_layer_norm", {"input_norm": "layer_norm"}),
        ("dictionary_BatchTopKSAE", {"hookpoint": "layers.3", "expected_l0": 4.0}),
        ("dictionary_JumpRelu", {"centers": False}),
        ("gemma_scope", {"hookpoint": "layers.20", "declared_l0": 71.0, "centers": False}),
        ("gemma_scope", {"model_name": "google/gemma-2-2b", "positions": "all but BOS"}),
        ("gemma_scope_2", {"model_name": "google/gemma-3-270m-it", "declared_l0": 11.0}),
        ("llama_scope", {"hookpoint": "layers.15", "input_scale": 8**0.5 / 6.5}),
        ("llama_scope_r1", {"hookpoint": "layers.12", "input_scale": 8**0.5 / 6.5, "k": 0}),
        ("llamascopium_topk", {"centers": False, "input_norm": "none", "k": 4}),
        ("llamascopium_folded", {"input_scale": 1.0, "activation": "jumprelu"}),
        ("llamascopium_token_wise", {"input_norm": "sqrt_d", "expected_l0": None}),
        ("openai_topk", {"hookpoint": "layers.8", "input_norm": "layer_norm", "k": 4}),
        ("qwen_scope", {"hookpoint": "layers.14", "k": 4, "centers": False}),
        ("qwen_scope", {"model_name": "Qwen/Qwen3-1.7B-Base", "input_norm": "none"}),
        ("openai_relu", {"input_norm": "none", "model_name": "openai-community/gpt2"}),
    ],
)
def test_conventions_are_read(case: str, facts: dict[str, object]) -> None:
    info = load_sae(place(case)).info
    assert {name: getattr(info, name) for name in facts} == facts


class Hostile:
    """Unpickling this would write a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        """What unpickling calls."""
        return (Path.write_text, (self.target, "owned"))


@pytest.mark.parametrize("how", ["torch", "plain"])
@pytest.mark.parametrize("case", ["openai_topk", "dictionary_AutoEncoder"])
def test_a_pickle_with_code_is_refused_and_the_code_not_run(
    case: str, how: str, tmp_path: Path
) -> None:
    owned = tmp_path / "owned"
    where = copy(case, tmp_path)
    file = where if where.suffix == ".pt" else where / "ae.pt"
    bad = {"encoder.weight": Hostile(owned)}
    if how == "torch":
        torch.save(bad, file)
    else:
        file.write_bytes(pickle.dumps(bad, protocol=2))
    with pytest.raises(InputError, match=r"never run|cannot be read"):
        load_sae(where)
    assert not owned.exists()
    # The pickle is as hostile as it claims.
    torch.load(file, weights_only=False) if how == "torch" else pickle.loads(file.read_bytes())
    assert owned.read_text() == "owned"


def test_an_npz_with_python_objects_is_refused(tmp_path: Path) -> None:
    where, owned = copy("gemma_scope", tmp_path), tmp_path / "owned"
    arrays = dict(np.load(where / "params.npz"))
    arrays["threshold"] = np.array([Hostile(owned)], dtype=object)
    np.savez(where / "params.npz", **arrays)
    with pytest.raises(InputError, match=r"params\.npz: the weights cannot be read"):
        load_sae(where)
    assert not owned.exists()


@pytest.mark.parametrize(
    ("case", "file", "changes", "message"),
    [
        ("saelens_standard", "cfg.json", {"architecture": "transcoder", "d_out": 9}, "other width"),
        ("saelens_standard", "cfg.json", {"architecture": "temporal"}, "of a temporal SAE"),
        ("saelens_matching_pursuit", "cfg.json", {"stop_on_duplicate_support": False}, "again"),
        ("saelens_standard", "cfg.json", {"normalize_activations": "rms"}, "norm is not known"),
        ("saelens_standard", "cfg.json",
         {"metadata": {"hook_name": "blocks.3.attn.hook_z", "hook_head_index": 2}}, "single"),
        ("saelens_standard", "cfg.json", {"metadata": {"hook_name": "blocks.0.hook_resid_pre"}},
         "reads activations that saelect cannot"),
        ("saelens_standard", "cfg.json",
         {"metadata": {"model_from_pretrained_kwargs": {"center_writing_weights": True}}},
         "centered writing weights"),
        ("saelens_flat", "cfg.json", {"activation_fn_str": "gelu"}, "only relu"),
        ("saelens_topk", "cfg.json", {"k": 33}, "expected 1 to 32"),
        ("gemma_scope_2", "config.json", {"hf_hook_point_out": "model.layers.9.mlp.output"},
         "predicts something else"),
        ("gemma_scope_2", "config.json", {"affine_connection": True}, "skip connection"),
        ("gemma_scope_2", "config.json", {"architecture": "relu"}, "only jump_relu"),
        ("gemma_scope_2", "config.json", {"hf_hook_point_in": "model.embed_tokens",
         "hf_hook_point_out": "model.embed_tokens"}, "not read here"),
        ("llama_scope", "hyperparams.json", {"hook_point_out": "blocks.15.hook_mlp_out"},
         "transcoder"),
        ("llama_scope", "hyperparams.json", {"norm_activation": "batch-wise"}, "norm is not known"),
        ("llama_scope", "hyperparams.json", {"jump_relu_threshold": -1}, "threshold of 0 or more"),
        ("llama_scope", "hyperparams.json", {"act_fn": "prolu"}, "only jumprelu"),
        ("dictionary_AutoEncoder", "config.json", {"trainer": {"dict_class": "CrossCoder"}},
         "class is not read"),
        ("dictionary_AutoEncoder", "config.json", {"buffer": {"io": "in"}}, "module's input"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_correctly_is_refused(
    case: str, file: str, changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    where = copy(case, tmp_path)
    edit(where / file, **changes)
    with pytest.raises(InputError, match=message):
        load_sae(where)


@pytest.mark.parametrize("case", ["dictionary_BatchTopKSAE", "dictionary_Matryoshka"])
def test_a_threshold_that_was_never_set_is_refused(case: str, tmp_path: Path) -> None:
    where = copy(case, tmp_path)
    state = torch.load(where / "ae.pt", weights_only=True)
    state["threshold"] = torch.tensor(-1.0)
    torch.save(state, where / "ae.pt")
    with pytest.raises(InputError, match="never set: the training was too short"):
        load_sae(where)


def test_a_topk_sae_does_not_need_its_threshold() -> None:
    state = torch.load(SAES / "dictionary_AutoEncoderTopK" / "ae.pt", weights_only=True)
    assert float(state["threshold"]) == -1
    assert load_sae(SAES / "dictionary_AutoEncoderTopK").k == 4


def test_a_checkpoint_from_the_middle_of_a_training_is_refused(tmp_path: Path) -> None:
    where = copy("dictionary_AutoEncoderTopK", tmp_path)
    state = torch.load(where / "ae.pt", weights_only=True)
    torch.save({"step": 7, "ae": state, "norm_factor": 2.0}, where / "ae.pt")
    with pytest.raises(InputError, match="middle of a training"):
        load_sae(where)


@pytest.mark.parametrize(
    ("repository", "hookpoint"),
    [("9b-it-mlp", "mlp@3"), ("9b-it-att", "heads@3"), ("9b-it-transcoders", "mlp_norm@3")],
)
def test_gemma_scope_reads_its_hookpoint_from_the_path(
    repository: str, hookpoint: str, tmp_path: Path
) -> None:
    folder = tmp_path / f"gemma-scope-{repository}/layer_3/width_16k/average_l0_12"
    shutil.copytree(SAES / "gemma_scope" / GEMMA, folder)
    info = load_sae(folder).info
    assert (info.hookpoint, info.model_name) == (hookpoint, "google/gemma-2-9b-it")
    assert info.is_transcoder == ("transcoders" in repository)
    embedding = tmp_path / "gemma-scope-2b-pt-res/embedding/width_4k/average_l0_6"
    shutil.copytree(SAES / "gemma_scope" / GEMMA, embedding)
    with pytest.raises(InputError, match="embedding"):
        load_sae(embedding)


def test_a_pt_file_of_something_else_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "8.pt"
    torch.save({"weight": torch.zeros(3)}, file)
    with pytest.raises(InputError, match=r"8\.pt: the tensors encoder\.weight"):
        load_sae(file)
    torch.save([1, 2], file)
    with pytest.raises(InputError, match="expected a dict"):
        load_sae(file)
    state = torch.load(SAES / "openai_topk" / OPENAI, weights_only=True)
    torch.save({k: v for k, v in state.items() if k != "decoder.weight"}, file)
    with pytest.raises(InputError, match="tied"):
        load_sae(file)


def test_qwen_scope_needs_its_repositorys_name(tmp_path: Path) -> None:
    shutil.copy(SAES / "qwen_scope" / QWEN, tmp_path / "layer14.sae.pt")
    with pytest.raises(InputError, match="repository's name alone"):
        load_sae(tmp_path / "layer14.sae.pt")
    many = tmp_path / "SAE-Res-Qwen3-1.7B-Base-W32K-L0_50"
    many.mkdir()
    shutil.copy(SAES / "qwen_scope" / QWEN, many)
    with pytest.raises(InputError, match="expected 1 to 32"):
        load_sae(many / "layer14.sae.pt")


@pytest.mark.parametrize("case", ["qwen_scope", "openai_topk", "openai_relu"])
def test_a_folder_above_a_single_file_is_that_sae(case: str) -> None:
    assert read_sae_info(SAES / case) == read_sae_info(place(case))
    assert load_sae(SAES / case).info == load_sae(place(case)).info


def test_of_several_files_one_is_to_be_named(tmp_path: Path) -> None:
    for name in ("8.pt", "9.pt"):
        shutil.copy(place("openai_topk"), tmp_path / name)
    with pytest.raises(InputError, match=r"2 SAEs in this folder \(8\.pt, 9\.pt\); name the file"):
        load_sae(tmp_path)
    shutil.copytree(SAES / "sparsify_topk" / "layers.4", tmp_path / "layers.4")
    assert load_sae(tmp_path).info.hookpoint == "layers.4"


def test_a_file_in_a_folder_is_read_without_running_its_code(tmp_path: Path) -> None:
    owned = tmp_path / "owned"
    torch.save({"encoder.weight": Hostile(owned)}, tmp_path / "8.pt")
    for read in (load_sae, read_sae_info):
        with pytest.raises(InputError, match=r"8\.pt: .*(never run|cannot be read)"):
            read(tmp_path)
    (tmp_path / "8.pt").rename(tmp_path / "optimizer.pt")
    with pytest.raises(InputError, match="no SAE here"):
        load_sae(tmp_path)
    assert not owned.exists()


@pytest.mark.parametrize(
    ("case", "file"),
    [
        ("saelens_topk", "sae_weights.safetensors"),
        ("saelens_topk", "cfg.json"),
        ("llama_scope", "checkpoints/final.safetensors"),
        ("dictionary_AutoEncoder", "ae.pt"),
        ("gemma_scope", f"{GEMMA}/params.npz"),
    ],
)
def test_a_part_of_an_sae_names_its_folder(case: str, file: str) -> None:
    folder = SAES / case / (GEMMA if case == "gemma_scope" else "")
    with pytest.raises(InputError, match=f"a part of an SAE: name its folder, {folder}"):
        load_sae(SAES / case / file)


@pytest.mark.parametrize(
    ("case", "shown"),
    [
        ("dictionary_BatchTopKSAE", "layers.3 (resid@3)"),
        ("sparsify_factor", "h.1 (resid@1)"),
        ("sparsify_groupmax", "mlp_module@2"),
    ],
)
def test_the_card_names_the_place_as_configs_do(case: str, shown: str) -> None:
    assert dict(card(load_sae(SAES / case)))["hookpoint"] == shown


def test_the_card_tells_of_signed_latents() -> None:
    told = {case: dict(card(load_sae(place(case)))).get("signed") for case in CASES}
    assert {case for case, how in told.items() if how} == {"saelens_abstopk"}
    assert told["saelens_abstopk"] == "in two halves: latent 32 + j is the negative side of j"


def test_the_card_shows_norm_and_scale() -> None:
    coder = load_sae(SAES / "llama_scope")
    assert dict(card(coder))["input"] == "times 0.4351, in the weights"
    both = replace(coder, info=replace(coder.info, input_norm="sqrt_d"))
    assert dict(card(both))["input"] == "each token to sqrt(D), times 0.4351, in the weights"


def test_local_saes_of_every_family_are_listed() -> None:
    found = {info.family for info in list_local_saes([SAES])}
    assert found == {family.name for family in FAMILIES} - {
        "openai",
        "qwen_scope",
        "goodfire",
        "circuit_tracer",
    }


def test_every_family_has_a_case() -> None:
    seen = {load_sae(place(case)).info.family for case in CASES}
    assert seen == {family.name for family in FAMILIES}
    assert family_of(SAES) is None


def test_half_precision_files_keep_their_dtype_on_the_card(tmp_path: Path) -> None:
    where = copy("saelens_standard", tmp_path)
    file = where / "sae_weights.safetensors"
    save_file({n: t.to(torch.bfloat16) for n, t in load_file(file).items()}, file)
    coder = load_sae(where)
    assert coder.encoder_weight.dtype == torch.float32
    assert isinstance(coder.info, SaeInfo)
    assert "bfloat16" in dict(card(coder))["size"]
