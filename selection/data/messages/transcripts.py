"""Conversations that are written out in one text, with marks of who speaks."""

import re
from dataclasses import dataclass

from selection.data.messages.names import ROLE_OF, fold
from selection.data.messages.problems import Message


@dataclass(frozen=True, slots=True)
class _Style:
    """How one family of texts marks its turns.

    mark:     pattern of a mark; its one group is the name of who speaks.
    preamble: whether text before the first mark is a system text; else the text starts with a mark.
    is_chat:  whether its marks are of a chat alone; a prompt may end with the assistant's.
    """

    mark: re.Pattern[str]
    preamble: bool = False
    is_chat: bool = True


_NAMES = "human|user|assistant|gpt|system|prompter|bot|ai"
_STYLES = (
    _Style(re.compile(r"<\|im_start\|>[ \t]*(\w+)[ \t]*(?:\n|<\|im_sep\|>)")),
    _Style(re.compile(r"<\|start_header_id\|>(\w+)<\|end_header_id\|>\s*")),
    _Style(re.compile(r"<start_of_turn>(\w+)\n")),
    _Style(re.compile(r"<\|START_OF_TURN_TOKEN\|><\|(USER|CHATBOT|SYSTEM)_TOKEN\|>")),
    _Style(re.compile(r"<\uff5c(User|Assistant)\uff5c>"), preamble=True),
    _Style(re.compile(r"<\|start_of_role\|>(\w+)<\|end_of_role\|>")),
    _Style(re.compile(r"<extra_id_[01]>(System|User|Assistant)\n")),
    _Style(re.compile(r"\[\|(Human|AI)\|\][ \t]*"), preamble=True),
    _Style(re.compile(r"\[(Human|MOSS)\]: *"), preamble=True),
    _Style(re.compile(rf"<\|({_NAMES}|observation|tool|model)\|>\s*", re.I)),
    _Style(
        re.compile(r"(?:^|\n)#{2,3} *(instruction|input|response|question|answer) *: *\n?", re.I),
        preamble=True,
        is_chat=False,
    ),
    _Style(
        re.compile(r"(?:^|\n|(?<=\s)|</s>\s*)(USER|ASSISTANT|SYSTEM|FUNCTION RESPONSE) *: *"),
        preamble=True,
    ),
    _Style(re.compile(rf"#{{2,3}} *({_NAMES}) *: *", re.I)),
    _Style(re.compile(rf"(?:^|\n\s*\n|</s>\s*)({_NAMES}) *: *", re.I)),
    _Style(re.compile(r"(?:^|\n)(Human|User|Assistant|AI|Bot): ?")),
    _Style(re.compile(r"(?:^|\n)(Question|Answer|Q|A): "), is_chat=False),
)
_ENDS = (
    "</s> <|endoftext|> <|end_of_text|> <|end|> <|im_end|> <|eot_id|> <|eom_id|> <end_of_turn>"
    " <eos> <eoh> <eoa> <extra_id_1> <|END_OF_TURN_TOKEN|> <\uff5cend▁of▁sentence\uff5c>"
)
_CLOSING = re.compile(rf"(?:\s*(?:{'|'.join(map(re.escape, _ENDS.split()))}))*\s*\Z")
_START = re.compile(
    r"\s*(?:<s>|<bos>|<\|begin_of_text\|>|<\|endoftext\|>|<BOS_TOKEN>|<\uff5cbegin▁of▁sentence\uff5c>)*\s*"
)
_STRANGE = (
    re.compile(
        r"<[|\uff5c]\w*?(?:user|human)\w*[|\uff5c]>.*?(<[|\uff5c]\w*?(?:assistant|bot|model)\w*[|\uff5c]>)",
        re.I | re.S,
    ),
    re.compile(r"(<\|\w*start\w*\|>(?:user|human)\b)", re.I),
    re.compile(r"(\[INST\]).*?\[/INST\]", re.S),
)
_OPEN = "\0"  # stands for the answer that a prompt asks for
_SHORT = {"q": "user", "a": "assistant", "input": "user"}
_INSTRUCTION = re.compile(
    r"\s*(?:<s>)?\s*\[INST\]\s*(?:<<SYS>>(?P<system>.*?)<</SYS>>)?(?P<user>.*?)\[/INST\]"
    r"(?P<assistant>.*?)(?:</s>|(?=<s>)|(?=\[INST\])|\Z)",
    re.S,
)


def transcript_of(text: str, *, only_chats: bool = False) -> list[Message] | None:
    """The messages of a text that is a transcript; None for any other text.

    A transcript begins with a mark of the user or of the system, and has one of the assistant.
    only_chats: whether marks of questions and instructions do not make one.
    """
    if messages := _of_instructions(text):
        return messages
    for style in _STYLES:
        if (style.is_chat or not only_chats) and (messages := _in_style(text, style)):
            return messages
    return None


def prompt_transcript(text: str) -> list[Message] | None:
    """The messages of a prompt that ends with the mark of the assistant; None for any other."""
    start = text.rstrip()
    if not start.endswith((":", ">", "]")):
        return None
    for joint in (" ", "\n"):
        messages = transcript_of(f"{start}{joint}{_OPEN}", only_chats=True)
        if messages and messages[-1] == {"role": "assistant", "content": _OPEN}:
            return messages[:-1]
    return None


def strange_mark(text: str) -> str:
    """A mark of turns in a text that is no known transcript; "" for a plain text."""
    matches = (pattern.search(text) for pattern in _STRANGE)
    return next((match[1] for match in matches if match), "")


def _in_style(text: str, style: _Style) -> list[Message] | None:
    marks = list(style.mark.finditer(text))
    if len(marks) < 2:
        return None
    before = text[: marks[0].start()]
    before = before[_match_end(before) :].strip()
    if before and not style.preamble:
        return None
    messages = [{"role": "system", "content": before}] if before else []
    for mark, after in zip(marks, [*marks[1:], None], strict=True):
        piece = text[mark.end() : None if after is None else after.start()]
        role = _role(mark[1])
        if role is None:
            return None
        content = _CLOSING.sub("", piece).strip()
        joins = fold(mark[1]) == "input" and messages and messages[-1]["role"] == "user"
        if joins:
            content = f"{messages.pop()['content']}\n{content}".strip()
        if content or after is not None or role == "assistant":  # else a mark that asks for more
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
