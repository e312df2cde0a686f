"""Baselines that read no model: chance, length, words, and files of others' scores.

Each gives (variant, (n,) scores of all labelled rows) for one target after another.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from selection.core.errors import InputError, shorten
from selection.core.sparse import document_frequency
from selection.evaluation.baselines.cosine import Reduced, reduce_scores
from selection.evaluation.baselines.lexical import (
    count_terms,
    dense_queries,
    dsir_scores,
    gram_table,
    length_scores,
    products,
    smooth_idf,
    text_lengths,
    tfidf_values,
)
from selection.evaluation.bm25 import table_values
from selection.evaluation.labelled import LabelledPool, LabelledTarget, Setting, as_text
from selection.picking.controls import random_scores
from selection.records import SparseRows

Scores = Iterator[tuple[str, NDArray[np.float64]]]
Scorer = Callable[[LabelledTarget], Scores]
"""Target -> (variant, (n,) scores of all labelled rows), one after another."""

DSIR_SMOOTHING = {
    "paper": (0.0, False),
    "per_gram": (0.0, True),
    "smoothed": (1000.0, False),
    "smoothed_per_gram": (1000.0, True),
}
"""Variant -> (pseudo-counts of P, whether the weight is divided by the number of grams)."""

_BATCH = 8192


class LabelledTexts:
    """Texts of a labelled pool in one setting, and tables of their words, made when first used."""

    def __init__(self, pool: LabelledPool, setting: Setting) -> None:
        """Nothing is read yet."""
        self.pool, self.setting = pool, setting
        self._vocabulary: dict[str, int] = {}  # Word -> column of `words`; filled by it.

    def texts(self) -> Iterator[str]:
        """Texts in pool order."""
        for first in range(0, len(self.pool), _BATCH):
            for turns in self.pool.turns(self.setting, first, _BATCH):
                yield as_text(turns)

    def of_exemplars(self, target: LabelledTarget) -> list[str]:
        """Texts of one target's exemplars."""
        return [as_text(turns) for turns in target.turns(self.setting)]

    @cached_property
    def words(self) -> SparseRows:
        """Word counts of every pool row."""
        return count_terms(self.texts(), self._vocabulary, grow=True)

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        """(n,) words of every pool row."""
        return text_lengths(self.words)

    def exemplar_words(self, target: LabelledTarget) -> SparseRows:
        """Counts of the pool's words in a target's exemplars."""
        self.words  # noqa: B018 - fills the vocabulary
        return count_terms(self.of_exemplars(target), self._vocabulary, grow=False)

    @cached_property
    def grams(self) -> SparseRows:
        """Hashed uni- and bigram counts of every pool row."""
        return gram_table(self.texts())


def lexical_scorer(
    kind: str, variants: Sequence[str], texts: LabelledTexts, path: Path | None = None
) -> Scorer:
    """The scorer of a baseline that reads no model. path: of "external", the file of scores."""
    if kind == "external":
        if path is None:
            raise ValueError("an external method needs its file")
        return _external(path, texts)
    makers = {"random": _random, "length": _length, "tfidf": _tfidf, "bm25": _bm25, "dsir": _dsir}
    return makers[kind](variants, texts)


def _random(variants: Sequence[str], texts: LabelledTexts) -> Scorer:
    ids = texts.pool.ids.tolist()

    def score(target: LabelledTarget) -> Scores:
        for variant in variants:
            seed = int(variant.removeprefix("seed"))
            yield variant, random_scores((f"{target.name}:{own_id}" for own_id in ids), seed)

    return score


def _length(variants: Sequence[str], texts: LabelledTexts) -> Scorer:
    def score(target: LabelledTarget) -> Scores:
        lengths = text_lengths(texts.exemplar_words(target))
        yield "log", length_scores(texts.lengths, lengths.tolist())

    return score


def _tfidf(variants: Sequence[str], texts: LabelledTexts) -> Scorer:
    words = texts.words
    idf = smooth_idf(document_frequency(words), len(words))
    values = tfidf_values(words, idf, unit=True)

    def score(target: LabelledTarget) -> Scores:
        exemplars = texts.exemplar_words(target)
        queries = dense_queries(exemplars, tfidf_values(exemplars, idf, unit=True))
        matrix = products(words, values, queries)
        for reduced in _reductions(variants):
            if reduced == "centroid":  # of the vectors before scaling: longer exemplars say more
                whole = dense_queries(exemplars, tfidf_values(exemplars, idf, unit=False))
                yield reduced, products(words, values, whole.mean(axis=1, keepdims=True))[:, 0]
            else:
                yield reduced, reduce_scores(matrix, reduced, texts.pool.id_order)

    return score


def _bm25(variants: Sequence[str], texts: LabelledTexts) -> Scorer:
    values = table_values(texts.words, texts.lengths).astype(np.float32)

    def score(target: LabelledTarget) -> Scores:
        exemplars = texts.exemplar_words(target)
        queries = dense_queries(exemplars, exemplars.values.astype(np.float32))
        matrix = products(texts.words, values, queries)
        for reduced in _reductions(variants):
            yield reduced, reduce_scores(matrix, reduced, texts.pool.id_order)

    return score


def _dsir(variants: Sequence[str], texts: LabelledTexts) -> Scorer:
    grams = texts.grams

    def score(target: LabelledTarget) -> Scores:
        exemplars = gram_table(texts.of_exemplars(target))
        for variant in variants:
            smoothing, per_gram = DSIR_SMOOTHING[variant]
            scores = dsir_scores(grams, exemplars, smoothing=smoothing, per_gram=per_gram)
            yield variant, scores

    return score


def _reductions(variants: Sequence[str]) -> Sequence[Reduced]:
    return variants  # type: ignore[return-value]  # checked when methods were found


def _external(path: Path, texts: LabelledTexts) -> Scorer:
    table = read_scores(path)

    def score(target: LabelledTarget) -> Scores:
        rows = table.filter(pl.col("target") == target.name) if "target" in table else table
        yield "given", _aligned(rows, texts.pool.ids, path, target.name)

    return score


def read_scores(path: Path) -> pl.DataFrame:
    """Columns id, score and, where they differ by target, target. Raises InputError."""
    readers: dict[str, Callable[[Path], pl.DataFrame]] = {
        ".parquet": pl.read_parquet,
        ".csv": lambda file: pl.read_csv(file, schema_overrides={"id": pl.String}),
        ".jsonl": pl.read_ndjson,
    }
    if path.suffix not in readers or not path.is_file():
        raise InputError(
            "is no file of scores",
            file=path,
            remedy="Give Parquet, CSV or JSONL with the columns id, score and maybe target.",
        )
    try:
        table = readers[path.suffix](path)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise InputError(
            f"cannot be read as {path.suffix[1:]} ({shorten(str(error))})",
            file=path,
            remedy="Write it again, or give it the ending of what it is.",
        ) from None
    for name in ("id", "score"):
        if name not in table.columns:
            raise InputError(
                "the column is missing",
                file=path,
                field=name,
                value=table.columns,
                remedy="A file of scores has the columns id, score and maybe target.",
            )
    return table.with_columns(pl.col("id").cast(pl.String), pl.col("score").cast(pl.Float64))


def _aligned(
    table: pl.DataFrame, ids: NDArray[np.str_], path: Path, target: str
) -> NDArray[np.float64]:
    """(n,) one score per row of the pool. Raises InputError for a row without exactly one."""
    wanted = pl.DataFrame({"id": ids.tolist(), "row": np.arange(len(ids))})
    joined = wanted.join(table.select("id", "score"), on="id", how="left").sort("row")
    wrong = joined.filter(pl.col("score").is_null() | pl.col("score").is_nan())
    if len(joined) != len(ids) or len(wrong):
        raise InputError(
            f"an id has no score, or several, for target {target}",
            file=path,
            field="id",
            value=wrong["id"][0] if len(wrong) else None,
            remedy="Give one score for every row of the pool.",
        )
    return joined["score"].to_numpy()
