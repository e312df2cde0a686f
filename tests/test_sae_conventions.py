"""What SAEs mean and their files do not say: hookpoints, releases of SAELens, names of models."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from selection.activations.capture import part_of
from selection.activations.model import load_activation_model
from selection.core.errors import InputError
from selection.models.hookpoints import Hookpoint, canonical, hookpoint_of
from selection.models.hub import fetch
from selection.models.resolve import resolve_model
from selection.sae.compatibility import check_fits, model_note, trained_at
from selection.sae.encode import encode
from selection.sae.formats.find import family_of
from selection.sae.formats.load import load_sae, read_sae_info
from selection.sae.metadata import SaeInfo
from tests.test_activations_run_plan import N_BLOCKS, SIZES
from tests.test_sae_formats_load import Model
from tests.test_sae_formats_oracles import GEMMA, SAES

POST_NORM = {"gemma2": {}, "gemma3_text": {}, "olmo2": {}, "glm4": {"attention_bias": False}}
"""Models whose MLP and attention go through a norm before the residual stream takes them in."""


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", list(POST_NORM))
@pytest.mark.parametrize("site", ["mlp", "attn"])
def test_a_modules_output_is_not_what_it_adds_behind_a_norm(
    kind: str, site: str, tmp_path: Path
) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(
        AutoConfig.for_model(kind, **{**SIZES, **POST_NORM[kind]})
    ).eval()
    model.save_pretrained(tmp_path)
    seen: dict[str, torch.Tensor] = {}
    block = model.model.layers[1]
    module = block.mlp if site == "mlp" else block.self_attn

    def keep(name: str) -> Any:
        return lambda _, __, out: seen.update({name: out if torch.is_tensor(out) else out[0]})

    module.register_forward_hook(keep("module"))
    block.register_forward_pre_hook(lambda _, given: seen.update(before=given[0]))
    block.register_forward_hook(keep("after"))
    ids = torch.arange(5, 40)
    with torch.no_grad():
        model(ids[None])
    points = [Hookpoint(f"{site}_module", 1), Hookpoint(site, 1)]
    other = "attn" if site == "mlp" else "mlp"
    read = load_activation_model(resolve_model(tmp_path), [*points, Hookpoint(other, 1)])
    [[ours, added, rest]] = read.read_samples([ids.numpy().astype("uint32")])
    torch.testing.assert_close(ours, seen["module"][0], rtol=1e-4, atol=1e-5)
    # What both parts add is the way from the block's input to its output.
    total = (seen["after"] - seen["before"])[0]
    torch.testing.assert_close(added + rest, total, rtol=1e-4, atol=1e-5)
    assert (ours - added).abs().max() > 0.1 * ours.abs().mean()


def test_without_such_a_norm_both_are_one_module(tiny_model_dir: Path) -> None:
    model = load_activation_model(resolve_model(tiny_model_dir), Hookpoint("resid", 2))
    for site in ("mlp", "attn"):
        assert part_of(model.blocks[1], site) is part_of(model.blocks[1], f"{site}_module")
    assert len(model.blocks) < N_BLOCKS


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("layers.3.mlp", "mlp_module@3"),
        ("model.layers.3.self_attn", "attn_module@3"),
        ("blocks.3.hook_mlp_out", "mlp@3"),
        ("blocks.3.hook_attn_out", "attn@3"),
        ("mlp_module@3", "mlp_module@3"),
    ],
)
def test_module_names_and_hook_names_mean_what_their_libraries_read(name: str, meant: str) -> None:
    assert str(hookpoint_of(name)) == canonical(name) == meant


@pytest.mark.filterwarnings("ignore")
def test_an_output_that_the_model_changes_later_is_read_as_it_was(tmp_path: Path) -> None:
    from transformers import FalconConfig, FalconForCausalLM

    config = FalconConfig(vocab_size=96, hidden_size=32, num_hidden_layers=4, num_attention_heads=4)

    torch.manual_seed(0)
    model = FalconForCausalLM(config).eval()
    model.save_pretrained(tmp_path)
    seen: list[torch.Tensor] = []
    model.transformer.h[1].mlp.register_forward_hook(lambda _, __, out: seen.append(out.clone()))
    ids = torch.arange(5, 40)
    with torch.no_grad():
        model(ids[None])
    read = load_activation_model(resolve_model(tmp_path), Hookpoint("mlp_module", 1))
    [[ours]] = read.read_samples([ids.numpy().astype("uint32")])
    torch.testing.assert_close(ours, seen[0][0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("submodule", "folder", "hookpoint"),
    [
        ("resid_post_layer_3", "x", "layers.3"),
        ("mlp_out_layer_3", "x", "mlp_module@3"),
        ("attn_out_layer_3", "x", "attn_module@3"),
        ("mlp_in_layer_3", "resid_out_layer3", None),
        ("embed", "x", None),
        ("", "mlp_out_layer3", "mlp_module@3"),
        ("", "resid_out_layer3", "layers.3"),
        ("", "x", None),
    ],
)
def test_a_dictionarys_place_is_what_its_submodule_says_or_unknown(
    submodule: str, folder: str, hookpoint: str | None, tmp_path: Path
) -> None:
    path = tmp_path / folder / "10_32"
    shutil.copytree(SAES / "dictionary_AutoEncoder", path)
    config = json.loads((path / "config.json").read_text())
    config["trainer"]["submodule_name"] = submodule
    (path / "config.json").write_text(json.dumps(config))
    assert read_sae_info(path).hookpoint == load_sae(path).info.hookpoint == hookpoint


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", list(POST_NORM))
@pytest.mark.parametrize("part", ["mlp", "self_attn"])
def test_a_folder_of_sparsify_reads_the_output_of_its_module(
    kind: str, part: str, tmp_path: Path
) -> None:
    """Not behind the norm that follows it, on models that have one."""
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **{**SIZES, **POST_NORM[kind]})
    model = AutoModelForCausalLM.from_config(config).eval()
    model.save_pretrained(tmp_path / "model")
    seen: list[torch.Tensor] = []
    getattr(model.model.layers[3], part).register_forward_hook(
        lambda _, __, out: seen.append(out if torch.is_tensor(out) else out[0])
    )
    ids = torch.arange(5, 40)
    with torch.no_grad():
        model(ids[None])
    folder = tmp_path / f"layers.3.{part}"
    shutil.copytree(SAES / "sparsify_topk" / "layers.4", folder)
    hookpoint = trained_at(read_sae_info(folder))
    read = load_activation_model(resolve_model(tmp_path / "model"), hookpoint)
    [[ours]] = read.read_samples([ids.numpy().astype("uint32")])
    torch.testing.assert_close(ours, seen[0][0], rtol=1e-4, atol=1e-5)


def in_hub(case: str, repository: str, folder: str, root: Path, inner: str = "") -> Path:
    """A copy of a fixture as the hub's cache holds it."""
    path = root / f"models--{repository.replace('/', '--')}" / "snapshots" / "c" / folder
    shutil.copytree(SAES / case / inner, path)
    return path


@pytest.mark.parametrize(
    "repository",
    [
        "jbloom/GPT2-Small-SAEs-Reformatted",
        "jbloom/GPT2-Small-Feature-Splitting-Experiment-Layer-8",
        "tommmcgrath/gpt2-small-mlp-out-saes",
    ],
)
def test_releases_for_centered_models_are_refused_by_name(repository: str, tmp_path: Path) -> None:
    folder = in_hub("saelens_flat", repository, "blocks.8.hook_resid_pre", tmp_path)
    for read in (load_sae, read_sae_info):
        with pytest.raises(InputError, match=f"{repository}.*centered writing weights"):
            read(folder)


def test_releases_whose_norm_stands_in_no_file_are_read_with_it(tmp_path: Path) -> None:
    mistral = "JoshEngels/Mistral-7B-Residual-Stream-SAEs"
    plain = load_sae(SAES / "saelens_flat")
    normed = load_sae(in_hub("saelens_flat", mistral, "mistral_7b_layer_8", tmp_path))
    assert (plain.info.input_norm, normed.info.input_norm) == ("none", "sqrt_d")
    gemma, factor = "jbloom/Gemma-2b-Residual-Stream-SAEs", 0.21381938399317255
    name = "gemma_2b_blocks.12.hook_resid_post_16384"
    scaled = load_sae(in_hub("saelens_flat", gemma, name, tmp_path))
    x = torch.randn(20, 8, generator=torch.Generator().manual_seed(0))
    w = load_file(SAES / "saelens_flat" / "sae_weights.safetensors")
    expected = ((factor * x - w["b_dec"]) @ w["W_enc"] + w["b_enc"]).relu()
    found = encode(scaled, x)
    dense = torch.zeros(20, 32).scatter_add_(1, found.top_indices, found.top_acts)
    torch.testing.assert_close(dense, expected, rtol=1e-4, atol=1e-5)
    assert scaled.info.input_scale == factor
    unscaled = load_sae(in_hub("saelens_flat", gemma, "gemma_2b_blocks.6", tmp_path))
    assert unscaled.info.sha256 == plain.info.sha256


def test_gemma_scope_without_its_repositorys_name_has_no_hookpoint(tmp_path: Path) -> None:
    folder = tmp_path / "layer_3" / "width_16k" / "average_l0_12"
    shutil.copytree(SAES / "gemma_scope" / GEMMA, folder)
    info = read_sae_info(folder)
    assert (info.hookpoint, info.model_name, info.declared_l0) == (None, None, 12.0)


@pytest.mark.parametrize(
    ("named", "model"),
    [
        ("gpt2-small", "openai-community/gpt2"),
        ("gpt2-small", "gpt2"),
        ("google/gemma-2-2b", "google/gemma-2-2b-pt"),
        ("mistral-7b", "mistralai/Mistral-7B-v0.1"),
    ],
)
def test_other_names_of_the_same_weights_are_known(named: str, model: str) -> None:
    check_fits(SaeInfo("x", "layers.4", 8, 24, 3, model_name=named), Model(name=model), None)
    with pytest.raises(InputError, match=f"was trained on {named}, not on {model}-other"):
        check_fits(
            SaeInfo("x", "layers.4", 8, 24, 3, model_name=named), Model(name=f"{model}-other"), None
        )


def test_an_sae_of_another_model_is_used_where_the_user_answers_for_it(tmp_path: Path) -> None:
    sae = SaeInfo("x", "layers.4", 8, 24, 3, model_name="google/gemma-2-2b")
    instruct = Model(name="google/gemma-2-2b-it")
    with pytest.raises(InputError, match=r"set `sae: \{trust_model: true\}`"):
        check_fits(sae, instruct, None)
    check_fits(sae, instruct, None, trust_model=True)
    note = model_note(sae, instruct, trust_model=True)
    assert note is not None
    assert note.startswith("The SAE was trained on google/gemma-2-2b, not on google/gemma-2-2b-it")
    assert model_note(sae, Model(name="google/gemma-2-2b"), trust_model=True) is None
    local = model_note(sae, Model(name=str(tmp_path)), trust_model=False)
    assert local is not None
    assert "more cannot be known" in local
    with pytest.raises(InputError, match="width"):
        check_fits(replace(sae, d_in=9), instruct, None, trust_model=True)


def test_goodfires_files_are_told_apart_by_what_is_in_them(tmp_path: Path) -> None:
    [file] = (SAES / "goodfire").glob("*.pth")
    renamed = tmp_path / "19.pt"
    shutil.copy(file, renamed)
    for path in (SAES / "goodfire", file, renamed):
        assert load_sae(path).info.family == "goodfire"
    assert load_sae(renamed).info.hookpoint is None
    openai = next((SAES / "openai_topk").rglob("*.pt"))
    assert getattr(family_of(openai), "name", None) == "openai"


def test_a_revision_that_is_not_cached_is_said_to_be_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub.errors import LocalEntryNotFoundError

    (tmp_path / "models--org--model" / "snapshots" / "abc").mkdir(parents=True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))

    def missing(*_: object, **__: object) -> str:
        raise LocalEntryNotFoundError("x" * 500)

    monkeypatch.setattr("huggingface_hub.snapshot_download", missing)
    with pytest.raises(InputError, match=r"`revision`: this revision of org/model is not.*abc"):
        fetch("org/model", "v9", ["*"])
    with pytest.raises(InputError, match="org/model is not in this machine's cache") as error:
        fetch("org/model", None, ["*"])
    assert "xxx" not in str(error.value)
    with pytest.raises(InputError, match=r"`sae`: .*org/model is not in this machine's cache"):
        load_sae("org/model/layers.3")
