"""A benchmark by fine-tuning as a block of a page: tables, plots, every target, losses included.

    python -m benchmarks.finetuning --page docs/benchmarks/finetune.md --block main -w DIR \
        --pool POOL --targets-file TARGETS [any other option of `saelect bench finetune`]

What `saelect bench finetune` left in the workspace is read; runs that are missing are made. The
block `<!-- main -->` to `<!-- end of main -->` of the page is written anew, `main.svg` and every
run as a row of `main.csv` in the folder of its name.
"""

import argparse
import html
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from flows.cli.bench import contrast_line
from flows.finetune.record import finetune_rows
from flows.finetune.run import FinetuneOutcome, request_of, run_finetune
from flows.orchestration.progress import for_terminal, listening
from selection.finetuning.summary import ORACLE, RANDOM, ZERO, GroupSummary
from storage.files.atomic import write_bytes
from storage.files.workspace import open_workspace
from storage.report.finetune import Plot, plot_of

_COLUMNS = 3
_CELL = (130, 135)  # Width and height of one plot in an image, its own box of 100 x 100 included.
_KEY = 14
_LISTS = ("arms", "targets", "budget_tokens")
_OWN = ("benchmark_id", "created_at", "pool", "seconds")  # Of a workspace, not of the result.

Row = dict[str, Any]


def main() -> None:
    """Make what is missing, write the block."""
    given, workspace = _arguments()
    with listening(for_terminal()):
        outcome = run_finetune(request_of(**given["request"]), open_workspace(workspace))
    page: Path = given["page"]
    runs = finetune_rows(outcome)["finetune"]
    image = page.with_suffix("") / f"{given['block']}.svg"
    write_bytes(image, svg([plot_of(*each) for each in plotted(runs.to_pylist())]).encode())
    table = pl.DataFrame(runs.to_pylist()).drop(*_OWN)
    name = pl.col("trainee").str.split("/").list.last()  # of a folder, wherever it was
    written = table.with_columns(trainee=name).write_csv(float_precision=5)
    write_bytes(image.with_suffix(".csv"), written.encode())
    text = "\n".join(block(outcome, f"{page.stem}/{given['block']}"))
    write_bytes(page, replaced(page.read_text(encoding="utf-8"), given["block"], text).encode())


def _arguments() -> tuple[dict[str, Any], Path]:
    """Page and block, the request, the workspace."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--page", type=Path, required=True, help="Markdown page with the block")
    parser.add_argument("--block", required=True, help="name of the block and of its image")
    parser.add_argument("-w", "--workspace", type=Path, required=True)
    known, rest = parser.parse_known_args()
    if len(rest) % 2 or not all(name.startswith("--") for name in rest[::2]):
        parser.error("every other option has one value, as in `saelect bench finetune`")
    request: dict[str, Any] = {}
    for name, value in zip(rest[::2], rest[1::2], strict=True):
        key = name[2:].replace("-", "_")
        if key == "scores":
            arm, _, file = value.partition("=")
            request.setdefault(key, {})[arm] = file
        else:
            request[key] = tuple(value.split(",")) if key in _LISTS else value
    return {"page": known.page, "block": known.block, "request": request}, known.workspace


def block(outcome: FinetuneOutcome, files: str) -> Iterator[str]:
    """Lines of Markdown: what was run, means, contrasts, every target.

    files: path of plots and runs from the page, without their endings.
    """
    n_trained = sum(result["arm"] != ZERO for result in outcome.results)
    hours = sum(sum(result["seconds"].values()) for result in outcome.results) / 3600
    yield f"{n_trained} trained runs, {hours:.1f} hours of training and measuring."
    if outcome.n_left:
        yield f"**{outcome.n_left} runs are missing**; a target counts where all arms are there."
    for summary in outcome.summaries:
        yield from _summary(summary)
    for budget in sorted({summary.budget for summary in outcome.summaries}):
        yield from _by_target(outcome, budget)
    yield f"\n![Tokens against bits a byte of held-out responses, by target]({files}.svg)\n"
    yield "Tokens against bits a byte of held-out responses; the band is the range of random. Every"
    yield f"run: [{files}.csv]({files}.csv)."


def _summary(summary: GroupSummary) -> Iterator[str]:
    """Means of a budget and a group of targets, and how far `best` is ahead."""
    yield f"\n**{summary.budget:,} tokens, {summary.group}: {len(summary.targets)} targets**\n"
    yield "| arm | gain | gap closed | exact | right label | forgotten | response tokens |"
    yield "| --- | --- | --- | ---: | ---: | ---: | ---: |"
    for arm in summary.arms:
        gap = f"{arm.gap.mean:.2f} [{arm.gap.lo:.2f}, {arm.gap.hi:.2f}]" if arm.gap else ""
        cells = [
            f"**{arm.arm}**" if arm.arm == "best" else arm.arm,
            f"{arm.gain.mean:.3f} [{arm.gain.lo:.3f}, {arm.gain.hi:.3f}]",
            gap,
            *("" if each is None else f"{each:.3f}" for each in (arm.exact, arm.right)),
            "" if arm.forgotten is None else f"{arm.forgotten:+.3f}",
            f"{arm.response_tokens:,.0f}",
        ]
        yield f"| {' | '.join(cells)} |"
    yield ""
    yield from (f"- {contrast_line(contrast)}" for contrast in summary.contrasts)


def _by_target(outcome: FinetuneOutcome, budget: int) -> Iterator[str]:
    """Gains of one budget, target by target; the best arm but oracle is bold."""
    gains = gains_of(outcome, budget)
    arms = [*sorted({arm for _, arm in gains} - {ORACLE}), ORACLE]
    names = [t.name for t in outcome.targets if (t.name, RANDOM) in gains]
    yield f"\nGain at {budget:,} tokens, target by target; the highest but oracle is bold.\n"
    yield f"| target | {' | '.join(arms)} |"
    yield f"| --- | {' | '.join('---:' for _ in arms)} |"
    for name in names:
        most = max(gains[name, arm] for arm in arms if arm != ORACLE and (name, arm) in gains)
        cells = []
        for arm in arms:
            value = gains.get((name, arm))
            text = "" if value is None else f"{value:.3f}"
            cells.append(f"**{text}**" if value == most and arm != ORACLE else text)
        yield f"| {name} | {' | '.join(cells)} |"


def gains_of(outcome: FinetuneOutcome, budget: int) -> dict[tuple[str, str], float]:
    """(target, arm) -> share of the untrained model's bits that training saved, mean of seeds."""
    before = {r["target"]: sum(r["bits"]) for r in outcome.results if r["arm"] == ZERO}
    seeds: dict[tuple[str, str], list[float]] = {}
    for run in outcome.results:
        if run["arm"] != ZERO and run["budget"] == budget:
            gain = 1 - sum(run["bits"]) / before[run["target"]]
            seeds.setdefault((run["target"], run["arm"]), []).append(gain)
    return {key: float(np.mean(values)) for key, values in seeds.items()}


def plotted(runs: Sequence[Row]) -> Iterator[tuple[str, list[Row]]]:
    """Targets with the runs of each, where any was trained."""
    for target in dict.fromkeys(run["target"] for run in runs):
        own = [run for run in runs if run["target"] == target]
        if any(run["arm"] != ZERO for run in own):
            yield target, own


def svg(plots: Sequence[Plot]) -> str:
    """One image of all plots, with one key."""
    width, height = _CELL
    rows = -(-len(plots) // _COLUMNS)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width * _COLUMNS}'
        f' {height * rows + _KEY}" font-family="sans-serif" font-size="5">'
        '<rect width="100%" height="100%" fill="#fff"/>'
    ]
    for number, plot in enumerate(plots):
        x, y = width * (number % _COLUMNS) + 22, height * (number // _COLUMNS) + 12
        parts += [f'<g transform="translate({x} {y})">', *_plot(plot), "</g>"]
    for number, line in enumerate(plots[0].lines if plots else []):
        across = 6 + number * (width * _COLUMNS - 6) / len(plots[0].lines)
        y = height * rows + 8
        dash = ' stroke-dasharray="2 1"' if line.is_dashed else ""
        parts.append(
            f'<path d="M{across:.1f} {y - 1.5} h6" stroke="{line.color}"{dash}/>'
            f'<text x="{across + 7:.1f}" y="{y}" font-size="4">{html.escape(line.arm)}</text>'
        )
    return "\n".join([*parts, "</svg>"]) + "\n"


def _plot(plot: Plot) -> Iterator[str]:
    yield f'<text x="0" y="-4" font-weight="bold">{html.escape(plot.target)}</text>'
    for tick in plot.y_ticks:
        y = 100 - tick.at
        yield f'<path d="M0 {y:.2f} H100" stroke="#ddd" stroke-width="0.3"/>'
        yield f'<text x="-2" y="{y + 1.5:.2f}" text-anchor="end">{tick.label}</text>'
    for tick in plot.x_ticks:
        yield f'<text x="{tick.at:.2f}" y="107" text-anchor="middle">{tick.label}</text>'
    yield f'<path d="{plot.band}" fill="#8884"/>'
    for line in plot.lines:
        dash = ' stroke-dasharray="2 1"' if line.is_dashed else ""
        stroke = "1.4" if line.arm == "best" else "0.7"
        yield (
            f'<path d="{line.path}" fill="none" stroke="{line.color}"'
            f' stroke-width="{stroke}"{dash}/>'
        )


def replaced(page: str, name: str, text: str) -> str:
    """The page with another text in a block. Raises ValueError where the page has none."""
    first, last = f"<!-- {name} -->\n", f"\n<!-- end of {name} -->"
    before, opening, rest = page.partition(first)
    _, closing, after = rest.partition(last)
    if not opening or not closing:
        raise ValueError(f"the page has no block {name}: {first.strip()} to {last.strip()}")
    return before + opening + text + closing + after


if __name__ == "__main__":
    main()
