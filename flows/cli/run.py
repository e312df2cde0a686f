"""`saelect run`, `saelect demo`, `saelect embed`: run here, print results and next commands."""

import json
import time
from collections.abc import Mapping
from pathlib import Path

from flows.config.load import load_config
from flows.orchestration.prefect_server import start_prefect
from flows.orchestration.progress import for_terminal, listening
from flows.orchestration.terminal import print_table, say
from selection.core.redaction import without_secrets
from storage.files.workspace import DEFAULT, Workspace, open_workspace
from storage.queries.lookup import free_run_name

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
    root = open_workspace(workspace)
    config = config.model_copy(update={"name": free_run_name(root, config.name or "run")})
    say(f"saelect: run {config.name} in {root.root}")
    say(f"  pool      {', '.join(without_secrets(pool.path) for pool in config.pool)}")
    say(f"  exemplars {without_secrets(config.exemplars.path)}")
    from flows.stages.prepare.inputs import is_demo_model_on_foreign_pool  # after the first lines

    if is_demo_model_on_foreign_pool(config):
        say(DEMO_WARNING)
    if dry_run:
        from flows.stages.estimate import estimate_run
        from flows.stages.estimate_lines import estimate_lines

        with listening(for_terminal()):
            estimate = estimate_run(config, root)
        say("\n" + "\n".join(estimate_lines(estimate)))
        return
    wait_for_server = start_prefect()  # it gets ready while the inputs are checked
    from flows.stages.session import open_session
    from flows.stages.validate import check_config

    with listening(for_terminal()), open_session(config, root):
        check_config(config, root)
        from flows.select_data import select_data

        wait_for_server()
        name = config.name or "select"
        results = select_data(config, str(root.root), trigger="cli", run_name=name)
    _print_results(results, root, time.monotonic() - started)


def _print_results(results: list[dict[str, object]], workspace: Workspace, seconds: float) -> None:
    """The selections as a table, their checks, files and the next commands."""
    say("")
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
    print_table(("selection", "target", "method", "picks", "eligible", "tokens", "cut score"), rows)
    main = [row for row in results if row["role"] == "main"]
    for row in main:
        _print_check(row, workspace)
    say(f"\nDone in {seconds:.0f} s. For each selection, training files and a report:")
    for row in main:
        name = str(row["name"])
        say(f"  {workspace.exports / name}/  {workspace.reports / name}.html")
    option = "" if str(workspace.root) == DEFAULT else f" -w {workspace.root}"
    say("Next:")
    say(f"  saelect show {main[0]['name']}{option}")
    say(
        f'  saelect sql{option} "SELECT source, n_pool, n_selected FROM v_source_mix'
        f" WHERE selection_id = '{results[0]['selection_id']}'\""
    )
    for row in results:
        if row.get("shortfall"):
            say(f"  note: {row['name']}: {row['shortfall']}")


def _print_check(row: dict[str, object], workspace: Workspace) -> None:
    """The label-free check of a selection."""
    from storage.wording.checks import check_lines

    lines = check_lines(workspace, str(row["selection_id"]))
    if lines:
        say(f"\nLabel-free check of {row['name']}:")
    for line in lines:
        say(f"  {line}")


def run_embed(
    config_name: str, workspace: Path, workers: int | None, overrides: Mapping[str, object]
) -> None:
    """Prepare, tokenize and embed: everything before the selection. No Prefect.

    Hosts that start together wait for the first one to prepare, then share the units.
    """
    from flows.stages.prepare.inputs import prepare
    from flows.stages.prepare.render import render
    from flows.stages.represent.sae import ensure_sae
    from flows.stages.represent.workers import embed_all
    from flows.stages.session import open_session

    option = {} if workers is None else {"compute.workers": str(workers)}
    config, root = load_config(config_name, {**overrides, **option}), open_workspace(workspace)
    with listening(for_terminal()), open_session(config, root) as session:
        pool = prepare(config, root)
        render(root, pool, session.model_input)
        sae = ensure_sae(session, pool.pool_id)
        representer, counts = embed_all(config, root, pool.pool_id, sae)
    say(json.dumps({"representation": representer.representation_id, **counts}))
