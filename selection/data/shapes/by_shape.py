"""One reader for each shape: the cells of a row to its conversations."""

from collections.abc import Callable, Iterator

from selection.data.messages.names import (
    ANSWERS,
    CHOSEN,
    HISTORIES,
    INPUTS,
    PROMPTS,
    REJECTED,
    RESULTS,
    SYSTEM_COLUMNS,
    TEXT_ANSWER,
    TEXT_PROMPTS,
    TEXT_TURN_COLUMNS,
    TURN_COLUMNS,
    WRAPPERS,
    fold,
)
from selection.data.messages.problems import Message, RowProblem, not_text, not_this_shape
from selection.data.messages.transcripts import prompt_transcript, strange_mark, transcript_of
from selection.data.messages.turns import as_list, conversations_in, is_turn
from selection.data.shapes.cells import Cells, side, system_turns
from selection.data.shapes.columns import joined_cells, parts_of
from selection.data.shapes.compared import judged_row
from selection.data.shapes.exported_chats import tree_of_nodes
from selection.records import DropReason, PoolSource

Conversations = list[list[Message]]
_TRANSCRIPTS = ("text", "content", "prompt", "transcript", "input", "plain_text")
_OTHER_TEXTS = ("text", "prompt", "instruction", "question")  # with one, bare texts are no turns


def read_turns(cells: Cells, source: PoolSource) -> Conversations:
    """A column of turns, at the top or inside an object, with the system text beside it."""
    conversations = _turns_at(cells, source)
    if conversations is None:
        raise not_this_shape(f"no list of turns in {', '.join(TURN_COLUMNS[:4])} or the like")
    _refuse_bad_answer(cells)
    if len(conversations) == 1 and conversations[0]:
        conversations = [conversations[0] + _answer_beside(cells, source, conversations[0])]
    return [system_turns(cells, turns, ("instruction",)) + turns for turns in conversations]


def _answer_beside(cells: Cells, source: PoolSource, turns: list[Message]) -> list[Message]:
    """The answer in a column beside turns that end without one."""
    name = next((a for a in cells.all_of((*ANSWERS, *RESULTS)) if a not in cells.taken()), "")
    if not name or turns[-1]["role"] == "assistant" or cells.first(REJECTED):
        return []
    value = cells.peek(name)
    if isinstance(value, dict):
        choices = value.get("choices", value.get("candidates"))
        first = choices[0] if isinstance(choices, list) and choices else value
        for key in ("message", "content", "messages"):
            first = first.get(key, first) if isinstance(first, dict) else first
            if is_turn(first, cells.keys):
                break
        value = value if first is None else first
    answer = side(value, "assistant", name, cells.keys, source.answers)
    cells.take(name)
    return answer


def _turns_at(cells: Cells, source: PoolSource) -> Conversations | None:
    if name := source.turns.get("column"):
        return conversations_in(_within(cells, name), cells.keys)
    has_exchange = bool(cells.first(PROMPTS) and cells.first(ANSWERS))
    for name in cells.all_of(TURN_COLUMNS):
        if name in HISTORIES and has_exchange:
            continue
        value = cells.peek(name)
        if name == "messages" and as_list(value) == []:
            cells.take(name)
            return [[]]
        if _is_bare(value) and (name not in TEXT_TURN_COLUMNS or cells.first(_OTHER_TEXTS)):
            continue
        if (conversations := conversations_in(value, cells.keys)) is not None:
            cells.take(name)
            return conversations
    if (conversations := _tree(cells)) is not None:
        return conversations
    return _wrapped(cells, source)


def _is_bare(value: object) -> bool:
    """Whether a cell is a list without any object: texts or pairs, which say nobody's name."""
    values = as_list(value)
    return bool(values) and not any(isinstance(item, dict) for item in _flat(values or []))


def _flat(values: list[object]) -> Iterator[object]:
    for item in values:
        yield from item if isinstance(item, list) else [item]


def _within(cells: Cells, name: str) -> object:
    """The value of a column by its own name; dots lead into objects."""
    if name in cells.row:
        cells.used.add(name)
        return cells.row[name]
    first, _, rest = name.partition(".")
    value = cells.row.get(first)
    cells.used.add(first)
    for part in rest.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _tree(cells: Cells) -> Conversations | None:
    """A tree of replies: a column's object, as OASST has it, or nodes, as ChatGPT exports them."""
    if isinstance(nodes := cells.peek("mapping"), dict) and (roots := tree_of_nodes(nodes)):
        cells.take("mapping")
        return conversations_in(roots, cells.keys)
    for name in cells.all_of(("prompt", "root", "tree")):
        value = cells.peek(name)
        if isinstance(value, dict) and (conversations := conversations_in(value, cells.keys)):
            cells.take(name)
            return conversations
    return None


def _wrapped(cells: Cells, source: PoolSource) -> Conversations | None:
    """Turns one object deeper, as in `body.messages`."""
    for name in cells.all_of(WRAPPERS):
        value = cells.peek(name)
        if isinstance(value, dict):
            inner = Cells(value, cells.keys)
            conversations = _turns_at(inner, source) if inner.first(TURN_COLUMNS) else None
            if conversations is not None:
                cells.take(name)
                return [system_turns(inner, turns, ()) + turns for turns in conversations]
    return None


def read_preference(cells: Cells, source: PoolSource) -> Conversations:
    """A prompt with a better and a worse answer: the conversation that ends with the better."""
    return [prompt_and_side(cells, source, CHOSEN)]


def prompt_and_side(cells: Cells, source: PoolSource, names: tuple[str, ...]) -> list[Message]:
    """The conversation of a preference row that ends with one of its two answers."""
    chosen, rejected = cells.first(CHOSEN), cells.first(REJECTED)
    if not chosen and (judged := judged_row(cells)):
        row, read = judged
        inner = Cells(row, cells.keys)
        messages = prompt_and_side(inner, source, names)
        cells.used |= read | (inner.used & cells.row.keys())
        return messages
    if not chosen or not rejected:
        raise not_this_shape("no `chosen` with `rejected`")
    name = cells.first(names)
    cells.take(chosen), cells.take(rejected)
    if cells.read_spelled_turns((chosen, rejected)) and (question := cells.first(PROMPTS)):
        cells.read_spelled_turns((question,))
    value = cells.peek(name)
    prompt = _prompt_turns(cells, source)
    whole = transcript_of(value) if isinstance(value, str) and not prompt else None
    answer = whole or side(value, "assistant", name, cells.keys, source.answers)
    if answer and answer[0]["role"] != "assistant":  # the whole conversation, prompt included
        contents = [message["content"] for message in answer]
        prompt = [turn for turn in prompt if turn["content"] not in contents]
    messages = prompt + answer
    return system_turns(cells, messages, ()) + messages


def _prompt_turns(cells: Cells, source: PoolSource) -> list[Message]:
    turns = None if cells.first(TURN_COLUMNS) == "" else _turns_at(cells, source)
    if turns is None and (name := cells.first(WRAPPERS)) and isinstance(cells.peek(name), dict):
        turns = _wrapped(cells, source)
    if turns is not None and len(turns) == 1:
        messages = turns[0]
        while messages and messages[-1]["role"] == "assistant":  # the answers replace it
            messages = messages[:-1]
        return messages
    if isinstance(cells.peek("instruction"), str):
        return _instruction(cells)
    name = cells.first(PROMPTS)
    return _prompt(cells, name) if name else []


def read_alpaca(cells: Cells, source: PoolSource) -> Conversations:
    """instruction, input or context, an answer, system, history."""
    if not isinstance(cells.peek("instruction"), str):
        raise not_this_shape("no text in `instruction`")
    _refuse_bad_answer(cells)
    return [_exchange(cells, source, _instruction(cells), ("instruction",))]


def _instruction(cells: Cells) -> list[Message]:
    parts = [cells.take("instruction")]
    if name := cells.first(INPUTS):
        parts.append(cells.take(name))
        if not isinstance(parts[1], str):
            raise not_text(name, parts[1])
    text = "\n".join(part for part in parts if isinstance(part, str) and part)
    if turns := prompt_transcript(text):
        return turns
    return [{"role": "user", "content": text}] if text else []


def _prompt(cells: Cells, name: str) -> list[Message]:
    """The turns of a prompt's column; one that ends with the assistant's mark is a transcript."""
    value = cells.take(name)
    turns = prompt_transcript(value) if isinstance(value, str) else None
    return turns or side(value, "user", name, cells.keys, "refuse")


def _refuse_bad_answer(cells: Cells) -> None:
    """Raise RowProblem where the row says that its answer is a bad one, as KTO's data does."""
    for name in ("label", "kto_tag"):
        if isinstance(label := cells.peek(name), bool):
            cells.take(name)
            if not label:
                raise RowProblem(DropReason.REJECTED_ANSWER, f"`{name}` is false")


def read_pair(cells: Cells, source: PoolSource) -> Conversations:
    """A prompt and an answer under any of their usual names; `prompt` may stand alone."""
    for name in cells.all_of(PROMPTS):
        answers = any(cells.has_column(a) for a in ANSWERS if a != name) or _text_answer(
            cells, name
        )
        if answers or name == "prompt":
            answer = next((a for a in cells.all_of(ANSWERS) if a != name), "")
            if answer:
                cells.read_spelled_turns((name, answer))
            prompt = _prompt(cells, name)
            _refuse_bad_answer(cells)
            return [_exchange(cells, source, prompt, (name,))]
    raise not_this_shape("no column of a prompt with one of an answer")


def _exchange(
    cells: Cells, source: PoolSource, prompt: list[Message], taken: tuple[str, ...]
) -> list[Message]:
    """Earlier turns, the prompt and the answer, with a system text before them."""
    name = next((a for a in cells.all_of(ANSWERS) if a not in taken), "")
    has_answers = any(cells.has_column(a) for a in ANSWERS if a not in taken)
    if not has_answers and _text_answer(cells, taken[0]):
        name = TEXT_ANSWER
    answer = side(cells.take(name), "assistant", name, cells.keys, source.answers) if name else []
    messages = _history(cells) + prompt + answer
    return system_turns(cells, messages, ()) + messages


def _text_answer(cells: Cells, prompt: str) -> bool:
    return prompt in TEXT_PROMPTS and isinstance(cells.peek(TEXT_ANSWER), str)


def _history(cells: Cells) -> list[Message]:
    name = cells.first(HISTORIES)
    value = cells.peek(name)
    if value is None or value in ("", "[]") or as_list(value) == []:
        return []
    problem = f"`{name}` is not a list of turns or pairs"
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], str):
        raise not_this_shape(problem)
    conversations = conversations_in(value, cells.keys)
    if conversations is None or len(conversations) != 1:
        raise not_this_shape(problem)
    cells.take(name)
    return conversations[0]


def read_transcript(cells: Cells, source: PoolSource) -> Conversations:
    """One text with marks of who speaks, such as `### Human:`."""
    for name in cells.all_of((*_TRANSCRIPTS, *TURN_COLUMNS)):
        value = cells.peek(name)
        if isinstance(value, str) and (messages := transcript_of(value)):
            cells.take(name)
            before = system_turns(cells, messages, ())
            for turn in before:  # written with its own mark, as in Glaive's data
                turn["content"] = str(turn["content"]).removeprefix("SYSTEM: ").strip()
            return [before + messages]
    raise not_this_shape("no text with marks of who speaks")


def read_text(cells: Cells, source: PoolSource) -> Conversations:
    """A text without roles: one assistant message, because a model that trains on it writes it."""
    text = cells.peek("text")
    if not isinstance(text, str):
        raise not_this_shape("no text in `text`")
    if mark := strange_mark(text):
        detail = f"`text` has marks of turns of no known style, such as `{mark}`"
        raise RowProblem(DropReason.UNKNOWN_ROLE, detail)
    messages: list[Message] = [{"role": "assistant", "content": cells.take("text")}]
    return [system_turns(cells, messages, ()) + messages]


def read_mapping(cells: Cells, source: PoolSource) -> Conversations:
    """Columns that the settings name; see `joined_cells`."""
    columns = source.columns
    prompt, answer = _mapped(cells, source, "prompt"), _mapped(cells, source, "response")
    if prompt is None and answer is None:
        wanted = [columns[role] for role in ("prompt", "response") if role in columns]
        raise not_this_shape(f"nothing in {', '.join(wanted)}")
    messages = _history(cells) if "history" in columns.values() else []
    messages = messages + (prompt or []) + (answer or [])
    mapped = {fold(n) for each in columns.values() for part in parts_of(each) for n in part}
    if "system" in columns or not mapped.isdisjoint(SYSTEM_COLUMNS):
        return [messages]  # the settings say what its system text is, or that it is none
    return [system_turns(cells, messages, ()) + messages]


def _mapped(cells: Cells, source: PoolSource, role: str) -> list[Message] | None:
    """The turns of a mapped role; None where all its columns are null or missing."""
    expression = source.columns.get(role)
    if expression is None:
        return None
    values = joined_cells(cells.row, expression, cells.used)
    if values is None:
        return None
    speaker = "user" if role == "prompt" else "assistant"
    if len(values) == 1:
        name, value = values[0]
        return side(value, speaker, name, cells.keys, source.answers)
    for name, value in values:
        if not isinstance(value, str):
            raise not_text(name, value)
    text = "\n".join(value for _, value in values if isinstance(value, str) and value)
    return [{"role": speaker, "content": text}] if text else []


BY_SHAPE: dict[str, Callable[[Cells, PoolSource], Conversations]] = {
    "messages": read_turns,
    "preference": read_preference,
    "alpaca": read_alpaca,
    "prompt_completion": read_pair,
    "transcript": read_transcript,
    "text": read_text,
    "mapping": read_mapping,
}
"""In order of preference where a row could be read in several ways."""
