"""Compare ranking methods on a labelled pool: retrieval quality per target, with intervals."""

from prefect import flow

from flows.benchmark.record import benchmark_rows
from flows.benchmark.run import Outcome, run_benchmark
from flows.config.data import BenchRequest
from flows.orchestration.artifacts import publish, reported, table
from flows.orchestration.stage_task import stage_task
from storage.catalog.commit import commit
from storage.files.workspace import open_workspace
from storage.report.benchmark import write_benchmark_report


@stage_task("measure-methods")
def measure_task(request: BenchRequest, workspace: str) -> Outcome:
    """Every method on every target; results that are files already are read."""
    return run_benchmark(request, open_workspace(workspace))


@stage_task("record-benchmark")
def record_task(outcome: Outcome, workspace: str) -> str:
    """Commit the results and write the report; returns its path."""
    root = open_workspace(workspace)
    commit(root, benchmark_rows(outcome))
    return str(write_benchmark_report(root, outcome.benchmark_id))


def run_bench(request: BenchRequest, workspace: str) -> tuple[Outcome, str]:
    """The tasks of the flow and the tables it leaves; returns outcome and path of the report."""
    with reported():
        outcome = measure_task(request, workspace)
        report = record_task(outcome, workspace)
        for setting, summaries in outcome.summaries.items():
            rows = [
                {"method": s.method, "stands by": s.variant, "nDCG@1000": s.ndcg["all"].mean}
                for s in summaries
            ]
            publish(table(f"benchmark-{setting}", rows, f"Mean over targets, setting {setting}"))
    return outcome, report


@flow(name="bench-retrieval", persist_result=False)
def bench_retrieval(request: BenchRequest, workspace: str = "workspace") -> tuple[Outcome, str]:
    """Measure, record and report; returns the outcome and the path of the report."""
    return run_bench(request, workspace)
