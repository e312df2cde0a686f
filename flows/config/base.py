"""The base of all config sections: unknown keys are errors, short forms are accepted."""

from typing import Any

from pydantic import BaseModel, BeforeValidator, ConfigDict

DEMO = "demo"
"""Name of the packaged demonstration model and SAE."""


class Strict(BaseModel):
    """Frozen; any key that is not declared is an error, and so is a number that is not finite."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def as_mapping(key: str) -> Any:
    """A validator that accepts a bare string for `{key: string}`."""
    return BeforeValidator(lambda value: {key: value} if isinstance(value, str) else value)


def as_list(value: object) -> object:
    """Accept one pool for a list of one, and a path for a pool."""
    if value is None:
        return None  # an empty field of a form
    items = value if isinstance(value, list | tuple) else [value]
    return [{"path": item} if isinstance(item, str) else item for item in items]
