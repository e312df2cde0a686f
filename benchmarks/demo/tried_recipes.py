"""Recipes of the language model that were tried: their committed records as tables of the card.

A record is `recipes/NAME.json`, written by `record_recipe`: `settings`, `parameters`, `tokens`,
`minutes`, `tokens_per_second`, `held_out_loss`, `bytes_per_token`, `bits_per_byte`, `curve` (lists
of step, tokens, minutes, held-out loss in nats a token), `retrieval` (or null) and `remark`.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selection.core.errors import InputError

FOLDER = Path(__file__).with_name("recipes")
CURVE_POINTS = 6
_BLOCK = re.compile(r"(?:trained|dense mean), block (\d+)")
_KEYS = (
    "settings",
    "parameters",
    "tokens",
    "minutes",
    "tokens_per_second",
    "held_out_loss",
    "bits_per_byte",
    "curve",
    "remark",
)


@dataclass(frozen=True, slots=True)
class TriedRecipe:
    """A finished training run. `found` is the record as it was read."""

    name: str
    found: dict[str, Any]

    @property
    def shape(self) -> str:
        """Blocks x width, vocabulary."""
        settings = self.found["settings"]
        return f"{settings['n_layers']} x {settings['d_model']}, {settings['vocab_size']:,} tokens"

    @property
    def best_block(self) -> str:
        """The block with the best T1 retrieval, with its T1 and T2; a dash if not measured."""
        results = (self.found.get("retrieval") or {}).get("results", {})
        blocks = {match[1]: r for name, r in results.items() if (match := _BLOCK.fullmatch(name))}
        if not blocks:
            return "-"
        block = max(blocks, key=lambda number: float(blocks[number]["T1"]))
        return f"{blocks[block]['T1']:.3f} / {blocks[block]['T2']:.3f} (block {block})"


def read_recipes(folder: Path = FOLDER) -> list[TriedRecipe]:
    """All records of a folder, best bits per byte first.

    Raises InputError for a record that lacks a field or a curve.
    """
    found = []
    for path in sorted(folder.glob("*.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        missing = [key for key in _KEYS if key not in record]
        if missing or not record["curve"]:
            raise InputError(
                "a tried recipe lacks fields",
                file=path,
                field=", ".join(missing) or "curve",
                remedy="Write it with `python -m benchmarks.demo.record_recipe`.",
            )
        found.append(TriedRecipe(path.stem, record))
    return sorted(found, key=lambda recipe: (float(recipe.found["bits_per_byte"]), recipe.name))


def recipes_text(recipes: Sequence[TriedRecipe]) -> str:
    """The card's section on what was tried, with curves; empty for no recipes."""
    if not recipes:
        return ""
    rows = "\n".join(map(_row, recipes))
    curves = "\n".join(f"| {r.name} | {_curve(r.found['curve'])} |" for r in recipes)
    remarks = "\n".join(f"- {r.name}: {r.found['remark']}" for r in recipes if r.found["remark"])
    return _SECTION.format(rows=rows, curves=curves, remarks=remarks)


def _row(recipe: TriedRecipe) -> str:
    found = recipe.found
    cells = [
        recipe.name,
        recipe.shape,
        f"{found['parameters'] / 1e6:.1f}",
        f"{found['tokens'] / 1e6:.2f}",
        f"{found['minutes']:.0f}",
        f"{found['tokens_per_second']:,}",
        f"{found['held_out_loss']:.3f}",
        f"{found['bits_per_byte']:.3f}",
        recipe.best_block,
    ]
    return f"| {' | '.join(cells)} |"


def _curve(curve: Sequence[Sequence[float]]) -> str:
    """A few points, evenly spread, the last one included: millions of tokens and loss."""
    stride = max(-(-len(curve) // CURVE_POINTS), 1)
    shown = curve[-1::-stride][::-1]
    return ", ".join(f"{tokens / 1e6:.1f} M: {loss:.3f}" for _, tokens, _, loss in shown)


_SECTION = """
## Recipes tried

Ordered by bits a byte on the held-out rows, which can be compared between vocabularies; loss a
token cannot. Minutes and tokens a second are of a two-core machine shared with other work.
Retrieval is mean nDCG@1000, T1 / T2, of the dense mean at the block that is best for T1; figures of
different numbers of rows are not to be compared, see the records in
`benchmarks/demo/recipes/`.

| recipe | blocks x width | M weights | M tokens | minutes | tokens/s | loss | bits/byte | T1 / T2 |
|---|---|---|---|---|---|---|---|---|
{rows}

Held-out loss (nats a token) by millions of training tokens:

| recipe | curve |
|---|---|
{curves}

{remarks}
"""
