"""Numbers, sizes and times in words for people, the same in terminals, pages and reports."""

import math
from collections.abc import Iterable
from datetime import datetime

_SIZES = ("kB", "MB", "GB", "TB", "PB")
NONE = "\u2013"  # an en dash where there is no value


def spellings(codes: Iterable[int]) -> dict[int, str]:
    """Characters that cannot be seen by what is written for them: ⟨U+202E⟩."""
    return {code: f"\u27e8U+{code:04X}\u27e9" for code in codes}


# Controls of writing direction could make a line read otherwise than it is: they are spelled out.
_DIRECTION = spellings((0x61C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)))


def spelled(text: str) -> str:
    """The text with controls of writing direction as ⟨U+202E⟩."""
    return text if text.isascii() else text.translate(_DIRECTION)


def count(n: int | None) -> str:
    """Thousands apart: 12,345."""
    return NONE if n is None else f"{n:,}"


def plural(n: int, word: str) -> str:
    """1 sample, 2 samples."""
    return f"{n:,} {word}{'' if n == 1 else 's'}"


def percent(share: float | None) -> str:
    """Two digits that matter: 34 %, 3.4 %, 0.34 %."""
    if share is None:
        return NONE
    value = 100 * share
    digits = 0 if value >= 10 or value == 0 else 1 if value >= 1 else 2
    return f"{value:.{digits}f} %"


def score(value: float | None) -> str:
    """Four digits that matter."""
    return NONE if value is None else f"{value:#.4g}"


def moment(at: datetime | None) -> str:
    """Day and minute."""
    return NONE if at is None else f"{at:%Y-%m-%d %H:%M}"


def duration(seconds: float) -> str:
    """Seconds, minutes or hours."""
    if seconds < 90:
        return f"{seconds:.{1 if seconds < 10 else 0}f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def size(n_bytes: int) -> str:
    """Bytes in powers of 1000: 1.5 GB."""
    if n_bytes < 1000:
        return f"{n_bytes} bytes"
    power = min(int(math.log10(n_bytes)) // 3, len(_SIZES))
    return f"{n_bytes / 1000**power:.1f} {_SIZES[power - 1]}"


def unbroken(text: str) -> str:
    """The text with narrow spaces at which no line ends."""
    return text.replace(" ", "\u202f")
