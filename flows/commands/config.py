"""`saelect config`: what a config may say."""

import json
import sys
from importlib.resources import files

from flows.config.file import PRESETS
from flows.config.jobs import SelectConfig
from selection.errors import InputError


def print_config(*, schema: bool, preset: str) -> None:
    """Print the JSON schema, a preset, or a table of all keys with their defaults."""
    if preset:
        if preset not in PRESETS:
            raise InputError(
                "no such preset",
                field="--preset",
                value=preset,
                remedy=f"Known presets: {', '.join(PRESETS)}.",
            )
        text = (files("flows") / "presets" / f"{preset}.yaml").read_text(encoding="utf-8")
        sys.stdout.write(text)
    elif schema:
        sys.stdout.write(json.dumps(SelectConfig.model_json_schema(), indent=2) + "\n")
    else:
        _print_keys()


def _print_keys() -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in ("key", "default", "what"):
        table.add_column(column, no_wrap=column == "key")
    definitions = SelectConfig.model_json_schema()
    for key, default, what in sorted(_keys(definitions, definitions, "")):
        table.add_row(key, default, what)
    Console().print(table)


def _keys(
    schema: dict[str, object], root: dict[str, object], prefix: str
) -> list[tuple[str, str, str]]:
    """(dotted key, default, description) of every leaf of the schema."""
    found = []
    properties = schema.get("properties")
    required = schema.get("required")
    for name, value in (properties if isinstance(properties, dict) else {}).items():
        inner = _model_of(value, root)
        key = f"{prefix}{name}"
        if inner is not None:
            found += _keys(inner, root, f"{key}[]." if value.get("type") == "array" else f"{key}.")
        else:
            is_required = isinstance(required, list) and name in required
            default = "required" if is_required else json.dumps(value.get("default"))
            found.append((key, default, str(value.get("description", ""))))
    return found


def _model_of(value: dict[str, object], root: dict[str, object]) -> dict[str, object] | None:
    """The nested model that a property refers to, directly, in a list or in a union."""
    options = value.get("anyOf")
    items = value.get("items")
    candidates = [value, *(options if isinstance(options, list) else [])]
    candidates += [items] if isinstance(items, dict) else []
    definitions = root.get("$defs")
    for candidate in candidates:
        reference = candidate.get("$ref") if isinstance(candidate, dict) else None
        if isinstance(reference, str) and isinstance(definitions, dict):
            found: dict[str, object] = definitions[reference.rsplit("/", 1)[1]]
            if "properties" in found:
                return found
    return None
