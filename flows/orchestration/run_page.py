"""The artifacts of a finished run: a table of all selections, a page per main selection."""

import base64
import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from flows.orchestration.artifacts import markdown, publish, table
from flows.orchestration.prefect_settings import FILES_URL
from flows.orchestration.progress import StageRecord
from selection.core.numbers import duration
from storage.export.cards import picks_sql
from storage.files.workspace import Workspace, file_name
from storage.pools.pool import open_pool
from storage.report.charts import ScoreCurve
from storage.report.records import ReportFacts, ShownPick
from storage.wording.checks import in_lines

SHOWN_PICKS = 12
TEXT_CHARACTERS = 160
SOURCES = 10


def explain_run(
    workspace: Workspace,
    run_name: str,
    results: Sequence[Mapping[str, object]],
    stages: Sequence[StageRecord],
    reports: Sequence[ReportFacts],
) -> None:
    """Publish the artifacts of a finished run. reports: facts of its main selections.

    The keys are the same in every run for a target, so that Prefect lists them as versions.
    """
    pages = [
        markdown(
            f"selection-{report.facts.selection['target']}",
            selection_page(workspace, report, stages),
            f"Picks of {report.facts.name}, with reasons",
        )
        for report in reports
    ]
    publish(table("selections", results, f"Selections of {run_name}"), *pages)


def selection_page(workspace: Workspace, report: ReportFacts, stages: Sequence[StageRecord]) -> str:
    """The page of one selection as markdown."""
    selection, name = report.facts.selection, report.facts.name
    parts = [
        f"## {name}: {selection['n_selected']:,} of {selection['n_eligible']:,} eligible examples",
        f"Target `{selection['target']}`, method {selection['method']},"
        f" {selection['n_tokens']:,} tokens.",
        _links(workspace, report),
    ]
    if report.check:
        parts += ["### Label-free check", _check(report)]
    if report.curve:
        parts += ["### Scores and the cut", f"![score curve]({data_uri(curve_svg(report.curve))})"]
    parts += ["### Sources: pool and selection", _sources(report)]
    parts += ["### Dropped samples", _drops(report), "### Top picks", _picks(report.picks)]
    parts += ["### Stages", _stages(stages), "### In SQL", _sql(workspace, report)]
    return "\n\n".join(parts)


def plan_page(lines: Sequence[str]) -> str:
    """The lines of an estimate as markdown."""
    return "## Estimate of a run\n\n```\n" + "\n".join(lines) + "\n```"


def export_page(workspace: Workspace, folders: Sequence[Path]) -> str:
    """Links to training files as markdown."""
    lines = [f"- {_link(workspace, folder)}" for folder in folders]
    return "\n".join(["## Training files, with manifest, card and trainer settings\n", *lines])


def _link(workspace: Workspace, path: Path) -> str:
    """A link to a report or an export where a server serves it, else the path as code."""
    base, relative = os.environ.get(FILES_URL), workspace.relative(path)
    is_served = base and relative.split("/")[0] in ("reports", "exports")
    return f"[{relative}]({base}/{relative})" if is_served else f"`{path}`"


def stage_page(
    key: str, workspace: Workspace, pool_id: str | None, values: Mapping[str, object]
) -> None:
    """Publish what a stage made, with what the next stage needs of it.

    values: label -> number or path. pool_id: of a prepared pool, whose rows are listed.
    """
    rows = [
        (name, _link(workspace, Path(value)) if isinstance(value, str) else f"{value:,}")
        for name, value in values.items()
    ]
    if pool_id is not None:
        pool = open_pool(workspace.pools / pool_id)
        rows += [
            ("pool id", pool_id),
            ("folder", f"`{workspace.pools / pool_id}`"),
            ("rows", f"{pool.n_rows:,}"),
            ("unique examples", f"{pool.n_examples:,}"),
        ]
        rows += [(f"dropped: {reason}", f"{n:,}") for reason, n in pool.drops.items()]
    lines = "\n".join(f"| {name} | {value} |" for name, value in rows)
    text = f"## {key}\n\n| | |\n| --- | --- |\n{lines}"
    publish(markdown(key, text, f"Result of {key}"))


def _check(report: ReportFacts) -> str:
    return "\n".join(f"- {cell(line)}" for line in in_lines(report.check))


def _links(workspace: Workspace, report: ReportFacts) -> str:
    """Links where a server serves the files, else paths."""
    name, base = file_name(report.facts.name), os.environ.get(FILES_URL)
    page, export = f"reports/{name}.html", f"exports/{name}/"
    if base:
        return f"[Report]({base}/{page}) · [Training files and their card]({base}/{export})"
    return f"Report `{workspace.root / page}`, training files `{workspace.root / export}`"


def _table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell(value) for value in line) + " |" for line in lines)


def cell(value: object) -> str:
    """A value for a markdown table: one line, without markup."""
    flat = " ".join(str(value).split())
    for sign in "\\`*_[]<>|!#":
        flat = flat.replace(sign, {"<": "&lt;", ">": "&gt;", "|": "&#124;"}.get(sign, "\\" + sign))
    return flat.replace("\\-\\-\\-", "---")


def _sources(report: ReportFacts) -> str:
    rows = [
        (
            bar.source,
            f"{bar.n_pool:,} ({bar.share_pool:.1%})",
            f"{bar.n_selected:,} ({bar.share_selected:.1%})",
            "" if bar.factor is None else f"x {bar.factor:.2g}",
        )
        for bar in report.sources[:SOURCES]
    ]
    return _table(("source", "eligible pool", "selected", "change"), rows)


def _drops(report: ReportFacts) -> str:
    rows = [(f"{drop.n:,}", drop.words, drop.stage) for drop in report.drops]
    return _table(("dropped", "because they", "stage"), rows) if rows else "Nothing."


def _picks(picks: Sequence[ShownPick]) -> str:
    """A list, since the UI cuts wide tables off."""
    lines = []
    for pick in picks[:SHOWN_PICKS]:
        text = next((t.text for t in pick.turns if t.role == "user"), "")
        shared = "; ".join(f"{each.words} ({each.share:.0%})" for each in pick.reasons(2))
        score = "" if pick.score is None else f"{pick.score:.4f}"
        facts = " · ".join(cell(fact) for fact in (score, pick.source or "") if fact)
        why = f"  \n   shares {cell(shared)}" if shared else ""
        lines.append(f"1. **{facts}** {cell(text[:TEXT_CHARACTERS])}{why}")
    return "\n".join(lines)


def _stages(stages: Sequence[StageRecord]) -> str:
    rows = [(each.name, each.detail, duration(each.seconds)) for each in stages]
    return _table(("stage", "result", "time"), rows)


def _sql(workspace: Workspace, report: ReportFacts) -> str:
    query = " ".join(picks_sql(report.facts).split()).rstrip(";")
    root = shlex.quote(str(workspace.root))
    return (
        f"Exactly these picks:\n\n```\nsaelect sql -w {root} {shlex.quote(query)}\n```\n\n"
        f"Why a sample was chosen: `saelect why {report.facts.name} EXAMPLE -w {root}`"
    )


def data_uri(svg: str) -> str:
    """An SVG as a data URI, so that the page needs no other request."""
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()


def curve_svg(curve: ScoreCurve) -> str:
    """The score curve with its cut, 640 x 260 pixels; the geometry is the report's."""
    left, top, width, height = 48, 12, 576, 208
    ticks = "".join(
        f'<line x1="{left}" x2="{left + width}" y1="{y}" y2="{y}" stroke="#8884"/>'
        f'<text x="{left - 6}" y="{y + 4}" text-anchor="end">{tick.label}</text>'
        for tick in curve.y_ticks
        for y in (round(top + height * (1 - tick.at / 100), 1),)
    )
    marks = "".join(
        f'<text x="{round(left + width * tick.at / 100, 1)}" y="{top + height + 16}"'
        f' text-anchor="middle">{tick.label}</text>'
        for tick in curve.x_ticks
    )
    cut = round(left + width * curve.cut_x / 100, 1)
    anchor = "end" if curve.cut_x > 50 else "start"
    box = f'x="{left}" y="{top}" width="{width}" height="{height}" viewBox="0 0 100 100"'
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" width="640" height="260"'
        ' font-family="sans-serif" font-size="12" fill="#777">'
        f'{ticks}<svg {box} preserveAspectRatio="none"><path d="{curve.chosen}" fill="#2f7d4f55"/>'
        f'<path d="{curve.line}" fill="none" stroke="#2f7d4f" stroke-width="2"'
        ' vector-effect="non-scaling-stroke"/></svg>'
        f'<line x1="{cut}" x2="{cut}" y1="{top}" y2="{top + height}" stroke="#b5452c"'
        f' stroke-dasharray="4 3"/><text x="{cut}" y="{top + 12}" text-anchor="{anchor}"'
        f' fill="#b5452c"> cut </text>{marks}'
        f'<text x="{left + width / 2}" y="{top + height + 34}" text-anchor="middle">rank'
        " (logarithmic); the score is the height</text></svg>"
    )
