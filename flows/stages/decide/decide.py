"""Scores, order and cut: one path for the run's method and for the controls."""

from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa

from flows.config.jobs import SelectConfig
from flows.orchestration.progress import stage
from flows.stages.decide.run_input import RunInput
from flows.stages.prepare.rules import pool_texts, rules_of
from flows.stages.rank.score import pool_scores
from flows.stages.represent.spaces import SpaceVectors
from selection.core.numbers import plural
from selection.data.samples import texts_of
from selection.evaluation.controls import control_scores
from selection.picking.budget import TokenCount
from selection.picking.selections import Selection, rankings_of, refuse_zeros, select
from selection.records import Exemplars, Ranking
from storage.files.scores import scores_file, write_scores
from storage.pools.pool import PreparedPool

Targets = Mapping[str, tuple[pa.Table, Exemplars]]


def decide(
    config: SelectConfig,
    scores: Path,
    run: tuple[str, str],
    pool: PreparedPool,
    vectors: SpaceVectors,
    given: RunInput,
    n_eligible: int,
    targets: Targets,
    token_count: TokenCount,
) -> list[Selection]:
    """Rank every target by the method and by each control, and cut each ranking by the budget.

    scores:     folder that gets a file for every ranking.
    run:        (run id, run name).
    n_eligible: examples before rendering, which the budget was checked against.
    """
    ranking, eligible = given.ranking, given.eligibility.eligible
    ids = pool.example_ids()

    def rankings_by(method: str) -> Mapping[str, Ranking]:
        if method != "jaccard":
            with stage(method, pool.n_examples, "examples") as handle:
                handle.detail = (
                    f"{pool.n_examples:,} examples against {plural(len(targets), 'target')}"
                )
                exemplar_texts = {name: texts_of(table) for name, (table, _) in targets.items()}
                texts = pool_texts(pool, handle.advance)
                by_control = control_scores(method, exemplar_texts, ids, texts, config.seed)
            return rankings_of(by_control, eligible)
        retrieved = given.retrieved
        by_similarity = pool_scores(config, vectors, ranking, retrieved)
        return rankings_of(
            by_similarity, eligible if retrieved is None else eligible & retrieved.rows
        )

    def rankings_to_cut(method: str) -> Mapping[str, Ranking]:
        rankings = rankings_by(method)
        if method == config.ranking.method:
            refuse_zeros(rankings)
        return rankings

    own = vectors.parts[vectors.own]
    exemplar_ids = [
        name for table, _ in targets.values() for name in table["example_id"].to_pylist()
    ]
    selections = select(
        run,
        (config.ranking.method, *config.controls),
        rankings_to_cut,
        config.budget.as_budget(),
        n_eligible,
        eligible,
        token_count,
        rules=rules_of(config, pool, own, eligible, ranking.own_weights, exemplar_ids),
        joint=config.combine == "joint",
        target_weights=config.target_weights,
        sweep=config.budget.sweep_budgets(),
    )
    decided = []
    for selection in selections:
        write_scores(selection, scores_file(scores, selection.selection_id), ids)
        decided.append(selection)
    return decided
