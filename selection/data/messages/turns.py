"""Turns of a conversation, in whichever way they are written, as messages."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from selection.core.hashing import canonical_json
from selection.data.messages.blocks import BLOCK_KEYS, has_blocks, messages_of_blocks
from selection.data.messages.names import (
    ASSISTANT_KEYS,
    CALL_ROLES,
    CONTENT_KEYS,
    ROLE_OF,
    SPEAKER_KEYS,
    USER_KEYS,
    fold,
)
from selection.data.messages.problems import Message, RowProblem, not_text
from selection.data.messages.tools import call, calls_of, compact, parsed
from selection.records import DropReason

_REPLIES = ("replies", "children")
_NO_CALLS = ("", "[]", "null", "None")
_CALL_KEYS = ("tool_calls", "function_call", "arguments", "output")
_MAX_PATHS = 10_000  # conversations of one tree


@dataclass(frozen=True, slots=True)
class TurnKeys:
    """Which keys of a turn say who speaks and what; more roles than the known ones.

    roles: name of a role, as `fold` writes it -> role of `names.ROLES`.
    """

    speaker: Sequence[str] = SPEAKER_KEYS
    content: Sequence[str] = CONTENT_KEYS
    roles: Mapping[str, str] = field(default_factory=dict)


def conversations_in(value: object, keys: TurnKeys) -> list[list[Message]] | None:
    """The conversations that a cell holds; None where it holds no turns.

    A cell holds a list of turns (or its JSON or Python text), lists of such lists, columns of turns
    ({"role": [...], "content": [...]}), a tree of replies, pairs of question and answer, or texts
    that alternate, the user's first. Raises RowProblem for turns that cannot be read.
    """
    if isinstance(value, dict):
        if _is_tree(value, keys):
            return _paths(value, keys)
        value = _transposed(value, keys)
    values = as_list(value)
    if not values:
        return None
    if all(isinstance(item, dict) for item in values):
        return _of_objects([item for item in values if isinstance(item, dict)], keys)
    if all(isinstance(item, list) for item in values):
        if all(_is_pair(item) for item in values):
            texts = [text for item in values if isinstance(item, list) for text in item]
            return [_alternating(texts)]
        several = [conversations_in(item, keys) for item in values]
        return None if None in several else [one for many in several for one in many or []]
    if len(values) > 1 and all(isinstance(item, str) for item in values):
        return [_alternating(values)]
    return None


def is_turn(value: object, keys: TurnKeys) -> bool:
    """Whether a value is one turn: an object that says who speaks and what."""
    if not isinstance(value, dict) or not _speaker_key(value, keys):
        return False
    return any(key in value for key in (*keys.content, *_CALL_KEYS))


def _speaker_key(turn: Message, keys: TurnKeys) -> str:
    """The key that says who speaks; `type` does where its value is a role. "" for none."""
    named = [key for key in keys.speaker if key in turn]
    if named:
        return next((key for key in named if turn[key] is not None), named[0])
    return "type" if fold(str(turn.get("type"))) in (*ROLE_OF, *CALL_ROLES) else ""


def as_list(value: object) -> list[object] | None:
    """A list, or the list that a text holds as JSON or as Python writes it; else None."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        value = parsed(value)
    return value if isinstance(value, list) else None


def _of_objects(turns: list[Message], keys: TurnKeys) -> list[list[Message]] | None:
    turns = [_flat_turn(turn) for turn in turns]
    if all(_speaker_key(turn, keys) for turn in turns):
        if any(_is_tree(turn, keys) for turn in turns):
            return [path for turn in turns for path in _paths(turn, keys)]
        return [_messages(turns, keys)]
    pairs = [_both_sides(turn) for turn in turns]
    return None if None in pairs else [[m for pair in pairs for m in pair or []]]


def _flat_turn(turn: Message) -> Message:
    """A turn whose content lies one object deeper, as LangChain writes it; others as they are."""
    data = turn.get("data")
    return {**data, **turn, "data": None} if "type" in turn and isinstance(data, dict) else turn


def _messages(turns: Sequence[Message], keys: TurnKeys) -> list[Message]:
    messages: list[Message] = []
    for number, turn in enumerate(turns, 1):
        try:
            messages += messages_of(turn, keys)
        except RowProblem as error:
            raise RowProblem(error.drop.reason, f"turn {number}: {error}") from None
    return messages


def messages_of(turn: Message, keys: TurnKeys) -> list[Message]:
    """The messages of one turn: one, but for contents that hold results of tools.

    Keys that are null are left out, at every depth; the content is always there.
    """
    content = turn.get("content")
    if len(turn) == 2 and type(content) is str and turn.get("role") in ROLE_OF and not keys.roles:
        return [{"role": ROLE_OF[str(turn["role"])], "content": content}]  # the usual case
    speaker_key = _speaker_key(turn, keys)
    content_key = next((key for key in keys.content if turn.get(key) is not None), "content")
    if speaker_key == "type" and (turn.get("output") or turn.get("arguments")):
        return [_response_item(turn)]
    rest = {
        key: compact(value)
        for key, value in turn.items()
        if value is not None and key not in (speaker_key, content_key)
    }
    for key, empty in (("tool_calls", []), ("type", "message")):
        if rest.get(key) == empty:
            del rest[key]
    name = _speaker_name(turn.get(speaker_key))
    content = turn.get(content_key)
    if name in CALL_ROLES and name not in keys.roles:
        return [_call_message(content, rest)]
    role = keys.roles.get(name) or ROLE_OF.get(name)
    if role is None:
        raise RowProblem(DropReason.UNKNOWN_ROLE, f"role `{turn.get(speaker_key)}` is not known")
    if calls := _calls_in(rest):
        rest["tool_calls"] = calls
    content = _content(content, role, content_key)
    if isinstance(content, list) and has_blocks(content):
        return messages_of_blocks(content, role, rest)
    return [{"role": role, "content": content, **rest}]


def _response_item(turn: Message) -> Message:
    """The message of a call or of its result, as OpenAI's Responses have them."""
    if "output" not in turn:
        made = call(turn.get("name"), turn["arguments"], turn.get("call_id"))
        return {"role": "assistant", "content": None, "tool_calls": [made]}
    content = _content(turn["output"], "tool", "output")
    named = {} if turn.get("call_id") is None else {"tool_call_id": turn["call_id"]}
    return {"role": "tool", "content": content, **named}


def _speaker_name(speaker: object) -> str:
    if isinstance(speaker, dict):  # an author with a role, as ChatGPT exports it
        speaker = speaker.get("role") or speaker.get("name")
    return "" if speaker is None else fold(str(speaker))


def _content(value: object, role: str, name: str) -> object:
    """A content as a text, a list of parts, or null. Raises RowProblem for anything else."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, dict) and isinstance(parts := value.get("parts"), list):
        value = parts
    if isinstance(value, dict) and ("text" in value or "type" in value):
        value = [value]
    if role == "assistant" and name != "parts" and _are_texts(value):
        raise not_text(name, value)  # reference answers, or pieces of one
    if isinstance(value, list) and all(_is_part(part) for part in value):
        return [_part(part) for part in value if part is not None]
    if role == "tool" and isinstance(value, dict | list):
        return canonical_json(compact(value))  # a result of data, in one spelling
    raise not_text(name, value)


def _are_texts(value: object) -> bool:
    """Whether a value is a list of several bare texts."""
    if not isinstance(value, list) or len(value) < 2:
        return False
    return all(isinstance(item, str) for item in value)


def _is_part(part: object) -> bool:
    if isinstance(part, dict):
        return any(part.get(key) is not None for key in ("type", "text", *BLOCK_KEYS))
    return part is None or isinstance(part, str)


def _part(part: object) -> object:
    """A part of a content; one of text alone says its type, and has its text in `text`."""
    if not isinstance(part, dict):
        return part
    clean = compact(part)
    assert isinstance(clean, dict)
    text = clean.get("text")
    if isinstance(text, dict) and isinstance(text.get("value"), str):
        clean["text"] = text["value"]
    elif text is None and clean.get("type") in ("text", "refusal"):
        for key in ("content", "value", "refusal"):
            if isinstance(clean.get(key), str):
                clean["text"] = clean.pop(key)
    if not isinstance(clean.get("text"), str):
        return clean
    kind = clean.get("type", "text")
    return {**clean, "type": "text" if kind in ("input_text", "output_text", "refusal") else kind}


def _call_message(content: object, rest: Message) -> Message:
    """A turn that is a tool call; what cannot be read as one stays the text that it is."""
    if calls := calls_of(content):
        return {"role": "assistant", "content": None, "tool_calls": calls} | rest
    if not isinstance(content, str):
        raise not_text("function_call", content)
    return {"role": "assistant", "content": content} | rest


def _calls_in(rest: Message) -> list[object]:
    """Tool calls of a message, a legacy function call among them; both leave `rest`."""
    calls: list[object] = []
    legacy = rest.get("function_call")
    if isinstance(legacy, dict | str) and (calls := calls_of(legacy)):
        del rest["function_call"]
    given = rest.get("tool_calls")
    if isinstance(given, str):  # as tables have them, in JSON or as Python writes it
        text = given.strip()
        given = [] if text in _NO_CALLS else calls_of(parsed(text))
        if not given and text not in _NO_CALLS:
            raise RowProblem(DropReason.NOT_TEXT, "`tool_calls` is a text that is no list of calls")
        del rest["tool_calls"]
    return (given if isinstance(given, list) else []) + calls


def _both_sides(turn: Message) -> list[Message] | None:
    """Question and answer of an object that holds both; None where it does not."""
    sides = {fold(key): value for key, value in turn.items() if isinstance(value, str)}
    user = next((sides[key] for key in USER_KEYS if key in sides), None)
    answer = next((sides[key] for key in ASSISTANT_KEYS if key in sides), None)
    if user is None or answer is None:
        return None
    texts = (("system", sides.get("system")), ("user", user), ("assistant", answer))
    return [{"role": role, "content": text} for role, text in texts if text is not None]


def _is_pair(value: object) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 2
        and all(item is None or isinstance(item, str) for item in value)
    )


def _alternating(texts: Sequence[object]) -> list[Message]:
    """Texts of user and assistant in turn; a null is no turn."""
    roles = ("user", "assistant")
    sides = ((roles[number % 2], text) for number, text in enumerate(texts))
    return [{"role": role, "content": text} for role, text in sides if text is not None]


def _transposed(value: Message, keys: TurnKeys) -> object:
    """Turns of columns of equal length; anything else as it is."""
    columns = {key: item for key, item in value.items() if isinstance(item, list)}
    if not any(key in columns for key in keys.speaker) or len(columns) < 2:
        return value
    lengths = {len(column) for column in columns.values()}
    if len(lengths) != 1:
        return value
    return [
        {key: column[number] for key, column in columns.items()} for number in range(lengths.pop())
    ]


def _is_tree(value: Message, keys: TurnKeys) -> bool:
    return any(isinstance(value.get(name), list) for name in _REPLIES) and is_turn(value, keys)


def _paths(root: Message, keys: TurnKeys) -> list[list[Message]]:
    """Every conversation of a tree, from its root to each of its leaves, in order."""
    paths: list[list[Message]] = []
    stack: list[tuple[Message, tuple[Message, ...]]] = [(root, ())]
    while stack and len(paths) < _MAX_PATHS:
        node, before = stack.pop()
        replies = next((node[name] for name in _REPLIES if isinstance(node.get(name), list)), [])
        turn = {key: node.get(key) for key in node if key in keys.speaker or key in keys.content}
        path = (*before, *_messages([turn], keys))
        assert isinstance(replies, list)
        children = [reply for reply in replies if isinstance(reply, dict)]
        if not children:
            paths.append(list(path))
        stack += [(child, path) for child in reversed(children)]
    if stack:
        problem = f"a tree of more than {_MAX_PATHS:,} conversations"
        raise RowProblem(DropReason.NOT_RECOGNIZED, problem)
    return paths
