"""Scores, order and cut: one path for ours and for the controls.

Bulk scores go to Parquet, one file per selection; what is decided about them is small.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from flows.config.jobs import SelectConfig
from flows.orchestration.progress import stage
from flows.stages.prepare.inputs import Eligibility
from flows.stages.prepare.rules import (
    Contamination,
    contamination_of,
    pool_texts,
    rules_of,
    texts_of,
)
from flows.stages.rank.candidates import Candidates, find_candidates
from flows.stages.rank.processes import scores_by_processes
from flows.stages.represent.spaces import (
    Counts,
    JointTarget,
    SpaceVectors,
    count_documents,
    join_targets,
    own_number,
    own_space,
)
from selection.core.errors import InputError
from selection.core.hashing import content_id
from selection.evaluation.bm25 import bm25_of_sets
from selection.picking.budget import Cut, TokenCount
from selection.picking.controls import length_matched, random_scores
from selection.picking.pick import Picks, Rules, choose
from selection.picking.ranking import JointRanking, combine_targets, rank, take_turns
from selection.records import Budget, DropReason, Exemplars, Ranking
from storage.files.atomic import write_atomically
from storage.pools.prepare import PreparedPool
from storage.pools.renderings import RenderedPool

JOINT = "joint"
CURVE_POINTS = 200


@dataclass(frozen=True)
class Race:
    """Who is ranked, and what the latents weigh.

    eligible: (n,) bool over the prepared pool, after every drop.
    drops:    examples dropped before ranking, by reason; with the eligible ones they add up to n.
    targets:  every target's exemplars in the joined spaces, with their weights.
    counts:   document frequencies that the weights were made of.
    contamination: which examples hold an evaluation item, as far as it was looked for.
    candidates: what may be ranked of the eligible, where the search is not exact.
    """

    eligible: NDArray[np.bool_]
    drops: dict[DropReason, int]
    targets: Mapping[str, JointTarget]
    counts: Counts
    contamination: Contamination | None = None
    candidates: Candidates | None = None


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
    picks: Picks
    scores_file: Path
    curve: Mapping[str, list[float]]


def enter_race(
    config: SelectConfig,
    eligibility: Eligibility,
    pool: PreparedPool,
    rendered: RenderedPool,
    vectors: SpaceVectors,
    targets: Mapping[str, tuple[pa.Table, Exemplars]],
) -> Race:
    """First pass over the vectors: weights from all of them, and the drops that rendering left."""
    counts, fires = count_documents(config, vectors, verify=config.compute.verify_shards)
    joined = join_targets(config, vectors, counts, targets)
    has_direction = vectors.parts[0].spread(fires, fill=False)
    drops, left = dict(eligibility.drops), eligibility.eligible.copy()
    tables = {name: table for name, (table, _) in targets.items()}
    contamination = contamination_of(config, pool, tables)
    holds_item = np.zeros(len(left), np.bool_)
    if contamination is not None:
        holds_item[contamination.rows] = True
    lengths, bounds = rendered.full_lengths(), config.length
    for reason, gone in (
        (DropReason.RESPONSE_TRUNCATED, rendered.response_truncated()),
        (DropReason.NO_COUNTED_TOKENS, ~rendered.usable()),
        (DropReason.EMPTY_VECTOR, ~has_direction),
        (DropReason.TOO_SHORT, lengths < (bounds.min_tokens or 0)),
        (DropReason.TOO_LONG, lengths > (bounds.max_tokens or np.iinfo(np.int64).max)),
        (DropReason.CONTAMINATED, holds_item),
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
    near = find_candidates(config, pool.pool_id, vectors, joined, left)
    return Race(left, drops, joined, counts, contamination, near)


def decide(
    config: SelectConfig,
    scores: Path,
    run: tuple[str, str],
    pool: PreparedPool,
    vectors: SpaceVectors,
    race: Race,
    n_promised: int,
    targets: Mapping[str, tuple[pa.Table, Exemplars]],
    token_count: TokenCount,
) -> list[Decided]:
    """Rank every target by the method and by each control, and cut each ranking by the budget.

    scores:     folder that gets a file for every ranking.
    run:        (run id, run name).
    n_promised: eligible examples before rendering, which the budget was held against.
    """
    run_id, run_name = run
    decided: list[Decided] = []
    weights, shares = own_space(vectors, race.targets)
    own = vectors.parts[own_number(vectors)]
    rules = rules_of(config, pool, own, race.eligible, weights, shares)
    main: dict[str, Decided] = {}
    for method in (config.ranking.method, *config.controls):
        role = "main" if method == config.ranking.method else "control"
        rankings = _rankings(method, config, scores, pool, vectors, race, targets)
        for target, ranking in _as_selections(config, rankings):
            if method == "length_matched":
                ranking = _of_equal_lengths(main[target], pool, ranking, race, token_count)
            name = _name(run_name, target, method if role == "control" else "", config, targets)
            selection_id = f"{run_id}-{len(decided) + 1}"
            budget = _equal_budget(config, main.get(target))
            picks = choose(
                ranking, budget, n_promised, rules if role == "main" else Rules(), token_count
            )
            file = scores / f"{selection_id}.parquet"
            order = _final_order(picks, len(ranking.rows))
            _write_scores(file, selection_id, pool, ranking, order, list(targets), target)
            decided.append(
                Decided(
                    selection_id=selection_id,
                    name=name,
                    target=target,
                    method=method,
                    role=role,
                    n_eligible=n_promised,
                    cut=_as_cut(picks),
                    picks=picks,
                    scores_file=file,
                    curve=_curve(ranking.scores),
                )
            )
            if role == "main":
                main[target] = decided[-1]
    return decided


def _equal_budget(config: SelectConfig, main: Decided | None) -> Budget:
    """The budget; for a control of a selection that fell short, what that selection has."""
    budget = config.budget.as_budget()
    if main is None or not main.picks.shortfall:
        return budget
    if budget.tokens is not None:
        return Budget(tokens=main.picks.n_tokens)
    return Budget(examples=len(main.picks.positions))


def _of_equal_lengths(
    main: Decided,
    pool: PreparedPool,
    at_random: Ranking | JointRanking,
    race: Race,
    token_count: TokenCount,
) -> Ranking:
    """A random example of about the same tokens for every pick, in the order of the picks."""
    table = pq.read_table(main.scores_file, columns=["example_row"])
    picked = table["example_row"].to_numpy()[: len(main.picks.positions)]
    lengths, scores = np.zeros(pool.n_examples, np.int64), np.zeros(pool.n_examples)
    eligible = np.flatnonzero(race.eligible)
    for first in range(0, len(eligible), 65_536):
        rows = eligible[first : first + 65_536]
        lengths[rows] = token_count(rows)
    scores[at_random.rows] = at_random.scores
    drawn = length_matched(picked, lengths, scores, race.eligible)
    return Ranking(drawn, scores[drawn])


def _as_cut(picks: Picks) -> Cut:
    return Cut(len(picks.positions), picks.n_tokens, picks.unused_tokens, picks.shortfall)


def _final_order(picks: Picks, n: int) -> NDArray[np.int64]:
    """Positions in the ranking: the picks, what could come next, and what was passed over."""
    passed = np.array([each.position for each in picks.passed_over], np.int64)
    left = np.ones(n, np.bool_)
    left[picks.positions] = False
    left[passed] = False
    return np.concatenate([picks.positions, np.flatnonzero(left), passed])


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
        weights = [config.target_weights.get(name, 1) for name in rankings]
        yield JOINT, combine_targets(list(rankings.values()), "round_robin", weights=weights)


def _rankings(
    method: str,
    config: SelectConfig,
    scratch: Path,
    pool: PreparedPool,
    vectors: SpaceVectors,
    race: Race,
    targets: Mapping[str, tuple[pa.Table, Exemplars]],
) -> dict[str, Ranking]:
    """Target -> its order over the eligible rows; of these, over the candidates of a search."""
    eligible, near = race.eligible, race.candidates
    if method == "jaccard":
        only = None if near is None else near.vectors
        eligible = eligible if near is None else eligible & near.rows
        scores = scores_by_processes(config, vectors, race.targets, scratch, only=only)
        if config.ranking.exemplar_reduction == "round_robin":
            return {name: take_turns(values, eligible) for name, values in scores.items()}
    else:
        scores = _control_scores(method, config, pool, targets)
    return {name: rank(values, eligible) for name, values in scores.items()}


def _control_scores(
    method: str,
    config: SelectConfig,
    pool: PreparedPool,
    targets: Mapping[str, tuple[pa.Table, Exemplars]],
) -> dict[str, NDArray[np.float64]]:
    """Target -> (n,) scores of all pool rows; higher is better."""
    with stage(method, pool.n_examples, "examples") as handle:
        handle.detail = f"{pool.n_examples:,} examples against {len(targets)} targets"
        if method in ("random", "length_matched"):
            ids = pool.example_ids().astype(str).tolist()
            # A drawn example of equal length is not the random control's: another seed.
            more = [] if method == "random" else [method]
            return {name: random_scores(ids, seed_of(config, name, *more)) for name in targets}
        by_target = [texts_of(table) for table, _ in targets.values()]
        exemplars = [text for texts in by_target for text in texts]
        ends = np.cumsum([len(texts) for texts in by_target])
        sets = np.split(np.arange(len(exemplars)), ends[:-1])
        scores, _ = bm25_of_sets(pool_texts(pool, handle.advance), exemplars, sets)
        return dict(zip(targets, np.ascontiguousarray(scores.T), strict=True))


def seed_of(config: SelectConfig, *purpose: str) -> int:
    """Seed of one purpose, for instance a target's random control; no two share their chance."""
    return int(content_id([config.seed, *purpose]), 16)


def _write_scores(
    file: Path,
    selection_id: str,
    pool: PreparedPool,
    ranking: Ranking | JointRanking,
    order: NDArray[np.int64],
    targets: list[str],
    target: str,
) -> None:
    """Every ranked example, the picks first: selection_id, example_id, score, rank, target, ...

    order: (n,) int64 positions in the ranking. `rank` counts them in this order, `score_rank` by
    score alone.
    """
    if isinstance(ranking, JointRanking):
        owner = pa.DictionaryArray.from_arrays(pa.array(ranking.targets[order]), pa.array(targets))
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
            "example_id": pa.array(pool.example_ids()[ranking.rows[order]].astype(str)),
            "score": ranking.scores[order],
            "rank": np.arange(1, n + 1, dtype=np.int64),
            "target": owner,
            "example_row": ranking.rows[order],
            "score_rank": order + 1,
        }
    )
    write_atomically(file, lambda temp: pq.write_table(table, temp, compression="zstd"))


def _curve(scores: NDArray[np.float64]) -> dict[str, list[float]]:
    """Scores at ranks that are dense at the top, where a budget cuts."""
    if not len(scores):
        return {"ranks": [], "scores": []}
    ranks = np.unique(np.geomspace(1, len(scores), CURVE_POINTS).round().astype(int))
    return {"ranks": ranks.tolist(), "scores": scores[ranks - 1].tolist()}
