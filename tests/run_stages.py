"""The stages of a run as plain calls, for tests that need no Prefect."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flows.config.jobs import SelectConfig
from flows.config.load import merge, resolve
from flows.stages.prepare.inputs import prepare
from flows.stages.prepare.render import render
from flows.stages.publish import export_and_report
from flows.stages.rank.index import index_pool_vectors
from flows.stages.record.material import RunFacts
from flows.stages.represent.exemplars import embed_targets
from flows.stages.represent.representer import representer_in
from flows.stages.represent.sae import ensure_sae
from flows.stages.represent.spaces import count_exemplars, count_terms, representers_of
from flows.stages.represent.units import embed_rendered
from flows.stages.select_samples import refuse_large_token_budget, select_and_record
from flows.stages.session import session_of
from flows.stages.validate import check_before_model, check_config
from selection.core.hashing import content_id
from storage.files.workspace import Workspace, open_workspace

PLAIN: dict[str, Any] = {
    "representation": {"token_aggregate": "mean", "spaces": ["sae"]},
    "ranking": {"normalize": "none"},
}
"""One space, one definition: what tests compare with slow oracles unless they say otherwise."""


def tiny_config(
    pool: Path,
    exemplars: Path | dict[str, Any],
    model: Path,
    sae: Path | dict[str, Any],
    /,
    **more: Any,
) -> SelectConfig:
    """A run of the tiny model over small units and batches."""
    base = {
        "name": "tiny",
        "pool": {
            "path": str(pool),
            "columns": {"id": "id", "source": "source", "licence": "licence"},
        },
        "exemplars": exemplars if isinstance(exemplars, dict) else str(exemplars),
        "budget": {"examples": 7},
        "model": {"name": str(model), "hookpoint": "resid@2"},
        "sae": sae if isinstance(sae, dict) else str(sae),
        "rendering": {"max_length": 128},
        "compute": {"unit_examples": 16, "tokens_per_batch": 512, "threads": 1},
    }
    return resolve({**base, **merge(PLAIN, more)})


def compute_job(config: SelectConfig, workspace: Workspace) -> tuple[str, str]:
    """Everything that is kept for the next run, up to the index; returns pool id and SAE."""
    check_config(config, workspace)
    pool = prepare(config, workspace)
    check_before_model(config, workspace, pool.pool_id)
    session = session_of(config, workspace)
    rendered = render(workspace, pool, session.model_input)
    refuse_large_token_budget(config, workspace, pool.pool_id)
    sae = ensure_sae(session, pool.pool_id)
    representer = representer_in(session, sae)
    embed_rendered(representers_of(config, representer), rendered)
    count_terms(config, representer, rendered)
    embed_targets(representer, config, session.targets)
    count_exemplars(config, representer)
    if config.index:
        index_pool_vectors(workspace, representer, pool.pool_id)
    return pool.pool_id, sae


def run_job(config: SelectConfig, root: Path) -> tuple[Workspace, list[dict[str, object]]]:
    """What the flow does, without Prefect."""
    workspace = open_workspace(root)
    pool_id, sae = compute_job(config, workspace)
    now = datetime.now(UTC)
    run_id = content_id([config.model_dump(mode="json"), now.isoformat()])
    facts = RunFacts(run_id, f"{config.name}-{run_id[:6]}", now, "test")
    results = select_and_record(config, workspace, pool_id, sae, facts)
    names = [str(row["name"]) for row in results if row["role"] == "main"]
    export_and_report(config, workspace, names)
    return workspace, results
