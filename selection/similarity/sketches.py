"""Nearest candidates by FAISS over sketches, always confirmed by exact generalized Jaccard.

A sketch is a short dense stand-in for a sparse vector: good for finding what is close (neighbors,
duplicates), not for ranking a pool. The index is disposable: it can be rebuilt from the sketches,
and they from the vectors. No other module touches FAISS. Only similarities leave this file.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from selection.core.errors import InputError
from selection.records import SparseRows
from selection.similarity.kernels.rows import row_arrays
from selection.similarity.queries import score_pairs

Index = Any
"""A FAISS index; the library has no types."""

GPU_MAX_K = 2048  # Neighbors that FAISS finds on a GPU.

_CHUNK = 65_536  # Rows handed to FAISS at once, so that mapped sketches stay on disk.
_PER_CELL = 64  # Sketches that define a cell; FAISS asks for 39 or more.


@dataclass(frozen=True, slots=True)
class IndexSettings:
    """How vectors are sketched, indexed and looked up.

    n_dims, seed: of the sketches. flat_up_to: up to so many vectors every sketch is compared.
    n_lists: cells of a larger index; None for 4 times the square root of its vectors.
    n_probes: cells visited per query. candidates_per_neighbor: retrieved per wanted neighbor.
    recall_queries: vectors whose neighbors are also looked up exactly. gpu: use one if there is.
    """

    n_dims: int = 256
    seed: int = 0
    flat_up_to: int = 1_000_000
    n_lists: int | None = None
    n_probes: int = 64
    candidates_per_neighbor: int = 20
    recall_queries: int = 32
    gpu: bool = False

    def lists_for(self, n_vectors: int) -> int:
        """Cells of an index of so many vectors; 0 where every sketch is compared."""
        if n_vectors <= self.flat_up_to:
            return 0
        return min(n_vectors, self.n_lists or int(4 * n_vectors**0.5))

    def identity(self) -> dict[str, object]:
        """What decides the index and what is found with it."""
        values = asdict(self)
        return {name: values[name] for name in values if name not in ("recall_queries", "gpu")}


@dataclass(frozen=True, slots=True)
class Neighbors:
    """The nearest rows of each query, nearest first.

    rows:   (q, k) int64; -1 where fewer than k were found.
    scores: (q, k) float64; -inf where rows is -1. From `search` inner products of sketches, from
            `confirm` generalized Jaccard in [0, 1].
    """

    rows: NDArray[np.int64]
    scores: NDArray[np.float64]


def sketch(
    rows: SparseRows,
    n_dims: int = 256,
    seed: int = 0,
    weights: NDArray[np.int64] | None = None,
) -> NDArray[np.float32]:
    """Signed count-sketch of sqrt(x / L1 norm), scaled to norm 1.

    Of all inner products that of square roots orders candidates most like generalized Jaccard.
    A pure function of each vector, n_dims and seed: rows may be sketched in any split.
    weights: (n_latents,) int64, for queries: what each latent counts in the inner product with
             sketches that know no weights.
    Returns (n, n_dims) float32; an empty row gives zeros.
    """
    row_arrays(rows)  # Refuses damaged data.
    dims, signs = _hashes(rows.n_latents, n_dims, seed)
    if weights is not None:
        signs = signs * weights
    out = np.zeros((len(rows), n_dims), np.float32)
    for first in range(0, len(rows), 1024):
        last = min(first + 1024, len(rows))
        entries = slice(rows.indptr[first], rows.indptr[last])
        latents = np.asarray(rows.latents[entries])
        owner = np.repeat(np.arange(last - first), np.diff(rows.indptr[first : last + 1]))
        # Square roots of whole numbers; the L1 norm cancels when the norm becomes 1.
        amounts = np.sqrt(rows.values[entries].astype(np.float64)) * signs[latents]
        sums = np.bincount(owner * n_dims + dims[latents], amounts, (last - first) * n_dims)
        block = sums.reshape(last - first, n_dims)
        lengths = np.sqrt((block * block).sum(axis=1, keepdims=True))
        out[first:last] = np.divide(block, lengths, out=np.zeros_like(block), where=lengths > 0)
    return out


def _hashes(
    n_latents: int, n_dims: int, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Dimension and sign of each latent, by the splitmix64 finalizer: the same on every machine."""
    with np.errstate(over="ignore"):
        x = np.arange(n_latents, dtype=np.uint64) + np.uint64(seed) * np.uint64(0xD1342543DE82EF95)
        x = (x + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        x ^= x >> np.uint64(31)
    dims = ((x >> np.uint64(1)) % np.uint64(n_dims)).astype(np.int64)
    return dims, np.where(x & np.uint64(1), 1.0, -1.0)


def gpu_is_there() -> bool:
    """Whether FAISS has a GPU to work with; its GPU package runs without one, too."""
    import faiss

    return int(faiss.get_num_gpus()) > 0


def build_index(
    sketches: NDArray[np.floating],
    *,
    n_lists: int = 0,
    seed: int = 0,
    threads: int = 1,
    gpu: bool = False,
) -> Index:
    """Index sketches for inner-product search; row numbers are positions in `sketches`.

    sketches: (n, n_dims) float32 or float16, best a mapped file.
    n_lists:  0 compares with every sketch; above 0 an inverted file of so many cells, faster for
              millions of rows, which misses some neighbors (see `search`).
    gpu:      cells are trained and filled on the first GPU; what comes back is an index of the CPU
              in any case. Raises RuntimeError where the GPU's memory does not suffice.
    """
    import faiss

    faiss.omp_set_num_threads(threads)
    n, n_dims = sketches.shape
    if n < n_lists:
        raise ValueError(f"{n} sketches cannot fill {n_lists} lists")
    layout = f"IVF{n_lists},Flat" if n_lists else "Flat"
    index: Index = faiss.index_factory(n_dims, layout, faiss.METRIC_INNER_PRODUCT)
    if not n_lists:
        return _filled(index, sketches)
    _train(index, sketches, seed, gpu)
    if gpu:
        return faiss.index_gpu_to_cpu(_filled(_on_gpu(index), sketches))
    return _filled(index, sketches)


def _train(index: Index, sketches: NDArray[np.floating], seed: int, gpu: bool) -> None:
    """Place the cells of an inverted file by seeded k-means over a seeded sample."""
    import faiss

    index.cp.seed = seed
    index.cp.min_points_per_centroid = 1  # Few points a cell are no reason for a warning.
    chosen = np.random.default_rng(seed).permutation(len(sketches))[: _PER_CELL * index.nlist]
    sample = np.ascontiguousarray(sketches[np.sort(chosen)], np.float32)
    helper = _on_gpu(faiss.IndexFlatIP(index.d)) if gpu else None
    index.clustering_index = helper
    index.train(sample)
    index.clustering_index = None


def _filled(index: Index, sketches: NDArray[np.floating]) -> Index:
    for first in range(0, len(sketches), _CHUNK):
        index.add(np.ascontiguousarray(sketches[first : first + _CHUNK], np.float32))
    return index


def _on_gpu(index: Index) -> Index:
    """A copy on the first GPU."""
    import faiss

    return faiss.index_cpu_to_all_gpus(index, ngpu=1)


def save_index(index: Index, path: Path) -> None:
    """Write an index file."""
    import faiss

    faiss.write_index(index, str(path))


def load_index(path: Path) -> Index:
    """Read an index file.

    Raises InputError if there is none, or FAISS cannot read it.
    """
    import faiss

    remedy = "Build the index again: it is made from the stored vectors alone."
    if not path.is_file():
        raise InputError("there is no index", remedy=remedy, file=path)
    try:
        return faiss.read_index(str(path))
    except RuntimeError as error:
        raise InputError("the index cannot be read", remedy=remedy, file=path) from error


def search(
    index: Index,
    sketches: NDArray[np.float32],
    k: int,
    *,
    n_probes: int = 16,
    threads: int = 1,
    gpu: bool = False,
) -> Neighbors:
    """The k rows whose sketches have the largest inner product with each query's sketch.

    n_probes: cells visited per query, where the index has cells.
    gpu:      search on the first GPU, which pays for many queries; k above 2,048 stays on the CPU.
    """
    import faiss

    faiss.omp_set_num_threads(threads)
    if isinstance(index, faiss.IndexIVF):
        index.nprobe = n_probes
    if gpu and k <= GPU_MAX_K:
        index = _on_gpu(index)
    scores, rows = index.search(np.ascontiguousarray(sketches, np.float32), k)
    # FAISS pads short results with row -1, which Python would read as the last row.
    return Neighbors(rows=rows, scores=np.where(rows < 0, -np.inf, scores.astype(np.float64)))


def confirm(
    neighbors: Neighbors,
    queries: SparseRows,
    fetch: Callable[[NDArray[np.int64]], SparseRows],
    weights: NDArray[np.int64],
) -> Neighbors:
    """Score the neighbors by exact generalized Jaccard and put them in that order.

    neighbors: of the queries, in their order.
    fetch:     (u,) int64 ascending row numbers -> their vectors, in that order.
    weights:   (n_latents,) int64.
    Equal scores are in order of row. Exact for these neighbors; what `search` missed stays missed.
    """
    present = neighbors.rows >= 0
    unique, position = np.unique(neighbors.rows[present], return_inverse=True)
    query = np.nonzero(present)[0]
    scores = np.full(neighbors.rows.shape, -np.inf)
    if unique.size:
        scores[present] = score_pairs(queries, fetch(unique), query, position, weights)
    order = np.lexsort((neighbors.rows, -scores), axis=1)
    return Neighbors(
        rows=np.take_along_axis(neighbors.rows, order, axis=1),
        scores=np.take_along_axis(scores, order, axis=1),
    )
