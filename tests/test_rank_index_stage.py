import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from flows.cli.reading import neighbors
from flows.cli.reading.neighbors import print_neighbors
from selection.core.errors import InputError
from selection.records import SparseRows
from selection.representation.represent import UnitReport
from selection.similarity.sketches import IndexSettings
from storage.files.atomic import read_json
from storage.files.workspace import Workspace
from storage.pools.index import measure_index_recall, nearest_vectors, open_index
from storage.pools.pool import PreparedPool, open_pool
from storage.pools.renderings import open_rendering
from storage.pools.shards import open_shards, write_shard
from storage.pools.vectors import PoolVectors
from storage.queries.sql import run_sql
from tests.oracles import generalized_jaccard
from tests.run_stages import run_job, tiny_config


@pytest.fixture(scope="module")
def indexed(
    tiny_pool_path: Path,
    tiny_exemplars_path: Path,
    tiny_model_dir: Path,
    tiny_sae_dir: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Workspace, PreparedPool, PoolVectors, Path]:
    config = tiny_config(tiny_pool_path, tiny_exemplars_path, tiny_model_dir, tiny_sae_dir)
    workspace, _ = run_job(config, tmp_path_factory.mktemp("index"))
    (folder,) = (f for f in workspace.indexes.iterdir() if (f / "manifest.json").exists())
    manifest = read_json(folder / "manifest.json")
    pool = open_pool(workspace.pools / str(manifest["pool_id"]))
    rendered = open_rendering(pool.folder / "renderings" / str(manifest["rendering_id"]))
    shards = open_shards(workspace.shards / str(manifest["representation_id"]))
    return workspace, pool, PoolVectors(shards, rendered.keys(), rendered.usable()), folder


def as_dict(rows: SparseRows, i: int) -> dict[int, int]:
    span = slice(rows.indptr[i], rows.indptr[i + 1])
    return dict(zip(rows.latents[span].tolist(), rows.values[span].tolist(), strict=True))


def test_neighbors_are_the_nearest_by_the_definition(
    indexed: tuple[Workspace, PreparedPool, PoolVectors, Path],
) -> None:
    _, _, vectors, folder = indexed
    everything = vectors.gather_vectors(np.arange(vectors.n_vectors))
    queries = vectors.gather_vectors(np.array([0, 17]))
    found = nearest_vectors(open_index(folder), vectors, queries, 5, IndexSettings())
    for i in range(2):
        exact = [
            float(generalized_jaccard(as_dict(queries, i), as_dict(everything, j)))
            for j in range(len(everything))
        ]
        assert found.scores[i].tolist() == sorted(exact, reverse=True)[:5]
        assert [exact[j] for j in found.rows[i]] == found.scores[i].tolist()


def test_recall_is_measured_and_recorded(
    indexed: tuple[Workspace, PreparedPool, PoolVectors, Path],
) -> None:
    _, _, vectors, folder = indexed
    recall = measure_index_recall(open_index(folder), vectors, IndexSettings())
    assert read_json(folder / "manifest.json")["recall_at_10"] == recall["recall_at_10"] == 1.0


def test_the_command_prints_the_sample_itself_first(
    indexed: tuple[Workspace, PreparedPool, PoolVectors, Path],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    workspace, _, _, _ = indexed
    print_neighbors(workspace.root, "row-3", 4)
    lines = capsys.readouterr().out.splitlines()
    assert "resid@2" in lines[0]
    assert "itself" in lines[2]
    assert "Review 3:" in lines[2]
    assert len(lines) == 2 + 5 + 1
    with pytest.raises(InputError, match="no run has this name"):
        print_neighbors(workspace.root, "row-3", 4, run="nobody")
    monkeypatch.setattr(neighbors, "plain_text", lambda messages: "a\x1b[2J\r\u202eb")
    print_neighbors(workspace.root, "row-3", 4)
    assert not {"\x1b", "\r", "\u202e"} & set(capsys.readouterr().out)


def test_a_sample_is_found_by_id_prefix_and_own_id(
    indexed: tuple[Workspace, PreparedPool, PoolVectors, Path],
) -> None:
    _, pool, _, _ = indexed
    ids = pool.example_ids().astype(str)
    assert pool.row_named(str(ids[7])) == pool.row_named(str(ids[7])[:12]) == 7
    with pytest.raises(InputError, match="no sample"):
        pool.row_named("nobody")
    with pytest.raises(InputError, match="begin with this"):
        pool.row_named("")


def test_the_run_records_how_its_index_looks_things_up(
    indexed: tuple[Workspace, PreparedPool, PoolVectors, Path],
) -> None:
    workspace, _, vectors, folder = indexed
    (row,) = run_sql(workspace, "SELECT counts FROM run").to_pylist()
    assert json.loads(str(row["counts"]))["index"] == {
        "folder": folder.name, "n_vectors": vectors.n_vectors, "n_lists": 0, "n_probes": None,
        "trained_on": "cpu", "recall_at_10": 1.0, "recall_queries": 32,
    }  # fmt: skip


def test_the_command_builds_an_outdated_index_again(
    indexed: tuple[Workspace, PreparedPool, PoolVectors, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    old, _, vectors, folder = indexed
    workspace = Workspace(tmp_path / "copy")
    shutil.copytree(old.root, workspace.root)
    shard = next(iter(vectors.places()))[0]
    rows, keys = shard.rows(), shard.keys()
    changed = SparseRows(rows.indptr, rows.latents, rows.values // 2 + 1, rows.n_latents)
    home = workspace.shards / shard.folder.parent.name
    shutil.rmtree(home / shard.folder.name)
    write_shard(
        home, shard.folder.name, keys, changed, UnitReport(0, 0, 0, 0, 0, 0, 0.0, 0.0, 0.0, "full")
    )
    for told in ("index built again", "similarity"):  # once
        print_neighbors(workspace.root, "row-3", 2)
        assert told in capsys.readouterr().out.splitlines()[1]
    assert not (workspace.indexes / folder.name).exists()
