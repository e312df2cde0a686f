"""Tokens and words of the first picks and near misses that explain them, as catalog rows.

For latents one more pass of the model over a few samples, after everything is decided; words and
tokens of lexical spaces are found in the text.
"""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from flows.orchestration.progress import stage
from flows.stages.record.material import Material, Row
from flows.stages.represent.representer import Representer
from flows.stages.represent.spaces import Source
from selection.core.errors import InputError
from selection.core.hashing import content_id
from selection.core.words import word_spans
from selection.data.messages.normalize import turn_texts
from selection.picking.selections import Selection
from selection.records import Rendered
from selection.rendering.offsets import TurnPositions
from selection.representation.lexical import word_column
from selection.representation.token_activations import strongest, token_activations
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
    places = {
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
                part = places.get(space, {}).get((row, latent), ())
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
    """(pool row, latent) -> the places of its tokens, in their order.

    The model runs only where no file has the answer.
    """
    representer = source.representer
    rows = np.array(sorted(wanted), np.int64)
    latents = [np.array(sorted(wanted[row]), np.int64) for row in rows.tolist()]
    ids = material.pool.example_ids()[rows].astype(str).tolist()
    compute = representer.config.compute
    question = [
        FORMAT,
        representer.model_input.renderer.rendering_id,
        TOKENS,
        compute.plan_key,
        [[name, each.tolist()] for name, each in zip(ids, latents, strict=True)],
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
        marks.setdefault((int(rows[row["sample"]]), row["latent"]), []).append(mark)
    return marks


def _compute_token_activations(
    material: Material,
    representer: Representer,
    rows: NDArray[np.int64],
    latents: Sequence[NDArray[np.int64]],
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
    places = np.zeros((len(strong.tokens), 3), np.int64)  # turn, first character, end
    for n, (sample, token) in enumerate(zip(strong.samples, strong.tokens, strict=True)):
        there = shown[sample].places
        places[n] = there.turns[token], there.starts[token], there.ends[token]
    has_place = places[:, 0] >= 0
    columns = (strong.samples, strong.latents, *places.T, strong.strengths)
    return pa.table([column[has_place] for column in columns], names=SCHEMA.names).cast(SCHEMA)


def _counted(
    material: Material, source: Source, wanted: Mapping[int, set[int]]
) -> dict[tuple[int, int], list[Row]]:
    """(pool row, column) -> where its word or token stands among what counts, in the text's order.

    At most TOKENS places of each, the first ones; every place is as strong as another.
    """
    rows = np.array(sorted(wanted), np.int64)
    marks: dict[tuple[int, int], list[Row]] = {}
    for row, each in zip(rows.tolist(), _rendered(material, source.representer, rows), strict=True):
        terms = _tokens_of(each) if source.settings.kind == "tokens" else _words_of(each)
        for column, turn, first, end in terms:
            here = marks.setdefault((row, column), []) if column in wanted[row] else None
            if here is not None and len(here) < TOKENS:
                here.append(_mark(turn, first, end, 1.0))
    return marks


def _mark(turn: int, first: int, end: int, activation: float) -> Row:
    return {
        "turn": int(turn),
        "first_char": int(first),
        "end_char": int(end),
        "activation": activation,
    }


class RenderedSample(NamedTuple):
    """A sample of the pool: as the model reads it, where its counted tokens lie, its turns."""

    rendered: Rendered
    places: TurnPositions
    turns: list[str]


def _words_of(shown: RenderedSample) -> Iterator[tuple[int, int, int, int]]:
    """(column, turn, first character, end) of every word whose first character counts."""
    places = shown.places
    for number, text in enumerate(shown.turns):
        counts = np.zeros(len(text), np.bool_)
        for token in np.flatnonzero(places.turns == number):
            counts[places.starts[token] : places.ends[token]] = True
        for first, end, word in word_spans(text):
            if counts[first]:
                yield word_column(word), number, first, end


def _tokens_of(shown: RenderedSample) -> Iterator[tuple[int, int, int, int]]:
    """(token id, turn, first character, end) of every counted token that has a place."""
    places, tokens = shown.places, shown.rendered.tokens[shown.rendered.content_mask]
    for token in np.flatnonzero(places.turns >= 0):
        yield (
            int(tokens[token]),
            int(places.turns[token]),
            int(places.starts[token]),
            int(places.ends[token]),
        )


def _rendered(
    material: Material, representer: Representer, rows: NDArray[np.int64]
) -> list[RenderedSample]:
    """Samples of the pool as they are marked."""
    renderer, shown = representer.model_input.renderer, []
    for row in material.pool.examples_at(rows).to_pylist():
        messages = json.loads(row["messages"])
        tools = json.loads(row["tools"]) if row["tools"] else None
        shown.append(
            RenderedSample(*renderer.render_with_positions(messages, tools), turn_texts(messages))
        )
    return shown
