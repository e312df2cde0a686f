"""The config's rules as what the selection takes: rows, columns, rules and evaluation items."""

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa

from flows.config.jobs import SelectConfig
from flows.orchestration.progress import stage
from flows.stages.prepare.inputs import id_names, source_of
from selection.core.errors import InputError
from selection.data.exemplars import read_exemplars
from selection.data.samples import conversations_of, texts_of
from selection.picking.budget import wanted_examples
from selection.picking.decontamination import Contaminated, find_contaminated
from selection.picking.eligibility import Mask
from selection.picking.item_runs import as_item, item_runs
from selection.picking.rules.diversity import Diversity
from selection.picking.rules.from_settings import (
    NearDuplicates,
    Rows,
    Rules,
    Weights,
    picking_rules,
)
from selection.picking.rules.quotas import ColumnValues, check_quotas
from selection.picking.rules.replay import Replay, draw_order, split_budget
from storage.pools.pool import PreparedPool
from storage.pools.vectors import PoolVectors


def pool_texts(pool: PreparedPool, advance: Callable[[int], object]) -> Iterator[str]:
    """Plain text of every example, in pool order."""
    for batch in pool.iter_examples():
        yield from texts_of(batch)
        advance(batch.num_rows)


def included_rows(config: SelectConfig, pool: PreparedPool) -> Rows:
    """Rows on the include list. Raises InputError for a name that the pool does not have."""
    names = id_names(config.include, "include")
    rows, unknown = pool.rows_of_ids(names)
    if unknown:
        raise InputError(
            f"{len(unknown)} of {len(names)} ids are not in the pool",
            field="include",
            value=unknown[0],
            remedy="Give example ids, or ids of the column that `columns: {id: ...}` names.",
        )
    excluded = set(pool.rows_of_ids(id_names(config.exclude, "exclude"))[0].tolist())
    both = [row for row in rows.tolist() if row in excluded]
    if both:
        raise InputError(
            f"{len(both)} examples are both included and excluded",
            field="include",
            value=str(pool.example_ids()[both[0]].astype(str)),
            remedy="Take them off one of the two lists.",
        )
    return rows


def quota_columns(config: SelectConfig, pool: PreparedPool, eligible: Mask) -> list[ColumnValues]:
    """Values of every quota's column; refuses quotas that the eligible examples cannot meet."""
    columns = [pool.column_values(quota.column, config.where) for quota in config.quotas]
    n, replay = None, config.replay
    for budget in (*config.budget.sweep_budgets(), config.budget.as_budget()):
        if replay is not None:  # quotas bind the picks
            budget, _ = split_budget(budget, replay.share, replay.tokens, int(eligible.sum()))
        n = wanted_examples(budget, int(eligible.sum()))
    check_quotas([quota.as_quota() for quota in config.quotas], columns, eligible, n)
    return columns


def rules_of(
    config: SelectConfig,
    pool: PreparedPool,
    vectors: PoolVectors,
    eligible: Mask,
    weights: Weights,
    exemplar_ids: Sequence[str],
) -> Rules:
    """Everything that decides besides the score. Raises InputError for what cannot be met.

    exemplar_ids: of all targets; replay never draws one.
    """
    duplicates, diversity = config.near_duplicates, config.diversity
    return picking_rules(
        include=included_rows(config, pool),
        min_score=config.min_score,
        quotas=[quota.as_quota() for quota in config.quotas],
        columns=quota_columns(config, pool, eligible),
        near_duplicates=NearDuplicates(**duplicates.model_dump()) if duplicates else None,
        diversity=Diversity(**diversity.model_dump()) if diversity else None,
        vectors=vectors.gather,
        texts=lambda rows: texts_of(pool.examples_at(rows)),
        weights=weights,
        replay=_replay_of(config, pool, eligible, exemplar_ids),
    )


def _replay_of(
    config: SelectConfig, pool: PreparedPool, eligible: Mask, exemplar_ids: Sequence[str]
) -> Replay | None:
    """Eligible rows in an order that is a pure function of id and seed, alike for all targets."""
    if config.replay is None:
        return None
    rows = np.flatnonzero(eligible)
    drawn = draw_order(rows, pool.example_ids()[rows], exemplar_ids, config.seed)
    return Replay(config.replay.share, config.replay.tokens, drawn)


def search_items(
    config: SelectConfig, pool: PreparedPool, targets: Mapping[str, pa.Table]
) -> tuple[Contaminated | None, Sequence[tuple[str, str]]]:
    """Examples that hold an evaluation item, in one pass over the pool's texts; None if not asked.

    Also returns (file or target, own or example id) of every item.
    """
    rule = config.decontamination
    if rule is None:
        return None, []
    tables = list(targets.items()) if rule.exemplars else []
    tables += [(file.path, read_exemplars(source_of(file))) for file in rule.files]
    if not tables:
        return None, []
    rows = [(file, row) for file, table in tables for row in table.to_pylist()]
    names = [(file, str(row["own_id"] or row["example_id"])) for file, row in rows]
    items = item_runs(
        [as_item(messages) for _, table in tables for messages, _ in conversations_of(table)],
        [number for number, (_, table) in enumerate(tables) for _ in range(table.num_rows)],
        shortest=rule.shortest,
        longest=rule.longest,
        template_share=rule.template_share,
    )
    with stage("decontaminate", pool.n_examples, "examples") as handle:
        contaminated = find_contaminated(
            pool_texts(pool, handle.advance),
            items,
            pool.n_examples,
            pool_rows=rule.pool_rows,
            pool_share=rule.pool_share,
            item_share=rule.item_share,
        )
        n_frequent = len(contaminated.too_frequent)
        handle.detail = (
            f"{len(contaminated.rows):,} examples hold one of {items.n_items:,} items; "
            f"{len(items.unsearched):,} items are too short or all template"
            + (f", {n_frequent:,} too frequent in the pool to be told apart" if n_frequent else "")
        )
    return contaminated, names
