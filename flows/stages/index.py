"""The FAISS index of a pool: sketches of its vectors, disposable and rebuildable."""

import shutil
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from flows.progress import stage
from flows.stages.vectors import Representer, pool_vectors
from selection.ids import content_id
from selection.jaccard import build_queries, score_matrix
from selection.neighbors import (
    Index,
    Neighbors,
    build_index,
    confirm,
    load_index,
    save_index,
    search,
    sketch,
)
from selection.records import SparseRows
from selection.weights import unit_weights
from storage.files import MANIFEST, is_complete, publish_folder, sync_file, temp_path, write_json
from storage.pool_vectors import PoolVectors
from storage.workspace import Workspace

SKETCH_DIMS = 256
SKETCH_SEED = 0
FLAT_UP_TO = 1_000_000  # Vectors; beyond it an inverted file answers faster than a full pass.
CANDIDATES = 20  # Found per neighbor that is asked for, before the exact order.
RECALL_QUERIES, RECALL_K = 32, 10


def index_pool_vectors(workspace: Workspace, representer: Representer, pool_id: str) -> Path:
    """Index a pool's sketches, or reuse the index of the same vectors; returns its folder."""
    vectors = pool_vectors(representer, pool_id)
    identity = {
        "pool_id": pool_id,
        "rendering_id": representer.reader.renderer.rendering_id,
        "representation_id": representer.representation_id,
        "sketch": [SKETCH_DIMS, SKETCH_SEED],
    }
    folder = workspace.indexes / content_id(identity)
    with stage("index", vectors.n_vectors, "vectors") as handle:
        if is_complete(folder):
            handle.detail = f"{vectors.n_vectors:,} vectors, reused"
            return folder
        temp = temp_path(folder)
        temp.mkdir(parents=True)
        try:
            index = _build(vectors, temp, handle.advance)
            recall = measured_recall(index, vectors)
            save_index(index, temp / "index.faiss")
            sync_file(temp / "index.faiss")
            write_json(temp / MANIFEST, {**identity, "n_vectors": vectors.n_vectors, **recall})
            publish_folder(temp, folder)
        finally:
            shutil.rmtree(temp, ignore_errors=True)
        share = recall[f"recall_at_{RECALL_K}"]
        handle.detail = f"{vectors.n_vectors:,} vectors, recall at {RECALL_K} {share:.3f}"
    return folder


def _build(vectors: PoolVectors, temp: Path, advance: object) -> Index:
    """Sketch shard by shard into a file, then index it from there: memory holds the index only."""
    file = temp / "sketches.npy"
    shape = (vectors.n_vectors, SKETCH_DIMS)
    sketches = np.lib.format.open_memmap(file, "w+", np.float32, shape)
    for numbers, rows in vectors.blocks():
        sketches[numbers] = sketch(rows, SKETCH_DIMS, SKETCH_SEED)
        if callable(advance):
            advance(len(numbers))
    n = vectors.n_vectors
    index = build_index(sketches, n_lists=0 if n <= FLAT_UP_TO else int(4 * np.sqrt(n)))
    del sketches
    file.unlink()
    return index


def nearest_vectors(index: Index, vectors: PoolVectors, queries: SparseRows, k: int) -> Neighbors:
    """The k nearest vectors of each query by exact generalized Jaccard among what FAISS found."""
    sketches = sketch(queries, SKETCH_DIMS, SKETCH_SEED)
    found = search(index, sketches, min(k * CANDIDATES, vectors.n_vectors))
    exact = confirm(found, queries, vectors.gather_vectors, unit_weights(queries.n_latents))
    return Neighbors(rows=exact.rows[:, :k], scores=exact.scores[:, :k])


def measured_recall(index: Index, vectors: PoolVectors) -> dict[str, float]:
    """Share of the true nearest vectors that the index finds, on evenly spaced queries."""
    n = vectors.n_vectors
    sample = np.unique(np.linspace(0, n - 1, min(n, RECALL_QUERIES)).astype(np.int64))
    queries = vectors.gather_vectors(sample)
    has_direction = np.diff(queries.indptr) > 0
    sample, queries = sample[has_direction], vectors.gather_vectors(sample[has_direction])
    k = min(RECALL_K, n)
    if not len(sample):
        return {f"recall_at_{RECALL_K}": 1.0, "recall_queries": 0}
    kth = _true_kth_score(vectors, queries, k)
    found = nearest_vectors(index, vectors, queries, k)
    # A neighbor is right when it is at least as near as the true k-th: ties count.
    right = (found.scores >= kth[:, None]).sum()
    return {
        f"recall_at_{RECALL_K}": float(right / (len(sample) * k)),
        "recall_queries": len(sample),
    }


def _true_kth_score(vectors: PoolVectors, queries: SparseRows, k: int) -> NDArray[np.float64]:
    """(q,) the k-th largest exact score of each query over all vectors, itself included."""
    block = build_queries(queries, unit_weights(queries.n_latents), "max")
    best = np.full((len(queries), 0), -np.inf)
    for _, rows in vectors.blocks():
        scores, _ = score_matrix(rows, block)
        best = np.sort(np.concatenate([best, scores.T], axis=1), axis=1)[:, -k:]
    return best[:, 0]


def open_index(folder: Path) -> Index:
    """The FAISS index in a folder."""
    return load_index(folder / "index.faiss")
