"""The one error that a user's input can cause.

Callers must tell it from a bug: the command line prints it as a sentence, everything else as a
traceback. A message names where it is (file, line, field), the value that was read and the remedy.
"""

from pathlib import Path


class InputError(ValueError):
    """Something the user supplied is wrong; `str()` names file, value and remedy."""

    def __init__(
        self,
        problem: str,
        *,
        remedy: str,
        file: Path | str | None = None,
        line: int | None = None,
        field: str | None = None,
        value: object = None,
    ) -> None:
        """Compose the message.

        problem: what is wrong, as a clause without a final period.
        remedy:  what the user can do, as a sentence.
        file, line, field, value: where it is and what stands there, where known; line is 1-based.
        """
        self.problem, self.remedy = problem, remedy
        self.file, self.line, self.field, self.value = file, line, field, value
        where = "" if file is None else str(file) + ("" if line is None else f", line {line}")
        named = "" if field is None else f"`{field}`"
        head = ": ".join(part for part in (where, named) if part)
        shown = "" if value is None else f" (found: {shorten(value)})"
        super().__init__(
            f"{head}: {problem}{shown}. {remedy}" if head else f"{problem}{shown}. {remedy}"
        )


def shorten(value: object, limit: int = 120) -> str:
    """`repr` of a value, cut to `limit` characters so that a message stays readable."""
    text = repr(_clipped(value, limit + 1))
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _clipped(value: object, limit: int) -> object:
    """A value without what lies behind `limit` characters or items: a text may be very long."""
    if isinstance(value, str):
        return value[:limit]
    if isinstance(value, list):
        return [_clipped(item, limit) for item in value[:limit]]
    if isinstance(value, dict):
        return {key: _clipped(item, limit) for key, item in list(value.items())[:limit]}
    return value
