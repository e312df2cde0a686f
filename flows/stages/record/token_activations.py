"""Tokens and words of the first picks and near misses that explain them, as catalog rows.

For latents one more pass of the model over a few samples, after everything is decided; words and
tokens of lexical spaces are found in the text.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from flows.orchestration.progress import stage
from flows.stages.record.material import Material, Row
from flows.stages.represent.representer import Representer
from flows.stages.represent.spaces import Source
from selection.core.errors import InputError
from selection.core.hashing import content_id
from selection.data.messages.normalize import turn_texts
from selection.picking.selections import Selection
from selection.records import Rendered
from selection.rendering.offsets import TurnPositions
from selection.representation.lexical import term_spans
from selection.representation.token_activations import in_turns, strongest, token_activations
from storage.catalog.arrow_rows import to_arrow
from storage.pools.token_activations import SCHEMA, read_token_activations, save_token_activations

log = logging.getLogger(__name__)

LATENTS = 5  # of each SAE space of an explanation, in its order, whose tokens are marked
TERMS = 8  # of each lexical space: several may be signs, which say little
FORMAT = 1  # of a kept answer; raised when what it means changes
TOKENS = 48  # per sample and latent, the strongest

Wanted = dict[str, dict[int, set[int]]]  # space -> pool row -> latents


def token_activation_rows(material: Material, why: pa.Table | None) -> dict[str, pa.Table]:
    """The table `token_activations` of all selections; empty where none are asked for.

    why: explanations as `flows.stages.record.explanations` makes them.
    """
    n = material.config.explain_tokens
    if not n or why is None:
        return {}
    most = {each.name: TERMS if each.is_lexical else LATENTS for each in material.spaces.sources}
    named = _named_latents(why, most)
    shown = {
        d.selection_id: _shown(material, d, n) for d in material.decided if d.method == "jaccard"
    }
    wanted: Wanted = {}
    for selection_id, rows in shown.items():
        for row, example_id in rows:
            for space, latent in named.get((selection_id, example_id), ()):
                wanted.setdefault(space, {}).setdefault(row, set()).add(latent)
    marks_of = {
        source.name: (_counted if source.is_lexical else _activations_of)(
            material, source, wanted[source.name]
        )
        for source in material.spaces.sources
        if source.name in wanted
    }
    marked: list[Row] = []
    for selection_id, rows in shown.items():
        for row, example_id in rows:
            base: Row = {"selection_id": selection_id, "example_id": example_id}
            for space, latent in named.get((selection_id, example_id), ()):
                part = marks_of.get(space, {}).get((row, latent), ())
                marked += [{**base, "space": space, "latent": latent, **each} for each in part]
    return {"token_activations": to_arrow("token_activations", marked)} if marked else {}


def _named_latents(
    why: pa.Table, most: Mapping[str, int]
) -> dict[tuple[str, str], list[tuple[str, int]]]:
    """(selection, example) -> the first columns of each space beside its nearest exemplar.

    most: space -> number of columns.

    Spaces are counted apart: words often say more than latents, and would leave none of them.
    """
    is_named = pc.and_(pc.equal(why["exemplar_rank"], 1), pc.greater_equal(why["latent"], 0))
    named: dict[tuple[str, str], list[tuple[str, int]]] = {}
    names = ("selection_id", "example_id", "space", "latent")
    columns = (why.filter(is_named)[name].to_pylist() for name in names)
    for selection_id, example_id, space, latent in zip(*columns, strict=True):
        first = named.setdefault((selection_id, example_id), [])
        if sum(other == space for other, _ in first) < most[space]:
            first.append((space, latent))
    return named


def _shown(material: Material, decided: Selection, n: int) -> list[tuple[int, str]]:
    """(pool row, example id) of the first n picks, and of a tenth as many near misses."""
    n_selected, n_near = decided.cut.n_selected, max(1, n // 10)
    top = material.top_of(decided, n_near).select(["example_row", "example_id"])
    parts = (top.slice(0, min(n, n_selected)), top.slice(n_selected))
    return [(row["example_row"], row["example_id"]) for part in parts for row in part.to_pylist()]


def _activations_of(
    material: Material, source: Source, wanted: Mapping[int, set[int]]
) -> dict[tuple[int, int], list[Row]]:
    """(pool row, latent) -> the spans of its tokens, in their order.

    The model runs only where no file has the answer.
    """
    representer, rows = source.representer, sorted(wanted)
    latents = [sorted(wanted[row]) for row in rows]
    ids = material.pool.example_ids()[rows].astype(str).tolist()
    compute = representer.config.compute
    question = [
        FORMAT,
        representer.model_input.renderer.rendering_id,
        TOKENS,
        compute.plan_key,
        [[name, each] for name, each in zip(ids, latents, strict=True)],
    ]
    folder = representer.workspace.token_activations / representer.representation_id
    file = folder / f"{content_id(question)}.parquet"
    table = read_token_activations(file)
    if table is None:
        table = _compute_token_activations(material, representer, rows, latents)
        try:
            save_token_activations(file, table)
        except (OSError, InputError) as error:  # only the next run would have gained by it
            log.warning("token activations are not kept: %s", error)
    else:
        with stage("mark tokens", len(rows), "samples") as handle:
            handle.detail = f"{len(table):,} token activations, computed before"
    marks: dict[tuple[int, int], list[Row]] = {}
    for row in table.to_pylist():
        mark = _mark(row["turn"], row["first_char"], row["end_char"], row["strength"])
        marks.setdefault((rows[row["sample"]], row["latent"]), []).append(mark)
    return marks


def _compute_token_activations(
    material: Material,
    representer: Representer,
    rows: Sequence[int],
    latents: Sequence[Sequence[int]],
) -> pa.Table:
    """One more pass over these rows' samples: a table of `storage.pools.token_activations`."""
    shown = _rendered(material, representer, rows)
    per_batch, model = representer.config.compute.tokens_per_batch, representer.model
    samples = [each.rendered for each in shown]
    with stage("mark tokens", len(samples), "samples") as handle:
        strong = strongest(
            token_activations(samples, latents, model, representer.head, per_batch), TOKENS
        )
        handle.detail = f"{len(strong.tokens):,} token activations of explaining latents"
    columns = in_turns(strong, [each.positions for each in shown])
    return pa.table(list(columns), names=SCHEMA.names).cast(SCHEMA)


def _counted(
    material: Material, source: Source, wanted: Mapping[int, set[int]]
) -> dict[tuple[int, int], list[Row]]:
    """(pool row, column) -> the spans of its content token or word, in the text's order.

    At most TOKENS of each, the first ones; one is as strong as another.
    """
    rows, kind = sorted(wanted), source.settings.kind
    assert kind != "sae"
    marks: dict[tuple[int, int], list[Row]] = {}
    for row, each in zip(rows, _rendered(material, source.representer, rows), strict=True):
        for term in term_spans(kind, *each):
            here = marks.setdefault((row, term.column), []) if term.column in wanted[row] else None
            if here is not None and len(here) < TOKENS:
                here.append(_mark(term.turn, term.first, term.end, 1.0))
    return marks


def _mark(turn: int, first: int, end: int, activation: float) -> Row:
    return {"turn": turn, "first_char": first, "end_char": end, "activation": activation}


class RenderedSample(NamedTuple):
    """A sample of the pool: as the model reads it, where its content tokens lie, its turns."""

    rendered: Rendered
    positions: TurnPositions
    turns: list[str]


def _rendered(
    material: Material, representer: Representer, rows: Sequence[int]
) -> list[RenderedSample]:
    """Samples of the pool as they are marked."""
    renderer, shown = representer.model_input.renderer, []
    for row in material.pool.examples_at(pa.array(rows).to_numpy()).to_pylist():
        messages = json.loads(row["messages"])
        tools = json.loads(row["tools"]) if row["tools"] else None
        shown.append(
            RenderedSample(*renderer.render_with_positions(messages, tools), turn_texts(messages))
        )
    return shown
