"""`saelect describe --delphi`: every latent of every sample, where delphi's reader looks for it."""

import errno
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from safetensors.numpy import load_file

from flows.cli.saes import describe_from_config
from flows.config.jobs import VectorJob
from flows.stages import describe as describe_stage
from flows.stages.describe import describe_latents
from selection.activations.model import load_activation_model
from selection.core.errors import InputError
from selection.models.hookpoints import Hookpoint
from selection.models.resolve import resolve_model
from selection.records import Rendered
from selection.rendering.renderer import load_renderer
from selection.sae.encode import encode
from selection.sae.formats.load import load_sae
from storage.export import delphi
from storage.export.delphi import LEAST, cache_layout, delphi_cache, ensure_unused
from storage.files.workspace import open_workspace
from storage.pools.pool import PreparedPool
from tests.tiny_model import tiny_row, write_jsonl

PER_ROW, SPLITS = 8, 5
Found = dict[tuple[int, int, int], float]
"""Activation by row, position and latent."""


def job(pool: Path, model: Path, sae: Path, **compute: object) -> dict[str, Any]:
    return {
        "pool": {"path": str(pool), "columns": {"id": "id"}},
        "model": {"name": str(model), "hookpoint": "resid@2"},
        "sae": {"path": str(sae)},
        "rendering": {"max_length": 128, "counted": "response"},
        "compute": {"tokens_per_batch": 300, **compute},
    }


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Short and long answers, two answers in one sample, and seven answers to one question."""
    rows = [tiny_row(i) for i in range(20)]
    question = {"role": "user", "content": "Ann has two apples. What could she do with them? " * 2}
    for i in range(7):
        answer = {"role": "assistant", "content": "She could eat one. " * i + f"Answer {i}."}
        rows.append({"id": f"alike-{i}", "messages": [question, answer], "source": "alike"})
    return write_jsonl(tmp_path_factory.mktemp("delphi") / "pool.jsonl", rows)


def read(folder: Path) -> tuple[Found, np.ndarray[Any, Any], dict[str, Any]]:
    """What is written, the tokens, and config.json; what delphi relies on is checked."""
    files = sorted(folder.glob("*.safetensors"), key=lambda file: int(file.stem.split("_")[0]))
    found: Found = {}
    tokens, next_latent = None, 0
    for file in files:
        first, last = map(int, file.stem.split("_"))
        assert first == next_latent
        assert last >= first
        next_latent = last + 1
        held = load_file(file)
        assert set(held) == {"tokens", "locations", "activations"}
        assert held["tokens"].dtype == np.int64
        assert held["locations"].dtype in (np.uint16, np.uint32)
        assert held["activations"].dtype == np.float16
        tokens = held["tokens"] if tokens is None else tokens
        assert np.array_equal(tokens, held["tokens"])
        places = [tuple(place) for place in held["locations"].tolist()]
        assert places == sorted(set(places))  # delphi joins neighbors of a window
        for (row, position, latent), act in zip(places, held["activations"], strict=True):
            assert latent <= last - first
            found[row, position, latent + first] = float(act)
    assert tokens is not None
    return found, tokens, json.loads((folder / "config.json").read_text())


def alone(samples: list[Rendered], model_dir: Path, sae_dir: Path) -> list[list[dict[int, float]]]:
    """By sample and counted token: activation by latent, each sample run by itself."""
    model = load_activation_model(resolve_model(model_dir), Hookpoint("resid", 2), "cpu")
    coder, found = load_sae(sae_dir), []
    for sample in samples:
        [hidden] = model.hidden([sample.tokens])
        latents = encode(coder, hidden[torch.from_numpy(sample.content_mask)].float())
        found.append(
            [
                {latent: act for latent, act in zip(of, acts, strict=True) if act > LEAST}
                for of, acts in zip(
                    latents.top_indices.tolist(), latents.top_acts.tolist(), strict=True
                )
            ]
        )
    return found


def laid_out(
    samples: list[Rendered], acts: list[list[dict[int, float]]], window: int, pad: int
) -> tuple[Found, list[list[int]], list[tuple[int, int]]]:
    """The definition: token after token, and each sample begins a window."""
    stream: list[int] = []
    found: Found = {}
    begins = []
    for sample, per_token in zip(samples, acts, strict=True):
        begins.append(divmod(len(stream), window * PER_ROW))
        for token, latents in zip(
            sample.tokens[sample.content_mask].tolist(), per_token, strict=True
        ):
            row, position = divmod(len(stream), window * PER_ROW)
            found |= {(row, position, latent): act for latent, act in latents.items()}
            stream.append(token)
        while len(stream) % window:
            stream.append(pad)
    while len(stream) % (window * PER_ROW):
        stream.append(pad)
    length = window * PER_ROW
    return found, [stream[i : i + length] for i in range(0, len(stream), length)], begins


@pytest.mark.parametrize("window", [4, 32])
@pytest.mark.parametrize("share", [True, False])
def test_every_latent_of_every_sample_is_there_and_nothing_else(
    pool: Path, tiny_model_dir: Path, tiny_sae_dir: Path, tmp_path: Path, window: int, share: bool
) -> None:
    config = job(pool, tiny_model_dir, tiny_sae_dir, share_prefixes=share)
    out = tmp_path / "made" / "latents"
    describe_latents(
        VectorJob.model_validate(config), open_workspace(tmp_path / "w"), 50, out, window
    )
    assert [entry.name for entry in out.iterdir()] == ["layers.2"]  # each entry is a module there
    assert [entry.name for entry in out.parent.iterdir()] == ["latents"]
    found, tokens, told = read(out / "layers.2")
    listed = pq.read_table(out / "layers.2" / "samples.parquet").to_pylist()
    assert len(listed) == 27
    renderer = load_renderer(tiny_model_dir, max_length=128, counted="response")
    [prepared] = (tmp_path / "w" / "pools").iterdir()
    chats = {row["example_id"]: row["messages"] for row in examples(prepared)}
    samples = [renderer.render(json.loads(chats[row["example_id"]])) for row in listed]
    lengths = [int(sample.content_mask.sum()) for sample in samples]
    assert min(lengths) < 32 < max(lengths)
    acts = alone(samples, tiny_model_dir, tiny_sae_dir)
    expected, rows, begins = laid_out(samples, acts, window, renderer.pad_id)
    assert tokens.tolist() == rows
    assert [(row["row"], row["position"]) for row in listed] == begins
    assert [row["n_tokens"] for row in listed] == lengths
    assert found.keys() == expected.keys()
    assert len(found) > 1000
    np.testing.assert_allclose(
        [found[place] for place in expected], list(expected.values()), rtol=1e-3, atol=1e-4
    )
    assert told["cache_ctx_len"] == tokens.shape[1] == window * PER_ROW
    assert told["n_tokens"] == tokens.size
    assert (told["n_splits"], told["example_ctx_len"]) == (SPLITS, window)
    assert told["model_name"] == str(tiny_model_dir)


def examples(prepared: Path) -> list[dict[str, Any]]:
    from storage.pools.pool import open_pool

    pool: PreparedPool = open_pool(prepared)
    return pool.examples_at(np.arange(pool.n_examples)).to_pylist()


def test_latents_are_read_at_the_runs_own_hookpoint_where_spaces_join_others(
    pool: Path, tiny_model_dir: Path, tiny_sae_dir: Path, tmp_path: Path
) -> None:
    config = job(pool, tiny_model_dir, tiny_sae_dir)
    made = []
    for name, spaces in (
        ("own", []),
        ("joined", ["sae", {"kind": "sae", "sae": str(tiny_sae_dir), "hookpoint": "resid@0"}]),
    ):
        config["representation"] = {"spaces": spaces} if spaces else {}
        out = tmp_path / name
        describe_latents(VectorJob.model_validate(config), open_workspace(tmp_path / "w"), 9, out)
        made.append(read(out / "layers.2"))
    (own, tokens, _), (joined, same, _) = made
    assert np.array_equal(tokens, same)
    assert own.keys() == joined.keys()
    np.testing.assert_allclose([joined[k] for k in own], list(own.values()), rtol=1e-3, atol=1e-4)


def write(
    folder: Path, tokens: list[Any], batches: list[tuple[Any, ...]], m: int, window: int
) -> int:
    names = [f"id-{i}" for i in range(len(tokens))]
    with delphi_cache(folder, "h.0.mlp", tokens, names, n_latents=m, window=window, pad=7,
                      about={"model_name": "none"}) as cache:  # fmt: skip
        for batch in batches:
            cache.add(*batch)
    return cache.n_clipped


def everything(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_bytes_do_not_depend_on_the_batches(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    lengths = [5, 1, 12, 4, 9, 40]
    tokens = [rng.integers(0, 90, n).astype(np.uint32) for n in lengths]
    t, m = sum(lengths), 13
    acts = rng.random((t, 3)).astype(np.float32) * (rng.random((t, 3)) < 0.7)
    latents = np.stack([rng.permutation(m - 4)[:3] for _ in range(t)])  # the last split is silent
    owner = np.repeat(np.arange(6), lengths)
    position = np.concatenate([np.arange(n) for n in lengths])
    plans = ([[0, 1, 2, 3, 4, 5]], [[5], [2, 0], [4, 1, 3]], [[3, 5, 4], [1], [0, 2]])
    made = []
    for i, plan in enumerate(plans):
        picked = [np.concatenate([np.flatnonzero(owner == s) for s in batch]) for batch in plan]
        batches = [(acts[at], latents[at], owner[at], position[at]) for at in picked]
        assert write(tmp_path / str(i), tokens, batches, m, 4) == 0
        made.append(everything(tmp_path / str(i)))
    assert made[0] == made[1] == made[2]
    found, written, _ = read(tmp_path / "0" / "h.0.mlp")
    first = np.cumsum([0, *(-(-n // 4) for n in lengths)])
    assert found == {
        (*divmod(int(first[owner[i]]) * 4 + int(position[i]), 32), int(latents[i, k])): float(
            np.float16(acts[i, k])
        )
        for i, k in zip(*np.nonzero(acts > LEAST), strict=True)
    }
    assert written.shape == (3, 32)
    assert len(load_file(tmp_path / "0" / "h.0.mlp" / "10_12.safetensors")["locations"]) == 0


def test_what_float16_cannot_say_is_clipped_and_counted_and_specks_are_left_out(
    tmp_path: Path,
) -> None:
    acts = np.array([[1e6, 2.0, 9e-6]], np.float32)
    batch = acts, np.array([[0, 1, 2]]), np.array([0]), np.array([0])
    assert write(tmp_path / "c", [np.array([3], np.uint32)], [batch], 3, 4) == 1
    found, _, told = read(tmp_path / "c" / "h.0.mlp")
    assert found == {(0, 0, 0): 65504.0, (0, 0, 1): 2.0}
    assert told["n_splits"] == 3


def test_many_rows_have_wider_locations(tmp_path: Path) -> None:
    n = (1 << 16) * 16 + 1
    tokens = [np.zeros(n, np.uint32)]
    last = np.array([[0.5]], np.float32), np.array([[1]]), np.array([0]), np.array([n - 1])
    write(tmp_path / "c", tokens, [last], 2, 2)
    found, _, _ = read(tmp_path / "c" / "h.0.mlp")
    assert found == {(1 << 16, 0, 1): 0.5}


def test_splits_are_those_of_delphi() -> None:
    for m in (5, 64, 1000, 16384, 131072):
        theirs = torch.linspace(0, m, steps=SPLITS + 1).long().tolist()
        assert cache_layout(np.array([1]), m, 32).edges.tolist() == theirs


def test_an_error_leaves_nothing_and_a_folder_in_use_is_refused_before_the_model_is_loaded(
    pool: Path, tiny_model_dir: Path, tiny_sae_dir: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    outer = tmp_path / "outer"
    (outer / "empty").mkdir(parents=True)
    with pytest.raises(IndexError):  # from within the block
        write(outer / "empty", [np.ones(1, np.uint32)], [(np.ones((1, 1)), np.zeros((1, 1), int),
              np.array([3]), np.array([0]))], 4, 4)  # fmt: skip
    assert [path.name for path in outer.rglob("*")] == ["empty"]
    write(outer / "empty", [np.ones(1, np.uint32)], [], 4, 4)
    before = everything(outer)
    monkeypatch.setattr(describe_stage, "representer_in", lambda *_: pytest.fail("too late"))
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump(job(pool, tiny_model_dir, tiny_sae_dir)))
    with pytest.raises(InputError, match="something in this folder"):
        describe_from_config(str(path), tmp_path / "w", 5, [], outer / "empty")
    assert everything(outer) == before
    with pytest.raises(InputError, match="no folder can be made"):
        describe_from_config(str(path), tmp_path / "w", 5, [], path / "below")
    with pytest.raises(InputError, match="--delphi FOLDER"):
        describe_from_config(str(path), tmp_path / "w", 5, [], None, 16)


def test_where_no_folder_can_be_made_is_said_before_the_model_is_loaded(
    pool: Path, tiny_model_dir: Path, tiny_sae_dir: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(describe_stage, "representer_in", lambda *_: pytest.fail("too late"))
    path, circle = tmp_path / "c.yaml", tmp_path / "circle"
    path.write_text(yaml.safe_dump(job(pool, tiny_model_dir, tiny_sae_dir)))
    circle.symlink_to(circle)
    for folder in (Path("/proc/xyz"), Path("/proc/xyz/below"), tmp_path / ("n" * 300), circle):
        with pytest.raises(InputError, match="no folder can be made here"):
            describe_from_config(str(path), tmp_path / "w", 5, [], folder)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (errno.EROFS, "no folder can be made"),
        (errno.EIO, "no folder can be made"),
        (errno.ENOSPC, "disk is full"),
    ],
)
def test_a_refusal_of_the_system_is_explained(
    code: int, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patched:
        patched.setattr(Path, "mkdir", refuse)
        with pytest.raises(InputError, match=message):
            ensure_unused(tmp_path / "c")
        patched.setattr(delphi, "ensure_unused", lambda _: None)  # it may be refused later, too
        with pytest.raises(InputError, match=message):
            write(tmp_path / "c", [np.ones(1, np.uint32)], [], 4, 4)
    ensure_unused(tmp_path / "c")
    assert list(tmp_path.iterdir()) == []


def test_the_command_says_how_to_read_it(
    pool: Path, tiny_model_dir: Path, tiny_sae_dir: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump(job(pool, tiny_model_dir, tiny_sae_dir)))
    describe_from_config(str(path), tmp_path / "w", 5, [], tmp_path / "made", 8)
    assert f"reads {tmp_path / 'made'} with example_ctx_len=8" in capsys.readouterr().out
    _, tokens, _ = read(tmp_path / "made" / "layers.2")
    assert tokens.shape[1] == 64


def test_hookpoints_are_named_after_the_models_modules(tiny_model_dir: Path) -> None:
    places = [Hookpoint("attn", 0), Hookpoint("mlp", 1), Hookpoint("resid", 1)]
    model = load_activation_model(resolve_model(tiny_model_dir), places, "cpu")
    names = ["layers.0.self_attn", "layers.1.mlp", "layers.1"]
    assert [model.module_name(place) for place in places] == names
