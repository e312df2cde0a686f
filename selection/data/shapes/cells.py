"""The cells of one row by the names that people use, and which of them were read."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache

from selection.data.messages.names import ROLE_OF, SYSTEM_COLUMNS, fold
from selection.data.messages.problems import Message, not_text
from selection.data.messages.turns import TurnKeys, as_list, conversations_in, is_turn

Row = Mapping[str, object]


class Cells:
    """A row by folded column names, null cells left out.

    used: columns of the row, by their own names, that were taken.
    """

    def __init__(self, row: Row, keys: TurnKeys) -> None:
        """Look at a row; nothing is taken yet."""
        self.row, self.keys = row, keys
        self.used: set[str] = set()
        self._names = _folded(tuple(row))

    def peek(self, name: str) -> object:
        """The value of a column by its folded name, None where there is none."""
        own = self._names.get(name)
        return None if own is None else self.row[own]

    def own_name(self, name: str) -> str:
        """The column's name in the row, by its folded name."""
        return self._names[name]

    def has_column(self, name: str) -> bool:
        """Whether the row has the column, be it null."""
        return name in self._names

    def take(self, name: str) -> object:
        """The value, which is now used."""
        if name in self._names:
            self.used.add(self._names[name])
        return self.peek(name)

    def taken(self) -> set[str]:
        """Folded names of the columns that were taken."""
        return {fold(name) for name in self.used}

    def first(self, names: Iterable[str]) -> str:
        """The first of the names that has a value; "" for none."""
        return next(self.all_of(names), "")

    def read_spelled_turns(self, names: Sequence[str]) -> bool:
        """Take the turns that the cells spell as JSON, if all of them do; a table has only texts.

        One that does not is a text like any other, whatever JSON it is.
        """
        turns = {self._names[name]: _spelled_turns(self.peek(name), self.keys) for name in names}
        if not turns or None in turns.values():
            return False
        self.row = {**self.row, **turns}
        return True

    def all_of(self, names: Iterable[str]) -> Iterator[str]:
        """Those of the names that have a value."""
        row, own = self.row, self._names
        return (name for name in names if name in own and row[own[name]] is not None)


def _spelled_turns(value: object, keys: TurnKeys) -> list[object] | None:
    turns = as_list(value) if isinstance(value, str) else None
    if not turns or not all(is_turn(turn, keys) for turn in turns):
        return None
    roles = [next((turn[key] for key in keys.speaker if key in turn), None) for turn in turns
             if isinstance(turn, dict)]  # fmt: skip
    return turns if all(fold(str(role)) in {**ROLE_OF, **keys.roles} for role in roles) else None


@lru_cache(maxsize=4096)
def _folded(columns: tuple[str, ...]) -> dict[str, str]:
    """Folded name -> own name; of several the one that is spelled so, else the first."""
    names: dict[str, str] = {}
    for own in columns:
        names.setdefault(fold(own), own)
    return names | {own: own for own in columns if fold(own) == own}


def side(value: object, role: str, name: str, keys: TurnKeys, answers: str) -> list[Message]:
    """One side of an exchange: a text, one turn, a list of turns, or nothing.

    A text is never looked into. Of a list of texts the only one, or with `answers` "first" the
    first, counts. Raises RowProblem for anything else.
    """
    if value is None or value == "":
        return []
    if isinstance(value, str):
        return [{"role": role, "content": value}]
    if is_turn(value, keys):
        value = [value]
    elif isinstance(value, dict) and (
        list(value) == ["text"] or isinstance(value.get("text"), list)
    ):
        return side(value["text"], role, name, keys, answers)  # also as SQuAD has its answers
    if isinstance(value, list):
        if all(isinstance(item, str) for item in value) and value:
            if len(value) == 1 or answers == "first":
                return side(value[0], role, name, keys, answers)
        elif all(is_turn(item, keys) for item in value):
            [messages] = conversations_in(value, keys) or [[]]
            return messages
    raise not_text(name, value)


def system_turns(cells: Cells, messages: list[Message], also: tuple[str, ...]) -> list[Message]:
    """System messages of the row's columns that the conversation does not have already."""
    present = {message["content"] for message in messages if isinstance(message["content"], str)}
    turns: list[Message] = []
    for name in cells.all_of((*SYSTEM_COLUMNS, *also)):
        content = _system_content(cells.peek(name), name)
        cells.take(name)
        repeats = name in also and any(str(content).strip() in text for text in present)
        if content and not repeats and not (isinstance(content, str) and content in present):
            turns.append({"role": "system", "content": content})
            present.add(content if isinstance(content, str) else "")
    return turns


def _system_content(value: object, name: str) -> object:
    """A system text: a text, or blocks or parts as other providers write them."""
    if isinstance(value, str):
        return value if value.strip() else None
    if isinstance(value, dict) and isinstance(parts := value.get("parts"), list):
        value = parts
    blocks = [value] if isinstance(value, dict) else value
    if isinstance(blocks, list):
        texts = [b.get("text", b.get("content")) if isinstance(b, dict) else b for b in blocks]
        if all(isinstance(text, str) for text in texts):
            return "\n".join(text for text in texts if isinstance(text, str))
    raise not_text(name, value)
