"""Passwords and tokens inside addresses never reach the catalog, a report or an export."""

import re
from collections.abc import Mapping
from typing import TypeVar

HIDDEN = "***"

_USER = re.compile(r"(?<=://)[^/@\s]+(?=@)")
_PARAMETER = re.compile(
    r"([?&;#](?:[\w.-]*(?:token|secret|passw|signature|credential|api[_-]?key|access[_-]?key)[\w.-]*"
    r"|sig|key|auth)=)[^&;#\s]+",
    re.IGNORECASE,
)
_HUB_TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{20,}\b")

Value = TypeVar("Value")


def without_secrets(value: Value) -> Value:
    """A text, or a JSON value with all its texts, with secrets replaced by `***`.

    Hidden are the user part of an address (`s3://KEY:SECRET@host`), parameters whose names say
    that they are secret (`?token=...`, `&X-Amz-Signature=...`), and hub tokens (`hf_...`).
    """
    if isinstance(value, str):
        hidden = _USER.sub(HIDDEN, value)
        hidden = _PARAMETER.sub(lambda match: match[1] + HIDDEN, hidden)
        return _HUB_TOKEN.sub(HIDDEN, hidden)  # type: ignore[return-value]
    if isinstance(value, Mapping):
        return {key: without_secrets(item) for key, item in value.items()}  # type: ignore[return-value]
    if isinstance(value, list | tuple):
        return [without_secrets(item) for item in value]  # type: ignore[return-value]
    return value
