"""Conversations to texts with a chat template, and where in the text the contents are.

A template refuses what it was not written for: a system text, two turns of one role. Then it is
given less and less: arguments of tool calls as text, then turns that alternate without tools; what
it refuses even so is written plainly. Every way is counted.
"""

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from selection.data.messages.normalize import (
    Message,
    Tools,
    normalize_messages,
    simplify_messages,
    write_arguments,
)
from selection.rendering.spans import (
    Gaps,
    Part,
    Slot,
    Span,
    cut_at_markers,
    find_spans,
    mark_messages,
    search_spans,
)
from selection.rendering.templates import TEMPLATE_ERRORS, ChatTemplate

logger = logging.getLogger(__name__)

_MAX_CACHED_GAPS = 4096


@dataclass(frozen=True, slots=True)
class WrittenText:
    """A rendered conversation.

    text:     what the template wrote.
    spans:    where contents are, in order.
    is_plain: whether the plain template wrote it.
    """

    text: str
    spans: list[Span]
    is_plain: bool


class TextWriter:
    """Writes conversations with a template, or with the plain one where that refuses.

    counts: conversations so far that were written as_is, simplified or plain; and searched, where
            contents were found by search alone.
    """

    def __init__(
        self, template: ChatTemplate, plain: ChatTemplate, constant_system: frozenset[str]
    ) -> None:
        """constant_system: system texts that are no content."""
        self._template, self._plain = template, plain
        self._constant_system = constant_system
        self._gaps: dict[str, Gaps | None] = {}
        self.counts: Counter[str] = Counter()

    def write_as_given(
        self, messages: Sequence[Mapping[str, Any]], tools: Tools | None
    ) -> WrittenText:
        """What a trainer trains on: the template's text of the messages as they are, as one span.

        A template may leave out contents, such as thoughts. Where it refuses, as `write`.
        """
        try:
            text = self._template([dict(message) for message in messages], tools)
        except TEMPLATE_ERRORS:
            return self.write(normalize_messages(messages), tools)
        whole = Span(0, len(text), Part.RESPONSE)
        return WrittenText(text, [whole], self._template is self._plain)

    def write(self, messages: list[Message], tools: Tools | None) -> WrittenText:
        """Text of a conversation and where its contents are.

        messages: as `normalize_messages` returns them.
        A template that leaves out a content, such as one that knows no tool calls, is given the
        conversation simplified, so that it is written whole.
        """
        for outcome, template, change in (
            ("as_is", self._template, _unchanged),
            ("as_is", self._template, write_arguments),
            ("simplified", self._template, simplify_messages),
            ("plain", self._plain, _unchanged),
        ):
            used_tools = tools if outcome == "as_is" else None
            try:
                text = template(change(messages), used_tools)
            except TEMPLATE_ERRORS as error:
                logger.debug("template refused a sample: %s", error)
                continue
            marked, slots = mark_messages(messages, self._constant_system)
            gaps = self._gaps_of(template, change(marked), used_tools)
            if outcome == "as_is" and gaps is not None and not _is_whole(template, gaps, slots):
                continue
            self.counts[outcome] += 1
            spans = None if gaps is None else find_spans(text, gaps, slots)
            if spans is None:
                spans = self._other_spans(text, template, messages, used_tools, change)
            return WrittenText(text, spans, template is self._plain)
        raise AssertionError("the plain template renders every conversation")

    def _other_spans(
        self,
        text: str,
        template: ChatTemplate,
        messages: list[Message],
        tools: Tools | None,
        change: Callable[[Sequence[Message]], Sequence[Message]],
    ) -> list[Span]:
        """Contents in a text whose template takes thoughts out of them; else by search."""
        marked, slots = mark_messages(messages, self._constant_system, split_thoughts=True)
        gaps = self._gaps_of(template, change(marked), tools)
        spans = None if gaps is None else find_spans(text, gaps, slots)
        if spans is None:
            self.counts["searched"] += 1
            return search_spans(text, slots)
        return spans

    def _gaps_of(
        self, template: ChatTemplate, marked: Sequence[Message], tools: Tools | None
    ) -> Gaps | None:
        """Template text around the contents; None where the template refuses markers."""
        key = repr((template is self._plain, marked, tools))
        if key not in self._gaps:
            if len(self._gaps) >= _MAX_CACHED_GAPS:
                self._gaps.clear()
            try:
                self._gaps[key] = cut_at_markers(template(marked, tools))
            except TEMPLATE_ERRORS:
                self._gaps[key] = None
        return self._gaps[key]


def _is_whole(template: ChatTemplate, gaps: Gaps, slots: Sequence[Slot]) -> bool:
    """Whether the template writes every content, but for thoughts that it leaves out on purpose."""
    left_out = set(range(len(slots))) - set(gaps.slots)
    return not left_out or (
        template.writes_reasoning and all(slots[number].is_thought for number in left_out)
    )


def _unchanged(messages: Sequence[Message]) -> Sequence[Message]:
    return messages
