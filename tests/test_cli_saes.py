"""Which model is meant, and what is said when it cannot be had."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from selection.core.errors import InputError
from selection.core.hashing import file_sha256
from selection.models.hookpoints import Hookpoint, parse_hookpoint
from selection.models.hub import fetch
from selection.models.resolve import resolve_model


def test_a_local_folder_is_resolved(tiny_model_dir: Path) -> None:
    resolved = resolve_model(tiny_model_dir)
    assert resolved.path == tiny_model_dir.resolve()
    assert (resolved.d_model, resolved.n_layers, resolved.max_positions) == (32, 4, 512)
    assert (resolved.kind, resolved.revision, resolved.licence) == ("causal", None, None)
    assert resolved.weights_sha256 == file_sha256(tiny_model_dir / "model.safetensors")


def copy_with(folder: Path, target: Path, **changes: Any) -> Path:
    """A copy of a model folder with some config values changed; None removes one."""
    shutil.copytree(folder, target)
    path = target / "config.json"
    config = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({k: v for k, v in config.items() if v is not None}))
    return target


def test_the_weights_hash_ignores_everything_but_weights(
    tiny_model_dir: Path, tmp_path: Path
) -> None:
    copy = copy_with(tiny_model_dir, tmp_path / "copy", use_cache=False)
    expected = resolve_model(tiny_model_dir).weights_sha256
    assert resolve_model(copy).weights_sha256 == expected
    weights = bytearray((copy / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (copy / "model.safetensors").write_bytes(weights)
    assert resolve_model(copy).weights_sha256 != expected


def test_parts_of_weights_hash_in_order_and_old_files_are_a_fallback(
    tiny_model_dir: Path, tmp_path: Path
) -> None:
    copy = copy_with(tiny_model_dir, tmp_path / "copy")
    whole = resolve_model(copy).weights_sha256
    (copy / "pytorch_model.bin").write_bytes(b"old")
    assert resolve_model(copy).weights_sha256 == whole
    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    (copy / "model.safetensors").rename(copy / names[0])
    save_file({"more": torch.ones(1)}, copy / names[1])
    index = {"weight_map": {"x": names[1], "y": names[0]}}
    (copy / "model.safetensors.index.json").write_text(json.dumps(index))
    parts = "".join(file_sha256(copy / name) for name in names)
    assert resolve_model(copy).weights_sha256 == hashlib.sha256(parts.encode()).hexdigest()
    for path in copy.glob("model*.safetensors*"):
        path.unlink()
    assert resolve_model(copy).weights_sha256 == file_sha256(copy / "pytorch_model.bin")


SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
KINDS: dict[str, tuple[Callable[[], Any], str]] = {
    "bert": (lambda: transformers.BertConfig(**SMALL), "encoder"),
    "gpt2": (lambda: transformers.GPT2Config(n_embd=32, n_layer=2, n_head=4), "causal"),
    "opt": (lambda: transformers.OPTConfig(**SMALL), "causal"),
    "bert decoder": (lambda: transformers.BertConfig(**SMALL, is_decoder=True), "causal"),
}


@pytest.mark.parametrize("name", KINDS)
def test_kind_and_sizes_of_a_bare_config(name: str, tmp_path: Path) -> None:
    config, kind = KINDS[name]
    config().save_pretrained(tmp_path)
    save_file({"x": torch.ones(1)}, tmp_path / "model.safetensors")
    resolved = resolve_model(tmp_path)
    assert (resolved.kind, resolved.d_model, resolved.n_layers) == (kind, 32, 2)


def test_position_numbers_behind_the_padding_id_shorten_the_longest_input(tmp_path: Path) -> None:
    transformers.RobertaConfig(**SMALL, max_position_embeddings=514).save_pretrained(tmp_path)
    save_file({"x": torch.ones(1)}, tmp_path / "model.safetensors")
    assert resolve_model(tmp_path).max_positions == 512


def test_sizes_of_a_model_with_pictures_are_those_of_its_text(
    tiny_model_dir: Path, tmp_path: Path
) -> None:
    text = {"hidden_size": 48, "num_hidden_layers": 5, "model_type": "gemma3_text"}
    model = copy_with(
        tiny_model_dir,
        tmp_path / "m",
        model_type="gemma3",
        architectures=["Gemma3ForConditionalGeneration"],
        text_config=text,
    )
    resolved = resolve_model(model)
    assert (resolved.kind, resolved.d_model, resolved.n_layers) == ("causal", 48, 5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"is_encoder_decoder": True, "model_type": "t5"}, "model_type.*neither a causal.*t5"),
        ({"model_type": "vit", "architectures": ["ViTModel"]}, "neither a causal"),
        ({"model_type": "own", "auto_map": {"AutoModel": "x.Own"}}, "own Python code"),
        ({"num_hidden_layers": None}, "num_hidden_layers.*does not say its size"),
    ],
)
def test_models_that_cannot_be_used_are_refused(
    tiny_model_dir: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message) as error:
        resolve_model(copy_with(tiny_model_dir, tmp_path / "m", **changes))
    assert "config.json" in str(error.value)


def test_foreign_code_runs_only_if_it_is_trusted(tiny_model_dir: Path, tmp_path: Path) -> None:
    model = copy_with(
        tiny_model_dir, tmp_path / "m", model_type="own", auto_map={"AutoModel": "x.Own"}
    )
    assert resolve_model(model, trust_remote_code=True).trust_remote_code


@pytest.mark.parametrize(
    ("missing", "message"),
    [("config.json", "no config.json"), ("model.safetensors", "no weights")],
)
def test_incomplete_folders_are_refused(
    tiny_model_dir: Path, tmp_path: Path, missing: str, message: str
) -> None:
    copy = copy_with(tiny_model_dir, tmp_path / "m")
    (copy / missing).unlink()
    with pytest.raises(InputError, match=message):
        resolve_model(copy)


def test_a_broken_config_is_refused(tiny_model_dir: Path, tmp_path: Path) -> None:
    copy = copy_with(tiny_model_dir, tmp_path / "m")
    for text in ("{", "[]"):
        (copy / "config.json").write_text(text)
        with pytest.raises(InputError, match="no JSON"):
            resolve_model(copy)


def test_an_adapter_is_named_as_one(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(InputError, match="base model as `name`, and this as `adapter`"):
        resolve_model(tmp_path)


@pytest.mark.parametrize(
    ("card", "licence"),
    [
        ("---\nlicense: apache-2.0\ntags: [x]\n---\n# Model", "apache-2.0"),
        ("---\nlicense: other\nlicense_name: llama3\n---\n", "llama3"),
        ("---\ntags: [x]\n---\n", None),
        ("---\n: : :\n---\n", None),
        ("# No header", None),
    ],
)
def test_the_licence_is_read_from_the_model_card(
    tiny_model_dir: Path, tmp_path: Path, card: str, licence: str | None
) -> None:
    copy = copy_with(tiny_model_dir, tmp_path / "m")
    (copy / "README.md").write_text(card)
    assert resolve_model(copy).licence == licence


@pytest.mark.parametrize(
    ("text", "n_layers", "block"),
    [
        ("resid@4", 6, 4),
        (" resid@0 ", 6, 0),
        ("layers.4", 6, 4),
        ("resid@0.66", 6, 3),
        ("resid@0.0", 6, 0),
        ("resid@1.0", 6, 5),
        ("resid@.5", 7, 3),
        ("resid@0.29", 101, 29),  # 0.29 * 100 is 28.999... as a float.
        ("resid@1", 6, 1),
        ("resid@0.5", 1, 0),
    ],
)
def test_hookpoints_name_a_block(text: str, n_layers: int, block: int) -> None:
    hookpoint = parse_hookpoint(text, n_layers)
    assert hookpoint == Hookpoint("resid", block)
    assert parse_hookpoint(str(hookpoint), n_layers) == hookpoint


@given(st.integers(0, 1000), st.integers(1, 200))
def test_relative_depths_equal_integer_arithmetic(thousandths: int, n_layers: int) -> None:
    text = f"resid@{thousandths // 1000}.{thousandths % 1000:03d}"
    assert parse_hookpoint(text, n_layers).block == thousandths * (n_layers - 1) // 1000


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("resid@6", r"6 blocks.*'resid@6'.*resid@0 to resid@5"),
        ("layers.6", "6 blocks"),
        ("resid@1.5", "6 blocks"),
        ("resid@-1", "not a hookpoint"),
        ("layers.0.5", "not a hookpoint"),
        ("4", "not a hookpoint"),
        ("resid@", "not a hookpoint"),
        ("mlp@6", "6 blocks"),
        ("norm@3", "not a hookpoint"),
    ],
)
def test_hookpoints_that_are_none_are_refused(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_hookpoint(text, 6)


def test_a_name_that_is_neither_folder_nor_hub_name_is_refused(tmp_path: Path) -> None:
    for name in (str(tmp_path / "missing"), "a/b/c", "spaces in it", "./none"):
        with pytest.raises(InputError, match="neither a folder nor"):
            fetch(name, None, ["*"])
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="neither a folder nor"):
        fetch(str(tmp_path / "file"), None, ["*"])


def test_a_revision_of_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="belongs to a hub name"):
        fetch(str(tmp_path), "main", ["*"])


def test_offline_names_the_cache_and_the_way_out() -> None:
    with pytest.raises(InputError, match=r"HF_HUB_OFFLINE is set.*hf download no-such/model"):
        fetch("no-such/model", None, ["*"])


def hub_error(kind: str, status: int) -> Exception:
    from huggingface_hub import errors

    # Before 1.0 the hub's library answered in the classes of another network library.
    response = SimpleNamespace(status_code=status, headers={}, request=None)
    error: Exception = getattr(errors, kind)("refused", response=response)
    return error


@pytest.mark.parametrize(
    ("kind", "status", "message"),
    [
        ("GatedRepoError", 403, r"gated.*HTTP 403.*Accept its terms.*hf auth login"),
        ("RepositoryNotFoundError", 401, r"no repository org/model.*HTTP 401.*spelling.*HF_TOKEN"),
        ("RevisionNotFoundError", 404, r"no such revision.*'v9'"),
        ("HfHubHTTPError", 503, r"refused org/model.*HTTP 503.*hf auth whoami"),
    ],
)
def test_refusals_of_the_hub_are_explained(
    monkeypatch: pytest.MonkeyPatch, kind: str, status: int, message: str
) -> None:
    def refuse(name: str, **choices: object) -> str:
        raise hub_error(kind, status)

    monkeypatch.setattr("huggingface_hub.snapshot_download", refuse)
    with pytest.raises(InputError, match=message):
        fetch("org/model", "v9", ["*"])


def test_a_hub_model_is_resolved_to_its_commit(
    monkeypatch: pytest.MonkeyPatch, tiny_model_dir: Path, tmp_path: Path
) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    snapshot = tmp_path / "snapshots" / commit
    asked: list[tuple[str | None, bool]] = []

    def download(
        name: str, revision: str | None, allow_patterns: list[str], ignore_patterns: list[str]
    ) -> str:
        asks_for_old_weights = "pytorch_model*.bin" in allow_patterns
        asked.append((revision, asks_for_old_weights))
        if not snapshot.exists():
            shutil.copytree(tiny_model_dir, snapshot)
            (snapshot / "model.safetensors").unlink()
        if asks_for_old_weights:
            (snapshot / "pytorch_model.bin").write_bytes(b"old")
        return str(snapshot)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    resolved = resolve_model("org/model", "main")
    assert (resolved.name, resolved.revision) == ("org/model", commit)
    assert asked == [("main", False), (commit, True)]  # Old weights only where there are no others.
