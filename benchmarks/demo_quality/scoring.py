"""Files of a pass and word counts to nDCG per target, one ranking method after another.

What a method reaches on some rows is a `Figures`: nDCG per target over all of these rows, and over
those that the model was not trained on. Document frequencies, grades and ideal rankings are of
these rows alone.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.demo_quality.labels import BenchPool
from benchmarks.demo_quality.lexical import bm25_mean, count_known, tfidf_centroid, vocabulary_of
from benchmarks.demo_quality.passes import Pass
from benchmarks.demo_quality.reading import AGGREGATES, load_block, load_rows
from selection.evaluation import UNJUDGED, measure, order_by_score
from selection.jaccard import Reduction, build_queries, score_rows
from selection.labelled import Setting, Target, as_text
from selection.sparse import document_frequency, take
from selection.weights import idf_weights, unit_weights

Weighting = Literal["none", "idf"]
Scores = NDArray[np.float64]
REDUCTIONS: tuple[Reduction, ...] = ("prototype", "mean")
WEIGHTINGS: tuple[Weighting, ...] = ("none", "idf")


class Figures(NamedTuple):
    """nDCG of a method per target, in the targets' order."""

    all_rows: list[float]
    unseen: list[float]


class Judge:
    """Turns scores of some rows of a pool into figures.

    rows: (n,) positions in the pool, ascending.
    """

    def __init__(self, pool: BenchPool, rows: NDArray[np.int64], targets: Sequence[Target]) -> None:
        """Take the grades of these rows."""
        self.rows = rows
        self._id_order = np.argsort(pool.labelled.ids[rows], kind="stable")
        self._grades = [pool.labelled.grades(target)[rows] for target in targets]
        trained = pool.trained[rows]
        self._unseen_grades = [np.where(trained, UNJUDGED, each) for each in self._grades]

    def figures(self, scores: Scores) -> Figures:
        """Figures of scores (n_targets, n)."""
        return Figures(
            [self._ndcg(s, g) for s, g in zip(scores, self._grades, strict=True)],
            [self._ndcg(s, g) for s, g in zip(scores, self._unseen_grades, strict=True)],
        )

    def _ndcg(self, scores: Scores, grades: NDArray[np.int8]) -> float:
        """nDCG@1000; 0 where nothing relevant is left to find."""
        if grades.max(initial=0) <= 0:
            return 0.0
        return measure(grades[order_by_score(scores, self._id_order)]).ndcg


def lexical_scores(
    pool: BenchPool, rows: NDArray[np.int64], targets: Sequence[Target], setting: Setting
) -> Iterator[tuple[str, Scores]]:
    """Methods that see words: name and scores (n_targets, n), rows in their order."""
    vocabulary, counts = vocabulary_of(map(as_text, pool.labelled.turns_at(rows, setting)))
    exemplars = [count_known(map(as_text, target.turns(setting)), vocabulary) for target in targets]
    yield "TF-IDF centroid", tfidf_centroid(counts, exemplars)
    lengths = np.asarray(counts.sum(axis=1), np.float64).ravel()
    yield "BM25 mean", bm25_mean(counts, lengths, exemplars)


def dense_scores(
    found: Pass, targets: Sequence[Target], small: bool, block: int, *, center: bool = False
) -> Scores:
    """Cosine of the mean state at a block to the mean of the exemplars': (n_targets, n).

    center: whether the mean over all ranked rows is subtracted first.
    """
    middle = np.zeros(1)
    if center:
        sums = [
            load_block(path, block).sum(axis=0, dtype=np.float64) for _, path in found.parts(small)
        ]
        middle = np.sum(sums, axis=0) / sum(len(rows) for rows, _ in found.parts(small))
    exemplars = np.split(load_block(found.exemplars, block) - middle, _bounds(targets))
    centroids = np.stack([_unit(part.mean(axis=0)) for part in exemplars])
    return _by_unit(
        found, small, lambda path: centroids @ _unit(load_block(path, block) - middle).T
    )


def dense_methods(
    found: Pass, targets: Sequence[Target], small: bool, name: str
) -> Iterator[tuple[str, Scores]]:
    """Name and scores at the hookpoint, there less the pool's mean, and at every block."""
    blocks = [dense_scores(found, targets, small, block) for block in range(found.n_blocks)]
    yield name, blocks[found.block]
    yield f"{name}, centered", dense_scores(found, targets, small, found.block, center=True)
    for block, scores in enumerate(blocks):
        yield f"{name}, block {block}", scores


def sae_methods(
    found: Pass,
    targets: Sequence[Target],
    small: bool,
    aggregate: str,
    threads: int,
) -> Iterator[tuple[str, Scores]]:
    """Generalized Jaccard with every weighting and reduction: name and scores (n_targets, n)."""
    exemplars = load_rows(found.exemplars, aggregate)
    parts = np.split(np.arange(len(exemplars)), _bounds(targets))
    frequency, n_documents = np.zeros(exemplars.n_latents, np.int64), 0
    for _, path in found.parts(small):
        rows = load_rows(path, aggregate)
        frequency += document_frequency(rows)
        n_documents += int((np.diff(rows.indptr) > 0).sum())
    for weighting in WEIGHTINGS:
        weights = (
            unit_weights(exemplars.n_latents)
            if weighting == "none"
            else idf_weights(frequency, n_documents)
        )
        for reduction in REDUCTIONS:
            queries = [build_queries(take(exemplars, p), weights, reduction) for p in parts]

            def score(path: Path, queries: list = queries) -> Scores:  # type: ignore[type-arg]
                rows = load_rows(path, aggregate)
                return np.stack([score_rows(rows, query, threads=threads) for query in queries])

            yield sae_name(aggregate, reduction, weighting), _by_unit(found, small, score)


def sae_name(aggregate: str, reduction: str, weighting: str) -> str:
    """How a combination is called in tables."""
    return f"SAE {aggregate}, {reduction}, {'idf' if weighting == 'idf' else 'no idf'}"


SAE_NAMES = tuple(sae_name(a, r, w) for a in AGGREGATES for w in WEIGHTINGS for r in REDUCTIONS)
PRESET = sae_name("mean", "mean", "idf")  # what the preset `best` does


def _by_unit(found: Pass, small: bool, score: Callable[[Path], Scores]) -> Scores:
    """Scores (n_targets, n) of all units, rows in ascending order."""
    parts = found.parts(small)
    scores = np.concatenate([score(path) for _, path in parts], axis=1)
    return scores[:, np.argsort(np.concatenate([rows for rows, _ in parts]), kind="stable")]


def _bounds(targets: Sequence[Target]) -> NDArray[np.int64]:
    return np.cumsum([len(target.exemplars) for target in targets])[:-1]


def _unit(vectors: NDArray[np.floating]) -> NDArray[np.float64]:
    """Vectors of length 1; zeros stay zeros."""
    wide = vectors.astype(np.float64)
    return wide / np.maximum(np.linalg.norm(wide, axis=-1, keepdims=True), 1e-12)
