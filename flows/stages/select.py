"""Last computing stage: rank the pool for every target, cut, explain, and commit it all at once."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from flows.config import BudgetConfig, SelectConfig
from flows.progress import stage
from flows.stages.choose import Decided, Race, decide, enter_race
from flows.stages.inputs import Field, field_of, read_targets
from flows.stages.material import Material, RunFacts
from flows.stages.record import catalog_rows
from flows.stages.vectors import Representer, embed_targets, open_representer, pool_vectors
from selection.budget import TokenCount
from selection.rendering import load_renderer
from storage.catalog import commit
from storage.pools import PreparedPool, open_pool
from storage.renderings import RenderedPool
from storage.workspace import Workspace


def select_and_record(
    config: SelectConfig, workspace: Workspace, pool_id: str, sae: str, facts: RunFacts
) -> list[dict[str, object]]:
    """Everything from vectors to a committed run; returns one small record per selection."""
    pool = open_pool(workspace.pools / pool_id)
    representer = open_representer(config, workspace, sae)
    rendered, vectors = representer.rendered(pool_id), pool_vectors(representer, pool_id)
    tables = read_targets(config.exemplars)
    targets = embed_targets(representer, config, tables)
    field = field_of(config, pool, tables)
    race = enter_race(config, field, rendered, vectors)
    tokens = token_counter(config.budget, representer, pool, rendered)
    n_promised = int(field.eligible.sum())
    run = (facts.run_id, facts.name)
    decided = decide(config, workspace, run, pool, vectors, race, n_promised, targets, tokens)
    facts = replace(
        facts, counts=_counts(pool, rendered, field, race, vectors.n_vectors, representer)
    )
    material = Material(config, facts, pool, vectors, representer, race, targets, decided, tokens)
    with stage("record", unit="rows") as handle:
        rows = catalog_rows(material)
        commit(workspace, rows)
        handle.detail = f"{sum(len(table) for table in rows.values()):,} rows in the catalog"
    return [_summary(each, rows["selection"].to_pylist()) for each in decided]


def token_counter(
    budget: BudgetConfig, representer: Representer, pool: PreparedPool, rendered: RenderedPool
) -> TokenCount:
    """Pool rows -> tokens that training on them costs, after the training max_length."""
    rendering = representer.reader.renderer.settings
    limit = budget.max_length or int(rendering["max_length"])
    if budget.trainee_tokenizer is None:
        full = rendered.full_lengths()
        return lambda rows: np.minimum(full[rows], limit).astype(np.int64)
    renderer = load_renderer(budget.trainee_tokenizer, max_length=limit)

    def count(rows: NDArray[np.int64]) -> NDArray[np.int64]:
        from flows.stages.reading import render_rows

        samples = render_rows(renderer, pool.examples_at(rows))
        return np.array([len(sample.tokens) for sample in samples], np.int64)

    return count


def _counts(
    pool: PreparedPool,
    rendered: RenderedPool,
    field: Field,
    race: Race,
    n_vectors: int,
    representer: Representer,
) -> dict[str, object]:
    """What the run went through; rows = read drops + occurrences, examples = drops + eligible."""
    return {
        "rows": pool.n_rows,
        "dropped_while_reading": {str(reason): n for reason, n in pool.drops.items() if n},
        "occurrences": pool.n_occurrences,
        "examples": pool.n_examples,
        "dropped_before_ranking": {str(reason): n for reason, n in race.drops.items()},
        "passed_where": int(field.eligible.sum()),
        "ranked": int(race.eligible.sum()),
        "vectors": n_vectors,
        "fixed_point": representer.fixed_point_totals(),
        **rendered.totals,
    }


def _summary(decided: Decided, rows: list[Mapping[str, object]]) -> dict[str, object]:
    row = next(row for row in rows if row["selection_id"] == decided.selection_id)
    names = ("selection_id", "name", "target", "method", "role", "n_eligible", "n_selected")
    return {
        **{name: row[name] for name in names},
        "n_tokens": row["n_tokens"],
        "cut_score": row["cut_score"],
        "shortfall": decided.cut.shortfall,
    }
