"""The flows behind the deployments: a filled form in, the same tasks as the command line.

The workspace is that of the worker (`SAELECT_WORKSPACE`).
"""

import logging
import os
import re
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import Any

import transformers  # noqa: F401 - slow to import; with the others, before a run is Running
from prefect import flow, get_client, runtime
from prefect.states import Failed
from prefect.utilities.callables import get_call_parameters
from pydantic.fields import FieldInfo

from flows.config.data import BenchRequest
from flows.config.jobs import ExportFormat, SelectConfig
from flows.embed_pool import run_embedding
from flows.index_pool import run_indexing
from flows.orchestration.artifacts import best_effort, markdown, publish
from flows.orchestration.prefect_settings import LIVE
from flows.orchestration.run_page import Made, export_page, plan_page, stage_page
from flows.orchestration.signals import time_limit
from flows.prepare_pool import run_prepare
from flows.select_data import run_selection
from flows.server.forms import FORMS
from flows.server.liveness import hold
from flows.server.settings import PAGE
from flows.stages.estimate import estimate_run
from flows.stages.estimate_lines import estimate_lines
from flows.stages.prepare.inputs import is_demo_model_on_foreign_pool
from flows.train_sae import run_training
from selection.core.errors import InputError
from storage.export.export import export_selection as export_selection_files
from storage.files.workspace import chosen_root, find_workspace, open_workspace
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
    """Add tags to the flow run; returns what started it: cli, ui, api or schedule."""
    if not runtime.flow_run.id or not runtime.deployment.id:
        return "cli"
    with best_effort(), get_client(sync_client=True) as client:
        run = client.read_flow_run(runtime.flow_run.id)
        client.update_flow_run(run.id, tags=sorted({*run.tags, *tags}))
        if run.auto_scheduled:
            return "schedule"
        if run.created_by and run.created_by.type == PAGE:
            return "ui"
    return "api"


def form_flow(name: str, run: Callable[[Any], Any]) -> Any:
    """The flow of a deployment: it runs what its form gives, alive and within its hours.

    A mistake of the form or the data is a failed run with one sentence, and no traceback.
    """
    form = FORMS[name]

    @wraps(form, assigned=())  # Prefect makes the form of the parameters that it sees.
    def fill_and_run(*given: Any, **named: Any) -> Any:
        fields = get_call_parameters(form, given, named)
        for key, value in fields.items():
            fields[key] = value.default if isinstance(value, FieldInfo) else value
        hours = (fields.get("advanced") or fields).pop("max_hours", None) or 0
        if runtime.flow_run.id and os.environ.get(LIVE):
            hold(Path(os.environ[LIVE]), runtime.flow_run.id)
        try:
            with time_limit(float(hours) * 3600 or None):
                return run(form(**fields))
        except InputError as error:
            if not runtime.deployment.id:
                raise
            log.error("%s", error)
            return Failed(message=str(error))

    return flow(name=name, flow_run_name=run_title)(fill_and_run)


def _stage(name: str, run: Callable[[Any, str], Made]) -> Any:
    """The flow of a stage, which leaves a page of what it made."""

    def run_stage(job: Any) -> Made:
        workspace = open_workspace(None)
        made = run(job, str(chosen_root(None)))
        publish(stage_page(name, workspace, made))
        return made

    return form_flow(name, run_stage)


def _select(config: SelectConfig) -> list[dict[str, object]]:
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
    lines = estimate_lines(estimate_run(config, open_workspace(None)))
    publish(markdown("plan", plan_page(lines), "What a run would do"))
    return lines


def _bench(request: BenchRequest, workspace: str) -> Made:
    from flows.bench_retrieval import run_bench  # Baselines and their libraries, for this alone.

    return {"report": run_bench(request, workspace)[1]}


def _export(request: tuple[str, Sequence[ExportFormat]]) -> list[str]:
    workspace, (selection, formats) = find_workspace(None), request
    folders = [
        export_selection_files(workspace, row.selection_id, formats=formats).folder
        for row in find_selections(workspace, selection)
    ]
    publish(markdown("export", export_page(workspace, folders), "Training files"))
    return [str(folder) for folder in folders]


select_data = form_flow("select-data", _select)
select_data_from_config = form_flow("select-data-from-config", _select)
plan = form_flow("plan", _plan)
prepare_pool = _stage("prepare-pool", run_prepare)
train_sae = _stage("train-sae", run_training)
embed_pool = _stage("embed-pool", run_embedding)
index_pool = _stage("index-pool", run_indexing)
bench_retrieval = _stage("bench-retrieval", _bench)
export_selection = form_flow("export-selection", _export)
