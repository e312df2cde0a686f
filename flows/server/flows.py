"""The flows behind the deployments: a filled page in, the same tasks as the command line.

The workspace is the one of the worker (`SAELECT_WORKSPACE`, set by `saelect serve`).
"""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Annotated, Literal

from prefect import flow, get_client, runtime
from pydantic import Field

from flows import embed_pool as embedding
from flows import prepare_pool as preparing
from flows import train_sae as training
from flows.config.jobs import SelectConfig
from flows.orchestration.artifacts import best_effort, publish_markdown
from flows.orchestration.run_page import export_page, plan_page
from flows.orchestration.signals import time_limit
from flows.select_data import run_selection
from flows.server.forms import (
    BenchAdvanced,
    BudgetForm,
    ExemplarsField,
    HoursField,
    LabelledPoolField,
    PoolField,
    PresetField,
    SelectAdvanced,
    TargetsField,
    VectorAdvanced,
    bench_request,
    file_config,
    select_config,
    vector_job,
)
from flows.stages.estimate import estimate_run
from flows.stages.estimate_lines import estimate_lines
from storage.export.export import export_selection
from storage.files.workspace import chosen_root, find_workspace, open_workspace

TRIGGER = "deployment"


def run_title() -> str:
    """A readable name for the run: what from, what for, how much."""
    given = runtime.flow_run.parameters or {}
    pool, exemplars = given.get("pool"), given.get("exemplars")
    budget = given.get("budget")
    if isinstance(budget, BudgetForm):
        budget = budget.model_dump()
    words = [
        Path(str(given[key]).split(":")[-1]).stem
        for key in ("pool", "config_path")
        if given.get(key)
    ]
    if pool and exemplars:
        words.append("for " + Path(str(exemplars).split(":")[-1]).stem)
    if isinstance(budget, dict) and "amount" in budget:
        words.append(f"- {float(budget['amount']):,g} {budget.get('unit', 'examples')}")
    if given.get("selection"):
        words.append(str(given["selection"]))
    return " ".join(words) or str(runtime.flow_run.flow_name)


def _tag(*tags: str) -> None:
    """Tags that say at a glance what a run is."""
    run_id = runtime.flow_run.id
    if run_id:
        with best_effort(), get_client(sync_client=True) as client:
            known = client.read_flow_run(run_id).tags
            client.update_flow_run(run_id, tags=sorted({*known, *tags}))


def _limit(hours: float | None) -> AbstractContextManager[None]:
    return time_limit(None if hours is None else hours * 3600)


def _select(config: SelectConfig, hours: float | None, name: str) -> list[dict[str, object]]:
    _tag(f"preset: {config.preset}", f"method: {config.ranking.method}")
    with _limit(hours):
        return run_selection(config, str(chosen_root(None)), TRIGGER, name)


@flow(name="select-data", flow_run_name=run_title)
def select_data(
    pool: PoolField,
    exemplars: ExemplarsField,
    budget: BudgetForm,
    preset: PresetField = "best",
    advanced: SelectAdvanced = SelectAdvanced(),  # noqa: B008 - frozen
) -> list[dict[str, object]]:
    """Pool and exemplars in; selections, audit trail, training files and a report out."""
    config = select_config(pool, exemplars, budget, preset, advanced)
    return _select(config, advanced.max_hours, Path(exemplars.split(":")[-1]).stem)


@flow(name="select-data-from-config", flow_run_name=run_title)
def select_from_config(
    config_path: Annotated[
        str, Field(title="Config", description="A config file on the worker, or a preset: `demo`.")
    ],
    overrides: Annotated[
        dict[str, str],
        Field(title="Overrides", description='Dotted keys: {"budget.examples": "500"}.'),
    ] = {},  # noqa: B006 - pydantic copies it
    max_hours: HoursField = None,
) -> list[dict[str, object]]:
    """The same job from a config file on the worker, with single keys replaced."""
    config = file_config(config_path, overrides)
    return _select(config, max_hours, config.name or "select")


@flow(name="plan", flow_run_name=run_title)
def plan(
    pool: PoolField,
    exemplars: ExemplarsField,
    budget: BudgetForm,
    preset: PresetField = "best",
    advanced: SelectAdvanced = SelectAdvanced(),  # noqa: B008
) -> list[str]:
    """What a selection would read, drop, compute, write and cost; nothing is selected."""
    config = select_config(pool, exemplars, budget, preset, advanced)
    with _limit(advanced.max_hours):
        lines = estimate_lines(estimate_run(config, open_workspace(None)))
    publish_markdown("plan", plan_page(lines), "What a run would do")
    return lines


@flow(name="prepare-pool", flow_run_name=run_title)
def prepare_pool(
    pool: PoolField,
    advanced: VectorAdvanced = VectorAdvanced(),  # noqa: B008
) -> str:
    """Read, normalize, deduplicate and tokenize a pool; returns the pool id."""
    with _limit(advanced.max_hours):
        return preparing.run_prepare(vector_job(pool, advanced), str(chosen_root(None)))


@flow(name="train-sae", flow_run_name=run_title)
def train_sae(
    pool: PoolField,
    advanced: VectorAdvanced = VectorAdvanced(),  # noqa: B008
) -> str:
    """Train the SAE that `Advanced: sae: train` describes; it is then frozen under its own id."""
    with _limit(advanced.max_hours):
        return training.run_training(vector_job(pool, advanced), str(chosen_root(None)))


@flow(name="embed-pool", flow_run_name=run_title)
def embed_pool(
    pool: PoolField,
    advanced: VectorAdvanced = VectorAdvanced(),  # noqa: B008
) -> dict[str, int]:
    """Compute the vectors of a pool that no shard holds yet."""
    with _limit(advanced.max_hours):
        return embedding.run_embedding(vector_job(pool, advanced), str(chosen_root(None)))


@flow(name="bench-retrieval", flow_run_name=run_title)
def bench_retrieval(
    pool: LabelledPoolField,
    targets: TargetsField,
    advanced: BenchAdvanced = BenchAdvanced(),  # noqa: B008
) -> str:
    """Compare ranking methods on a pool with labels; returns the path of the report."""
    from flows.bench_retrieval import run_bench  # Rivals and their libraries, for this page only.

    with _limit(advanced.max_hours):
        return run_bench(bench_request(pool, targets, advanced), str(chosen_root(None)))[1]


@flow(name="export-selection", flow_run_name=run_title)
def export_selection_flow(
    selection: Annotated[
        str, Field(title="Selection", description="Name, id, beginning of an id, or `latest`.")
    ] = "latest",
    formats: Annotated[
        list[Literal["messages", "original", "ids", "hf", "llama_factory", "axolotl"]],
        Field(title="Formats", min_length=1, description="What is written beside the manifest."),
    ] = ["messages"],  # noqa: B006
    max_hours: HoursField = None,
) -> str:
    """Write the training files of a recorded selection again, in other formats."""
    workspace = find_workspace(None)
    with _limit(max_hours):
        folder = export_selection(workspace, selection, formats=formats).folder
    publish_markdown("export", export_page(workspace, folder), "Training files")
    return str(folder)
