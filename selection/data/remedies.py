"""Reasons why a row is dropped while reading, and what to do about each."""

from collections.abc import Mapping

from selection.records import DropReason

REMEDIES: Mapping[DropReason, str] = {
    DropReason.BROKEN_ROW: "repair the line",
    DropReason.NOT_RECOGNIZED: "name its columns: `columns: {prompt: ..., response: ...}`",
    DropReason.UNKNOWN_ROLE: "say whose turn it is: `roles: {NAME: assistant}`, or user, system,"
    " tool; write a text of such marks as a list of messages",
    DropReason.NOT_TEXT: "write it as text; of a list of reference answers `answers: first` takes"
    " the first, and `answers: json` takes the JSON of a list or an object",
    DropReason.MISSING_VALUE: "write an empty cell, or convert the table to JSONL",
    DropReason.IN_CONVERSATION: "nothing to do: another row stands for the conversation",
    DropReason.REJECTED_ANSWER: "nothing to do: the row says so; to read such rows, leave out the"
    " column that does",
    DropReason.NO_TEXT: "leave the row out",
    DropReason.IMAGE_OR_AUDIO: "only text is read",
    DropReason.NO_RESPONSE: "give it an answer, or set `rendering: {counted: prompt}`",
    DropReason.WHERE: "loosen `where`",
    DropReason.IS_EXEMPLAR: "nothing to do; `drop_exemplar_copies: false` keeps it",
    DropReason.EXCLUDED: "nothing to do: it is on the list `exclude`",
}


def remedy_of(reason: str) -> str:
    """What to do about a reason, as a clause; "" where there is nothing to say."""
    return REMEDIES.get(DropReason(reason), "")


def drop_lines(
    counts: Mapping[str, int], examples: Mapping[str, Mapping[str, object]]
) -> list[str]:
    """One line for each reason: how many rows, the first of them, and the remedy.

    examples: reason -> file, row and detail of its first row, where it is known.
    """
    lines = []
    for reason, n in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        first = examples.get(reason)
        where = f" (first: {first['file']}, row {first['row']}" if first else ""
        detail = f": {first['detail']}" if first and first["detail"] else ""
        remedy = f"; {remedy_of(reason)}" if remedy_of(reason) else ""
        lines.append(f"{n:,} {reason}{where}{detail}{')' if first else ''}{remedy}")
    return lines
