"""The config's rules as what the selection takes: rows, columns, finders and evaluation items."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from flows.config.jobs import SelectConfig
from flows.orchestration.progress import stage
from flows.stages.prepare.inputs import id_names, source_of
from selection.core.errors import InputError
from selection.data.exemplars import read_exemplars
from selection.data.messages import plain_text
from selection.picking.budget import wanted_examples
from selection.picking.decontamination import find_contaminated, item_runs
from selection.picking.near_duplicates import DuplicateFinder, KeptVectors
from selection.picking.pick import Diversity, Rules
from selection.picking.quotas import ColumnLimits, check_quota, limits_of
from storage.pools.prepare import PreparedPool
from storage.pools.vectors import PoolVectors


@dataclass(frozen=True)
class Contamination:
    """Pool rows that hold an evaluation item.

    rows: (r,) int64. files, items: which item, by file (or target) and by its own or example id.
    matched, counted: (r,) int64 runs of words of it, in the row and in the item.
    """

    rows: NDArray[np.int64]
    files: Sequence[str]
    items: Sequence[str]
    matched: NDArray[np.int64]
    counted: NDArray[np.int64]

    def mask(self, n: int) -> NDArray[np.bool_]:
        """(n,) bool, True for these rows."""
        mask = np.zeros(n, np.bool_)
        mask[self.rows] = True
        return mask


def texts_of(rows: pa.Table | pa.RecordBatch) -> list[str]:
    """Plain text of rows that hold `messages` and `tools` as JSON."""
    pairs = zip(rows["messages"].to_pylist(), rows["tools"].to_pylist(), strict=True)
    return [
        plain_text(json.loads(messages), json.loads(tools) if tools else None)
        for messages, tools in pairs
    ]


def pool_texts(pool: PreparedPool, advance: object) -> Iterator[str]:
    """Plain text of every example, in pool order."""
    for batch in pool.iter_examples():
        yield from texts_of(batch)
        if callable(advance):
            advance(batch.num_rows)


def included_rows(config: SelectConfig, pool: PreparedPool) -> NDArray[np.int64]:
    """Rows on the include list. Raises InputError for a name that the pool does not have."""
    names = id_names(config.include, "include")
    if not names:
        return np.zeros(0, np.int64)
    rows, unknown = pool.rows_of_ids(names)
    if unknown:
        raise InputError(
            f"{len(unknown)} of {len(names)} ids are not in the pool",
            field="include",
            value=unknown[0],
            remedy="Give example ids, or ids of the column that `columns: {id: ...}` names.",
        )
    both = np.intersect1d(rows, pool.rows_of_ids(id_names(config.exclude, "exclude"))[0])
    if len(both):
        raise InputError(
            f"{len(both)} examples are both included and excluded",
            field="include",
            value=str(pool.example_ids()[both[0]].astype(str)),
            remedy="Take them off one of the two lists.",
        )
    return rows


def quota_columns(
    config: SelectConfig, pool: PreparedPool, eligible: NDArray[np.bool_]
) -> list[tuple[list[str], NDArray[np.int32]]]:
    """Values of every quota's column; refuses quotas that the eligible examples cannot meet."""
    columns = [pool.column_values(quota.column, config.where) for quota in config.quotas]
    n = wanted_examples(config.budget.as_budget(), int(eligible.sum()))
    for quota, (names, codes) in zip(config.quotas, columns, strict=True):
        known = np.unique(codes[eligible & (codes >= 0)])
        missing = sorted(set(quota.values) - {names[code] for code in known})
        if n is not None or missing:
            size = n or 1
            limits = limits_of(quota.as_quota(), names, codes, size)
            check_quota(quota.as_quota(), limits, eligible, size)
    return columns


def rules_of(
    config: SelectConfig,
    pool: PreparedPool,
    vectors: PoolVectors,
    eligible: NDArray[np.bool_],
    weights: NDArray[np.int64],
) -> Rules:
    """Everything that decides besides the score. Raises InputError for what cannot be met."""
    columns = quota_columns(config, pool, eligible)

    def limits(n: int) -> list[ColumnLimits]:
        pairs = zip(config.quotas, columns, strict=True)
        return [limits_of(quota.as_quota(), *column, n) for quota, column in pairs]

    def finder() -> DuplicateFinder:
        rule = config.near_duplicates
        assert rule is not None
        return DuplicateFinder(
            KeptVectors(weights, rule.similarity),
            vectors.gather,
            lambda rows: texts_of(pool.examples_at(rows)),
            text_overlap=rule.text_overlap,
            shingle_words=rule.shingle_words,
        )

    diversity = config.diversity
    return Rules(
        include=included_rows(config, pool),
        min_score=config.min_score,
        limits=limits if config.quotas else None,
        duplicates=finder if config.near_duplicates else None,
        diversity=Diversity(diversity.trade, diversity.multiple, vectors.gather, weights)
        if diversity
        else None,
    )


def contamination_of(
    config: SelectConfig, pool: PreparedPool, targets: Mapping[str, pa.Table]
) -> Contamination | None:
    """One pass over the pool's texts for the items; None where nothing is searched."""
    rule = config.decontamination
    if rule is None:
        return None
    tables = list(targets.items()) if rule.exemplars else []
    tables += [(file.path, read_exemplars(source_of(file))) for file in rule.files]
    if not tables:
        return None
    texts = [text for _, table in tables for text in texts_of(table)]
    names = [
        str(row["own_id"] or row["example_id"])
        for _, table in tables
        for row in table.select(["own_id", "example_id"]).to_pylist()
    ]
    file_of = np.repeat(np.arange(len(tables)), [table.num_rows for _, table in tables])
    items = item_runs(
        texts,
        file_of.tolist(),
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
        handle.detail = (
            f"{len(contaminated.rows):,} examples hold one of {items.n_items:,} items; "
            f"{len(items.unsearched):,} items are too short or all template"
        )
    return Contamination(
        contaminated.rows,
        [tables[file_of[item]][0] for item in contaminated.items],
        [names[item] for item in contaminated.items],
        contaminated.matched,
        contaminated.counted,
    )
