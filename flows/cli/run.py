"""`saelect run` and `saelect demo`: start the flow, say what happens, end with what to do next."""

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path

from flows.config.jobs import SelectConfig
from flows.config.load import load_config
from flows.orchestration import prefect_settings
from flows.orchestration.progress import for_terminal, listening
from flows.orchestration.signals import RESUME_ME, Terminated, ending_on_sigterm
from flows.orchestration.terminal import say, table_text
from selection.core.redaction import without_secrets
from storage.catalog.lookup import free_run_name
from storage.files.workspace import Workspace, open_workspace

DEMO_WARNING = """\
  !! This run represents samples with saelect's small DEMONSTRATION model.
  !! It shows how selection works; for a selection you will train on, name a real model and SAE
  !! in the config (`model:` and `sae:`)."""


def run_config(
    config_name: str, workspace: Path, *, overrides: Mapping[str, object], dry_run: bool
) -> None:
    """Load the config, run the flow in this process, print the result and the next commands."""
    started = time.monotonic()
    config = load_config(config_name, overrides)
    place = open_workspace(workspace)
    config = config.model_copy(update={"name": free_run_name(place, config.name or "run")})
    say(f"saelect: run {config.name} in {place.root}")
    say(f"  pool      {', '.join(without_secrets(pool.path) for pool in config.pool)}")
    say(f"  exemplars {without_secrets(config.exemplars.path)}")
    from flows.stages.prepare.inputs import is_demo_model_on_foreign_pool  # after the first lines

    if is_demo_model_on_foreign_pool(config):
        say(DEMO_WARNING)
    if dry_run:
        from flows.stages.estimate import print_dry_run

        with listening(for_terminal()):
            print_dry_run(config, place)
        return
    with listening(for_terminal()):
        from flows.stages.validate import check_config

        check_config(config, place)  # A mistake is said before a server is started.
        results = _run_flow(config, place)
    _say_results(results, place, time.monotonic() - started)


def _run_flow(config: SelectConfig, place: Workspace) -> list[dict[str, object]]:
    """Run the Prefect flow here, on the server in PREFECT_API_URL or on an ephemeral one."""
    server = os.environ.get("PREFECT_API_URL")
    say(f"  Prefect   {server or 'ephemeral server, starting'}")
    prefect_settings.leave_the_terminal_alone()
    from flows.select_data import select_data

    return select_data(config, str(place.root), trigger="cli", run_name=config.name or "select")


def _say_results(results: list[dict[str, object]], place: Workspace, seconds: float) -> None:
    """The selections as a table, and the commands that lead on."""
    header = ("selection", "target", "method", "picks", "eligible", "tokens", "cut score")
    rows = [
        (
            str(row["name"]),
            str(row["target"]),
            str(row["method"]),
            f"{row['n_selected']:,}",
            f"{row['n_eligible']:,}",
            f"{row['n_tokens']:,}",
            "" if row["method"] == "random" else f"{row['cut_score']:.4f}",
        )
        for row in results
    ]
    say("\n" + table_text(header, rows, right={3, 4, 5, 6}).rstrip())
    _say_checks(results, place)
    mine = [str(row["name"]) for row in results if row["role"] == "main"]
    first = mine[0]
    option = "" if str(place.root) == "workspace" else f" -w {place.root}"
    say(f"\nDone in {seconds:.0f} s. For each selection, training files and a report:")
    for name in mine:
        say(f"  {place.exports / name}/  {place.reports / name}.html")
    say("Next:")
    say(f"  saelect show {first}{option}")
    say(f"  saelect sql{option} \"SELECT source, n_pool, n_selected FROM v_source_mix"
        f" WHERE selection_id = '{results[0]['selection_id']}'\"")  # fmt: skip
    for row in results:
        if row.get("shortfall"):
            say(f"  note: {row['name']}: {row['shortfall']}")


def _say_checks(results: list[dict[str, object]], place: Workspace) -> None:
    """The label-free check of every main selection."""
    from storage.wording.checks import check_lines

    for row in results:
        lines = check_lines(place, str(row["selection_id"])) if row["role"] == "main" else []
        if lines:
            say(f"\nLabel-free check of {row['name']}:")
        for line in lines:
            say(f"  {line}")


def run_embed(
    config_name: str, workspace: Path, workers: int | None, overrides: Mapping[str, object]
) -> int:
    """Prepare, tokenize and embed; returns the exit code. No Prefect, no selection.

    Hosts that start together wait for the first one to prepare, then share the units.
    """
    from flows.stages.prepare.inputs import prepare
    from flows.stages.prepare.render import open_model_input, render
    from flows.stages.represent.sae import ensure_sae
    from flows.stages.represent.workers import embed_by_workers

    chosen = {} if workers is None else {"compute.workers": str(workers)}
    config, place = load_config(config_name, {**overrides, **chosen}), open_workspace(workspace)
    try:
        with ending_on_sigterm(), listening(for_terminal()):
            pool, model_input = prepare(config, place), open_model_input(config)
            sae = str(ensure_sae(config, place, model_input, render(place, pool, model_input)))
            representer, counts = embed_by_workers(config, place, pool.pool_id, sae)
    except Terminated:
        say(f"Stopped; finished units are kept. The same command goes on (exit code {RESUME_ME}).")
        return RESUME_ME
    say(json.dumps({"representation": representer.representation_id, **counts}))
    return 0
