"""Picks as compact JSON inside a page, in parts, for the page's own script to turn over.

Nothing in it can end the element that it stands in: `<`, `>` and `&` are escaped.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from selection.core.numbers import percent, score, spelled, unbroken
from storage.report.records import Chip, ShownPick, Turn

PART_PICKS = 1000

_ESCAPES = {
    "<": "\\u003c",
    ">": "\\u003e",
    "&": "\\u0026",
    "\u2028": "\\u2028",
    "\u2029": "\\u2029",
}


def inline_json(value: object) -> str:
    """JSON that may stand inside any element of a page."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    for sign, escape in _ESCAPES.items():
        text = text.replace(sign, escape)
    return text


@dataclass
class Words:
    """Numbers texts in the order in which they come; -1 is none."""

    numbers: dict[str, int] = field(default_factory=dict)

    def number(self, text: str | None) -> int:
        """Of a text, a new one if it has none."""
        return -1 if text is None else self.numbers.setdefault(text, len(self.numbers))

    def listed(self) -> list[str]:
        """The texts by number."""
        return [spelled(text) for text in self.numbers]


@dataclass(frozen=True, slots=True)
class PickData:
    """Everything that the script needs. head: JSON object; parts: JSON lists of picks."""

    head: str
    parts: Sequence[str]


def pick_data(
    picks: Sequence[ShownPick], exemplars: Mapping[str, Sequence[Turn]], facts: Mapping[str, object]
) -> PickData:
    """The picks in the order given. facts: more entries of the head, e.g. the size of a page.

    A pick is [rank, score, example id, target, source, file, row, own id, licence, tokens, places,
    turns, latents, share of the rest, exemplar, reason, chips]. A turn is [role, pieces, characters
    left out]; a piece a text, or [text, heat, levels]. A latent is [name, space, number, described,
    contribution, share]; a chip [words, its latents with spaces between them, share if these are
    several]. Scores and shares are written out. Target, source, file, licence, exemplar, reason,
    roles, names, words and spaces are numbers of texts in the head.
    """
    words, names = Words(), list(exemplars)
    places = {name: number for number, name in enumerate(names)}
    parts = [
        inline_json([_row(pick, words, places) for pick in picks[first : first + PART_PICKS]])
        for first in range(0, len(picks), PART_PICKS)
    ]
    shown = [[_turn(turn, words) for turn in exemplars[name]] for name in names]
    head = {**facts, "words": words.listed(), "exemplars": shown, "part": PART_PICKS}
    return PickData(inline_json(head), parts)


def _row(pick: ShownPick, words: Words, places: Mapping[str, int]) -> list[object]:
    exemplar = -1 if pick.exemplar_id is None else places.get(pick.exemplar_id, -1)
    return [
        pick.rank,
        score(pick.score),
        pick.example_id,
        words.number(pick.target),
        words.number(pick.source),
        words.number(pick.file),
        pick.row,
        None if pick.own_id is None else spelled(pick.own_id),
        words.number(pick.licence),
        pick.tokens,
        pick.n_places,
        [_turn(turn, words) for turn in pick.turns],
        [
            [
                words.number(each.name),
                words.number(each.space),
                each.number,
                int(each.is_described),
                each.contribution,
                unbroken(percent(each.share)),
            ]
            for each in pick.latents
        ],
        unbroken(percent(pick.rest_share)),
        exemplar,
        words.number(pick.reason),
        [_chip(chip, words) for chip in pick.reasons()],
    ]


def _chip(chip: Chip, words: Words) -> list[object]:
    row: list[object] = [words.number(chip.words), " ".join(map(str, chip.places))]
    return row if len(chip.places) == 1 else [*row, unbroken(percent(chip.share))]


def _turn(turn: Turn, words: Words) -> list[object]:
    pieces = [
        [spelled(piece.text), piece.heat, piece.levels] if piece.heat else spelled(piece.text)
        for piece in turn.pieces
    ]
    return [words.number(turn.role), pieces, turn.n_hidden]
