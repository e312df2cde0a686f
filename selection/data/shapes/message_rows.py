"""Files with one message a row: the rows of a conversation are joined by parent or conversation."""

from collections.abc import Iterable, Iterator
from dataclasses import replace

from selection.data.containers.rows import RawRow
from selection.data.messages.names import CONTENT_KEYS, ROLE_OF, SPEAKER_KEYS, TURN_COLUMNS, fold
from selection.data.messages.problems import Drop
from selection.data.messages.turns import TurnKeys
from selection.data.shapes.cells import Cells, Row
from selection.records import DropReason

_IDS = ("message_id", "id", "msg_id", "uuid")
_PARENTS = ("parent_id", "parent_message_id", "parent", "reply_to", "in_reply_to")
_CONVERSATIONS = (
    "conversation_id", "conv_id", "dialog_id", "dialogue_id", "thread_id", "session_id", "chat_id",
    "conversation_hash", "conversation",
)  # fmt: skip
_ORDERS = ("turn", "turn_id", "turn_index", "turn_number", "message_index", "position", "order")
_IN_CONVERSATION = Drop(DropReason.IN_CONVERSATION, "its text is in the conversation")


def is_message_row(row: Row, keys: TurnKeys) -> bool:
    """Whether a row is one message of a conversation that other rows go on with."""
    cells = Cells(row, keys)
    speaker = cells.peek(cells.first(SPEAKER_KEYS))
    if not isinstance(speaker, str) or fold(speaker) not in {**ROLE_OF, **keys.roles}:
        return False
    linked = any(map(cells.has_column, _PARENTS)) or bool(cells.first(_CONVERSATIONS))
    is_list = any(isinstance(cells.peek(name), list) for name in TURN_COLUMNS)
    return linked and not is_list and isinstance(cells.peek(cells.first(CONTENT_KEYS)), str)


def join_message_rows(
    raws: Iterable[RawRow], keys: TurnKeys
) -> Iterator[tuple[RawRow, Drop | None]]:
    """The rows in their order: the last one of a conversation with all its `messages`.

    Every other row comes with the drop IN_CONVERSATION, and a row whose parent is not in the file
    with its own. The rows are held in memory.
    """
    rows = list(raws)
    cells = [None if raw.value is None else Cells(raw.value, keys) for raw in rows]
    by_parent = any(cell is not None and cell.first(_PARENTS) for cell in cells)
    paths = _by_parent(cells) if by_parent else _by_conversation(cells)
    for number, raw in enumerate(rows):
        path = paths.get(number)
        if raw.value is None:
            yield raw, None
        elif isinstance(path, list):
            turns = [_turn(cells[at]) for at in path]
            yield replace(raw, value={**raw.value, "messages": turns}, text=None), None
        else:
            yield raw, path or _IN_CONVERSATION


def joining_columns(row: Row) -> set[str]:
    """Columns of a row that say whose message it is, what it says, and where it belongs."""
    names = {*_IDS, *_PARENTS, *_CONVERSATIONS, *_ORDERS, *SPEAKER_KEYS, *CONTENT_KEYS}
    return {name for name in row if fold(name) in names}


def _turn(cells: Cells | None) -> dict[str, object]:
    assert cells is not None
    speaker, content = cells.first(SPEAKER_KEYS), cells.first(CONTENT_KEYS)
    return {"role": cells.peek(speaker), "content": cells.peek(content) if content else None}


def _by_parent(cells: list[Cells | None]) -> dict[int, list[int] | Drop]:
    """Row of a leaf -> rows from the root to it; row without its parent -> its drop."""
    row_of: dict[str, int] = {}
    for number, cell in enumerate(cells):
        if cell is not None and (name := cell.first(_IDS)):
            row_of.setdefault(str(cell.peek(name)), number)
    parents: dict[int, int | None] = {}
    lost: dict[int, list[int] | Drop] = {}
    for number, cell in enumerate(cells):
        if cell is None:
            continue
        parent = cell.peek(cell.first(_PARENTS))
        if parent is None or parent == "":
            parents[number] = None
        elif str(parent) in row_of:
            parents[number] = row_of[str(parent)]
        else:
            problem = f"its parent `{parent}` is not in the file"
            lost[number] = Drop(DropReason.NOT_RECOGNIZED, problem)
    leaves = parents.keys() - {parent for parent in parents.values() if parent is not None}
    paths: dict[int, list[int] | Drop] = {}
    for leaf in leaves:
        path, at = list[int](), leaf
        while at in parents and len(path) <= len(cells):
            path.append(at)
            at = -1 if parents[at] is None else parents[at]  # type: ignore[assignment]
        if at != -1:  # one above it has lost its parent, or they are each other's
            paths[leaf] = Drop(
                DropReason.NOT_RECOGNIZED, "the start of its conversation is missing"
            )
        else:
            paths[leaf] = path[::-1]
    return paths | lost


def _by_conversation(cells: list[Cells | None]) -> dict[int, list[int] | Drop]:
    """Row of a conversation's last message -> its rows, by number of turn, else as they are."""
    groups: dict[str, list[int]] = {}
    for number, cell in enumerate(cells):
        if cell is not None:
            groups.setdefault(str(cell.peek(cell.first(_CONVERSATIONS))), []).append(number)
    paths: dict[int, list[int] | Drop] = {}
    for rows in groups.values():
        rows.sort(key=lambda row: _order(cells[row]))
        paths[rows[-1]] = rows
    return paths


def _order(cells: Cells | None) -> float:
    value = None if cells is None else cells.peek(cells.first(_ORDERS))
    return value if isinstance(value, int | float) else 0.0
