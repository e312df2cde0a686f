"""What can be refused early is refused early: before tokens, before weights, before hours."""

from flows.config.jobs import SelectConfig
from flows.orchestration.progress import stage
from flows.orchestration.trackers import check_tracker
from flows.stages.prepare.inputs import ineligible_lines, refuse_without_response, source_of
from flows.stages.prepare.rules import included_rows, quota_columns
from flows.stages.session import session_of
from selection.data.look import look_at
from selection.data.where import compile_where
from storage.catalog.snapshot import published_head
from storage.files.atomic import ensure_free
from storage.files.workspace import Workspace

FREE_BYTES = 200_000_000  # Catalog, snapshot, scores and reports of a run; vectors come on top.


def check_config(config: SelectConfig, workspace: Workspace) -> None:
    """Exemplars, the first rows of every pool, `where`, model, hookpoint, SAE and disk."""
    with stage("check", unit="inputs") as handle:
        if config.track is not None:
            check_tracker(config.track)
        published_head(workspace)  # a catalog that cannot be written to is refused before the work
        session = session_of(config, workspace)
        targets = session.targets
        refuse_without_response(config, targets)
        for pool in config.pool:
            look_at(source_of(pool), 50)
        if config.where is not None:
            compile_where(config.where)
        if config.sae.train is None:
            session.given_sae  # noqa: B018 - checked when it is opened
        else:
            session.model_input  # noqa: B018 - checked when it is opened
        ensure_free(workspace.root, FREE_BYTES, "a selection run")
        names = ", ".join(f"{name} ({len(table)})" for name, table in targets.items())
        handle.detail = f"exemplars: {names}"
        handle.notes += [f"exemplars: {line}" for line in session.exemplar_report.lines()]


def check_before_model(config: SelectConfig, workspace: Workspace, pool_id: str) -> dict[str, int]:
    """Counts of what is eligible. Raises InputError where `where` or the budget leave nothing."""
    session = session_of(config, workspace)
    pool = session.pool(pool_id)
    with stage("eligible", unit="examples") as handle:
        eligibility = session.eligibility(pool_id)
        handle.detail = f"{eligibility.n:,} of {pool.n_examples:,} examples may be picked"
        handle.notes += [f"dropped {line}" for line in ineligible_lines(pool, eligibility)]
    included_rows(config, pool)
    quota_columns(config, pool, eligibility.eligible)
    counts = {"eligible": int(eligibility.eligible.sum())}
    return counts | {str(reason): n for reason, n in eligibility.drops.items()}
