from dataclasses import replace
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest
from numpy.typing import NDArray

import storage.pools.sketches
from selection.core.errors import InputError
from selection.core.sparse import take
from selection.records import SparseRows
from selection.representation.represent import UnitReport
from selection.similarity.sketches import IndexSettings, build_index, search, sketch
from storage.files.atomic import MANIFEST, read_json
from storage.pools.index import ensure_index, index_folder, nearest_vectors, open_index
from storage.pools.shards import open_shards, write_shard
from storage.pools.sketches import SketchFiles
from storage.pools.vectors import PoolVectors
from tests.sparse_strategies import random_rows

REPORT = UnitReport(0, 0, 0, 0, 0, 0, 0.0, 0.0, 0.0, "full")
IDENTITY = {"pool_id": "p", "rendering_id": "r", "representation_id": "x"}
IVF = IndexSettings(flat_up_to=10, n_lists=6, n_probes=6)
N, N_LATENTS, UNIT = 300, 200, 60


def keys_of(n: int) -> NDArray[np.uint8]:
    return np.random.default_rng(7).integers(0, 256, (n, 16), dtype=np.uint8)


def write_units(folder: Path, rows: SparseRows, units: range = range(N // UNIT)) -> None:
    for number in units:
        mine = np.arange(number * UNIT, (number + 1) * UNIT)
        write_shard(folder, f"unit-{number}", keys_of(N)[mine], take(rows, mine), REPORT)


def opened(folder: Path) -> PoolVectors:
    return PoolVectors(open_shards(folder), keys_of(N), np.ones(N, np.bool_))


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    write_units(tmp_path / "x", random_rows(N, N_LATENTS, 0.1, seed=1))
    return tmp_path / "x"


@pytest.fixture
def sketched(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of rows, call by call, that were sketched for a shard."""
    calls: list[int] = []

    def counting(rows: SparseRows, *args: Any) -> NDArray[np.float32]:
        calls.append(len(rows))
        return sketch(rows, *args)

    monkeypatch.setattr(storage.pools.sketches, "sketch", counting)
    return calls


def test_an_index_is_built_once_and_again_when_a_shard_changes(
    shards: Path, tmp_path: Path, sketched: list[int]
) -> None:
    home = tmp_path / "indexes"
    first, built = ensure_index(home, opened(shards), IDENTITY, IVF)
    assert built
    assert ensure_index(home, opened(shards), IDENTITY, IVF) == (first, False)
    assert sketched == [UNIT] * 5
    for file in (shards / "unit-3").iterdir():
        file.unlink()
    (shards / "unit-3").rmdir()
    write_units(shards, random_rows(N, N_LATENTS, 0.1, seed=2), range(3, 4))
    second, built = ensure_index(home, opened(shards), IDENTITY, IVF)
    assert built
    assert second != first
    assert not first.exists()
    assert sketched == [UNIT] * 6  # of the changed shard alone
    before = read_json(second / MANIFEST)["shards"]
    assert isinstance(before, dict)
    assert set(before) == {f"unit-{i}" for i in range(5)}
    everything = opened(shards).gather_vectors(np.arange(N))
    found = nearest_vectors(open_index(second), opened(shards), everything, 1, IVF)
    assert found.rows[:, 0].tolist() == list(range(N))


def test_a_shard_without_a_vector_of_the_pool_changes_nothing(shards: Path, tmp_path: Path) -> None:
    vectors = opened(shards)
    folder, _ = index_folder(tmp_path, vectors, IDENTITY, IVF)
    other = np.zeros((2, 16), np.uint8)
    other[1] = 1
    write_shard(shards, "exemplars", other, random_rows(2, N_LATENTS, 0.1, seed=5), REPORT)
    assert index_folder(tmp_path, opened(shards), IDENTITY, IVF)[0] == folder
    assert index_folder(tmp_path, vectors, {**IDENTITY, "pool_id": "q"}, IVF)[0] != folder
    assert index_folder(tmp_path, vectors, IDENTITY, IndexSettings())[0] != folder


def test_an_inverted_file_finds_all_with_every_cell_and_says_what_it_misses_with_one(
    shards: Path, tmp_path: Path
) -> None:
    facts = {}
    for n_probes in (6, 1):
        settings = replace(IVF, n_probes=n_probes, recall_queries=50, candidates_per_neighbor=30)
        folder, _ = ensure_index(tmp_path / "indexes", opened(shards), IDENTITY, settings)
        assert isinstance(open_index(folder), faiss.IndexIVFFlat)
        facts[n_probes] = read_json(folder / MANIFEST)
    assert (facts[6]["n_lists"], facts[6]["n_probes"], facts[6]["trained_on"]) == (6, 6, "cpu")
    assert (facts[6]["recall_at_10"], facts[6]["recall_queries"]) == (1.0, 50)
    assert 0.1 <= facts[1]["recall_at_10"] < 0.9  # type: ignore[operator]


def test_a_small_pool_is_compared_whole(shards: Path, tmp_path: Path) -> None:
    folder, _ = ensure_index(tmp_path, opened(shards), IDENTITY, IndexSettings())
    assert not isinstance(open_index(folder), faiss.IndexIVF)
    assert read_json(folder / MANIFEST)["n_probes"] is None
    assert [IndexSettings().lists_for(n) for n in (1_000_000, 1_000_001)] == [0, 4000]
    assert IndexSettings(flat_up_to=0, n_lists=9).lists_for(3) == 3


def test_training_is_seeded_and_does_not_depend_on_threads() -> None:
    sketches = sketch(random_rows(400, N_LATENTS, 0.1, seed=3), 32)
    indexes = [
        build_index(sketches, n_lists=8, seed=seed, threads=threads)
        for seed, threads in ((1, 1), (1, 2), (2, 1))
    ]
    one, same, other = (faiss.serialize_index(index).tobytes() for index in indexes)
    assert one == same
    assert one != other


def test_sketches_of_a_shard_are_kept_and_made_again_where_damaged(
    shards: Path, tmp_path: Path, sketched: list[int]
) -> None:
    files, shard = SketchFiles(tmp_path / "s", 32, 0), open_shards(shards).shards[2]
    made = files.of(shard)
    expected = sketch(shard.rows(), 32, 0).astype(np.float16)
    np.testing.assert_array_equal(made, expected)
    np.testing.assert_array_equal(files.of(shard), expected)
    assert len(sketched) == 1
    (file,) = (tmp_path / "s").iterdir()
    file.write_bytes(file.read_bytes()[:-7])
    np.testing.assert_array_equal(files.of(shard), expected)
    assert len(sketched) == 2
    SketchFiles(tmp_path / "s", 32, 1).of(shard)
    assert len(sketched) == 3


def test_an_altered_shard_is_not_sketched(shards: Path, tmp_path: Path) -> None:
    file = shards / "unit-1" / "values.npy"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(InputError, match=r"values\.npy.*not what was written"):
        ensure_index(tmp_path / "indexes", opened(shards), IDENTITY, IVF)
    assert [f.name for f in (tmp_path / "indexes").iterdir()] == ["sketches"]


class FakeGpu:
    """Stands for a GPU: copies are counted, and remembered to tell them from the CPU's."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, has_memory: bool = True) -> None:
        self.on_gpu: list[Any] = []
        self.has_memory = has_memory
        monkeypatch.setattr(faiss, "get_num_gpus", lambda: 1)
        monkeypatch.setattr(faiss, "index_cpu_to_all_gpus", self.to_gpu)
        monkeypatch.setattr(faiss, "index_gpu_to_cpu", self.to_cpu)

    def to_gpu(self, index: Any, ngpu: int) -> Any:
        assert ngpu == 1
        if not self.has_memory:
            raise RuntimeError("out of memory")
        self.on_gpu.append(faiss.clone_index(index))
        return self.on_gpu[-1]

    def to_cpu(self, index: Any) -> Any:
        assert any(index is each for each in self.on_gpu)
        return faiss.clone_index(index)


@pytest.mark.parametrize("has_memory", [True, False])
def test_a_gpu_makes_the_cells_and_the_index_is_kept_for_the_cpu(
    has_memory: bool, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, _ = ensure_index(tmp_path / "cpu", opened(shards), IDENTITY, IVF)
    gpu = FakeGpu(monkeypatch, has_memory=has_memory)
    folder, _ = ensure_index(tmp_path / "gpu", opened(shards), IDENTITY, replace(IVF, gpu=True))
    assert len(gpu.on_gpu) == (2 if has_memory else 0)  # k-means, and the cells
    assert read_json(folder / MANIFEST)["trained_on"] == ("gpu" if has_memory else "cpu")
    queries = sketch(random_rows(9, N_LATENTS, 0.1, seed=4))
    expected = search(open_index(plain), queries, 5, n_probes=6)
    found = search(open_index(folder), queries, 5, n_probes=6)
    np.testing.assert_array_equal(found.rows, expected.rows)
    on_gpu = search(open_index(folder), queries, 5, n_probes=6, gpu=has_memory)
    np.testing.assert_array_equal(on_gpu.rows, expected.rows)
    assert len(gpu.on_gpu) == (3 if has_memory else 0)


def test_a_gpu_is_left_alone_where_the_config_says_so(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu = FakeGpu(monkeypatch)
    settings = replace(IVF, gpu=False)
    ensure_index(tmp_path / "indexes", opened(shards), IDENTITY, settings)
    assert gpu.on_gpu == []


@pytest.mark.gpu
@pytest.mark.skipif(faiss.get_num_gpus() == 0, reason="FAISS sees no GPU")
def test_a_real_gpu_gives_an_index_of_the_cpu(tmp_path: Path) -> None:
    sketches = sketch(random_rows(2000, N_LATENTS, 0.1, seed=3))
    index = build_index(sketches, n_lists=16, seed=1, gpu=True)
    assert isinstance(index, faiss.IndexIVFFlat)
    assert index.ntotal == 2000
    found = search(index, sketches[:50], 1, n_probes=16)
    assert found.rows[:, 0].tolist() == list(range(50))
    assert search(index, sketches[:50], 1, n_probes=16, gpu=True).rows.tolist() == (
        found.rows.tolist()
    )
