"""Scores of rivals that read no model: chance, length, words, and files of others' scores."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from flows.benchmark.methods import DSIR_SMOOTHING, Method
from flows.benchmark.setting import BenchField
from selection.core.errors import InputError
from selection.evaluation.cosine_baselines import Reduced, reduce_scores
from selection.evaluation.labelled import Target
from selection.evaluation.lexical_baselines import (
    bm25_values,
    dense_queries,
    dsir_scores,
    gram_table,
    length_scores,
    products,
    smooth_idf,
    term_frequency,
    text_lengths,
    tfidf_values,
)
from selection.picking.controls import random_scores

Scores = Iterator[tuple[str, NDArray[np.float64]]]
Scorer = Callable[[Target], Scores]
"""Target -> (variant, (n,) scores of all labelled rows), one after another."""


def lexical_scorer(method: Method, field: BenchField) -> Scorer:
    """The scorer of a rival that reads no model."""
    makers = {
        "random": _random,
        "length": _length,
        "tfidf": _tfidf,
        "bm25": _bm25,
        "dsir": _dsir,
        "external": _external,
    }
    return makers[method.kind](method, field)


def _random(method: Method, field: BenchField) -> Scorer:
    ids = field.pool.ids.tolist()

    def score(target: Target) -> Scores:
        for variant in method.variants:
            seed = int(variant.removeprefix("seed"))
            yield variant, random_scores((f"{target.name}:{own_id}" for own_id in ids), seed)

    return score


def _length(method: Method, field: BenchField) -> Scorer:
    def score(target: Target) -> Scores:
        lengths = text_lengths(field.exemplar_words(target))
        yield "log", length_scores(field.lengths, lengths.tolist())

    return score


def _tfidf(method: Method, field: BenchField) -> Scorer:
    words = field.words
    idf = smooth_idf(term_frequency(words), len(words))
    values = tfidf_values(words, idf, unit=True)

    def score(target: Target) -> Scores:
        exemplars = field.exemplar_words(target)
        queries = dense_queries(exemplars, tfidf_values(exemplars, idf, unit=True))
        matrix = products(words, values, queries)
        for how in _reductions(method.variants):
            if how == "centroid":  # of the vectors before scaling: longer exemplars say more
                whole = dense_queries(exemplars, tfidf_values(exemplars, idf, unit=False))
                yield how, products(words, values, whole.mean(axis=1, keepdims=True))[:, 0]
            else:
                yield how, reduce_scores(matrix, how, field.pool.id_order)

    return score


def _bm25(method: Method, field: BenchField) -> Scorer:
    values = bm25_values(field.words, field.lengths)

    def score(target: Target) -> Scores:
        exemplars = field.exemplar_words(target)
        queries = dense_queries(exemplars, exemplars.counts.astype(np.float32))
        matrix = products(field.words, values, queries)
        for how in _reductions(method.variants):
            yield how, reduce_scores(matrix, how, field.pool.id_order)

    return score


def _dsir(method: Method, field: BenchField) -> Scorer:
    grams = field.grams

    def score(target: Target) -> Scores:
        exemplars = gram_table(field.exemplar_texts(target))
        for variant in method.variants:
            smoothing, per_gram = DSIR_SMOOTHING[variant]
            yield (
                variant,
                dsir_scores(grams, exemplars, smoothing=smoothing, per_gram=per_gram),
            )

    return score


def _reductions(variants: Sequence[str]) -> Sequence[Reduced]:
    return variants  # type: ignore[return-value]  # checked when methods were found


def _external(method: Method, field: BenchField) -> Scorer:
    if method.path is None:
        raise ValueError("an external method needs its file")
    table = read_scores(method.path)

    def score(target: Target) -> Scores:
        assert method.path is not None
        mine = table.filter(pl.col("target") == target.name) if "target" in table else table
        yield "given", _aligned(mine, field.pool.ids, method.path, target.name)

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
    table = readers[path.suffix](path)
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
