"""A run opens and hashes model, tokenizer, SAE and exemplars once, until they change."""

import hashlib
import os
import shutil
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from flows.config.jobs import SelectConfig
from flows.stages.session import open_session, session_of
from selection.core.hashing import file_sha256
from selection.models.resolve import resolve_model
from storage.files import hashes
from storage.files.hashes import FileHashes
from storage.files.workspace import open_workspace
from tests.run_stages import run_job, tiny_config

OPENERS = {
    "resolve_model": "selection.models.resolve",
    "load_tokenizer": "selection.rendering.tokenizer",
    "load_sae": "selection.sae.formats.load",
    "load_activation_model": "selection.activations.model",
    "read_exemplars": "selection.data.exemplars",
}


@contextmanager
def counting(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[str]]:
    """Calls of OPENERS wherever they were imported, and files hashed, by name."""
    counts: Counter[str] = Counter()

    def counted(name: str, function: Any) -> Any:
        def call(*args: object, **options: object) -> object:
            counts[name] += 1
            return function(*args, **options)

        return call

    digest = hashlib.file_digest

    def counted_digest(file: Any, *args: Any) -> Any:
        counts[f"hash {Path(file.name).name}"] += 1
        return digest(file, *args)

    with monkeypatch.context() as patch:
        for name, module in OPENERS.items():
            function = getattr(sys.modules[module], name)
            for other in list(sys.modules.values()):
                if getattr(other, "__dict__", {}).get(name) is function:
                    patch.setattr(other, name, counted(name, function))
        patch.setattr(hashlib, "file_digest", counted_digest)
        yield counts


@pytest.fixture
def config(
    tiny_pool_path: Path, tiny_exemplars_path: Path, tiny_model_dir: Path, tiny_sae_dir: Path,
    tmp_path: Path,
) -> SelectConfig:  # fmt: skip
    """Files of this test's own, changed long enough ago for their hashes to be remembered."""
    model, sae = tmp_path / "model", tmp_path / "layers.2"
    shutil.copytree(tiny_model_dir, model)
    shutil.copytree(tiny_sae_dir, sae)
    pool = Path(shutil.copy(tiny_pool_path, tmp_path / "pool.jsonl"))
    for file in (pool, *model.iterdir(), *sae.iterdir()):
        os.utime(file, (1e9, 1e9))
    return tiny_config(pool, tiny_exemplars_path, model, sae, index=False)


def run(config: SelectConfig, root: Path, patch: pytest.MonkeyPatch) -> tuple[Counter[str], Any]:
    with (
        counting(patch) as counts,
        open_session(config, open_workspace(root)),
    ):
        _, results = run_job(config, root)
    return counts, [{**row, "selection_id": "", "name": ""} for row in results]


def test_cold_and_cached_run(
    config: SelectConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cold, results = run(config, tmp_path / "w", monkeypatch)
    # A second tokenizer renders the calibration texts under another max_length.
    opened = {name: cold[name] for name in OPENERS}
    assert opened == dict.fromkeys(OPENERS, 1) | {"load_tokenizer": 2}
    assert cold["hash model.safetensors"] == cold["hash pool.jsonl"] == 1
    again = config.model_copy(update={"seed": config.seed + 1})  # a run of its own, vectors cached
    cached, _ = run(again, tmp_path / "w", monkeypatch)
    assert {name: cached[name] for name in OPENERS} == {
        "resolve_model": 1, "load_tokenizer": 1, "load_sae": 0, "load_activation_model": 0,
        "read_exemplars": 1,
    }  # fmt: skip
    assert cached["hash model.safetensors"] == cached["hash pool.jsonl"] == 0
    repeated, same = run(config, tmp_path / "w", monkeypatch)
    assert (repeated["load_sae"], same) == (0, results)


def test_a_changed_sae_is_read_again(
    config: SelectConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace, sae = open_workspace(tmp_path / "w"), tmp_path / "layers.2"
    before = session_of(config, workspace).given_sae.info
    assert session_of(config, workspace).given_sae.info == before
    weights = bytearray((sae / "sae.safetensors").read_bytes())
    weights[-1] ^= 1
    (sae / "sae.safetensors").write_bytes(weights)  # as large as before
    with counting(monkeypatch) as counts:
        assert session_of(config, workspace).given_sae.info.sha256 != before.sha256
    assert counts["load_sae"] == 1


def test_remembered_info_is_that_of_the_loaded_sae(config: SelectConfig, tmp_path: Path) -> None:
    session_of(config, open_workspace(tmp_path / "w")).given_sae.info  # noqa: B018 - remembers it
    sae = session_of(config, open_workspace(tmp_path / "w")).given_sae
    assert sae.info.sha256 == sae.coder.info.sha256


def test_sessions_are_shared_by_equal_configs_within_a_run(
    config: SelectConfig, tmp_path: Path
) -> None:
    workspace, same = open_workspace(tmp_path), config.model_copy(deep=True)
    with open_session(config, workspace) as session:
        assert session_of(same, open_workspace(tmp_path)) is session
        other = config.model_copy(update={"seed": 1})
        assert session_of(other, workspace) is not session
    assert session_of(config, workspace) is not session


def test_hashes_are_remembered_by_size_time_and_inode(tmp_path: Path) -> None:
    file, memory = tmp_path / "weights", tmp_path / "hashes.json"
    file.write_bytes(b"one")
    os.utime(file, (1e9, 1e9))
    first = FileHashes(memory).sha256(file)
    assert first == file_sha256(file)
    assert FileHashes(memory).remember("file", [file], lambda: "not asked") == first
    assert FileHashes(memory).remember("sae", [file], lambda: "another kind") == "another kind"
    twin = tmp_path / "twin"
    twin.write_bytes(b"two")
    os.utime(twin, (1e9, 1e9))
    os.replace(twin, file)  # the same size and time, another inode
    assert FileHashes(memory).sha256(file) == file_sha256(file) != first
    memory.write_text("{broken")
    assert FileHashes(memory).sha256(file) == file_sha256(file)


def test_a_file_that_may_still_change_is_not_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, memory = tmp_path / "weights", tmp_path / "hashes.json"
    file.write_bytes(b"one")
    FileHashes(memory).sha256(file)
    assert not memory.exists()
    monkeypatch.setattr(hashes, "SETTLED_S", 0.0)
    FileHashes(memory).sha256(file)
    assert memory.exists()


def test_processes_add_to_one_memory(tmp_path: Path) -> None:
    files = [tmp_path / name for name in "ab"]
    for file in files:
        file.write_bytes(file.name.encode())
        os.utime(file, (1e9, 1e9))
    memories = [FileHashes(tmp_path / "hashes.json") for _ in files]  # both opened before either
    for memory, file in zip(memories, files, strict=True):
        memory.sha256(file)
    both = FileHashes(tmp_path / "hashes.json")
    for file in files:
        assert both.remember("file", [file], lambda: "forgotten") == file_sha256(file)


def test_a_model_is_hashed_by_the_function_given(tiny_model_dir: Path) -> None:
    model = resolve_model(tiny_model_dir, hash_file=lambda file: file.name)
    assert model.weights_sha256 == "model.safetensors"
