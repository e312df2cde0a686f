"""Which tokens of the first picks and near misses fired: rows of the table fired.

One more pass of the model over a few samples, after everything is decided.
"""

import json
from collections.abc import Mapping

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from flows.progress import stage
from flows.stages.choose import Decided
from flows.stages.material import Material, Row, top_of
from flows.stages.vectors import Representer
from selection.firing import firings, strongest
from selection.places import Places
from selection.records import Rendered
from storage.tables import table_of

LATENTS = 5  # of an explanation, in its order, whose tokens are marked
TOKENS = 48  # per sample and latent, the strongest

Wanted = dict[str, dict[int, set[int]]]  # space -> pool row -> latents


def fired_rows(material: Material, why: pa.Table | None) -> dict[str, pa.Table]:
    """The table `fired` for all selections with explanations; empty where none are asked for.

    why: explanations as `flows.stages.why` makes them.
    """
    n = material.config.explain_tokens
    if not n or why is None:
        return {}
    named = _named_latents(why)
    shown = {d.selection_id: _shown(d, n) for d in material.decided if d.method == "jaccard"}
    wanted: Wanted = {}
    for selection_id, rows in shown.items():
        for row, example_id in rows:
            for space, latent in named.get((selection_id, example_id), ()):
                wanted.setdefault(space, {}).setdefault(row, set()).add(latent)
    places = {
        source.name: _fired(material, source.representer, wanted[source.name])
        for source in material.spaces.sources
        if source.name in wanted and not source.is_lexical
    }
    found: list[Row] = []
    for selection_id, rows in shown.items():
        for row, example_id in rows:
            base: Row = {"selection_id": selection_id, "example_id": example_id}
            for space, latent in named.get((selection_id, example_id), ()):
                part = places.get(space, {}).get((row, latent), ())
                found += [{**base, "space": space, "latent": latent, **each} for each in part]
    return {"fired": table_of("fired", found)} if found else {}


def _named_latents(why: pa.Table) -> dict[tuple[str, str], list[tuple[str, int]]]:
    """(selection, example) -> the first latents beside its nearest exemplar, as (space, latent)."""
    named: dict[tuple[str, str], list[tuple[str, int]]] = {}
    names = ("selection_id", "example_id", "space", "latent", "nearness")
    columns = (why[name].to_pylist() for name in names)
    for selection_id, example_id, space, latent, nearness in zip(*columns, strict=True):
        first = named.setdefault((selection_id, example_id), [])
        if nearness == 1 and latent >= 0 and len(first) < LATENTS:
            first.append((space, latent))
    return named


def _shown(decided: Decided, n: int) -> list[tuple[int, str]]:
    """(pool row, example id) of the first n picks, and of a tenth as many near misses."""
    n_selected, n_near = decided.cut.n_selected, max(1, n // 10)
    top = top_of(decided, n_near).select(["example_row", "example_id"])
    parts = (top.slice(0, min(n, n_selected)), top.slice(n_selected))
    return [(row["example_row"], row["example_id"]) for part in parts for row in part.to_pylist()]


def _fired(
    material: Material, representer: Representer, wanted: Mapping[int, set[int]]
) -> dict[tuple[int, int], list[Row]]:
    """(pool row, latent) -> the places of its tokens, in their order."""
    rows = np.array(sorted(wanted), np.int64)
    samples, places = _rendered(material, representer, rows)
    latents = [np.array(sorted(wanted[row]), np.int64) for row in rows.tolist()]
    per_batch, model = representer.config.compute.tokens_per_batch, representer.model
    with stage("tokens", len(samples), "samples") as handle:
        found = strongest(firings(samples, latents, model, representer.head, per_batch), TOKENS)
        handle.detail = f"{len(found.tokens):,} places where explaining latents fire"
    marks: dict[tuple[int, int], list[Row]] = {}
    columns = (found.samples, found.latents, found.tokens, found.strengths)
    for sample, latent, token, strength in zip(*(c.tolist() for c in columns), strict=True):
        place = places[sample]
        if place.turns[token] >= 0:
            marks.setdefault((int(rows[sample]), latent), []).append(
                {
                    "turn": int(place.turns[token]),
                    "first_char": int(place.starts[token]),
                    "end_char": int(place.ends[token]),
                    "strength": strength,
                }
            )
    return marks


def _rendered(
    material: Material, representer: Representer, rows: NDArray[np.int64]
) -> tuple[list[Rendered], list[Places]]:
    """Samples of the pool as the model reads them, and where their counted tokens lie."""
    renderer, both = representer.reader.renderer, []
    for row in material.pool.examples_at(rows).to_pylist():
        tools = json.loads(row["tools"]) if row["tools"] else None
        both.append(renderer.render_placed(json.loads(row["messages"]), tools))
    return [rendered for rendered, _ in both], [place for _, place in both]
