"""`saelect run`, `saelect demo`, `saelect embed`: run here, print results and next commands."""

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from flows.config.jobs import SelectConfig
from flows.config.load import load_config
from flows.orchestration.prefect_server import start_prefect
from flows.orchestration.progress import Listener, for_terminal, listening
from flows.orchestration.terminal import print_table, say, table_text
from selection.core.numbers import duration
from selection.core.redaction import without_secrets
from storage.files.workspace import DEFAULT, Workspace, open_workspace
from storage.queries.lookup import free_run_name

DEMO_WARNING = """\
  !! This run represents samples with saelect's small DEMONSTRATION model.
  !! It shows how selection works; for a selection you will train on, name a real model and SAE
  !! in the config (`model:` and `sae:`)."""
DEMO_LOST = "summaries is lost: long passages outweigh the question; its last figure warns."
HALF = 0.5

_RIGHT = """
SELECT s.target, avg(r.is_right) FILTER (s.role = 'main'), avg(r.is_right) FILTER
    (s.method = 'bm25'), avg(r.is_right) FILTER (s.method = 'random'), any_value(c.depth)
FROM selection s
JOIN (SELECT p.selection_id, (o.raw->>$column = m.target)::INT AS is_right
    FROM pick p JOIN selection m USING (selection_id)
    JOIN v_first_occurrence o ON o.run_id = m.run_id AND o.example_id = p.example_id) r
    USING (selection_id)
LEFT JOIN held_out_check c ON c.selection_id = s.selection_id AND c.method = s.method
WHERE s.run_id = (SELECT run_id FROM selection WHERE selection_id = $selection)
GROUP BY s.target ORDER BY min(s.rowid)"""

_BEST = "SELECT example_id FROM pick WHERE selection_id = ? AND rank = 1"


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
    results = _selected(config, root, for_terminal())
    _print_results(results, root, time.monotonic() - started)


def run_demo(workspace: Path, target: str | None) -> None:
    """Run the packaged job; print how many picks are right, and what to look at.

    target: one of its target tasks; None for all.
    """
    started = time.monotonic()
    only: dict[str, object] = {} if target is None else {"exemplars.targets": [target]}
    config, root = load_config("demo", only), open_workspace(workspace)
    config = config.model_copy(update={"name": free_run_name(root, "demo")})
    say(f"saelect: run {config.name} in {root.root}, on the packaged pool, exemplars and model")
    results = _selected(config, root, for_terminal(is_brief=True))
    say(f"Done in {duration(time.monotonic() - started)}.\n")
    for line in demo_lines(root, results):
        say(line)


def demo_lines(
    workspace: Workspace,
    results: Sequence[Mapping[str, object]],
    column: str = "family",
) -> list[str]:
    """What the demonstration found and what to look at.

    column: of the pool's rows; a pick is right where it holds the name of the target.
    """
    from storage.catalog.snapshot import open_snapshot

    main = [row for row in results if row["role"] == "main"]
    first, n = main[0], main[0]["n_selected"]
    name, option = str(first["name"]), _option(workspace)
    whom = str(first["target"]) if len(main) == 1 else f"each of {len(main)} target tasks"
    with open_snapshot(workspace) as connection:
        which = {"selection": first["selection_id"], "column": column}
        rows = connection.execute(_RIGHT, which).fetchall()
        best = connection.execute(_BEST, [first["selection_id"]]).fetchall()[0][0]
    cells = [(each[0], *(f"{share:.3f}" for share in each[1:4]), f"{each[4]:,}") for each in rows]
    header = ("target task", "saelect", "BM25", "random", "better than random to rank")
    lost = [DEMO_LOST] if any(row[0] == "summaries" and row[1] < HALF for row in rows) else []
    return [
        f"saelect picked {n} of {first['n_eligible']:,} samples for {whom}.",
        "Share of the picks that are of the task, by labels that no method reads:",
        "",
        *(f"  {line}" for line in table_text(header, cells).splitlines()),
        "",
        *lost,
        "The last column needs no labels: your own pool has it too.",
        "",
        "Look at",
        f"  {workspace.reports / name}.html",
        "      the report, for a browser: what was picked, why, and how far to trust it",
        f"  {workspace.exports / name / 'train.jsonl'}",
        "      what you would train on",
        f"  saelect why {name} {best[:12]}{option}",
        "      why the first sample was picked",
        "Next, on your own data",
        "  saelect init --pool POOL --exemplars EXEMPLARS",
    ]


def _selected(
    config: SelectConfig, workspace: Workspace, listener: Listener
) -> list[dict[str, object]]:
    """Run the flow in this process; one record per selection."""
    wait_for_server = start_prefect()  # it gets ready while the inputs are checked
    from flows.stages.session import open_session
    from flows.stages.validate import check_config

    with listening(listener), open_session(config, workspace):
        check_config(config, workspace)
        from flows.select_data import select_data

        wait_for_server()
        name = config.name or "select"
        return select_data(config, str(workspace.root), trigger="cli", run_name=name)


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
    option = _option(workspace)
    say("Next:")
    say(f"  saelect show {main[0]['name']}{option}")
    say(
        f'  saelect sql{option} "SELECT source, n_pool, n_selected FROM v_source_mix'
        f" WHERE selection_id = '{results[0]['selection_id']}'\""
    )
    for row in results:
        if row.get("shortfall"):
            say(f"  note: {row['name']}: {row['shortfall']}")


def _option(workspace: Workspace) -> str:
    return "" if str(workspace.root) == DEFAULT else f" -w {workspace.root}"


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
