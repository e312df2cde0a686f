"""What one generated sample is, and the small helpers that every family uses."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import TypeVar

Message = dict[str, object]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Draft:
    """One sample before it gets its id, source and licence.

    template: the pattern that the text follows; none may fill more than 2 % of the pool.
    messages: OpenAI messages, last one by the assistant.
    group:    the scene the sample plays in, or "general".
    language: ISO 639-1 code of the answer.
    tools:    tool definitions, where the assistant may call some.
    facts:    what the tests check the text against; never written to a file.
    """

    template: str
    messages: list[Message]
    group: str = "general"
    language: str = "en"
    tools: list[dict[str, object]] | None = None
    facts: Mapping[str, object] = field(default_factory=dict)


Template = Callable[[Random], Draft]


def ask(
    template: str,
    prompt: str,
    answer: str,
    *,
    system: str | None = None,
    group: str = "general",
    language: str = "en",
    facts: Mapping[str, object] | None = None,
) -> Draft:
    """A sample of one question and one answer, with a system message where one is given."""
    messages: list[Message] = [] if system is None else [turn("system", system)]
    messages += [turn("user", prompt), turn("assistant", answer)]
    return Draft(template, messages, group=group, language=language, facts=facts or {})


def chat(
    template: str,
    turns: Sequence[str],
    *,
    system: str | None = None,
    group: str = "general",
    language: str = "en",
    facts: Mapping[str, object] | None = None,
) -> Draft:
    """A sample of several turns, user first, in alternation."""
    messages: list[Message] = [] if system is None else [turn("system", system)]
    for number, text in enumerate(turns):
        messages.append(turn("assistant" if number % 2 else "user", text))
    return Draft(template, messages, group=group, language=language, facts=facts or {})


def turn(role: str, content: str) -> Message:
    """One message."""
    return {"role": role, "content": content}


def text_of(draft: Draft, role: str | None = None) -> str:
    """Contents of the messages (of one role), joined by newlines."""
    chosen = [m for m in draft.messages if role is None or m["role"] == role]
    return "\n".join(str(m["content"]) for m in chosen if m.get("content"))


def sometimes(rng: Random, share: float, value: T) -> T | None:
    """`value` in this share of the calls, else None."""
    return value if rng.random() < share else None


def listing(words: Sequence[str], word: str = "and") -> str:
    """`a, b and c`."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} {word} {words[-1]}"


def bullets(rng: Random, lines: Sequence[str]) -> str:
    """The lines as a list in one of a few styles."""
    style = rng.choice(["- ", "* ", "1. "])
    marks = [f"{i}. " if style == "1. " else style for i in range(1, len(lines) + 1)]
    return "\n".join(mark + line for mark, line in zip(marks, lines, strict=True))


def capital(text: str) -> str:
    """The text with its first letter as a capital."""
    return text[:1].upper() + text[1:]


def article(noun: str) -> str:
    """The noun with `a` or `an`."""
    return ("an " if noun[0].lower() in "aeiou" else "a ") + noun
