"""The artifacts of a finished run: a table of all selections, a page per main selection."""

import base64
import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

from prefect.client.schemas.actions import ArtifactCreate

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

Made = Mapping[str, str | int]
"""What a stage made: label -> id, folder, file or number; `pool` is the id of its pool."""
SHOWN_PICKS = 12
TEXT_CHARACTERS = 160
SOURCES = 10
LEFT, TOP, WIDTH, HEIGHT = 48, 12, 576, 208  # of the plot, in pixels


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
            f"{_link(workspace, file, 'Report')} and picks of {report.facts.name}",
        )
        for report in reports
        for file in (_report(workspace, report),)
    ]
    publish(table("selections", results, f"Selections of {run_name}"), *pages)


def selection_page(workspace: Workspace, report: ReportFacts, stages: Sequence[StageRecord]) -> str:
    """The page of one selection as markdown."""
    selection, name = report.facts.selection, report.facts.name
    parts = [
        f"## {name}: {selection['n_selected']:,} of {selection['n_eligible']:,} eligible examples",
        f"Target `{selection['target']}`, method {selection['method']},"
        f" {selection['n_tokens']:,} tokens.",
        f"Report: {_link(workspace, _report(workspace, report))}",
        f"Training files: {_links(workspace, _files(workspace.exports / file_name(name)))}",
    ]
    if report.figures:
        parts.append("\n".join(f"- **{f.name}: {f.value}** {f.words}" for f in report.figures))
    if report.curve:
        parts.append(f"![score curve]({data_uri(curve_svg(report.curve))})")
    if report.check:
        parts += ["### Label-free check", _check(report)]
    parts += ["### Sources: pool and selection", _sources(report)]
    parts += ["### Dropped samples", _drops(report), "### Top picks", _picks(report.picks)]
    parts += ["### Stages", _stages(stages), "### In SQL", _sql(workspace, report)]
    return "\n\n".join(parts)


def plan_page(lines: Sequence[str]) -> str:
    """The lines of an estimate as markdown."""
    return "## Estimate of a run\n\n```\n" + "\n".join(lines) + "\n```"


def export_page(workspace: Workspace, folders: Sequence[Path]) -> str:
    """Links to training files as markdown."""
    lines = [f"- {_links(workspace, _files(folder))}" for folder in folders]
    return "\n".join(["## Training files, with manifest, card and trainer settings\n", *lines])


def _files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("[!.]*") if file.is_file())


def _links(workspace: Workspace, paths: Sequence[Path]) -> str:
    return " · ".join(_link(workspace, path) for path in paths)


def _link(workspace: Workspace, path: Path, words: str = "") -> str:
    """A link to a report or a training file where a server serves it, else the path as code."""
    base, relative = os.environ.get(FILES_URL), workspace.relative(path)
    is_served = base and relative.split("/")[0] in ("reports", "exports")
    return f"[{words or relative}]({base}/{quote(relative)})" if is_served else f"`{path}`"


def stage_page(key: str, workspace: Workspace, made: Made) -> ArtifactCreate:
    """What a stage made, with what the next stage needs of it; lines, which narrow pages wrap."""
    values: dict[str, object] = {
        name: _link(workspace, Path(str(value))) if os.sep in str(value) else value
        for name, value in made.items()
    }
    if "pool" in made:
        folder = workspace.pools / str(made["pool"])
        pool = open_pool(folder)
        values |= {"folder of the pool": f"`{folder}`", "rows": f"{pool.n_rows:,}"}
        values["unique examples"] = f"{pool.n_examples:,}"
        values |= {f"dropped: {reason}": f"{n:,}" for reason, n in pool.drops.items()}
    lines = "\n".join(f"- {name}: {value}" for name, value in values.items())
    return markdown(key, f"## {key}\n\n{lines}", f"Result of {key}")


def _check(report: ReportFacts) -> str:
    return "\n".join(f"- {cell(line)}" for line in in_lines(report.check))


def _report(workspace: Workspace, report: ReportFacts) -> Path:
    return workspace.reports / f"{file_name(report.facts.name)}.html"


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
            f"{bar.n_pool:,} ({bar.share_pool:.0%})",
            f"{bar.n_selected:,} ({bar.share_selected:.0%})",
            "" if bar.factor is None else f"x {bar.factor:.2g}",
        )
        for bar in report.sources[:SOURCES]
    ]
    return _table(("source", "pool", "picks", "change"), rows)


def _drops(report: ReportFacts) -> str:
    rows = [(f"{drop.n:,}", drop.words, drop.stage) for drop in report.drops]
    return _table(("dropped", "because they", "stage"), rows) if rows else "Nothing."


def _picks(picks: Sequence[ShownPick]) -> str:
    """A list, since the UI cuts wide tables off, and the numbers of an ordered list too."""
    lines = []
    for rank, pick in enumerate(picks[:SHOWN_PICKS], 1):
        text = next((t.text for t in pick.turns if t.role == "user"), "")
        shared = "; ".join(f"{each.words} ({each.share:.0%})" for each in pick.reasons(2))
        score = "" if pick.score is None else f"{pick.score:.4f}"
        facts = " · ".join(cell(fact) for fact in (score, pick.source or "") if fact)
        why = f"  \n   shares {cell(shared)}" if shared else ""
        lines.append(f"- **{rank} · {facts}** {cell(text[:TEXT_CHARACTERS])}{why}")
    return "\n".join(lines)


def _stages(stages: Sequence[StageRecord]) -> str:
    rows = [(each.name, duration(each.seconds), each.detail) for each in stages]
    return _table(("stage", "time", "result"), rows)


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
    """The score curve with cut and depth, 640 x 260 pixels; the geometry is the report's."""
    left, top, width, height = LEFT, TOP, WIDTH, HEIGHT
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
    uprights = _upright(curve.cut_x, "cut", "#b5452c", top + 12)
    if curve.depth is not None:
        uprights += _upright(curve.depth.at, curve.depth.label, "#2f7d4f", top + height - 8)
    box = f'x="{left}" y="{top}" width="{width}" height="{height}" viewBox="0 0 100 100"'
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" width="640" height="260"'
        ' font-family="sans-serif" font-size="12" fill="#777">'
        f'{ticks}<svg {box} preserveAspectRatio="none"><path d="{curve.chosen}" fill="#2f7d4f55"/>'
        f'<path d="{curve.line}" fill="none" stroke="#2f7d4f" stroke-width="2"'
        ' vector-effect="non-scaling-stroke"/></svg>'
        f"{uprights}{marks}"
        f'<text x="{left + width / 2}" y="{top + height + 34}" text-anchor="middle">rank'
        " (logarithmic); the score is the height</text></svg>"
    )


def _upright(at: float, label: str, color: str, y: int) -> str:
    """A dashed line across the plot, with its label on the side that has more room."""
    x = round(LEFT + WIDTH * at / 100, 1)
    anchor, gap = ("end", -5) if at > 50 else ("start", 5)
    return (
        f'<line x1="{x}" x2="{x}" y1="{TOP}" y2="{TOP + HEIGHT}" stroke="{color}"'
        f' stroke-dasharray="4 3"/><text x="{x + gap}" y="{y}" text-anchor="{anchor}"'
        f' fill="{color}">{label}</text>'
    )
