"""One HTML file about a selection: what was asked, chosen and refused, and why.

Self-contained: style and script are in it, and it asks nothing of the network. Reads the snapshot
only. Everything that comes from data is escaped, or goes in as JSON that the script shows as text;
the page's own policy allows that one script alone, by its hash.
"""

import base64
import hashlib
import logging
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from selection.core.errors import InputError
from selection.core.hashing import content_id
from storage.catalog.commit import commit_if_writable
from storage.catalog.connection import Connection
from storage.catalog.recorded import reported
from storage.catalog.snapshot import open_snapshot
from storage.export.cards import picks_sql
from storage.export.facts import json_object
from storage.files.atomic import read_json, write_bytes
from storage.files.in_use import in_use
from storage.files.workspace import (
    DEFAULT,
    TARGET_QUALITY,
    Workspace,
    file_name,
    refuse_link,
)
from storage.queries.lookup import SelectionRow, selection_in
from storage.report.charts import training_curve
from storage.report.gather import PAGE_PICKS, exemplars_of, report_facts
from storage.report.payload import PickData, pick_data
from storage.report.picks import MOST_PICKS, SHORT_CHARACTERS, WHOLE_PICKS, shown_picks
from storage.report.records import ReportFacts
from storage.wording.glossary import TERMS

log = logging.getLogger(__name__)

_TEMPLATES = Path(__file__).parent / "templates"
SCRIPT = (_TEMPLATES / "report.js").read_text(encoding="utf-8")

COUNTS = {
    "rows": "rows read",
    "occurrences": "rows kept",
    "examples": "unique samples",
    "passed_where": "passed the filter",
    "n_tokens": "tokens",
    "n_counted": "content tokens",
    "n_truncated": "samples cut at the largest length",
    "n_response_lost": "of these without their response",
    "values": "values stored",
    "zeroed": "values that became 0",
    "clipped": "values that were too large",
    "mass_changed_share": "share of the L1 norm changed by rounding",
    "mass_cut_by_keep_top_share": "share of the L1 norm cut by keep_top",
    "reduced_units": "units computed in smaller batches",
    "n_vectors": "vectors",
    "n_lists": "cells (0: none)",
    "n_probes": "cells searched",
    "recall_queries": "vectors that recall was measured on",
    "sae_quality": "SAE on calibration texts",
    "sae_model": "SAE and model",
    "fvu": "FVU",
    "l0": "latents per token",
    "dead_share": "share of latents that never fire",
}
"""Words for names of counts; others are shown as they are."""

Command = Callable[..., str]


def policy(*scripts: str) -> str:
    """A content security policy: the page's own styles, these scripts by their hashes, no more."""
    hashes = [base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in scripts]
    sources = " ".join(f"'sha256-{each}'" for each in hashes) or "'none'"
    return (
        f"default-src 'none'; style-src 'unsafe-inline'; script-src {sources};"
        " base-uri 'none'; form-action 'none'"
    )


def write_report(workspace: Workspace, selection: str, out: Path | None = None) -> Path:
    """Write the report of a selection; returns its path.

    selection: name, id, prefix or `latest`.
    out:       file; default `reports/<selection>.html` of the workspace.
    Raises InputError for an unknown selection and when the disk is full.
    """
    with in_use(workspace):
        with open_snapshot(workspace) as connection:
            path, facts = _written(connection, workspace, selection, out)
        rows = reported(workspace, path, [facts.facts.selection_id], facts.facts.run_id)
        commit_if_writable(workspace, rows)
    return path


def write_reports(workspace: Workspace, selections: Sequence[str]) -> Iterator[ReportFacts]:
    """As `write_report` for several selections; what each report says, once it is written."""
    rows: dict[str, list[dict[str, object]]] = {}
    with in_use(workspace):
        with open_snapshot(workspace) as connection:
            for selection in selections:
                path, facts = _written(connection, workspace, selection, None)
                written = reported(workspace, path, [facts.facts.selection_id], facts.facts.run_id)
                rows = {table: [*rows.get(table, []), *new] for table, new in written.items()}
                yield facts
        commit_if_writable(workspace, rows)


def _written(
    connection: Connection, workspace: Workspace, selection: str, out: Path | None
) -> tuple[Path, ReportFacts]:
    chosen = selection_in(connection, workspace, selection)
    facts = report_facts(connection, chosen)
    data = _data(connection, chosen, facts)
    path = out or workspace.reports / f"{file_name(chosen.name)}.html"
    if out is None:
        refuse_link(workspace, workspace.reports)  # a page is renamed into it, through no link
    measured = _target_quality(connection, workspace, facts)
    page = render(facts, data, datetime.now(UTC), command_in(workspace), measured)
    write_bytes(path, page.encode("utf-8", "replace"))
    log.info("wrote the report of %s to %s", chosen.name, path)
    return path, facts


def _data(connection: Connection, chosen: SelectionRow, facts: ReportFacts) -> PickData:
    """The picks for the script: the first with their texts whole, the others' cut short."""
    picks = shown_picks(connection, chosen, "pick", 1, WHOLE_PICKS)
    picks += shown_picks(connection, chosen, "pick", WHOLE_PICKS + 1, MOST_PICKS, SHORT_CHARACTERS)
    exemplars = exemplars_of(connection, chosen, picks)
    several = len(facts.per_target) > 1
    head = {"n": len(picks), "page": PAGE_PICKS, "several": several, "selected": chosen.n_selected}
    return pick_data(picks, exemplars, head)


def command_in(workspace: Workspace) -> Command:
    """Writes commands as one types them for this workspace."""
    option = [] if str(workspace.root) == DEFAULT else ["-w", str(workspace.root)]
    return lambda *words: shlex.join(["saelect", *(str(word) for word in words), *option])


def _target_quality(
    connection: Connection, workspace: Workspace, facts: ReportFacts
) -> dict[str, dict[str, Any]]:
    """Target -> what `saelect describe --quality` last measured with its SAE and exemplars.

    A file that cannot be read is left out with a warning: it is no part of the catalog.
    """
    run, by_target = facts.facts.run, {}
    for file in workspace.saes.glob(f"described/*/{TARGET_QUALITY}"):
        try:
            measured: dict[str, Any] = read_json(file)
        except InputError as error:
            log.warning("how much latents carry is not shown: %s", error)
            continue
        if (measured["sae"], measured["hookpoint"]) != (run["sae_sha256"], run["hookpoint"]):
            continue
        for target, *_ in facts.per_target:
            rows = connection.execute(_EXEMPLARS, [run["run_id"], target]).fetchall()
            each = measured["targets"].get(target)
            if each is not None and each["exemplars"] == content_id([row[0] for row in rows]):
                by_target[target] = each
    return by_target


_EXEMPLARS = "SELECT exemplar_id FROM exemplar WHERE run_id = ? AND target = ? ORDER BY 1"


def render(
    facts: ReportFacts,
    data: PickData,
    written_at: datetime,
    command: Command,
    target_quality: Mapping[str, Mapping[str, Any]],
) -> str:
    """The page as text; nothing in it but `written_at` and the commands' workspace is new."""
    from storage.report.templates import page_environment

    template = page_environment().get_template("report.html.j2")
    run, selection = facts.facts.run, facts.facts.selection
    return template.render(
        report=facts,
        data=data,
        run=run,
        selection=selection,
        name=facts.facts.name,
        config_text=_yaml(run["config"]),
        counts=_flat(run["counts"]),
        training=training_curve(run["counts"]),
        request=_request(facts),
        held=_held(facts.facts.n_selected),
        near_duplicates=json_object(run["config"]).get("near_duplicates"),
        has_marks=any(pick.is_marked for pick in facts.picks),
        n_exemplars_of=facts.facts.targets,
        picks_sql=picks_sql(facts.facts),
        queries=_queries(facts),
        target_quality=target_quality,
        command=command,
        policy=policy(SCRIPT),
        script=_as_is(SCRIPT),
        terms=TERMS,
        written_at=written_at,
    )


def _held(n_selected: int) -> str:
    """What this file holds of the picks, in words."""
    if n_selected <= WHOLE_PICKS:
        return f"This file holds all {n_selected:,} picks." if n_selected > PAGE_PICKS else ""
    short = f"the others with their first {SHORT_CHARACTERS} characters"
    whole = f"the first {WHOLE_PICKS} with their whole texts (up to 4,000 characters), {short}"
    if n_selected > MOST_PICKS:
        return (
            f"This file holds the first {MOST_PICKS:,} of {n_selected:,} picks: {whole}. All of"
            " them are in the catalog."
        )
    return f"This file holds all {n_selected:,} picks: {whole}."


def _queries(facts: ReportFacts) -> list[tuple[str, str]]:
    """Questions with their SQL, in the order of the page."""
    where = f"selection_id = '{facts.facts.selection_id}'"
    queries = [
        ("Exactly these picks, in order", picks_sql(facts.facts)),
        ("Sources before and after", f"FROM v_source_mix WHERE {where} ORDER BY n_selected DESC"),
        (
            "What was refused, and why",
            f"SELECT stage, reason, sum(n) FROM v_drops WHERE {where} GROUP BY ALL ORDER BY 3 DESC",
        ),
        ("Hashes from the pool to the exports", f"FROM v_lineage WHERE {where}"),
    ]
    if facts.facts.selection["method"] == "jaccard":
        queries[1:1] = [
            ("Why each is there", f"FROM v_why WHERE {where} ORDER BY example_id, share DESC"),
            (
                "Which tokens the latents are active on",
                f"FROM v_token_activations WHERE {where} ORDER BY rank, turn, first_char",
            ),
        ]
    return queries


def _as_is(text: str) -> str:
    """Text of ours that goes into the page unescaped."""
    from markupsafe import Markup

    return Markup(text)


def _request(facts: ReportFacts) -> dict[str, object]:
    """What the config asked for, as far as it is in the catalog.

    shortfall: examples that are missing to the budget in examples, 0 where none are.
    """
    config, budget = facts.facts.run["config"], facts.facts.selection["budget"]
    config = config if isinstance(config, dict) else {}
    pools = config.get("pool")
    pools = pools if isinstance(pools, list) else []
    budget = budget if isinstance(budget, dict) else {}
    wanted = budget.get("examples") or 0
    files = [path for _, path in facts.exports]
    spaces = json_object(config.get("representation")).get("spaces")
    spaces = spaces if isinstance(spaces, list) else []
    kinds = {space.get("kind") for space in spaces if isinstance(space, dict)}
    return {
        "lexical": [kind for kind in ("words", "tokens") if kind in kinds],
        "pools": [str(pool["path"]) for pool in pools if isinstance(pool, dict) and "path" in pool],
        "where": config.get("where"),
        "budget": {key: value for key, value in budget.items() if value is not None},
        "exemplars": sum(n for _, n, _, _ in facts.per_target),
        "shortfall": max(0, wanted - facts.facts.n_selected),
        "token_aggregate": json_object(config.get("representation")).get("token_aggregate"),
        "train_file": next((p for p in files if p.endswith("train.jsonl")), (files or [""])[0]),
    }


def _flat(counts: object, prefix: str = "") -> list[tuple[str, str]]:
    """Counts in words, nested ones named by their path, in the order they were recorded."""
    rows: list[tuple[str, str]] = []
    for key, value in counts.items() if isinstance(counts, Mapping) else ():
        label = f"{prefix}{COUNTS.get(key, key)}".replace("_", " ")
        if value is None or label.endswith(("curve", "settings", "folder")):
            continue  # drawn, in the config, or of no use to a reader
        if isinstance(value, Mapping):
            rows += _flat(value, f"{label}: ")
        elif isinstance(value, float) and not value.is_integer():
            rows.append((label, f"{value:.4g}"))
        else:
            rows.append((label, f"{value:,.0f}" if isinstance(value, int | float) else str(value)))
    return rows


def _yaml(config: object) -> str:
    import yaml

    return yaml.safe_dump(config, sort_keys=False, allow_unicode=True, width=88).strip()
