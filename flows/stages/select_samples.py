"""Last computing stage: rank the pool for every target, cut, explain, and commit it all at once."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from flows.config.jobs import SelectConfig
from flows.config.rules import BudgetConfig
from flows.orchestration.progress import Listener, listening, stage
from flows.stages.decide.check import check_label_free
from flows.stages.decide.decide import decide
from flows.stages.decide.run_input import RunInput, run_input
from flows.stages.prepare.render import ModelInput
from flows.stages.rank.index import index_facts
from flows.stages.rank.retrieve import search_facts
from flows.stages.record.material import Material, RunFacts
from flows.stages.record.rows import catalog_rows, stage_rows
from flows.stages.record.token_activations import token_activation_rows
from flows.stages.represent.exemplars import embed_targets
from flows.stages.represent.representer import Representer, open_representer, pool_vectors
from flows.stages.represent.spaces import open_spaces
from flows.stages.session import session_of
from selection.core.errors import InputError
from selection.picking.budget import TokenCount, total_tokens
from selection.picking.selections import Selection
from selection.rendering.renderer import load_renderer
from storage.catalog.commit import commit
from storage.files.workspace import Workspace
from storage.pools.pool import PreparedPool
from storage.pools.renderings import RenderedPool
from storage.pools.token_counts import counts_as_rendered, counts_by_renderer


def select_and_record(
    config: SelectConfig, workspace: Workspace, pool_id: str, sae: str, facts: RunFacts
) -> list[dict[str, object]]:
    """Everything from vectors to a committed run; returns one small record per selection."""
    clock = Listener()
    with listening(clock):
        representer = open_representer(config, workspace, sae)
        material = decide_run(representer, pool_id, facts, workspace.scores)
        with stage("explain picks", unit="rows") as handle:
            rows = catalog_rows(material)
            handle.detail = (
                f"{len(rows.get('explanation', ())):,} shared latents of picks and near misses"
            )
        rows |= token_activation_rows(material, rows.get("explanation"))
        rows |= stage_rows(facts, clock.stages)
    with stage("record", unit="rows") as handle:
        commit(workspace, rows)
        handle.detail = f"{sum(len(table) for table in rows.values()):,} rows in the catalog"
    return [_summary(each, rows["selection"].to_pylist()) for each in material.decided]


def decide_run(representer: Representer, pool_id: str, facts: RunFacts, scores: Path) -> Material:
    """Rank and cut for every target; all of it, nothing recorded yet.

    scores: folder for the files of all scores.
    """
    session, config, workspace = representer.session, representer.config, representer.workspace
    assert isinstance(config, SelectConfig)
    pool = session.pool(pool_id)
    rendered, vectors = representer.rendered(pool_id), pool_vectors(representer, pool_id)
    targets = embed_targets(representer, config, session.targets)
    eligibility = session.eligibility(pool_id)
    spaces = open_spaces(config, representer, pool_id)
    given = run_input(config, eligibility, pool, rendered, spaces, targets)
    tokens = token_counter(config.budget, representer.model_input, pool, rendered)
    n_eligible_at_check = eligibility.n
    run = (facts.run_id, facts.name)
    decided = decide(config, scores, run, pool, spaces, given, n_eligible_at_check, targets, tokens)
    index = index_facts(workspace, representer, pool_id, vectors) if config.index else {}
    checks = check_label_free(config, pool, given, targets, decided)
    if given.retrieved is not None:
        cuts: dict[str, float] = {}
        for each in decided:
            if each.role == "main":
                for target, score in each.least_scores().items():
                    cuts[target] = min(score, cuts.get(target, score))
        index |= search_facts(config, given.ranking, given.eligibility, given.retrieved, cuts)
    facts = replace(
        facts,
        counts=_counts(
            pool, rendered, n_eligible_at_check, given, vectors.n_vectors, representer, index
        ),
    )
    return Material(
        config,
        facts,
        pool,
        vectors,
        spaces,
        representer,
        given,
        targets,
        decided,
        tokens,
        scores,
        checks,
    )


def refuse_large_token_budget(config: SelectConfig, workspace: Workspace, pool_id: str) -> None:
    """A budget of more tokens than the eligible examples have is refused before the model runs."""
    wanted = config.budget.tokens
    if wanted is None:
        return
    session = session_of(config, workspace)
    eligibility = session.eligibility(pool_id)
    count = token_counter(
        config.budget, session.model_input, session.pool(pool_id), session.rendered(pool_id)
    )
    n_tokens = total_tokens(eligibility.rows, count)
    if wanted > n_tokens:
        raise InputError(
            f"more than the {n_tokens:,} tokens of the {eligibility.n:,} examples that survive"
            " reading and `where`",
            field="budget.tokens",
            value=wanted,
            remedy=f"Ask for at most {n_tokens:,}, loosen `where`, or add to the pool.",
        )


def token_counter(
    budget: BudgetConfig, model_input: ModelInput, pool: PreparedPool, rendered: RenderedPool
) -> TokenCount:
    """Pool rows -> tokens that training on them costs, after the training max_length."""
    limit = budget.max_length or int(model_input.renderer.settings["max_length"])
    if budget.trainee_tokenizer is None:
        return counts_as_rendered(rendered, limit)
    return counts_by_renderer(pool, load_renderer(budget.trainee_tokenizer, max_length=limit))


def _counts(
    pool: PreparedPool,
    rendered: RenderedPool,
    n_passed: int,
    given: RunInput,
    n_vectors: int,
    representer: Representer,
    index: Mapping[str, object],
) -> dict[str, object]:
    """What the run went through; rows = read drops + occurrences, examples = drops + eligible."""
    return {
        "rows": pool.n_rows,
        "dropped_while_reading": {str(reason): n for reason, n in pool.drops.items() if n},
        "occurrences": pool.n_occurrences,
        "examples": pool.n_examples,
        "dropped_before_ranking": {str(reason): n for reason, n in given.eligibility.drops.items()},
        "passed_where": n_passed,
        "ranked": given.eligibility.n,
        "vectors": n_vectors,
        "fixed_point": representer.fixed_point_totals(),
        **representer.sae_facts(),
        **index,
        **rendered.totals,
    }


def _summary(decided: Selection, rows: list[Mapping[str, object]]) -> dict[str, object]:
    row = next(row for row in rows if row["selection_id"] == decided.selection_id)
    names = ("selection_id", "name", "target", "method", "role", "n_eligible", "n_selected")
    return {
        **{name: row[name] for name in names},
        "n_tokens": row["n_tokens"],
        "cut_score": row["cut_score"],
        "shortfall": decided.cut.shortfall,
    }
