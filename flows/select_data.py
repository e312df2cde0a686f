"""The whole job: pool and exemplars in; selections, audit trail, training files and report out.

The flow reads as the way of the data. Its tasks pass ids and small records; vectors, tokens and
scores stay in files, so a killed run resumes from what is complete.
"""

from dataclasses import replace
from datetime import UTC, datetime

from prefect import flow, runtime

from flows.config.jobs import SelectConfig
from flows.embed_pool import embed_task
from flows.index_pool import index_task
from flows.orchestration.artifacts import reported
from flows.orchestration.run_page import explain_run
from flows.orchestration.stage_task import stage_task
from flows.orchestration.trackers import track
from flows.prepare_pool import prepare_task, render_task
from flows.stages.publish import export_and_report
from flows.stages.record.material import RunFacts
from flows.stages.select_samples import refuse_large_token_budget, select_and_record
from flows.stages.session import open_session
from flows.stages.validate import check_before_model, check_config
from flows.train_sae import sae_folder
from selection.core.hashing import content_id
from storage.files.workspace import open_workspace
from storage.queries.lookup import free_run_name
from storage.report.records import ReportFacts


@stage_task("check-inputs")
def check_task(config: SelectConfig, workspace: str) -> None:
    """Refuse what can be refused from the config and the exemplars alone."""
    check_config(config, open_workspace(workspace))


@stage_task("check-budget")
def budget_task(config: SelectConfig, workspace: str, pool_id: str) -> dict[str, int]:
    """Hold `where` and the budget against the prepared pool, before any model is loaded."""
    return check_before_model(config, open_workspace(workspace), pool_id)


@stage_task("check-token-budget")
def token_budget_task(config: SelectConfig, workspace: str, pool_id: str) -> None:
    """Hold a budget of tokens against the rendered pool, before any model is loaded."""
    refuse_large_token_budget(config, open_workspace(workspace), pool_id)


@stage_task("select")
def select_task(
    config: SelectConfig, workspace: str, pool_id: str, sae: str, facts: RunFacts
) -> list[dict[str, object]]:
    """Rank, cut, explain, and commit everything in one transaction."""
    return select_and_record(config, open_workspace(workspace), pool_id, sae, facts)


@stage_task("export-and-report")
def publish_task(config: SelectConfig, workspace: str, selections: list[str]) -> list[ReportFacts]:
    """Training files and one HTML report per main selection; returns what the reports say."""
    return export_and_report(config, open_workspace(workspace), selections)


def run_selection(
    config: SelectConfig, workspace: str, trigger: str, run_name: str
) -> list[dict[str, object]]:
    """The way of the data as tasks; returns one small record per selection."""
    started = datetime.now(UTC)
    run_id = content_id([config.model_dump(mode="json"), started.isoformat()])
    # A deployment may run the same config many times; a name means one run.
    root = open_workspace(workspace)
    name = free_run_name(root, config.name or run_name)
    facts = RunFacts(run_id, name, started, trigger, runtime.flow_run.id)
    with open_session(config, root), reported() as progress:
        check_task(config, workspace)
        pool_id = prepare_task(config, workspace)
        budget_task(config, workspace, pool_id)
        render_task(config, workspace, pool_id)
        token_budget_task(config, workspace, pool_id)
        sae = sae_folder(config, workspace, pool_id)
        embed_task(config, workspace, pool_id, sae)
        if config.index:
            index_task(config, workspace, pool_id, sae)
        facts = replace(facts, stages=tuple(progress.stages))
        results = select_task(config, workspace, pool_id, sae, facts)
        main = [str(row["name"]) for row in results if row["role"] == "main"]
        reports = publish_task(config, workspace, main)
        explain_run(root, facts.name, results, progress.stages, reports)
        if config.track is not None:
            track(config.track, root, facts.name)
    return results


@flow(name="select-data", flow_run_name="{run_name}")
def select_data(
    config: SelectConfig,
    workspace: str = "workspace",
    trigger: str = "deployment",
    run_name: str = "select",
) -> list[dict[str, object]]:
    """Select from the pool for every target; returns one small record per selection."""
    return run_selection(config, workspace, trigger, run_name)
