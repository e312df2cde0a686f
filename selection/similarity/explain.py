"""Why a candidate scored: the latents it shares with its nearest exemplars, and how much each gave.

Contributions are integers, in units of 2^-10 times the representation's unit, and those of a pair
add up exactly to the pair's numerator. For a mean over exemplars the parts of all exemplars add up
exactly to the score.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from selection.records import SparseRows
from selection.similarity.kernels.reduce import SCORE_BITS
from selection.similarity.kernels.rows import weighted_norms
from selection.similarity.queries import exemplar_queries, score_each
from selection.similarity.spaces import JoinedSpaces

REST = -1
"""Instead of a latent: all shared latents beyond the listed ones together."""

GENERIC = -2
"""Instead of a latent: all shared latents that fire in much of the pool, together."""

EXPLANATION_SCHEMA = pa.schema(
    [
        ("candidate", pa.int64()),  # position among the candidates that were given
        ("exemplar", pa.int32()),  # position among the exemplars
        ("exemplar_rank", pa.int64()),  # 1 for the nearest exemplar
        ("score", pa.float64()),  # generalized Jaccard of the pair
        ("position", pa.int64()),  # 1 for the first row of the pair
        ("latent", pa.int32()),  # or REST, or GENERIC
        ("contribution", pa.int64()),  # weight times the smaller of the two values
        ("numerator", pa.int64()),  # sum of the pair's contributions
        ("share", pa.float64()),  # contribution / numerator
        ("pool_share", pa.float64()),  # share of the pool in which the latent fires, or null
    ]
)

PARTS_SCHEMA = pa.schema(
    [
        ("candidate", pa.int64()),  # position among the candidates that were given
        ("exemplar_rank", pa.int64()),  # 1 for the nearest exemplar; the rest comes last
        ("exemplar", pa.int32()),  # position among the exemplars, or REST
        ("n", pa.int64()),  # exemplars in this row: 1, or how many the rest is
        ("similarity", pa.float64()),  # numerator / denominator; null for the rest
        ("numerator", pa.int64()),  # sum of weighted minima; null for the rest
        ("denominator", pa.int64()),  # sum of weighted maxima; null for the rest
        ("part", pa.int64()),  # similarity in units of 2^-40; for the rest their sum
    ]
)


def explain_pairs(
    candidates: SparseRows,
    exemplars: SparseRows,
    weights: NDArray[np.int64],
    *,
    top: int = 20,
    n_nearest: int = 1,
    pool_shares: NDArray[np.float64] | None = None,
    generic_share: float = 1.0,
) -> pa.Table:
    """Explain each candidate by its nearest exemplars.

    weights:       (n_latents,) int64, those of the ranking.
    top:           latents listed per pair.
    n_nearest:     exemplars per candidate, best first, equal ones by smaller position.
    pool_shares:   (n_latents,) float64, share of the pool's examples in which each latent fires.
                   With it, latents are in order of contribution x (1 - share), which is what a
                   sample has beyond what the pool has anyway; else by contribution alone. Equal
                   ones by smaller latent.
    generic_share: latents of at least this share are folded into one line, GENERIC.
    Returns EXPLANATION_SCHEMA in order of candidate, exemplar (best first), position; sums last. A
    pair without a shared latent has no rows.
    """
    queries = exemplar_queries(exemplars, weights, "max")
    scores, numerators = score_each(candidates, queries)
    nearest = np.argsort(-scores, axis=1, kind="stable")[:, :n_nearest]
    columns: list[list[NDArray[np.generic]]] = [[] for _ in EXPLANATION_SCHEMA]
    for i, rank in np.ndindex(nearest.shape):
        j = int(nearest[i, rank])
        latents, amounts = shared_latents(candidates, i, exemplars, j, weights)
        if not len(latents):
            continue
        latents, amounts, shares = _in_order(latents, amounts, top, pool_shares, generic_share)
        n, numerator = len(latents), numerators[i, j]
        values = (
            *(np.full(n, value) for value in (i, j, rank + 1, scores[i, j])),
            np.arange(1, n + 1),
            latents,
            amounts,
            np.full(n, numerator),
            amounts / numerator,
            shares,
        )
        for column, part in zip(columns, values, strict=True):
            column.append(part)
    arrays = [
        pa.array(np.concatenate(column) if column else [], field.type, from_pandas=True)
        for column, field in zip(columns, EXPLANATION_SCHEMA, strict=True)
    ]
    return pa.Table.from_arrays(arrays, schema=EXPLANATION_SCHEMA)


def exemplar_parts(
    candidates: SparseRows, exemplars: SparseRows, weights: NDArray[np.int64], n_nearest: int
) -> pa.Table:
    """What each candidate's nearest exemplars, and all others together, give to its score.

    Returns PARTS_SCHEMA in order of candidate and exemplar rank; equal ones by smaller position.
    Over the rows of a candidate, sum(part) / (sum(n) 2^40) is the score by reduction "mean".
    """
    queries = exemplar_queries(exemplars, weights, "max")
    scores, numerators = score_each(candidates, queries)
    n, m = scores.shape
    k = min(n_nearest, m)
    parts = np.rint(scores * float(1 << SCORE_BITS)).astype(np.int64)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    row = np.arange(n)[:, None]
    rest = m > k
    width = k + rest
    candidate = np.repeat(np.arange(n), width)
    exemplar_rank = np.tile(np.arange(1, width + 1), n)

    def column(values: NDArray[np.generic], of_rest: object) -> NDArray[np.generic]:
        """(n, k) values of the nearest, one more column for the rest, flattened."""
        if not rest:
            return values.ravel()
        return np.concatenate([values, np.broadcast_to(of_rest, (n,))[:, None]], axis=1).ravel()  # type: ignore[call-overload]

    near = parts[row, order]
    is_rest = exemplar_rank > k
    totals = _denominators(candidates, queries.entries.norms, weights, numerators)
    return pa.Table.from_arrays(
        [
            pa.array(candidate, pa.int64()),
            pa.array(exemplar_rank, pa.int64()),
            pa.array(column(order, REST), pa.int32()),
            pa.array(column(np.ones_like(order), m - k), pa.int64()),
            pa.array(column(scores[row, order], 0.0), pa.float64(), mask=is_rest),
            pa.array(column(numerators[row, order], 0), pa.int64(), mask=is_rest),
            pa.array(column(totals[row, order], 0), pa.int64(), mask=is_rest),
            pa.array(column(near, parts.sum(axis=1) - near.sum(axis=1)), pa.int64()),
        ],
        schema=PARTS_SCHEMA,
    )


def _denominators(
    candidates: SparseRows,
    exemplar_norms: NDArray[np.int64],
    weights: NDArray[np.int64],
    numerators: NDArray[np.int64],
) -> NDArray[np.int64]:
    """(n, m) sums of weighted maxima."""
    norms = weighted_norms(candidates, weights)
    return norms[:, None] + exemplar_norms[None, : numerators.shape[1]] - numerators


def in_spaces(why: pa.Table, joined: JoinedSpaces, terms: Sequence[Mapping[int, str]]) -> pa.Table:
    """Columns of joined spaces as space, latent and term; sums over several spaces have no space.

    why:   EXPLANATION_SCHEMA of the joined vectors. terms: for every space, column -> its term.
    """
    columns = why["latent"].to_numpy()
    is_sum = columns < 0
    spaces, latents = joined.locate(np.maximum(columns, 0))
    names = np.array([space.name for space in joined.spaces])[spaces]
    is_of_several = is_sum & (len(joined.spaces) > 1)
    pairs = zip(spaces.tolist(), latents.tolist(), is_sum.tolist(), strict=True)
    of_columns = [None if rest else terms[space].get(latent) for space, latent, rest in pairs]
    latent = pa.array(np.where(is_sum, columns, latents), pa.int64())
    why = why.drop_columns(["score"]).set_column(
        why.column_names.index("latent") - 1, "latent", latent
    )
    why = why.append_column("space", pa.array(names, pa.string(), mask=is_of_several))
    return why.append_column("term", pa.array(of_columns, pa.string()))


def shared_latents(
    left: SparseRows, i: int, right: SparseRows, j: int, weights: NDArray[np.int64]
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Latents of both row i of `left` and row j of `right`, and their weighted minima.

    Returns (s,) int32 ascending and (s,) int64; latents of weight 0 are left out.
    """
    a = slice(left.indptr[i], left.indptr[i + 1])
    b = slice(right.indptr[j], right.indptr[j + 1])
    latents, in_left, in_right = np.intersect1d(
        left.latents[a], right.latents[b], assume_unique=True, return_indices=True
    )
    minima = np.minimum(left.values[a][in_left], right.values[b][in_right])
    amounts = weights[latents] * minima
    return latents[amounts > 0], amounts[amounts > 0]


def _in_order(
    latents: NDArray[np.int32],
    amounts: NDArray[np.int64],
    top: int,
    pool_shares: NDArray[np.float64] | None,
    generic_share: float,
) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.float64]]:
    """What sets apart first; then everything else as one, and the generic latents as one."""
    shares = np.zeros(len(latents)) if pool_shares is None else pool_shares[latents]
    generic = np.zeros(len(latents), np.bool_) if pool_shares is None else shares >= generic_share
    kept = np.flatnonzero(~generic)
    order = kept[np.argsort(-amounts[kept] * (1 - shares[kept]), kind="stable")]
    first, rest = order[:top], order[top:]
    names, sums = latents[first], amounts[first]
    listed = np.full(len(first), np.nan) if pool_shares is None else shares[first]
    for name, others in ((REST, rest), (GENERIC, np.flatnonzero(generic))):
        if len(others):
            names = np.append(names, np.int32(name))
            sums, listed = np.append(sums, amounts[others].sum()), np.append(listed, np.nan)
    return names, sums, listed


def typical_latents(
    exemplars: SparseRows, weights: NDArray[np.int64], pool_shares: NDArray[np.float64], top: int
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int64]]:
    """The latents that exemplars are made of, beyond what the whole pool is made of.

    weights, pool_shares: (n_latents,) as for `explain_pairs`.
    Returns at most `top` latents in order of mean share x (1 - pool share), equal ones by smaller
    latent; their mean shares of an exemplar's weighted norm; in how many exemplars they fire.
    """
    owners = np.repeat(np.arange(len(exemplars)), np.diff(exemplars.indptr))
    amounts = (weights[exemplars.latents] * exemplars.values).astype(np.float64)
    norms = np.bincount(owners, amounts, len(exemplars))
    parts = amounts / np.maximum(norms[owners], 1)
    latents, column = np.unique(exemplars.latents, return_inverse=True)
    shares = np.bincount(column, parts, len(latents)) / max(1, len(exemplars))
    counts = np.bincount(column, amounts > 0, len(latents)).astype(np.int64)
    order = np.argsort(-shares * (1 - pool_shares[latents]), kind="stable")
    order = order[shares[order] > 0][:top]
    return latents[order].astype(np.int64), shares[order], counts[order]
