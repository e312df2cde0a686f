"""Rows of two answers and a verdict, or of turns and a worse answer, as a preference has them."""

from collections.abc import Iterator

from selection.data.messages.names import ANSWERS, PROMPTS, REJECTED, TURN_COLUMNS, fold
from selection.data.messages.problems import RowProblem, not_this_shape
from selection.data.messages.turns import as_list
from selection.data.shapes.cells import Cells
from selection.records import DropReason

_ANSWERS = ("response", "answer", "completion", "output", "conversation", "human_ref", "messages")
_PAIRS = (("a", "b"), ("1", "2"), ("0", "1"), ("j", "k"))
_SIGNED = ("overall_preference", "preference_strength")  # below 0: the first answer
_NAMED = (
    "winner",
    "preference",
    "preferred",
    "better",
    "better_response_id",
    "chosen_id",
    "choice",
)
_LISTS = ("answers", "completions", "responses", "candidates", "generations", "outputs")
_TEXTS = ("answer", "response", "text", "completion", "output", "content", "generation")
_VERDICTS = {
    **dict.fromkeys(("rank", "ranks", "ranking"), -1),
    **dict.fromkeys(("overall_score", "score", "scores", "rating", "ratings", "reward",
                     "rewards", "pm_score"), 1),
}  # fmt: skip
"""Names of numbers that say how good an answer is -> whether more is better (1) or worse."""
_TIES = ("tie", "both", "neither", "none", "equal")
_CONTEXTS = ("context", "history", "post")

Row = dict[str, object]


def judged_row(cells: Cells) -> tuple[Row, set[str]] | None:
    """The row with `chosen` and `rejected` in place of its two answers; None for any other row.

    Also the columns that were read for it. Raises RowProblem where neither answer is the better
    one, or where it is not known which one the verdict means.
    """
    row = dict(cells.row)
    if rejected := cells.first(REJECTED):
        turns = cells.first(TURN_COLUMNS)
        chosen = _last_answer(cells.peek(turns))
        if chosen is None or not _may_be_answer(cells.peek(rejected)):
            return None
        row["chosen"] = chosen
        return row, {cells.own_name(turns), cells.own_name(rejected)}
    if ranked := _ranked(cells):
        read, row["chosen"], row["rejected"] = ranked
        row, prompt = _with_prompt(cells, {k: row[k] for k in row if k not in read})
        return row, {*read, *prompt}
    for first, second, pair in _sides(cells):
        better, verdict = _better(cells, pair)
        names = [cells.own_name(first), cells.own_name(second)]
        sides = [row.pop(name) for name in names]
        row["chosen"], row["rejected"] = sides[better], sides[1 - better]
        row, prompt = _with_prompt(cells, row)
        return row, {*names, *map(cells.own_name, verdict), *prompt}
    return None


def _ranked(cells: Cells) -> tuple[list[str], object, object] | None:
    """Columns of a list of answers and of numbers for them, the best answer and the worst."""
    if cells.first(name for name in ANSWERS if name not in _LISTS):
        return None
    for name in cells.all_of(_LISTS):
        answers = as_list(cells.peek(name)) or []
        objects = [answer for answer in answers if isinstance(answer, dict)]
        lists = [[each.get(key) for each in objects] for key in _TEXTS] if objects else [answers]
        texts = next((t for t in lists if t and all(isinstance(text, str) for text in t)), [])
        for verdict, sign in _VERDICTS.items() if 1 < len(texts) == len(answers) else ():
            beside = [each.get(verdict) for each in objects] or as_list(cells.peek(verdict)) or []
            numbers = [sign * x for x in beside if isinstance(x, int | float)]
            if len(numbers) == len(texts):
                best, worst = numbers.index(max(numbers)), numbers.index(min(numbers))
                if best == worst:
                    raise RowProblem(DropReason.REJECTED_ANSWER, f"`{name}`: no answer is the best")
                columns = [name] if objects else [name, verdict]
                return [*map(cells.own_name, columns)], texts[best], texts[worst]
    return None


def _may_be_answer(value: object) -> bool:
    """Whether a cell is a text or turns; a flag or a score under such a name is none."""
    return isinstance(value, str | list | dict) and bool(value)


def _last_answer(turns: object) -> list[object] | None:
    """What follows the last turn that is not the assistant's; None where nothing does."""
    turns = as_list(turns) or []
    at = len(turns)
    while at and isinstance(turn := turns[at - 1], dict) and _is_answer(turn):
        at -= 1
    return turns[at:] or None


def _is_answer(turn: Row) -> bool:
    return fold(str(turn.get("role", turn.get("from")))) in ("assistant", "gpt", "model")


def _sides(cells: Cells) -> Iterator[tuple[str, str, tuple[str, str]]]:
    """Names of two answers beside each other, with what tells them apart."""
    for pair in _PAIRS:
        for stem in _ANSWERS:
            for joint in ("_", ""):
                first, second = (f"{stem}{joint}{end}" for end in pair)
                if _may_be_answer(cells.peek(first)) and _may_be_answer(cells.peek(second)):
                    yield first, second, pair


def _better(cells: Cells, pair: tuple[str, str]) -> tuple[int, list[str]]:
    """Which answer is the better one, 0 or 1, and the columns that say so."""
    if pair == ("j", "k"):  # by convention the first is
        return 0, []
    for name in cells.all_of(_SIGNED):
        value = cells.peek(name)
        if isinstance(value, int | float):
            return _of_two(-value, value, name), [name]
    for stem in ("winner_model", "winner", "score"):
        names = [f"{stem}_{end}" for end in pair]
        if stem == "score" and cells.first((*_NAMED, "labels")):
            continue
        values = [cells.peek(name) for name in names]
        if isinstance(values[0], int | float) and isinstance(values[1], int | float):
            return _of_two(values[0], values[1], " and ".join(names)), names
    if isinstance(value := cells.peek("labels"), int) and cells.peek("human_ref_a"):
        return _of_two(value, 1 - value, "labels"), ["labels"]
    for name in cells.all_of(_NAMED):
        return _named(cells, name, pair), [name]
    raise not_this_shape("two answers, but no column that says which is the better one")


def _of_two(first: float, second: float, name: str) -> int:
    if first == second:
        raise RowProblem(DropReason.REJECTED_ANSWER, f"`{name}`: neither answer is the better one")
    return int(second > first)


def _named(cells: Cells, name: str, pair: tuple[str, str]) -> int:
    value = cells.peek(name)
    text = fold(str(value))
    models = [cells.peek(f"model_{end}") for end in pair]
    if text.rpartition("_")[2] in pair:
        return pair.index(text.rpartition("_")[2])
    if value in models and models[0] != models[1]:
        return models.index(value)
    if text.startswith(_TIES):
        raise RowProblem(DropReason.REJECTED_ANSWER, f"`{name}` is {value}: neither is better")
    raise not_this_shape(f"`{name}` is {value}: which answer that is, is not known")


def _with_prompt(cells: Cells, row: Row) -> tuple[Row, list[str]]:
    """The row with what was asked under `prompt`, or in the turns of both answers; its column."""
    prompt = cells.first(PROMPTS)
    if not prompt and not cells.first(TURN_COLUMNS) and (name := cells.first(_CONTEXTS)):
        return row | {"prompt": cells.peek(name)}, [cells.own_name(name)]
    if not prompt:
        return row, []
    own, value = cells.own_name(prompt), cells.peek(prompt)
    if isinstance(value, dict) and isinstance(value.get("full_text"), str):
        return row | {own: value["full_text"]}, [own]
    questions, sides = as_list(value), [as_list(row["chosen"]), as_list(row["rejected"])]
    if questions is None or any(side is None or len(side) != len(questions) for side in sides):
        return row, []
    if not all(isinstance(text, str) for text in questions):
        return row, []
    talks = [
        [
            {"role": role, "content": text}
            for exchange in zip(questions, answers or [], strict=True)
            for role, text in zip(("user", "assistant"), exchange, strict=True)
        ]
        for answers in sides
    ]
    rest = {name: value for name, value in row.items() if name != own}
    return rest | {"chosen": talks[0], "rejected": talks[1]}, [own]
