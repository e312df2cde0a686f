"""The picture of how saelect works, as SVG: `python -m tests.diagram` writes it."""

import html
from pathlib import Path
from typing import NamedTuple

FILE = Path(__file__).parents[1] / "docs/images/how-it-works.svg"
WIDTH, HEIGHT, GAP, COLUMNS, ROWS = 186, 70, 24, 3, 5
COLORS = {"data": "#e8f0fe", "step": "#ffffff", "result": "#e6f4ea"}

Place = tuple[float, int]


class Box(NamedTuple):
    """A box of the picture: column, row, what kind it is, title, two lines below it."""

    column: float
    row: int
    kind: str
    title: str
    lines: tuple[str, str]


BOXES = (
    Box(0, 0, "data", "Pool", ("files, folders, URLs,", "Hugging Face datasets")),
    Box(1, 0, "data", "Exemplars", ("5 to 500 samples", "of the target task")),
    Box(0, 1, "step", "Tokens", ("the model's template,", "content marked")),
    Box(1, 1, "step", "Model", ("forward pass, up to", "one block, paid once")),
    Box(2, 1, "step", "SAE", ("latents that fire", "on each token")),
    Box(2, 2, "step", "Vector", ("mean over tokens,", "beside token counts")),
    Box(1, 2, "step", "Rank", ("exact generalized", "Jaccard to exemplars")),
    Box(0, 2, "step", "Budget and rules", ("tokens, quotas,", "duplicates, controls")),
    Box(0, 3, "step", "Check", ("exemplars held out,", "BM25 and chance beside")),
    Box(1, 3, "step", "Record", ("every decision,", "in one commit")),
    Box(0, 4, "result", "Training file", ("JSONL and others,", "hashes beside it")),
    Box(1, 4, "result", "Report", ("one HTML file,", "works offline")),
    Box(2, 4, "result", "Catalog", ("DuckDB: why, from", "where, which export")),
)
ARROWS: tuple[tuple[Place, Place], ...] = (
    ((0, 0), (0, 1)), ((1, 0), (0, 1)), ((0, 1), (1, 1)), ((1, 1), (2, 1)), ((2, 1), (2, 2)),
    ((2, 2), (1, 2)), ((1, 2), (0, 2)), ((0, 2), (0, 3)), ((0, 3), (1, 3)),
    ((1, 3), (0, 4)), ((1, 3), (1, 4)), ((1, 3), (2, 4)),
)  # fmt: skip


def svg() -> str:
    """The whole picture."""
    width, height = COLUMNS * (WIDTH + GAP) + GAP, ROWS * (HEIGHT + 2 * GAP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}"'
        f' viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="15.5"'
        ' text-anchor="middle">',
        "<title>From a pool and exemplars to a training file, a report and a catalog</title>",
        '<rect width="100%" height="100%" rx="8" fill="#f8f9fa"/>',
        '<marker id="head" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7"'
        ' orient="auto"><path d="M0 0 L8 4 L0 8 Z" fill="#555"/></marker>',
        *[_arrow(*ends) for ends in ARROWS],
        *[_box(box) for box in BOXES],
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _corner(place: Place) -> tuple[float, float]:
    """Left upper corner of the box at a column and row."""
    return GAP + place[0] * (WIDTH + GAP), GAP + place[1] * (HEIGHT + 2 * GAP)


def _box(box: Box) -> str:
    x, y = _corner((box.column, box.row))
    middle = x + WIDTH / 2
    texts = [f'<text x="{middle:g}" y="{y + 22:g}" font-weight="bold">{box.title}</text>'] + [
        f'<text x="{middle:g}" y="{y + 41 + 18 * i:g}" fill="#444">{html.escape(line)}</text>'
        for i, line in enumerate(box.lines)
    ]
    return (
        f'<rect x="{x:g}" y="{y:g}" width="{WIDTH}" height="{HEIGHT}" rx="6"'
        f' fill="{COLORS[box.kind]}" stroke="#888"/>' + "".join(texts)
    )


def _arrow(start: Place, end: Place) -> str:
    """Between sides of neighbors in a row, else from the lower side to the upper side."""
    (x, y), (to_x, to_y) = _corner(start), _corner(end)
    if start[1] == end[1]:
        x, to_x = (x + WIDTH, to_x) if end[0] > start[0] else (x, to_x + WIDTH)
        path = f"M{x:g} {y + HEIGHT / 2:g} H{to_x:g}"
    else:
        x, y, to_x = x + WIDTH / 2, y + HEIGHT, to_x + WIDTH / 2
        path = f"M{x:g} {y:g} V{y + GAP:g} H{to_x:g} V{to_y:g}"
    return f'<path d="{path}" fill="none" stroke="#555" marker-end="url(#head)"/>'


if __name__ == "__main__":
    FILE.write_text(svg(), encoding="utf-8")
