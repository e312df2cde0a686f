"""The FAISS index of a pool's vectors, as a folder that is rebuilt when the vectors change."""

import logging
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from selection.core.hashing import content_id
from selection.records import SparseRows
from selection.similarity.queries import exemplar_queries, score_each
from selection.similarity.sketches import (
    Index,
    IndexSettings,
    Neighbors,
    build_index,
    confirm,
    load_index,
    save_index,
    search,
    sketch,
)
from selection.similarity.weights import unit_weights
from storage.files.atomic import (
    MANIFEST,
    is_complete,
    publish_folder,
    read_json,
    sync_file,
    temp_path,
    write_json,
)
from storage.pools.sketches import SketchFiles
from storage.pools.vectors import PoolVectors

log = logging.getLogger(__name__)

RECALL_K = 10
SKETCHES = "sketches"  # Folder of the sketches, beside the indexes.

Identity = Mapping[str, object]
"""pool_id, rendering_id and representation_id: which vectors, in which order."""


def index_folder(
    home: Path, vectors: PoolVectors, identity: Identity, settings: IndexSettings
) -> tuple[Path, dict[str, str]]:
    """Where the index of exactly these vectors is or would be, and the hash of each shard.

    home: folder of all indexes. Only shards that hold a vector of the pool count.
    """
    shards = {shard.folder.name: content_id(shard.sha256, 64) for shard, _, _ in vectors.places()}
    name = content_id({**identity, "faiss": settings.identity(), "shards": shards})
    return home / name, shards


def ensure_index(
    home: Path,
    vectors: PoolVectors,
    identity: Identity,
    settings: IndexSettings,
    *,
    threads: int = 1,
    advance: Callable[[int], object] | None = None,
) -> tuple[Path, bool]:
    """The folder of the index of these vectors, and whether it had to be built.

    An index of the same pool, representation and settings but of other shards is removed.
    """
    folder, shards = index_folder(home, vectors, identity, settings)
    if is_complete(folder):
        return folder, False
    temp = temp_path(folder)
    temp.mkdir(parents=True)
    try:
        sketches = _in_order(home, vectors, temp / "all.npy", settings, advance)
        index, device = _build(sketches, settings, threads=threads)
        del sketches
        (temp / "all.npy").unlink()
        recall = measure_index_recall(index, vectors, settings, threads=threads)
        save_index(index, temp / "index.faiss")
        sync_file(temp / "index.faiss")
        n_lists = settings.lists_for(vectors.n_vectors)
        manifest = {
            **identity,
            "n_vectors": vectors.n_vectors,
            "faiss": settings.identity(),
            "n_lists": n_lists,
            "n_probes": settings.n_probes if n_lists else None,
            "trained_on": device,
            **recall,
            "shards": shards,
        }
        write_json(temp / MANIFEST, manifest)
        publish_folder(temp, folder)
    finally:
        shutil.rmtree(temp, ignore_errors=True)
    _remove_outdated(home, folder, identity, settings)
    return folder, True


def _remove_outdated(home: Path, folder: Path, identity: Identity, settings: IndexSettings) -> None:
    for other in home.glob("*/"):
        if other == folder or not is_complete(other):
            continue
        known = read_json(other / MANIFEST)
        same = all(known.get(name) == value for name, value in identity.items())
        if same and known.get("faiss", settings.identity()) == settings.identity():
            shutil.rmtree(other, ignore_errors=True)


def _in_order(
    home: Path,
    vectors: PoolVectors,
    file: Path,
    settings: IndexSettings,
    advance: Callable[[int], object] | None,
) -> NDArray[np.float16]:
    """The shards' sketches in the order of the vectors, in a mapped file."""
    files = SketchFiles(home / SKETCHES, settings.n_dims, settings.seed)
    shape = (vectors.n_vectors, settings.n_dims)
    sketches = np.lib.format.open_memmap(file, "w+", np.float16, shape)
    for shard, rows, numbers in vectors.places():
        sketches[numbers] = files.of(shard)[rows]
        if advance is not None:
            advance(len(numbers))
    return sketches


def _build(
    sketches: NDArray[np.float16], settings: IndexSettings, *, threads: int
) -> tuple[Index, str]:
    """The index, and which device made its cells."""
    n_lists = settings.lists_for(len(sketches))
    if settings.gpu and n_lists:
        try:
            made = build_index(
                sketches, n_lists=n_lists, seed=settings.seed, threads=threads, gpu=True
            )
        except RuntimeError as error:
            log.warning("the GPU could not build the index (%s); the CPU does", error)
        else:
            return made, "gpu"
    return build_index(sketches, n_lists=n_lists, seed=settings.seed, threads=threads), "cpu"


def nearest_vectors(
    index: Index,
    vectors: PoolVectors,
    queries: SparseRows,
    k: int,
    settings: IndexSettings,
    *,
    threads: int = 1,
) -> Neighbors:
    """The k nearest vectors of each query, by exact generalized Jaccard of what FAISS retrieves."""
    retrieved = search(
        index,
        sketch(queries, settings.n_dims, settings.seed),
        min(k * settings.candidates_per_neighbor, vectors.n_vectors),
        n_probes=settings.n_probes,
        threads=threads,
    )
    exact = confirm(retrieved, queries, vectors.gather_vectors, unit_weights(queries.n_latents))
    return Neighbors(rows=exact.rows[:, :k], scores=exact.scores[:, :k])


def nearest_rows(
    folder: Path, vectors: PoolVectors, row: int, n: int, settings: IndexSettings
) -> list[tuple[int, float]]:
    """(pool row, exact score) of the n nearest samples of a pool row, best first.

    folder: of an index of these vectors. Rows that share a vector have the same score.
    """
    query = vectors.gather(np.array([row]))
    nearest = nearest_vectors(open_index(folder), vectors, query, n, settings)
    pairs = [
        (int(other), float(score))
        for number, score in zip(nearest.rows[0], nearest.scores[0], strict=True)
        if number >= 0
        for other in vectors.rows_of(int(number))
    ]
    return pairs[:n]


def measure_index_recall(
    index: Index, vectors: PoolVectors, settings: IndexSettings, *, threads: int = 1
) -> dict[str, float]:
    """Share of the true nearest vectors that the index finds, on evenly spaced queries."""
    n = vectors.n_vectors
    sample = np.unique(np.linspace(0, n - 1, min(n, settings.recall_queries)).astype(np.int64))
    queries = vectors.gather_vectors(sample)
    has_direction = np.diff(queries.indptr) > 0
    sample, queries = sample[has_direction], vectors.gather_vectors(sample[has_direction])
    k = min(RECALL_K, n)
    if not len(sample):
        return {f"recall_at_{RECALL_K}": 1.0, "recall_queries": 0}
    kth = _true_kth_score(vectors, queries, k)
    neighbors = nearest_vectors(index, vectors, queries, k, settings, threads=threads)
    # A neighbor is right when it is at least as near as the true k-th: ties count.
    right = (neighbors.scores >= kth[:, None]).sum()
    return {
        f"recall_at_{RECALL_K}": float(right / (len(sample) * k)),
        "recall_queries": len(sample),
    }


def _true_kth_score(vectors: PoolVectors, queries: SparseRows, k: int) -> NDArray[np.float64]:
    """(q,) the k-th largest exact score of each query over all vectors, itself included."""
    block = exemplar_queries(queries, unit_weights(queries.n_latents), "max")
    best = np.full((len(queries), 0), -np.inf)
    for _, rows in vectors.blocks():
        scores, _ = score_each(rows, block)
        best = np.sort(np.concatenate([best, scores.T], axis=1), axis=1)[:, -k:]
    return best[:, 0]


def open_index(folder: Path) -> Index:
    """The FAISS index in a folder."""
    return load_index(folder / "index.faiss")
