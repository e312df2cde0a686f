"""Small sparse vectors for tests: as dicts for the oracles, as SparseRows for the code."""

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from selection.core import sparse
from selection.core.sparse import from_lists, indptr_of
from selection.records import SparseRows

N_LATENTS = 24
Vector = dict[int, int]

# Small values make ties and equal vectors likely, large ones leave 32-bit sums.
values = st.one_of(st.integers(1, 4), st.integers(1, 65_535), st.just(65_535))
vectors = st.dictionaries(st.integers(0, N_LATENTS - 1), values, max_size=N_LATENTS)
full_vectors = st.dictionaries(
    st.integers(0, N_LATENTS - 1), values, min_size=1, max_size=N_LATENTS
)
weight_lists = st.one_of(
    st.just([1] * N_LATENTS),
    st.lists(st.integers(1, 20_000), min_size=N_LATENTS, max_size=N_LATENTS),
    st.lists(st.integers(1 << 16, 1 << 26), min_size=N_LATENTS, max_size=N_LATENTS),
)


def sparse_rows(rows: list[Vector], n_latents: int = N_LATENTS) -> SparseRows:
    """Rows given as {latent: value}."""
    return from_lists(rows, n_latents)


def random_rows(n: int, n_latents: int, density: float, seed: int) -> SparseRows:
    """Rows whose latents differ in popularity, and whose values have a heavy tail."""
    rng = np.random.default_rng(seed)
    popularity = np.clip(density * rng.lognormal(0, 1, n_latents), 0, 0.95)
    present = rng.random((n, n_latents)) < popularity
    amounts = np.clip(rng.lognormal(5.5, 1, (n, n_latents)), 1, 65_535).astype(np.uint16)
    return from_dense(np.where(present, amounts, 0).astype(np.uint16))


def from_dense(dense: NDArray[np.uint16]) -> SparseRows:
    """Rows of a dense (n, n_latents) matrix."""
    indptr = indptr_of(np.count_nonzero(dense, axis=1))
    _, latents = np.nonzero(dense)
    return SparseRows(indptr, latents.astype(np.int32), dense[dense > 0], dense.shape[1])


def to_dense(rows: SparseRows) -> NDArray[np.int64]:
    """Dense (n, n_latents), in integers wide enough for sums."""
    return sparse.to_dense(rows).astype(np.int64)
