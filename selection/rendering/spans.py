"""Where the content of messages lies in a rendered conversation, character by character.

A template is rendered twice: with the messages, and with every content replaced by a marker. The
text between the markers is the template's own, and the real rendering must be that text with
contents in the gaps. A content that reads like a role header is therefore never confused with one.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from selection.data.messages.contents import is_trained_on
from selection.data.messages.normalize import Message
from selection.rendering.spellings import call_pieces, content_pieces, spellings


class Part(IntEnum):
    """Whose text a character or token is."""

    TEMPLATE = 0
    PROMPT = 1
    RESPONSE = 2
    EXCLUDED = 3  # a response that the sample says is not to be learned; it never counts


@dataclass(frozen=True, slots=True)
class Slot:
    """One piece of a sample's own text: a content, a reasoning, or a tool call.

    text:      the content; for a tool call the function's name.
    part:      whose text it is; TEMPLATE for a system text that is said to be constant.
    arguments: of a tool call; unused otherwise.
    is_call:   whether the slot is a tool call, whose spelling is up to the template.
    is_thought: whether it is a reasoning, which some templates leave out on purpose.
    message:   number of the message that it belongs to.
    """

    text: str
    part: Part
    arguments: object = None
    is_call: bool = False
    message: int = 0
    is_thought: bool = False


@dataclass(frozen=True, slots=True)
class Gaps:
    """A rendering with markers, cut at the markers.

    constants: (g + 1) template texts, before, between and after the gaps.
    slots:     (g) slot number of each gap, in the order in which the template wrote them.
    """

    constants: tuple[str, ...]
    slots: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Span:
    """Characters start:end of the rendered text belong to `part`, of message number `message`."""

    start: int
    end: int
    part: Part
    message: int = 0


_MARKER = re.compile(r"slotQ(\d+)Qslot")
_THINK_TAGS = re.compile(r"(</?think>|\[/?THINK\])")
_JSON_BEFORE, _JSON_AFTER = "\"'{[(:,= ", "\"'}])>, "


def marker(slot: int) -> str:
    """The text that stands for a slot; ASCII, without spaces, so templates leave it alone."""
    return f"slotQ{slot}Qslot"


def mark_messages(
    messages: Sequence[Message], constant_system: frozenset[str], split_thoughts: bool = False
) -> tuple[list[Message], list[Slot]]:
    """Replace every content by a marker; returns the marked messages and the slots.

    messages:        as `normalize_messages` returns them.
    constant_system: system texts that are no content.
    split_thoughts:  cut contents at <think> tags, for templates that take them apart.
    """
    slots: list[Slot] = []
    marked: list[Message] = []

    def mark(text: str, part: Part, is_thought: bool = False) -> str:
        if not text or text.isspace():
            return text  # Templates ask whether a content is empty; the answer must not change.
        slots.append(Slot(text, part, message=len(marked), is_thought=is_thought))
        return marker(len(slots) - 1)

    def mark_text(text: str, part: Part) -> str:
        pieces = _THINK_TAGS.split(text) if split_thoughts else [text]
        return "".join(p if _THINK_TAGS.fullmatch(p) else mark(p, part) for p in pieces)

    for message in messages:
        part = part_of(message, constant_system)
        copy = dict(message)
        if "reasoning_content" in message:  # First, because templates write it first.
            copy["reasoning_content"] = mark(message["reasoning_content"], part, True)
            copy["thinking"] = copy["reasoning_content"]
        copy["content"] = mark_text(message["content"], part)
        if "tool_calls" in message:
            calls, number = message["tool_calls"], len(marked)
            copy["tool_calls"] = [_mark_call(call, part, slots, number) for call in calls]
        marked.append(copy)
    return marked, slots


def part_of(message: Message, constant_system: frozenset[str]) -> Part:
    """Whose text the contents of a message are."""
    if message["role"] == "assistant":
        return Part.RESPONSE if is_trained_on(message) else Part.EXCLUDED
    if message["role"] == "system" and message["content"].strip() in constant_system:
        return Part.TEMPLATE
    return Part.PROMPT


def _mark_call(
    call: Mapping[str, Any], part: Part, slots: list[Slot], message: int
) -> dict[str, Any]:
    function = call["function"]
    slots.append(Slot(function["name"], part, function["arguments"], True, message))
    name = marker(len(slots) - 1)
    # Empty arguments stay: some templates write something else for them, and they say nothing.
    arguments = {name: name} if function["arguments"] else {}
    return {**call, "function": {**function, "name": name, "arguments": arguments}}


def cut_at_markers(text: str) -> Gaps:
    """Cut a rendering of marked messages; markers of one tool call become one gap."""
    fields = _MARKER.split(text)
    constants = [fields[0]]
    slots: list[int] = []
    for slot, constant in zip(fields[1::2], fields[2::2], strict=True):
        if slots and slots[-1] == int(slot):
            constants[-1] = constant
        else:
            slots.append(int(slot))
            constants.append(constant)
    return Gaps(tuple(constants), tuple(slots))


def find_spans(text: str, gaps: Gaps, slots: Sequence[Slot]) -> list[Span] | None:
    """Spans of all slots in `text`, in order; None where the text does not have these gaps.

    A content counts as the template wrote it, that is often without surrounding white space.
    """
    if not any(slots[number].is_call for number in gaps.slots):
        for spelling in (str, str.strip):
            spans = _joined_spans(text, gaps, slots, spelling)
            if spans is not None:
                return spans
    return _walk_gaps(text, gaps, slots)


def _joined_spans(
    text: str, gaps: Gaps, slots: Sequence[Slot], spelling: Callable[[str], str]
) -> list[Span] | None:
    """The usual case: the text is the constants with all contents in one and the same spelling."""
    spans, at = list[Span](), len(gaps.constants[0])
    is_equal = text.startswith(gaps.constants[0])
    for number, constant in zip(gaps.slots, gaps.constants[1:], strict=True):
        content = spelling(slots[number].text)
        spans.append(Span(at, at + len(content), slots[number].part, slots[number].message))
        after = at + len(content)
        is_equal = is_equal and text.startswith(content, at) and text.startswith(constant, after)
        at = after + len(constant)
    return spans if is_equal and at == len(text) else None


def _walk_gaps(text: str, gaps: Gaps, slots: Sequence[Slot]) -> list[Span] | None:
    """Match gap by gap; where a content was rewritten, look for what is left of it."""
    constants = _without_call_punctuation(gaps, slots)
    if not text.startswith(constants[0]):
        return None
    spans: list[Span] = []
    at = len(constants[0])
    for gap, (number, after) in enumerate(zip(gaps.slots, constants[1:], strict=True), 1):
        slot, is_last = slots[number], gap == len(gaps.slots)
        length = None if slot.is_call else _spelled_length(text, at, slot.text, after)
        if length is not None:
            spans.append(Span(at, at + length, slot.part, slot.message))
            at += length + len(after)
            continue
        end = _gap_end(text, at, after, is_last)
        if end is None:
            return None
        spans += _spans_inside(text, at, end, slot)
        at = end + len(after)
    return spans


def _gap_end(text: str, at: int, after: str, is_last: bool) -> int | None:
    """Where a gap of unknown content ends: before the next constant, or before the text's tail."""
    if is_last:
        end = len(text) - len(after)
        return end if end >= at and text.endswith(after) else None
    end = text.find(after, at) if after else -1
    return end if end >= 0 else None


def _without_call_punctuation(gaps: Gaps, slots: Sequence[Slot]) -> list[str]:
    """Constants without the JSON punctuation around tool calls, which depends on their values."""
    constants = list(gaps.constants)
    for gap, number in enumerate(gaps.slots):
        if slots[number].is_call:
            constants[gap] = constants[gap].rstrip(_JSON_BEFORE)
            constants[gap + 1] = constants[gap + 1].lstrip(_JSON_AFTER)
    return constants


def _spelled_length(text: str, at: int, content: str, after: str) -> int | None:
    """Length of the content at `at` if one of its spellings stands there, else None."""
    for spelling in spellings(content):
        if text.startswith(spelling, at) and text.startswith(after, at + len(spelling)):
            return len(spelling)
    return None


def _spans_inside(text: str, start: int, end: int, slot: Slot) -> list[Span]:
    """Spans of a rewritten content, or of a tool call, within text[start:end]."""
    if slot.is_call:
        pieces = call_pieces(text[start:end], slot.text, slot.arguments)
    else:
        pieces = content_pieces(text[start:end], slot.text)
    return [Span(start + a, start + b, slot.part, slot.message) for a, b in pieces]


def search_spans(text: str, slots: Sequence[Slot]) -> list[Span]:
    """Last resort, without knowledge of the template: look for each slot after the one before."""
    spans: list[Span] = []
    at = 0
    for slot in slots:
        inside = _spans_inside(text, at, len(text), slot)
        if inside:
            spans += inside
            at = inside[-1].end
    return spans
