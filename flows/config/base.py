"""The base of all config sections: unknown keys are errors, short forms are accepted."""

from typing import Any, Literal, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationInfo, field_validator

DEMO = "demo"
"""Name of the packaged demonstration model and SAE."""

Dtype = Literal["auto", "float32", "bfloat16", "float16"]
"""Of a model's weights and activations."""


class Strict(BaseModel):
    """Frozen; any key that is not declared is an error, and so is a number that is not finite."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def true_is_no_number(cls, value: object, info: ValidationInfo) -> object:
        """Refuse true and false where a number is needed: pydantic takes them for 1 and 0."""
        field = cls.model_fields.get(info.field_name or "")
        if isinstance(value, bool) and field and not _takes_bool(field.annotation):
            raise ValueError("a value is needed here, not true or false")
        return value


def _takes_bool(annotation: Any) -> bool:
    """Whether a boolean is among the values of an annotation."""
    if annotation is bool or annotation is Any or isinstance(annotation, bool):
        return True
    return any(_takes_bool(part) for part in get_args(annotation))


def as_mapping(key: str) -> Any:
    """A validator that accepts a bare string for `{key: string}`."""
    return BeforeValidator(lambda value: {key: value} if isinstance(value, str) else value)


def as_list(value: object) -> object:
    """Accept one pool for a list of one, and a path for a pool."""
    if value is None:
        return None  # an empty field of a form
    items = value if isinstance(value, list | tuple) else [value]
    return [{"path": item} if isinstance(item, str) else item for item in items]
