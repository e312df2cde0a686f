"""Picks and near misses as reports show them, read in bulk: texts, shared latents, marked tokens.

What a page holds is limited by the rules below, and the page says so.
"""

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from selection.data.messages.normalize import normalize_messages, turn_texts
from storage.catalog.connection import Connection
from storage.catalog.snapshot import open_snapshot
from storage.files.workspace import Workspace
from storage.queries.lookup import SelectionRow, described
from storage.report.records import Latent, Piece, ShownPick, Turn
from storage.wording.reasons import Kind, Span, full_words, reason_words

WHOLE_PICKS = 100
"""The first picks are shown with MOST_CHARACTERS of text, the others with SHORT_CHARACTERS."""

MOST_CHARACTERS = 4000
SHORT_CHARACTERS = 320
MOST_PICKS = 50_000
"""Picks that a page holds; the catalog holds them all."""

TOP_LATENTS = 4
"""Of each space that can be read; beside a pick."""

_LOOKED_AT = 8
"""Words and tokens among which these are, with the signs between them; latents can all be read."""

_HEATS = 4


class ActiveToken(NamedTuple):
    """A token on which a latent is active."""

    space: str
    latent: int
    turn: int
    first: int
    end: int
    strength: float


_PICKS = """
SELECT p.rank, p.score, p.example_id, coalesce(p.target, s.target), o.own_id, o.source, o.file,
    o."row", o.licence, p.tokens, coalesce(c.n, 0), x.messages, {reason}
FROM {table} p JOIN selection s USING (selection_id) JOIN sample x USING (example_id)
LEFT JOIN v_first_occurrence o ON o.run_id = s.run_id AND o.example_id = p.example_id
LEFT JOIN (SELECT run_id, example_id, count(*) AS n FROM occurrence GROUP BY ALL) c
    ON c.run_id = s.run_id AND c.example_id = p.example_id
WHERE p.selection_id = $chosen AND {ranks} ORDER BY p.rank"""

_WHY = f"""
SELECT w.example_id, w.exemplar_id, coalesce(w.space, ''), w.latent,
    coalesce(w.term, d.description), w.contribution, coalesce(w.share, 0)
FROM explanation w JOIN selection s USING (selection_id) JOIN run r USING (run_id)
JOIN {{table}} p ON p.selection_id = w.selection_id AND p.example_id = w.example_id
{described("w")}
WHERE w.selection_id = $chosen AND {{ranks}} AND coalesce(w.exemplar_rank, 1) = 1
QUALIFY row_number() OVER (PARTITION BY w.example_id, w.space
    ORDER BY w.latent < 0, w.position, w.contribution DESC, w.latent)
    <= CASE WHEN w.term IS NULL THEN {TOP_LATENTS} ELSE {_LOOKED_AT} END
ORDER BY p.rank, w.latent < 0, w.position, w.contribution DESC, w.latent"""

_ACTIVE = """
SELECT f.example_id, f.space, f.latent, f.turn, f.first_char, f.end_char, f.activation
FROM token_activations f JOIN {table} p USING (selection_id, example_id)
WHERE f.selection_id = $chosen AND {ranks} AND f.turn IS NOT NULL
ORDER BY f.example_id, f.turn, f.first_char, f.end_char, f.latent"""


def shown_picks(
    connection: Connection,
    chosen: SelectionRow,
    table: str,
    first: int,
    last: int,
    most_characters: int = MOST_CHARACTERS,
) -> list[ShownPick]:
    """Ranks first to last of `pick` or `near_miss`, both included."""
    ranks = "p.rank BETWEEN $first AND $last"
    values: dict[str, object] = {"first": first, "last": last}
    return _read(connection, chosen, table, ranks, values, most_characters)


def picks_at(
    connection: Connection, chosen: SelectionRow, ranks: Sequence[int]
) -> dict[int, ShownPick]:
    """The picks of these ranks, by rank."""
    within = "list_contains($ranks::BIGINT[], p.rank)"
    picks = _read(connection, chosen, "pick", within, {"ranks": list(ranks)}, MOST_CHARACTERS)
    return {pick.rank: pick for pick in picks}


def first_reasons(
    workspace: Workspace, chosen: SelectionRow, n: int, most: int
) -> dict[int, list[str]]:
    """What the first n picks share with their nearest exemplars, in words, by rank.

    most: reasons that can be read; signs between them follow as a number.
    """
    with open_snapshot(workspace) as connection:
        shown = shown_picks(connection, chosen, "pick", 1, n, SHORT_CHARACTERS)
    return {pick.rank: [reason.words for reason in pick.reasons(most)] for pick in shown}


def _read(
    connection: Connection,
    chosen: SelectionRow,
    table: str,
    ranks: str,
    values: Mapping[str, object],
    most_characters: int,
) -> list[ShownPick]:
    """ranks: SQL that says which; values: what it names."""
    values = {"chosen": chosen.selection_id, **values}
    reason = "p.reason" if table == "pick" else "NULL"
    rows, why, active = (
        connection.execute(query.format(table=table, ranks=ranks, reason=reason), values).fetchall()
        for query in (_PICKS, _WHY, _ACTIVE)
    )
    whys, activations = _by_example(why), _by_example(active)
    return [
        _shown(row, whys.get(row[2], []), activations.get(row[2], []), most_characters)
        for row in rows
    ]


def _by_example(rows: Iterable[tuple[Any, ...]]) -> dict[str, list[tuple[Any, ...]]]:
    grouped: dict[str, list[tuple[Any, ...]]] = {}
    for example_id, *rest in rows:
        grouped.setdefault(example_id, []).append(tuple(rest))
    return grouped


def _shown(
    row: tuple[Any, ...],
    why: Sequence[tuple[Any, ...]],
    active: Sequence[tuple[Any, ...]],
    most_characters: int,
) -> ShownPick:
    messages = json.loads(row[-2])
    texts = turn_texts(messages)
    activations = [ActiveToken(*each) for each in active]
    latents = _latents(why, activations, texts)
    rest_share = 1 - sum(latent.share for latent in latents)
    turns = _turns(messages, texts, most_characters, marks_of(activations, latents))
    exemplar_id = why[0][0] if why else None
    return ShownPick(*[*row[:-2], turns, latents, rest_share, exemplar_id, row[-1]])


def _latents(
    why: Sequence[tuple[Any, ...]], active: Sequence[ActiveToken], texts: Sequence[str]
) -> list[Latent]:
    """The first TOP_LATENTS of each space that can be read, and what stands between them."""
    places: dict[tuple[str, int], list[ActiveToken]] = {}
    for each in active:
        places.setdefault((each.space, each.latent), []).append(each)
    latents, n_readable = [], dict.fromkeys((space for _, space, *_ in why), 0)
    for _, space, number, text, part, share in why:
        if number < 0 or n_readable[space] == TOP_LATENTS:
            continue
        strongest = sorted(places.get((space, number), []), key=lambda each: -each.strength)
        spans = [Span(*each[2:5]) for each in strongest]
        label = reason_words(space, number, text, texts, spans)
        n_readable[space] += label.kind is Kind.READABLE
        name = full_words(space, text, label) if text else f"latent {number}"
        latents.append(Latent(name, space, number, bool(text), part, share, label))
    return latents


Marks = Mapping[int, Sequence[tuple[int, int, int, str]]]
"""Turn -> (first character, end, heat, levels) of its tokens that active, in order."""


def marks_of(active: Sequence[ActiveToken], latents: Sequence[Latent]) -> Marks:
    """How strongly each token active; see `Piece`.

    A token's heat is the sum over latents of the latent's share of the similarity times its
    strength on the token, in quarters of the hottest token of the sample.
    """
    numbers = {(latent.space, latent.number): index for index, latent in enumerate(latents)}
    shown = [(numbers[each[:2]], each) for each in active if each[:2] in numbers]
    top = {index: 0.0 for index in numbers.values()}
    for index, each in shown:
        top[index] = max(top[index], each.strength)
    parts: dict[tuple[int, int, int], list[float]] = {}
    for index, each in shown:
        part = parts.setdefault((each.turn, each.first, each.end), [0.0] * len(latents))
        part[index] = max(part[index], each.strength / top[index])
    worth = {
        key: sum(share * latent.share for share, latent in zip(part, latents, strict=True))
        for key, part in parts.items()
    }
    hottest = max(worth.values(), default=0.0) or 1.0
    marks: dict[int, list[tuple[int, int, int, str]]] = {}
    for (turn, first, end), part in sorted(parts.items()):
        heat = max(1, math.ceil(_HEATS * worth[turn, first, end] / hottest - 1e-9))
        levels = "".join(str(-int(-9 * share // 1)) for share in part)
        marks.setdefault(turn, []).append((first, end, heat, levels))
    return {turn: _apart(each) for turn, each in marks.items()}


def _apart(marks: Sequence[tuple[int, int, int, str]]) -> list[tuple[int, int, int, str]]:
    """The same marks without overlaps: where several lie, the hottest and the highest levels count.

    A word and the token with the space before it, for example.
    """
    bounds = sorted({bound for first, end, _, _ in marks for bound in (first, end)})
    separate: list[tuple[int, int, int, str]] = []
    for first, end in pairwise(bounds):
        over = [mark for mark in marks if mark[0] <= first and end <= mark[1]]
        if over:
            levels = "".join(map(max, zip(*(mark[3] for mark in over), strict=True)))
            separate.append((first, end, max(mark[2] for mark in over), levels))
    return separate


def turns_of(
    messages: str, most_characters: int = MOST_CHARACTERS, marks: Marks | None = None
) -> list[Turn]:
    """Messages (JSON) as turns to read; text is cut after so many characters in all."""
    parsed = json.loads(messages)
    return _turns(parsed, turn_texts(parsed), most_characters, marks or {})


def _turns(
    messages: Sequence[Mapping[str, Any]], texts: Sequence[str], left: int, marks: Marks
) -> list[Turn]:
    turns = []
    for number, (message, text) in enumerate(zip(normalize_messages(messages), texts, strict=True)):
        pieces = list(_pieces(text[:left], marks.get(number, ())))
        turns.append(Turn(str(message["role"]), pieces, max(0, len(text) - left)))
        left = max(0, left - len(text))
    return turns


def _pieces(text: str, marks: Sequence[tuple[int, int, int, str]]) -> Iterator[Piece]:
    """The text cut at its marks; of marks that overlap the first has the characters."""
    at = 0
    for first, end, heat, levels in marks:
        first, end = max(first, at), min(end, len(text))
        if first < end:
            if at < first:
                yield Piece(text[at:first])
            yield Piece(text[first:end], heat, levels)
            at = end
    if at < len(text):
        yield Piece(text[at:])
