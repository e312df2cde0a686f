"""A model is what its hash says: damaged, foreign or mixed folders are read right or refused."""

import json
import resource
import shutil
import struct
import zipfile
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from selection.activations.model import load_activation_model
from selection.core.errors import InputError
from selection.models.hookpoints import Hookpoint
from selection.models.resolve import resolve_model
from selection.models.weights import check_file, hash_weights
from selection.sae.formats.weight_files import read_weights
from tests.fuzz_cases import fuzz

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n"
WEIGHTS = "model.safetensors"


def edit(folder: Path, **changes: Any) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def shard(folder: Path) -> None:
    """The weights as two parts and an index, as large models have them."""
    tensors = load_file(folder / WEIGHTS)
    names = sorted(tensors)
    halves = [names[::2], names[1::2]]
    parts = {f"model-0000{i + 1}-of-00002.safetensors": half for i, half in enumerate(halves)}
    for part, half in parts.items():
        save_file({name: tensors[name] for name in half}, folder / part)
    where = {name: part for part, half in parts.items() for name in half}
    (folder / f"{WEIGHTS}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
    (folder / WEIGHTS).unlink()


def grow(folder: Path) -> None:
    tensors = load_file(folder / WEIGHTS)
    name = next(n for n in tensors if n.endswith("embed_tokens.weight"))
    tensors[name] = torch.cat([tensors[name], tensors[name][:8]])
    save_file(tensors, folder / WEIGHTS)


def without(folder: Path, name: str) -> None:
    shard(folder)
    (folder / name).unlink()


def cut(folder: Path) -> None:
    content = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(content[: len(content) // 2])


def only(folder: Path, name: str) -> str:
    (folder / WEIGHTS).rename(folder / name)
    return WEIGHTS


def retype(folder: Path, dtype: torch.dtype) -> None:
    tensors = load_file(folder / WEIGHTS)
    save_file({n: t.to(dtype) if "proj" in n else t for n, t in tensors.items()}, folder / WEIGHTS)


def add(folder: Path, name: str) -> None:
    save_file({**load_file(folder / WEIGHTS), name: torch.ones(4)}, folder / WEIGHTS)


def blank(folder: Path) -> None:
    """The size was reserved, and the second half never arrived."""
    content = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(content[: len(content) // 2].ljust(len(content), b"\0"))


def half_pickle(folder: Path) -> None:
    file = folder / "pytorch_model.bin"
    torch.save(load_file(folder / WEIGHTS), file)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    (folder / WEIGHTS).unlink()


REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "bitsandbytes": (lambda f: edit(f, quantization_config={"quant_method": "bitsandbytes"}),
                     r"config\.json: `quantization_config`: .*quantised.*'bitsandbytes'"),
    "gptq": (lambda f: edit(f, quantization_config={"quant_method": "gptq", "bits": 4}), "'gptq'"),
    "mxfp4": (lambda f: edit(f, quantization_config={"quant_method": "mxfp4"}), "'mxfp4'"),
    "compressed": (lambda f: edit(f, compression_config={"quant_method": "compressed-tensors"}),
                   r"`compression_config`.*'compressed-tensors'"),
    "float8 unsaid": (lambda f: retype(f, torch.float8_e4m3fn), "quantised.*does not say.*F8_E4M3"),
    "int8 unsaid": (lambda f: retype(f, torch.int8), "quantised.*does not say.*'I8'"),
    "scales": (lambda f: add(f, "model.layers.0.mlp.up_proj.weight_scale_inv"), "are quantised"),
    "gptq unsaid": (lambda f: add(f, "model.layers.0.mlp.up_proj.qweight"), "are quantised"),
    "bnb unsaid": (lambda f: add(f, "x.weight.quant_state.bitsandbytes__nf4"), "are quantised"),
    "end never written": (lambda f: blank(f), "all values of this matrix are 0.*not finished"),
    "half a pickle": (lambda f: half_pickle(f), r"pytorch_model\.bin: these weights are not whole"),
    "unfinished": (lambda f: only(f, f"{WEIGHTS}.incomplete"), "download .* was not finished"),
    "deepspeed": (lambda f: only(f, "global_step9"), "only a checkpoint of DeepSpeed.*zero_to_fp"),
    "consolidated": (lambda f: only(f, "consolidated.safetensors"), "format of the model's makers"),
    "a folder": (lambda f: (f / only(f, "x")).mkdir(), "no file, or a link to nothing"),
    "leftover adapter": (lambda f: (f / "adapter_config.json").write_text("{}"),
                         r"adapter_config\.json: an adapter lies beside the weights.*Move"),
    "adapter alone": (lambda f: only(f, "adapter_model.safetensors"), "only the weights of an ada"),
    "pointer": (lambda f: (f / WEIGHTS).write_bytes(LFS), "pointer of Git LFS.*git lfs pull"),
    "half a download": (cut, r"model\.safetensors: these weights are not whole"),
    "empty": (lambda f: (f / WEIGHTS).write_bytes(b""), "no weights, or only their beginning"),
    "missing part": (lambda f: without(f, "model-00002-of-00002.safetensors"),
                     r"1 of 2 parts.*: model-00002-of-00002\.safetensors"),
    "missing index": (lambda f: without(f, f"{WEIGHTS}.index.json"), "index of these parts.*missi"),
    "grown embedding": (grow, "the weights know 408 tokens, the configuration 400.*vocab_size"),
    "fewer blocks": (lambda f: edit(f, num_hidden_layers=2),
                     r"config\.json: `num_hidden_layers`: .*hold 4 blocks, .* 2.*Set it to 4"),
    "fsdp": (lambda f: only(f, "pytorch_model_fsdp.bin"), "only a checkpoint of FSDP.*save_pretr"),
    "gguf": (lambda f: only(f, "model-q4.gguf"), "only GGUF files.*safetensors"),
    "another name": (lambda f: only(f, "weights.safetensors"), "Call it model.safetensors"),
}  # fmt: skip


@pytest.fixture
def folder(tiny_model_dir: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_model_dir, tmp_path / "model"))


@pytest.mark.parametrize("case", list(REFUSED))
def test_what_is_not_read_right_is_refused_before_it_is_loaded(case: str, folder: Path) -> None:
    spoil, message = REFUSED[case]
    resolve_model(folder)
    spoil(folder)
    with pytest.raises(InputError, match=message) as error:
        resolve_model(folder)
    assert error.value.remedy
    assert str(folder) in str(error.value)


def activations(folder: Path) -> torch.Tensor:
    model = load_activation_model(resolve_model(folder), Hookpoint("resid", 2))
    return model.hidden([np.arange(7, 27, dtype=np.uint32)])


@pytest.mark.parametrize(
    "foreign",
    ["optimizer.pt", "training_args.bin", "stray.safetensors", "pytorch_model.bin",
     "consolidated.safetensors", "model-00001-of-00002.safetensors"],
)  # fmt: skip
def test_files_that_are_no_part_of_the_model_change_neither_hash_nor_activations(
    foreign: str, folder: Path
) -> None:
    before, hidden = resolve_model(folder).weights_sha256, activations(folder)
    save_file({"model.embed_tokens.weight": torch.ones(3, 3)}, folder / foreign)
    assert resolve_model(folder).weights_sha256 == before
    assert torch.equal(activations(folder), hidden)


def test_a_pickle_with_more_blocks_is_refused_when_it_is_loaded(folder: Path) -> None:
    torch.save(load_file(folder / WEIGHTS), folder / "pytorch_model.bin")
    (folder / WEIGHTS).unlink()
    load_activation_model(resolve_model(folder), Hookpoint("resid", 1))
    edit(folder, num_hidden_layers=2)
    with pytest.raises(InputError, match=r"hold 4 blocks, the configuration 2.*Set it to 4"):
        load_activation_model(resolve_model(folder), Hookpoint("resid", 1))


def test_parts_are_the_same_model_under_another_hash(folder: Path) -> None:
    before, hidden = resolve_model(folder).weights_sha256, activations(folder)
    shard(folder)
    assert torch.equal(activations(folder), hidden)
    assert resolve_model(folder).weights_sha256 != before
    stray = folder / "stray.safetensors"
    parts = resolve_model(folder).weights_sha256
    save_file({"x": torch.ones(2)}, stray)
    assert resolve_model(folder).weights_sha256 == parts


@pytest.mark.parametrize(
    ("kind", "name", "rows", "refused"),
    [
        ("mllama", "language_model.model.embed_tokens.weight", 48, False),
        ("mllama", "language_model.model.embed_tokens.weight", 40, True),
        ("mllama_text_model", "model.embed_tokens.weight", 48, False),
        ("moshi", "decoder.model.embed_tokens.weight", 41, False),
        ("llama", "model.embed_tokens.weight", 48, True),
        ("fuyu", "vision_embed_tokens.weight", 8, False),
    ],
)
def test_rows_of_the_embedding_are_those_of_the_vocabulary(
    kind: str, name: str, rows: int, refused: bool, tmp_path: Path
) -> None:
    save_file({name: torch.ones(rows, 4)}, tmp_path / WEIGHTS)
    config = {"model_type": kind, "text_config": {"vocab_size": 40}}
    hashed = partial(hash_weights, tmp_path, config, lambda file: file.name)
    if refused:
        with pytest.raises(InputError, match=f"the weights know {rows} tokens, the config"):
            hashed()
    else:
        assert hashed() == WEIGHTS


FILES = ["config.json", WEIGHTS, "generation_config.json", "tokenizer.json", "adapter_config.json",
         "model-00001-of-00002.safetensors", f"{WEIGHTS}.index.json", "pytorch_model.bin",
         "optimizer.pt", "quantize_config.json"]  # fmt: skip
CONTENTS = [b"", b"{}", b"[]", b"null", LFS, b"\x00" * 64, b'{"weight_map": {"a": "b"}}',
            b'{"model_type": 3}', b"\x05\x00\x00\x00\x00\x00\x00\x00{}   "]  # fmt: skip


@st.composite
def damage(draw: st.DrawFn) -> list[tuple[str, str, int, bytes]]:
    """Up to three of: remove, cut, overwrite bytes, replace, rename, with where and what."""
    return [
        (
            draw(st.sampled_from(["remove", "cut", "flip", "replace", "swap", "key"])),
            draw(st.sampled_from(FILES)),
            draw(st.integers(0, 10**6)),
            draw(st.sampled_from(CONTENTS)),
        )
        for _ in range(draw(st.integers(1, 3)))
    ]


def apply(folder: Path, kind: str, name: str, number: int, content: bytes) -> None:
    file = folder / name
    if kind == "replace" or not file.is_file():
        file.write_bytes(content)
        return
    old = file.read_bytes()
    if kind == "remove":
        file.unlink()
    elif kind == "cut":
        file.write_bytes(old[: number % max(1, len(old))])
    elif kind == "swap":
        file.rename(folder / FILES[number % len(FILES)])
    elif kind == "key" and name == "config.json":
        with suppress(ValueError, AttributeError, IndexError, ZeroDivisionError):
            config = json.loads(old)
            key = sorted(config)[number % len(config)]
            config[key] = json.loads(content or b"7") if content[:1] in b"{[n" else number
            file.write_text(json.dumps(config))
    elif old:
        spoiled = bytearray(old)
        spoiled[number % min(len(old), 600)] ^= 1 + number % 255
        file.write_bytes(bytes(spoiled))


@pytest.mark.filterwarnings("ignore")
@fuzz()
@given(steps=damage())
def test_a_damaged_folder_is_the_same_model_or_refused(
    steps: list[tuple[str, str, int, bytes]],
    tiny_model_dir: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """What is accepted has the hash of what is loaded; nothing ends in a traceback."""
    folder = tmp_path_factory.getbasetemp() / "fuzzed-model"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(tiny_model_dir, folder)
    for step in steps:
        apply(folder, *step)
    before = resolve_model(tiny_model_dir)
    try:
        resolved = resolve_model(folder)
        model = load_activation_model(resolved, Hookpoint("resid", min(2, resolved.n_layers - 1)))
    except InputError:
        return
    if resolved.weights_sha256 == before.weights_sha256:
        ours = dict(model.module.named_parameters())
        stored = load_file(tiny_model_dir / WEIGHTS)
        for name, tensor in ours.items():
            assert torch.equal(tensor, stored[f"model.{name}"].to(tensor.dtype))


def test_a_header_of_gigabytes_is_refused_unread(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    with file.open("wb") as opened:  # sparse: it takes no space
        opened.write(struct.pack("<Q", 3 << 30))
        opened.truncate((3 << 30) + 8)
    begun = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InputError, match=r"model\.safetensors.*only their beginning"):
        check_file(file)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - begun < 100_000  # kB


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"num_hidden_layers": 1000000000, "hidden_size": 8}', "no model has so many blocks"),
        ('{"a":' * 100_000, "no JSON.*nested too deeply"),
        ("9" * 10_000, "no JSON"),
    ],
)
def test_an_absurd_config_is_refused_at_once(content: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(content)
    (tmp_path / WEIGHTS).write_bytes(struct.pack("<Q", 2) + b"{}")
    with pytest.raises(InputError, match=words):
        resolve_model(tmp_path)


def test_an_archive_that_unpacks_to_gigabytes_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "params.npz"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("W_enc.npy", bytes(100 << 20))
    with pytest.raises(InputError, match=r"params\.npz.*unpacks to 104,857,600"):
        read_weights(file)
