"""What candidates are scored with: joined spaces, exemplars, and the pool's vectors."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from selection.core.errors import InputError
from selection.core.sparse import cut, take
from selection.records import Exemplars, SparseRows
from selection.similarity.queries import (
    ExemplarQueries,
    ExemplarReduction,
    exemplar_queries,
    score_each,
)
from selection.similarity.scorer import Scorer
from selection.similarity.sources import PoolSpaces, ignore
from selection.similarity.spaces import JoinedSpaces, JoinForTarget
from selection.similarity.weights import SpaceCounts

_CHUNK = 4096  # rows that are compared with all exemplars of a target at once
_FEW_ROWS = 16_384  # Of so small a pool the joined vectors stay in memory: some 100 MB at most.

Scores = dict[str, NDArray[np.float64]]
"""Target -> (n,) scores; (n, m), one for each exemplar, where exemplars take turns."""


@dataclass(frozen=True)
class PoolScorer:
    """Scores a pool for every target; it can be sent to another process.

    threads: that join spaces and score at once.
    apart:   a scorer for each target, where each has weights of its own.
    """

    spaces: JoinedSpaces
    queries: Mapping[str, ExemplarQueries]
    reduction: ExemplarReduction
    threads: int = 1
    apart: tuple["PoolScorer", ...] = ()

    @cached_property
    def _scorer(self) -> Scorer:
        return Scorer(self.spaces.weights, [each.target for each in self.queries.values()])

    def with_threads(self, threads: int) -> "PoolScorer":
        """The same for another number of threads."""
        apart = tuple(each.with_threads(threads) for each in self.apart)
        return replace(self, threads=threads, apart=apart)

    def block(self, parts: Sequence[SparseRows]) -> Scores:
        """Scores of n vectors, given in every space."""
        if self.apart:
            return {name: own for each in self.apart for name, own in each.block(parts).items()}
        if self.threads == 1:  # memory of a thread's own would stay behind it
            return self._scored(parts)
        n = len(parts[0])
        step = max(1, -(-n // (4 * self.threads)))
        pieces = (
            [cut(part, i, min(i + step, n)) for part in parts] for i in range(0, max(1, n), step)
        )
        with ThreadPoolExecutor(self.threads) as pool:
            scored = list(pool.map(self._scored, pieces))
        return {name: np.concatenate([each[name] for each in scored]) for name in self.queries}

    def _scored(self, parts: Sequence[SparseRows]) -> Scores:
        """Scores of a piece of a block, in this thread."""
        rows = self.spaces.rows(parts)
        if self.reduction == "round_robin":
            return {name: score_each(rows, each)[0] for name, each in self.queries.items()}
        return dict(zip(self.queries, self._scorer.scores(rows), strict=True))

    def scores(
        self,
        vectors: PoolSpaces,
        *,
        only: NDArray[np.bool_] | None = None,
        advance: Callable[[int], object] = ignore,
    ) -> Scores:
        """Scores of all pool rows. only: as in `VectorSource.blocks`."""
        scored = ((numbers, self.block(parts)) for numbers, parts in vectors.blocks(only=only))
        return self.collect(vectors, scored, advance)

    def collect(
        self,
        vectors: PoolSpaces,
        blocks: Iterable[tuple[NDArray[np.int64], Scores]],
        advance: Callable[[int], object] = ignore,
    ) -> Scores:
        """Scores of all pool rows from those of blocks; a vector in no block scores 0."""
        n, source = vectors.parts[0].n_vectors, vectors.parts[0]
        whole = {
            target: np.zeros((n, len(queries)) if self.reduction == "round_robin" else n)
            for target, queries in self.queries.items()
        }
        for numbers, scores in blocks:
            for target, values in scores.items():
                whole[target][numbers] = values
            advance(len(numbers))
        return {target: source.spread(values, fill=0.0) for target, values in whole.items()}


@dataclass(frozen=True)
class RankingInput:
    """What candidates are scored with, for all target tasks.

    vectors:   of the pool, in every space.
    spaces:    the same spaces joined, with the weights of their columns.
    parts:     target -> its exemplars' vectors in every space.
    exemplars: target -> its exemplars, as vectors of the joined spaces.
    shares:    (n_columns,) share of the pool's examples that have each column.
    own:       number of the space of the run's own SAE; near-duplicates and diversity are judged
               in it alone.
    join:      for `of`, where every target has weights of its own; `spaces` and `exemplars` then
               have those of idf.
    """

    vectors: PoolSpaces
    spaces: JoinedSpaces
    parts: Mapping[str, tuple[SparseRows, ...]]
    exemplars: Mapping[str, Exemplars]
    shares: NDArray[np.float64]
    own: int = 0
    join: JoinForTarget | None = None

    def of(self, target: str) -> "RankingInput":
        """What candidates are scored with for one target: with the weights of its own, if any."""
        if self.join is None:
            return self
        return self.by(target, np.arange(len(self.exemplars[target].rows)))

    def by(self, target: str, kept: NDArray[np.int64]) -> "RankingInput":
        """The same as if a target had only some of its exemplars, and its weights came from them.

        kept: positions of exemplars.
        """
        parts = tuple(take(part, kept) for part in self.parts[target])
        spaces = self.spaces if self.join is None else self.join(parts)
        exemplars = Exemplars(target, self.exemplars[target].ids[kept], spaces.rows(parts))
        own = {target: parts}, {target: exemplars}
        return replace(self, spaces=spaces, parts=own[0], exemplars=own[1], join=None)

    def joined(self, rows: NDArray[np.int64]) -> SparseRows:
        """Vectors of a few pool rows in the joined spaces, in their order."""
        if self._whole is not None:
            return take(self._whole, rows)
        return self.spaces.rows(self.vectors.gather(rows))

    @cached_property
    def _whole(self) -> SparseRows | None:
        """The joined vectors of all rows of a small pool: every target's check asks for them."""
        source = self.vectors.parts[0]
        n_rows = len(source.spread(np.zeros(source.n_vectors, np.bool_), fill=False))
        if n_rows > _FEW_ROWS:
            return None
        return self.spaces.rows(self.vectors.gather(np.arange(n_rows)))

    @property
    def own_weights(self) -> NDArray[np.int64]:
        """(n_latents,) weights of the own space."""
        return self.spaces.spaces[self.own].weights

    def queries(self, target: str, reduction: ExemplarReduction) -> ExemplarQueries:
        """The exemplars of a target, ready to score.

        Raises InputError where exemplars have no weight, or the sums would not fit 64 bits.
        """
        own = self.of(target)
        try:
            return exemplar_queries(own.exemplars[target].rows, own.spaces.weights, reduction)
        except InputError as error:
            raise InputError(error.problem, field=target, remedy=error.remedy) from None
        except OverflowError as error:
            raise InputError(
                f"the sums of `{target}` would leave 64 bits ({error})",
                field="representation.spaces",
                remedy="Lower the weights of the spaces, or set `ranking: {normalize: pool}`.",
            ) from None

    def near_exemplars(
        self, target: str, rows: NDArray[np.int64], least: float
    ) -> Iterator[tuple[int, int, float]]:
        """(position in `rows`, nearest exemplar, similarity) of pool rows at least this similar."""
        own = self.of(target)
        queries = own.queries(target, "max")
        for first in range(0, len(rows), _CHUNK):
            scores, _ = score_each(own.joined(rows[first : first + _CHUNK]), queries)
            for i in np.flatnonzero(scores.max(axis=1) >= least).tolist():
                nearest = int(scores[i].argmax())
                yield first + i, nearest, float(scores[i, nearest])

    def scorer(self, reduction: ExemplarReduction, threads: int = 1) -> PoolScorer:
        """Scores candidates for every target under one reduction."""
        queries = {target: self.queries(target, reduction) for target in self.exemplars}
        if self.join is None:
            return PoolScorer(self.spaces, queries, reduction, threads)
        apart = tuple(
            PoolScorer(self.of(target).spaces, {target: own}, reduction, threads)
            for target, own in queries.items()
        )
        return PoolScorer(self.spaces, queries, reduction, threads, apart)


def ranking_input(
    vectors: PoolSpaces,
    spaces: JoinedSpaces,
    counts: Sequence[SpaceCounts],
    ids: Mapping[str, NDArray[np.str_]],
    parts: Mapping[str, Sequence[SparseRows]],
    own: int = 0,
    join: JoinForTarget | None = None,
) -> RankingInput:
    """Join the exemplars' vectors as those of the pool are joined.

    ids, parts: target -> (m,) ids of its exemplars, and their vectors in every space.
    join: as in `RankingInput`.
    """
    exemplars = {
        target: Exemplars(target, ids[target], spaces.rows(each)) for target, each in parts.items()
    }
    shares = np.concatenate([each.frequency / max(each.n, 1) for each in counts])
    in_spaces = {target: tuple(each) for target, each in parts.items()}
    return RankingInput(vectors, spaces, in_spaces, exemplars, shares, own, join)
