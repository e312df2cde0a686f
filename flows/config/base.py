"""What all parts of a config share: unknown keys are errors, short forms are understood."""

from typing import Any

from pydantic import BaseModel, BeforeValidator, ConfigDict

DEMO = "demo"
"""In place of a model or SAE name: the small demonstration model that ships with saelect."""


class Strict(BaseModel):
    """Frozen; any key that is not declared is an error, and so is a number that is not finite."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def as_mapping(key: str) -> Any:  # noqa: ANN401 - a pydantic validator accepts anything
    """Let a bare string stand for `{key: string}`."""
    return BeforeValidator(lambda value: {key: value} if isinstance(value, str) else value)


def as_list(value: object) -> object:
    """Let one pool stand for a list of one."""
    if value is None:
        return None  # An untouched field of a page is not a list of nothing.
    items = value if isinstance(value, list | tuple) else [value]
    return [{"path": item} if isinstance(item, str) else item for item in items]
