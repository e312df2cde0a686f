"""Train a model on what each method picks, and measure it on held-out rows of each target."""

from prefect import flow

from flows.config.data import FinetuneRequest
from flows.finetune.record import finetune_rows
from flows.finetune.run import FinetuneOutcome, run_finetune
from flows.orchestration.artifacts import publish, reported, table
from flows.orchestration.stage_task import stage_task
from storage.catalog.commit import commit
from storage.files.workspace import open_workspace
from storage.report.finetune import write_finetune_report


@stage_task("train-arms")
def train_task(request: FinetuneRequest, workspace: str) -> FinetuneOutcome:
    """Every arm on every target; results that are files already are read."""
    return run_finetune(request, open_workspace(workspace))


@stage_task("record-finetune")
def record_task(outcome: FinetuneOutcome, workspace: str) -> str:
    """Commit the runs and write the report; returns its path."""
    root = open_workspace(workspace)
    commit(root, finetune_rows(outcome))
    return str(write_finetune_report(root, outcome.benchmark_id))


@flow(name="bench-finetune", persist_result=False)
def bench_finetune(
    request: FinetuneRequest, workspace: str = "workspace"
) -> tuple[FinetuneOutcome, str]:
    """Train, measure, record and report; returns the outcome and the path of the report."""
    with reported():
        outcome = train_task(request, workspace)
        report = record_task(outcome, workspace)
        for summary in outcome.summaries:
            rows = [{"arm": each.arm, "gain": each.gain.mean} for each in summary.arms]
            title = f"{summary.budget:,} tokens, {summary.group} targets"
            publish(table(f"finetune-{summary.budget}-{summary.group.lower()}", rows, title))
    return outcome, report
