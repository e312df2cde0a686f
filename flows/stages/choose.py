"""Scores, order and cut: one path for ours and for the controls.

Bulk scores go to Parquet, one file per selection; what is decided about them is small.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from flows.config import SelectConfig
from flows.progress import stage
from flows.stages.inputs import Field
from selection.baselines import bm25_scores, random_scores
from selection.budget import Cut, TokenCount, cut
from selection.errors import InputError
from selection.ids import content_id
from selection.jaccard import QueryBlock, build_queries, score_rows
from selection.plain_text import plain_text
from selection.ranking import JointRanking, combine_targets, rank
from selection.records import DropReason, Exemplars, Ranking
from selection.row_kernels import weighted_norms
from selection.sparse import document_frequency
from selection.weights import idf_weights, unit_weights
from storage.files import write_atomically
from storage.pool_vectors import PoolVectors
from storage.pools import PreparedPool
from storage.renderings import RenderedPool
from storage.workspace import Workspace

JOINT = "joint"
CURVE_POINTS = 200


@dataclass(frozen=True)
class Race:
    """Who is ranked, and what the latents weigh.

    eligible: (n,) bool over the prepared pool, after every drop.
    drops:    examples dropped before ranking, by reason; with the eligible ones they add up to n.
    weights:  (n_latents,) int64.
    shares:   (n_latents,) float64, share of the pool's examples in which each latent fires.
    """

    eligible: NDArray[np.bool_]
    drops: dict[DropReason, int]
    weights: NDArray[np.int64]
    shares: NDArray[np.float64]


@dataclass(frozen=True)
class Decided:
    """One selection: its ranking (Parquet), and where the budget cut it.

    curve: {"ranks": [...], "scores": [...]}, thinned for a plot.
    """

    selection_id: str
    name: str
    target: str
    method: str
    role: str
    n_eligible: int
    cut: Cut
    scores_file: Path
    curve: Mapping[str, list[float]]


def enter_race(
    config: SelectConfig, field: Field, rendered: RenderedPool, vectors: PoolVectors
) -> Race:
    """First pass over the vectors: weights from all of them, and the drops that rendering left."""
    frequency, fires = np.zeros(0, np.int64), np.zeros(vectors.n_vectors, np.bool_)
    times = vectors.multiplicity()
    with stage("weights", vectors.n_vectors, "vectors") as handle:
        for numbers, rows in vectors.blocks():
            if not len(frequency):
                frequency = np.zeros(rows.n_latents, np.int64)
            frequency += document_frequency(rows, times[numbers])
            fires[numbers] = np.diff(rows.indptr) > 0
            handle.advance(len(numbers))
        n_documents = int(times[fires].sum())
        handle.detail = f"{int((frequency > 0).sum()):,} latents fire in {n_documents:,} examples"
    weights = unit_weights(len(frequency))
    if config.ranking.weights == "idf":
        weights = idf_weights(frequency, n_documents)
    has_direction = vectors.spread(fires, fill=False)
    drops, left = dict(field.drops), field.eligible.copy()
    for reason, gone in (
        (DropReason.RESPONSE_TRUNCATED, rendered.response_truncated()),
        (DropReason.NO_COUNTED_TOKENS, ~rendered.usable()),
        (DropReason.EMPTY_VECTOR, ~has_direction),
    ):
        n_gone = int((left & gone).sum())
        if n_gone:
            drops[reason] = n_gone
        left &= ~gone
    if not left.any():
        found = ", ".join(f"{n:,} {reason}" for reason, n in drops.items())
        raise InputError(
            f"no example is left to rank ({found})",
            field="rendering.counted",
            value=config.rendering.counted,
            remedy="Count other tokens, raise `rendering.max_length`, or loosen `where`.",
        )
    return Race(left, drops, weights, frequency / max(n_documents, 1))


def decide(
    config: SelectConfig,
    workspace: Workspace,
    run: tuple[str, str],
    pool: PreparedPool,
    vectors: PoolVectors,
    race: Race,
    n_promised: int,
    targets: Mapping[str, tuple[pa.Table, Exemplars]],
    token_count: TokenCount,
) -> list[Decided]:
    """Rank every target by the method and by each control, and cut each ranking by the budget.

    run:        (run id, run name).
    n_promised: eligible examples before rendering, which the budget was held against.
    """
    run_id, run_name = run
    decided: list[Decided] = []
    for method in (config.ranking.method, *config.controls):
        role = "main" if method == config.ranking.method else "control"
        scores = _scores(method, config, pool, vectors, race, targets)
        rankings = {name: rank(values, race.eligible) for name, values in scores.items()}
        for target, ranking in _as_selections(config, rankings):
            name = _name(run_name, target, method if role == "control" else "", config, targets)
            selection_id = f"{run_id}-{len(decided) + 1}"
            file = workspace.scores / f"{selection_id}.parquet"
            _write_scores(file, selection_id, pool, ranking, list(targets), target)
            decided.append(
                Decided(
                    selection_id=selection_id,
                    name=name,
                    target=target,
                    method=method,
                    role=role,
                    n_eligible=n_promised,
                    cut=cut(ranking, config.budget.as_budget(), n_promised, token_count),
                    scores_file=file,
                    curve=_curve(ranking.scores),
                )
            )
    return decided


def _name(
    run: str, target: str, control: str, config: SelectConfig, targets: Mapping[str, object]
) -> str:
    """Run name, then the target where there are several, then the control's method."""
    several = len(targets) > 1 and config.combine == "separate"
    return "-".join(part for part in (run, target if several else "", control) if part)


def _as_selections(
    config: SelectConfig, rankings: Mapping[str, Ranking]
) -> Iterator[tuple[str, Ranking | JointRanking]]:
    """Each target by itself, or all of them in turn as one ranking."""
    if config.combine == "separate" or len(rankings) == 1:
        yield from rankings.items()
    else:
        yield JOINT, combine_targets(list(rankings.values()), "round_robin")


def _scores(
    method: str,
    config: SelectConfig,
    pool: PreparedPool,
    vectors: PoolVectors,
    race: Race,
    targets: Mapping[str, tuple[pa.Table, Exemplars]],
) -> dict[str, NDArray[np.float64]]:
    """Target -> (n,) scores of all pool rows; higher is better."""
    if method == "jaccard":
        return _jaccard_scores(config, vectors, race, targets)
    with stage(method, pool.n_examples * len(targets), "examples") as handle:
        handle.detail = f"{pool.n_examples:,} examples against {len(targets)} targets"
        if method == "random":
            ids = pool.example_ids().astype(str).tolist()
            seeds = {name: content_id([config.seed, name]) for name in targets}
            return {name: random_scores(ids, int(seed, 16)) for name, seed in seeds.items()}
        return {
            name: bm25_scores(_texts(pool, handle.advance), _texts_of(table))
            for name, (table, _) in targets.items()
        }


def _jaccard_scores(
    config: SelectConfig,
    vectors: PoolVectors,
    race: Race,
    targets: Mapping[str, tuple[pa.Table, Exemplars]],
) -> dict[str, NDArray[np.float64]]:
    """Second pass over the vectors: every shard against every target."""
    queries = {name: _queries(config, race, each) for name, (_, each) in targets.items()}
    found = {name: np.zeros(vectors.n_vectors) for name in targets}
    threads = config.compute.threads or default_threads()
    with stage("rank", vectors.n_vectors, "vectors") as handle:
        for numbers, rows in vectors.blocks():
            norms = weighted_norms(rows, race.weights)
            for name, block in queries.items():
                found[name][numbers] = score_rows(rows, block, norms=norms, threads=threads)
            handle.advance(len(numbers))
        handle.detail = f"{vectors.n_vectors:,} vectors against {len(targets)} targets"
    return {name: vectors.spread(values, fill=0.0) for name, values in found.items()}


def _queries(config: SelectConfig, race: Race, exemplars: Exemplars) -> QueryBlock:
    try:
        return build_queries(exemplars.rows, race.weights, config.ranking.exemplar_reduction)
    except InputError as error:
        raise InputError(
            error.problem, file=config.exemplars.path, field=exemplars.target, remedy=error.remedy
        ) from None


def _texts(pool: PreparedPool, advance: object) -> Iterator[str]:
    """Plain text of every example, in pool order."""
    for batch in pool.iter_examples():
        yield from _texts_of(batch)
        if callable(advance):
            advance(batch.num_rows)


def _texts_of(rows: pa.Table | pa.RecordBatch) -> list[str]:
    pairs = zip(rows["messages"].to_pylist(), rows["tools"].to_pylist(), strict=True)
    return [
        plain_text(json.loads(messages), json.loads(tools) if tools else None)
        for messages, tools in pairs
    ]


def _write_scores(
    file: Path,
    selection_id: str,
    pool: PreparedPool,
    ranking: Ranking | JointRanking,
    targets: list[str],
    target: str,
) -> None:
    """Every ranked example in order: selection_id, example_id, score, rank, target, example_row."""
    import pyarrow.parquet as pq

    if isinstance(ranking, JointRanking):
        owner = pa.DictionaryArray.from_arrays(pa.array(ranking.targets), pa.array(targets))
    else:
        owner = pa.DictionaryArray.from_arrays(
            pa.array(np.zeros(len(ranking.rows), np.int32)), pa.array([target])
        )
    n = len(ranking.rows)
    table = pa.table(
        {
            "selection_id": pa.DictionaryArray.from_arrays(
                pa.array(np.zeros(n, np.int32)), pa.array([selection_id])
            ),
            "example_id": pa.array(pool.example_ids()[ranking.rows].astype(str)),
            "score": ranking.scores,
            "rank": np.arange(1, n + 1, dtype=np.int64),
            "target": owner,
            "example_row": ranking.rows,
        }
    )
    write_atomically(file, lambda temp: pq.write_table(table, temp, compression="zstd"))


def _curve(scores: NDArray[np.float64]) -> dict[str, list[float]]:
    """Scores at ranks that are dense at the top, where a budget cuts."""
    if not len(scores):
        return {"ranks": [], "scores": []}
    ranks = np.unique(np.geomspace(1, len(scores), CURVE_POINTS).round().astype(int))
    return {"ranks": ranks.tolist(), "scores": scores[ranks - 1].tolist()}


def default_threads() -> int:
    """Cores that this process may use."""
    import os

    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
