"""The flows behind the deployments: a filled form in, the same tasks as the command line.

The workspace is that of the worker (`SAELECT_WORKSPACE`).
"""

import logging
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

from prefect import flow, get_client, runtime
from pydantic import Field

from flows import embed_pool as embedding
from flows import index_pool as indexing
from flows import prepare_pool as preparing
from flows import train_sae as training_flow
from flows.config.base import DEMO
from flows.config.jobs import ExportFormat, SelectConfig
from flows.orchestration.artifacts import best_effort, publish_markdown
from flows.orchestration.prefect_settings import LIVE
from flows.orchestration.run_page import export_page, plan_page, stage_page
from flows.orchestration.signals import time_limit
from flows.select_data import run_selection
from flows.server import forms
from flows.server.forms import Hours, Text, shown
from flows.server.liveness import hold
from flows.stages.estimate import estimate_run
from flows.stages.estimate_lines import estimate_lines
from flows.stages.prepare.inputs import is_demo_model_on_foreign_pool
from storage.catalog.lookup import find_selections
from storage.export.export import export_selection
from storage.files.workspace import chosen_root, find_workspace, open_workspace

log = logging.getLogger(__name__)

DEMO_WARNING = (
    "This run represents samples with the small DEMONSTRATION model. It shows how selection works;"
    " for a selection to train on, name a real model and its SAE."
)
_GENERATED = re.compile(
    r"[a-z]+\d*-[a-z]+(-([a-z]|adjunct|anomaly|band|boundary|cloud|cluster|collapse|conflux"
    r"|expanse|field|fringe|instability|manifold|mass|nebula|point|quadrant|reach|ring|sector|shift"
    r"|tensor|terminus|vector|void|warp))?"
)
"""Names that Prefect's server or its UI makes up for a run without one."""


def run_title() -> str:
    """The typed name of the run; instead of a generated one: pool, exemplars and budget."""
    name = runtime.flow_run.name or ""
    if name and not _GENERATED.fullmatch(name):
        return name
    given = runtime.flow_run.parameters or {}
    words = [runtime.flow_run.flow_name or "run"]
    for key in ("config_path", "selection", "pool", "exemplars"):
        if given.get(key):
            words.append(Path(str(given[key]).split(":")[-1]).stem)
    budget = given.get("budget")
    if budget is not None:
        budget = budget if isinstance(budget, Mapping) else budget.model_dump()
        words.append(f"{budget['amount']:,g} {budget.get('unit', 'examples')}")
    return " ".join(words)


def trigger() -> str:
    """What started the run: ui, api, schedule; cli without a deployment."""
    if not runtime.flow_run.id or not runtime.deployment.id:
        return "cli"
    with best_effort(), get_client(sync_client=True) as client:
        run = client.read_flow_run(runtime.flow_run.id)
        if run.auto_scheduled:
            return "schedule"
        states = client.request(
            "GET", "/flow_run_states/", params={"flow_run_id": str(run.id)}
        ).json()
        messages = [state.get("message") or "" for state in states]
        return "ui" if any("UI" in message for message in messages) else "api"
    return "api"


@contextmanager
def _running(hours: float | None, *tags: str) -> Iterator[str]:
    """Mark the run as alive, tag it, limit its time; yields the workspace's folder."""
    run_id = runtime.flow_run.id
    if run_id and os.environ.get(LIVE):
        hold(Path(os.environ[LIVE]), run_id)
    if run_id and tags:
        with best_effort(), get_client(sync_client=True) as client:
            known = client.read_flow_run(run_id).tags
            client.update_flow_run(run_id, tags=sorted({*known, *tags}))
    with time_limit((hours or 0) * 3600 or None):
        yield str(chosen_root(None))


def _select(config: SelectConfig, hours: float | None, name: str) -> list[dict[str, object]]:
    tags = [f"preset: {config.preset}", f"method: {config.ranking.method}"]
    is_demo = is_demo_model_on_foreign_pool(config)
    if is_demo:
        log.warning(DEMO_WARNING)
        tags.append("demonstration model")
        publish_markdown("demonstration-model", f"## Warning\n\n{DEMO_WARNING}", "Warning")
    typed = runtime.flow_run.name or ""
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", typed):
        name = typed
    with _running(hours, *tags) as workspace:
        return run_selection(config, workspace, trigger(), name)


@flow(name="select-data", flow_run_name=run_title)
def select_data(
    pool: Text = forms.POOL,
    exemplars: Text = forms.EXEMPLARS,
    budget: forms.BudgetForm = forms.BUDGET,
    model: Text = forms.MODEL,
    sae: Text = forms.SAE,
    preset: Literal["best", "paper", "demo"] = forms.PRESET,
    advanced: forms.SelectAdvanced | None = forms.ADVANCED,
) -> list[dict[str, object]]:
    """Select samples: pool and exemplars in; selections, training files and a report out."""
    config = forms.select_config(pool, exemplars, budget, model, sae, preset, advanced)
    return _select(config, advanced and advanced.max_hours, Path(exemplars.split(":")[-1]).stem)


@flow(name="select-data-from-config", flow_run_name=run_title)
def select_from_config(
    config_path: Text = shown("Config", "A YAML file on the worker, or a preset: `demo`."),
    overrides: dict[str, str] = shown(
        "Overrides", 'Dotted keys: {"budget.examples": "500", "check": "null"}.', {}
    ),
    max_hours: Hours = forms.HOURS,
) -> list[dict[str, object]]:
    """Select samples as a config file on the worker says, with single keys replaced."""
    config = forms.file_config(config_path, overrides)
    return _select(config, max_hours, config.name or "select")


@flow(name="plan", flow_run_name=run_title)
def plan(
    pool: Text = forms.POOL,
    exemplars: Text = forms.EXEMPLARS,
    budget: forms.BudgetForm = forms.BUDGET,
    model: Text = forms.MODEL,
    sae: Text = forms.SAE,
    preset: Literal["best", "paper", "demo"] = forms.PRESET,
    advanced: forms.SelectAdvanced | None = forms.ADVANCED,
) -> list[str]:
    """Estimate what a selection would read, drop, compute and write, without selecting."""
    config = forms.select_config(pool, exemplars, budget, model, sae, preset, advanced)
    with _running(advanced and advanced.max_hours):
        lines = estimate_lines(estimate_run(config, open_workspace(None)))
    publish_markdown("plan", plan_page(lines), "What a run would do")
    return lines


@flow(name="prepare-pool", flow_run_name=run_title)
def prepare_pool(
    pool: Text = forms.POOL,
    model: Text = forms.MODEL,
    advanced: forms.VectorAdvanced | None = forms.ADVANCED,
) -> str:
    """Read, normalize, deduplicate and tokenize a pool; returns the pool id."""
    job = forms.vector_job(pool, model, DEMO, advanced)
    with _running(advanced and advanced.max_hours) as workspace:
        pool_id = preparing.run_prepare(job, workspace)
        stage_page("prepare-pool", open_workspace(None), pool_id, {})
    return pool_id


@flow(name="train-sae", flow_run_name=run_title)
def train_sae(
    pool: Text = forms.POOL,
    model: Text = forms.MODEL,
    training: forms.TrainingForm = forms.TRAINING,
    advanced: forms.VectorAdvanced | None = forms.ADVANCED,
) -> str:
    """Train an SAE on a pool; it is then frozen under its own id. Returns its folder."""
    job = forms.vector_job(pool, model, DEMO, advanced, training)
    with _running(advanced and advanced.max_hours) as workspace:
        folder = training_flow.run_training(job, workspace)
        stage_page("train-sae", open_workspace(None), None, {"SAE": folder})
    return folder


@flow(name="embed-pool", flow_run_name=run_title)
def embed_pool(
    pool: Text = forms.POOL,
    model: Text = forms.MODEL,
    sae: Text = forms.SAE,
    advanced: forms.VectorAdvanced | None = forms.ADVANCED,
) -> dict[str, int]:
    """Compute the vectors of a pool that are not stored yet."""
    job = forms.vector_job(pool, model, sae, advanced)
    with _running(advanced and advanced.max_hours) as workspace:
        counts = embedding.run_embedding(job, workspace)
        stage_page("embed-pool", open_workspace(None), None, counts)
    return counts


@flow(name="index-pool", flow_run_name=run_title)
def index_pool(
    pool: Text = forms.POOL,
    model: Text = forms.MODEL,
    sae: Text = forms.SAE,
    advanced: forms.VectorAdvanced | None = forms.ADVANCED,
) -> str:
    """Build the FAISS index of a pool, for `saelect neighbors`; returns its folder."""
    job = forms.vector_job(pool, model, sae, advanced)
    with _running(advanced and advanced.max_hours) as workspace:
        folder = indexing.run_indexing(job, workspace)
        stage_page("index-pool", open_workspace(None), None, {"index": folder})
    return folder


@flow(name="bench-retrieval", flow_run_name=run_title)
def bench_retrieval(
    pool: Text = shown("Labelled pool", "One Parquet file on the worker, with labels."),
    targets: Text = shown("Targets", "Target tasks with exemplars and labels, one JSON a line."),
    advanced: forms.BenchAdvanced | None = forms.ADVANCED,
) -> str:
    """Compare ranking methods on a labelled pool; returns the path of the report."""
    from flows.bench_retrieval import run_bench  # Baselines and their libraries, for this alone.

    request = forms.bench_request(pool, targets, advanced)
    with _running(advanced and advanced.max_hours) as workspace:
        report = run_bench(request, workspace)[1]
        stage_page("bench-retrieval", open_workspace(None), None, {"report": report})
    return report


@flow(name="export-selection", flow_run_name=run_title)
def export_selection_flow(
    selection: Text = shown("Selection", "Name, id, prefix of an id, or `latest`.", "latest"),
    formats: Annotated[
        list[ExportFormat],
        Field(min_length=1),
    ] = shown("Formats", "Formats of the training files.", ["messages"]),
) -> list[str]:
    """Write the training files of recorded selections again; returns their folders."""
    workspace = find_workspace(None)
    with _running(None):
        folders = [
            export_selection(workspace, row.selection_id, formats=formats).folder
            for row in find_selections(workspace, selection)
        ]
    publish_markdown("export", export_page(workspace, folders), "Training files")
    return [str(folder) for folder in folders]
