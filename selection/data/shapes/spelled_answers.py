"""Answers that are objects or lists, taken as the JSON text that spells them."""

from dataclasses import replace

from selection.data.containers.rows import RawRow
from selection.data.messages.names import ANSWERS, CHOSEN, REJECTED, fold
from selection.data.messages.tools import compact
from selection.data.messages.turns import TurnKeys, is_turn
from selection.data.shapes.columns import names_in
from selection.records import PoolSource

_ANSWERS = frozenset((*ANSWERS, *CHOSEN, *REJECTED))


def spelled_answers(raw: RawRow, source: PoolSource, keys: TurnKeys) -> RawRow:
    """The row with the JSON text of every answer that is neither a text nor turns.

    A row of a table has no spelling of its own: nulls, which fill its objects, are left out.
    """
    if raw.value is None:
        return raw
    mapped = {name for role, name in names_in(source.columns) if role in ("response", "rejected")}
    texts: dict[str, object] = {}
    for name, value in raw.value.items():
        is_answer = name in mapped or (not mapped and fold(name) in _ANSWERS)
        if is_answer and isinstance(value, dict | list) and not _are_turns(value, keys):
            known = raw if raw.line is not None else replace(raw, value={name: compact(value)})
            texts[name] = known.spelling(name)
    return replace(raw, value={**raw.value, **texts}) if texts else raw


def _are_turns(value: object, keys: TurnKeys) -> bool:
    turns = value if isinstance(value, list) else [value]
    return bool(turns) and all(is_turn(turn, keys) for turn in turns)
