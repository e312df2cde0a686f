"""The flows behind the deployments: a filled form in, the same tasks as the command line.

The workspace is that of the worker (`SAELECT_WORKSPACE`).
"""

import logging
import os
import re
from collections.abc import Callable, Mapping
from functools import wraps
from inspect import signature
from pathlib import Path
from typing import Any

import transformers  # noqa: F401 - slow to import; with the others, before a run is Running
from prefect import flow, get_client, runtime
from pydantic.fields import FieldInfo

from flows.config.data import BenchRequest
from flows.config.jobs import SelectConfig, VectorJob
from flows.embed_pool import run_embedding
from flows.index_pool import run_indexing
from flows.orchestration.artifacts import best_effort, markdown, publish
from flows.orchestration.prefect_settings import LIVE
from flows.orchestration.run_page import export_page, plan_page, stage_page
from flows.orchestration.signals import time_limit
from flows.prepare_pool import run_prepare
from flows.select_data import run_selection
from flows.server import forms
from flows.server.liveness import hold
from flows.server.settings import PAGE
from flows.stages.estimate import estimate_run
from flows.stages.estimate_lines import estimate_lines
from flows.stages.prepare.inputs import is_demo_model_on_foreign_pool
from flows.train_sae import run_training
from storage.export.export import export_selection
from storage.files.workspace import Workspace, chosen_root, find_workspace, open_workspace
from storage.queries.lookup import find_selections

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


def mark_run(*tags: str) -> str:
    """Add tags to the flow run; returns what started it: ui, api, schedule; cli without one."""
    if not runtime.flow_run.id or not runtime.deployment.id:
        return "cli"
    with best_effort(), get_client(sync_client=True) as client:
        run = client.read_flow_run(runtime.flow_run.id)
        client.update_flow_run(run.id, tags=sorted({*run.tags, *tags}))
        if run.auto_scheduled:
            return "schedule"
        if run.created_by is not None and run.created_by.type == PAGE:
            return "ui"
        query = {"flow_run_id": str(run.id)}
        states = client.request("GET", "/flow_run_states/", params=query).json()
        return "ui" if any("UI" in (each.get("message") or "") for each in states) else "api"
    return "api"


def form_flow(name: str, form: Callable[..., Any], run: Callable[[Any], Any]) -> Any:
    """A flow that asks for what `form` takes and runs its result, alive and within its hours."""

    @wraps(form, assigned=())  # Prefect makes the form of the parameters that it sees.
    def fill_and_run(*given: Any, **named: Any) -> Any:
        bound = signature(form).bind(*given, **named)
        bound.apply_defaults()
        fields = {
            key: value.default if isinstance(value, FieldInfo) else value
            for key, value in bound.arguments.items()
        }
        request = form(**fields)
        hours = (fields.get("advanced") or fields).get("max_hours") or 0
        if runtime.flow_run.id and os.environ.get(LIVE):
            hold(Path(os.environ[LIVE]), runtime.flow_run.id)
        with time_limit(float(hours) * 3600 or None):
            return run(request)

    return flow(name=name, description=run.__doc__, flow_run_name=run_title)(fill_and_run)


def _workspace() -> tuple[Workspace, str]:
    """The worker's workspace, and its folder as it is written."""
    return open_workspace(None), str(chosen_root(None))


def _select(config: SelectConfig) -> list[dict[str, object]]:
    """Select samples: pool and exemplars in; selections, training files and a report out."""
    tags = [f"preset: {config.preset}", f"method: {config.ranking.method}"]
    if is_demo_model_on_foreign_pool(config):
        log.warning(DEMO_WARNING)
        tags.append("demonstration model")
        publish(markdown("demonstration-model", f"## Warning\n\n{DEMO_WARNING}", "Warning"))
    trigger = mark_run(*tags)
    typed = runtime.flow_run.name or ""
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", typed):
        config = config.model_copy(update={"name": typed})
    name = config.name or Path(config.exemplars.path.split(":")[-1]).stem
    return run_selection(config, str(chosen_root(None)), trigger, name)


def _plan(config: SelectConfig) -> list[str]:
    """Estimate what a selection would read, drop, compute and write, without selecting."""
    lines = estimate_lines(estimate_run(config, open_workspace(None)))
    publish(markdown("plan", plan_page(lines), "What a run would do"))
    return lines


def _prepare(job: VectorJob) -> str:
    """Read, normalize, deduplicate and tokenize a pool; returns the pool id."""
    workspace, root = _workspace()
    pool_id = run_prepare(job, root)
    stage_page("prepare-pool", workspace, pool_id, {})
    return pool_id


def _train(job: VectorJob) -> str:
    """Train an SAE on a pool; it is then frozen under its own id. Returns its folder."""
    workspace, root = _workspace()
    folder = run_training(job, root)
    stage_page("train-sae", workspace, None, {"SAE": folder})
    return folder


def _embed(job: VectorJob) -> dict[str, int]:
    """Compute the vectors of a pool that are not stored yet."""
    workspace, root = _workspace()
    counts = run_embedding(job, root)
    stage_page("embed-pool", workspace, None, counts)
    return counts


def _index(job: VectorJob) -> str:
    """Build the FAISS index of a pool, for `saelect neighbors`; returns its folder."""
    workspace, root = _workspace()
    folder = run_indexing(job, root)
    stage_page("index-pool", workspace, None, {"index": folder})
    return folder


def _bench(request: BenchRequest) -> str:
    """Compare ranking methods on a labelled pool; returns the path of the report."""
    from flows.bench_retrieval import run_bench  # Baselines and their libraries, for this alone.

    workspace, root = _workspace()
    report = run_bench(request, root)[1]
    stage_page("bench-retrieval", workspace, None, {"report": report})
    return report


def _export(request: forms.ExportRequest) -> list[str]:
    """Write the training files of recorded selections again; returns their folders."""
    workspace = find_workspace(None)
    folders = [
        export_selection(workspace, row.selection_id, formats=request.formats).folder
        for row in find_selections(workspace, request.selection)
    ]
    publish(markdown("export", export_page(workspace, folders), "Training files"))
    return [str(folder) for folder in folders]


select_data = form_flow("select-data", forms.select_config, _select)
select_from_config = form_flow("select-data-from-config", forms.file_config, _select)
plan = form_flow("plan", forms.select_config, _plan)
prepare_pool = form_flow("prepare-pool", forms.pool_job, _prepare)
train_sae = form_flow("train-sae", forms.training_job, _train)
embed_pool = form_flow("embed-pool", forms.vector_job, _embed)
index_pool = form_flow("index-pool", forms.vector_job, _index)
bench_retrieval = form_flow("bench-retrieval", forms.bench_request, _bench)
export_selection_flow = form_flow("export-selection", forms.export_request, _export)
