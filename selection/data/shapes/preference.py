"""Rows of preference data: a prompt with a chosen and a rejected answer."""

from collections.abc import Mapping
from typing import Any

from selection.data.messages.problems import Drop
from selection.data.shapes.read_row import RowReader
from selection.records import PoolSource

_READER = RowReader(PoolSource("", shape="preference"), "preference")


def preference_row(example_id: str, raw: Mapping[str, Any]) -> dict[str, Any] | None:
    """One row {id, prompt, chosen, rejected[, tools]} of messages; None for no preference row.

    raw: the row as it stood in the pool, in any form of a preference; columns under names of their
    own are not known here. The prompt is what the two conversations share at their start.
    """
    examples = _READER.read(raw)
    if isinstance(examples, Drop) or examples[0].rejected is None:
        return None
    chosen, rejected = examples[0].messages, examples[0].rejected
    n_shared, most = 0, min(len(chosen), len(rejected)) - 1  # each side keeps an answer
    while n_shared < most and chosen[n_shared] == rejected[n_shared]:
        n_shared += 1
    row: dict[str, Any] = {"id": example_id, "prompt": chosen[:n_shared]}
    row |= {"chosen": chosen[n_shared:], "rejected": rejected[n_shared:]}
    return {**row, "tools": examples[0].tools} if examples[0].tools else row
