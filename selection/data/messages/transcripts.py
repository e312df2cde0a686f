"""Conversations that are written out in one text, with marks of who speaks."""

import re
from dataclasses import dataclass

from selection.data.messages.names import ROLE_OF, fold
from selection.data.messages.problems import Message


@dataclass(frozen=True, slots=True)
class _Style:
    """How one family of texts marks its turns.

    mark:     pattern of a mark; its one group is the name of who speaks.
    end:      pattern of what closes a turn, taken off its end.
    preamble: whether text before the first mark is a system text; else the text starts with a mark.
    """

    mark: re.Pattern[str]
    end: str = r"(?:</s>|<\|endoftext\|>|<eos>)?"
    preamble: bool = False


_NAMES = "human|user|assistant|gpt|system|prompter|bot|ai"
_STYLES = (
    _Style(re.compile(r"<\|im_start\|>[ \t]*(\w+)[ \t]*\n"), r"(?:<\|im_end\|>|</s>)?"),
    _Style(
        re.compile(r"<\|start_header_id\|>(\w+)<\|end_header_id\|>\s*"), r"(?:<\|e(?:ot|om)_id\|>)?"
    ),
    _Style(re.compile(r"<start_of_turn>(\w+)\n"), "(?:<end_of_turn>)?"),
    _Style(re.compile(rf"<\|({_NAMES}|prompter)\|>\s*", re.I), r"(?:</s>|<\|end(?:oftext)?\|>)?"),
    _Style(
        re.compile(r"(?:^|\n)#{2,3} *(instruction|input|response|question|answer) *: *\n?", re.I),
        preamble=True,
    ),
    _Style(re.compile(rf"#{{2,3}} *({_NAMES}) *: *", re.I)),
    _Style(re.compile(rf"(?:^|\n\s*\n|</s>\s*)({_NAMES}) *: *", re.I)),
    _Style(re.compile(r"(?:^|\n|(?<=\s)|</s>\s*)(USER|ASSISTANT|SYSTEM) *: *"), preamble=True),
    _Style(re.compile(r"(?:^|\n)(Human|User|Assistant|AI|Bot|Question|Answer|Q|A): ")),
)
_SHORT = {"q": "user", "a": "assistant", "input": "user"}
_INSTRUCTION = re.compile(
    r"\s*(?:<s>)?\s*\[INST\]\s*(?:<<SYS>>(?P<system>.*?)<</SYS>>)?(?P<user>.*?)\[/INST\]"
    r"(?P<assistant>.*?)(?:</s>|(?=<s>)|(?=\[INST\])|\Z)",
    re.S,
)
_START = re.compile(r"\s*(?:<s>|<bos>|<\|begin_of_text\|>|<\|endoftext\|>)*\s*")


def transcript_of(text: str) -> list[Message] | None:
    """The messages of a text that is a transcript; None for any other text.

    A transcript begins with a mark of the user or of the system, and has one of the assistant.
    """
    if messages := _of_instructions(text):
        return messages
    for style in _STYLES:
        if messages := _in_style(text, style):
            return messages
    return None


def _in_style(text: str, style: _Style) -> list[Message] | None:
    marks = list(style.mark.finditer(text))
    if len(marks) < 2:
        return None
    before = text[: marks[0].start()]
    before = before[_match_end(before) :].strip()
    if before and not style.preamble:
        return None
    messages = [{"role": "system", "content": before}] if before else []
    closing = re.compile(style.end + r"\s*\Z")
    for mark, after in zip(marks, [*marks[1:], None], strict=True):
        piece = text[mark.end() : None if after is None else after.start()]
        role = _role(mark[1])
        if role is None:
            return None
        content = closing.sub("", piece).strip()
        joins = fold(mark[1]) == "input" and messages and messages[-1]["role"] == "user"
        if joins:
            content = f"{messages.pop()['content']}\n{content}".strip()
        messages.append({"role": role, "content": content})
    roles = [message["role"] for message in messages]
    if "assistant" not in roles or "user" not in roles or roles[0] == "assistant":
        return None
    return [dict(message) for message in messages]


def _match_end(text: str) -> int:
    start = _START.match(text)
    return start.end() if start else 0


def _role(name: str) -> str | None:
    key = fold(name)
    return _SHORT.get(key) or ROLE_OF.get(key)


def _of_instructions(text: str) -> list[Message] | None:
    """Turns between [INST] and [/INST], as Llama 2 and Mistral write them."""
    messages: list[Message] = []
    at = 0
    while text[at:].strip() and (turn := _INSTRUCTION.match(text, at)):
        for role in ("system", "user", "assistant"):
            if content := (turn[role] or "").strip():
                messages.append({"role": role, "content": content})
        at = turn.end()
    return None if text[at:].strip() or not messages else messages
