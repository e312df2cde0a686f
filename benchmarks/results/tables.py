"""Tables of README and of pages, made from the results."""

import json
import re
from collections.abc import Mapping
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
ROOT = FOLDER.parents[1]
PAGES = (ROOT / "README.md", ROOT / "docs/benchmarks/measurements.md")

Figures = Any
"""Numbers of a result, nested as its JSON is."""

_BLOCK = re.compile(r"(<!-- figures: (\w+) -->\n)(.*?)(<!-- /figures -->)", re.S)

METHODS = {
    "best": "**`best`**",
    "tokens": "bag of the model's tokens, Jaccard",
    "rds_centered": "RDS, centered",
    "paper": "MoNA, the paper's rule",
    "bm25": "BM25",
    "rds+": "RDS+",
    "dsir": "DSIR",
}
ARMS = {
    "oracle": "random rows of the very task",
    "dsir": "DSIR",
    "bm25": "BM25",
    "paper": "MoNA, the paper's rule",
    "best": "**`best`**",
    "random": "random rows",
}


def load_results() -> dict[str, Figures]:
    """Every result by its name: what, command, machine, date, commit, figures."""
    files = sorted(FOLDER.glob("*.json"))
    return {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in files}


def tables(results: Mapping[str, Figures]) -> dict[str, str]:
    """Name -> Markdown of every block."""
    figures = {name: result["figures"] for name, result in results.items()}
    commands = {name: result["command"] for name, result in results.items()}
    blocks = _BLOCK.findall((FOLDER / "blocks.md").read_text(encoding="utf-8"))
    named = {**figures, "command": commands}
    return {
        **{name: text.strip().format(**named) for _, name, text, _ in blocks},
        "retrieval": _retrieval(figures["retrieval"]),
        "finetune": _finetune(figures["finetune"]["main"]),
        "demonstration": _demonstration(figures["demonstration"]),
        "sources": _sources(results),
    }


def with_tables(text: str, made: Mapping[str, str]) -> str:
    """A page whose blocks are those that were made."""
    return _BLOCK.sub(lambda match: f"{match[1]}{made[match[2]]}\n{match[4]}", text)


def _retrieval(settings: Figures) -> str:
    lines = [
        "| nDCG@1000 | instance | `best` ahead by | full | `best` ahead by |",
        "|---|---|---|---|---|",
    ]
    for method, label in METHODS.items():
        cells = [label]
        for setting in ("instance", "full"):
            row = settings[setting][method]
            cells += [f"{row['ndcg']:.3f}", _ahead(row)]
        lines.append(_row(cells))
    return "\n".join(lines)


def _finetune(groups: Figures) -> str:
    few, many = groups["4,000 tokens, new"], groups["12,000 tokens, new"]
    lines = [
        f"| trained on | 4,000 tokens, {few['targets']} tasks | `best` ahead by"
        f" | 12,000 tokens, {many['targets']} tasks | `best` ahead by |",
        "|---|---|---|---|---|",
    ]
    for arm, label in ARMS.items():
        cells = [label]
        for group in (few, many):
            row = group["arms"][arm]
            gain = row["gain"]
            cells += [f"{gain['mean']:.3f} [{gain['lo']:.3f}, {gain['hi']:.3f}]", _ahead(row)]
        lines.append(_row(cells))
    return "\n".join(lines)


def _demonstration(figures: Figures) -> str:
    labels = {
        "saelect": "saelect",
        "latents": "SAE latents alone",
        "bm25": "BM25",
        "bm25_stop_words": "BM25, stop words kept",
        "random": "random",
    }
    targets = figures["targets"]
    lines = [_row(["", *targets]), "|---" * (len(targets) + 1) + "|"]
    for name, label in labels.items():
        lines.append(_row([label, *(f"{share:.3f}" for share in figures["share"][name])]))
    return "\n".join(lines)


def _sources(results: Mapping[str, Figures]) -> str:
    lines = ["| result | command | date | commit | taken from |", "|---|---|---|---|---|"]
    for name, result in results.items():
        taken = result.get("taken_from", "").split(";")[0]
        command = f"`{result['command']}`"
        lines.append(_row([f"`{name}`", command, result["date"], result["commit"][:7], taken]))
    return "\n".join(lines)


def _ahead(row: Figures) -> str:
    """How far `best` is ahead, with its interval; nothing where it was not measured."""
    ahead = row.get("ahead")
    if not ahead:
        return ""
    mean, low, high = (_three(ahead[key]) for key in ("mean", "lo", "hi"))
    return f"{mean:+} [{low}, {high}]"


def _three(value: float) -> Decimal:
    """Three digits, halves away from zero: results have four, and 0.0095 is 0.010."""
    return Decimal(str(value)).quantize(Decimal("0.001"), ROUND_HALF_UP)


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |".replace("|  |", "| |")
