"""One HTML file about a selection: what was asked, chosen and refused, and why.

Self-contained: no script, no font, no request. Reads the snapshot only. Everything that comes
from data is escaped, and the page's own policy forbids scripts besides.
"""

import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from storage.database import open_snapshot
from storage.files import write_bytes
from storage.read import find_selection
from storage.report_facts import report_facts
from storage.report_records import ReportFacts
from storage.training_chart import training_curve
from storage.workspace import Workspace, file_name

if TYPE_CHECKING:
    from jinja2 import Environment

log = logging.getLogger(__name__)

_NONE = "\u2013"  # an en dash where there is no value
_TEMPLATES = Path(__file__).parent / "templates"


def write_report(workspace: Workspace, selection: str, out: Path | None = None) -> Path:
    """Write the report of a selection; returns its path.

    selection: name, id, prefix or `latest`.
    out:       file; default `reports/<selection>.html` of the workspace.
    Raises InputError for an unknown selection and when the disk is full.
    """
    found = find_selection(workspace, selection)
    with open_snapshot(workspace) as connection:
        facts = report_facts(connection, found)
    path = out or workspace.reports / f"{file_name(found.name)}.html"
    write_bytes(path, render(facts, datetime.now(UTC)).encode())
    log.info("wrote the report of %s to %s", found.name, path)
    return path


def render(facts: ReportFacts, written_at: datetime) -> str:
    """The page as text; `written_at` is the only thing that is not in `facts`."""
    template = report_environment().get_template("report.html.j2")
    run, selection = facts.facts.run, facts.facts.selection
    return template.render(
        report=facts,
        run=run,
        selection=selection,
        name=facts.facts.name,
        config_text=_yaml(run["config"]),
        counts=_flat(run["counts"]),
        training=training_curve(run["counts"]),
        asked=_asked(facts),
        written_at=written_at,
    )


def _asked(facts: ReportFacts) -> dict[str, object]:
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
    return {
        "pools": [str(pool["path"]) for pool in pools if isinstance(pool, dict) and "path" in pool],
        "where": config.get("where"),
        "budget": {key: value for key, value in budget.items() if value is not None},
        "exemplars": sum(n for _, n, _, _ in facts.per_target),
        "shortfall": max(0, wanted - facts.facts.n_selected),
        "train_file": next((p for p in files if p.endswith("train.jsonl")), (files or [""])[0]),
    }


@cache
def report_environment() -> "Environment":
    """Templates with the formats that every page of ours uses."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "count": lambda n: _NONE if n is None else f"{n:,}",
        "percent": _percent,
        "score": lambda x: _NONE if x is None else f"{x:#.4g}",
        "moment": lambda t: _NONE if t is None else f"{t:%Y-%m-%d %H:%M}",
        "plural": lambda n, word: f"{n:,} {word}{'' if n == 1 else 's'}",
    }
    return environment


def _percent(share: float | None) -> str:
    """Two digits that matter: 34 %, 3.4 %, 0.34 %."""
    if share is None:
        return _NONE
    percent = 100 * share
    digits = 0 if percent >= 10 or percent == 0 else 1 if percent >= 1 else 2
    return f"{percent:.{digits}f}\u202f%"


def _flat(counts: object, prefix: str = "") -> list[tuple[str, str]]:
    """Counts with nested ones named by their path, in the order they were recorded."""
    rows: list[tuple[str, str]] = []
    for key, value in counts.items() if isinstance(counts, Mapping) else ():
        label = f"{prefix}{key}".replace("_", " ")
        if label.endswith(("curve", "settings")):
            continue  # drawn, and in the config
        if isinstance(value, Mapping):
            rows += _flat(value, f"{label}: ")
        else:
            rows.append((label, f"{value:,}" if isinstance(value, int | float) else str(value)))
    return rows


def _yaml(config: object) -> str:
    import yaml

    return yaml.safe_dump(config, sort_keys=False, allow_unicode=True, width=88).strip()
