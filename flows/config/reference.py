"""All config keys from the schema, for `saelect config` and docs/reference/config.md.

`python -m flows.config.reference docs/reference/config.md` writes the page.
"""

import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

from flows.config.jobs import SelectConfig
from storage.files.atomic import write_bytes

Schema = dict[str, Any]

_HEAD = """# Config keys

Every key of a config, as `saelect config` prints them; `saelect config --schema` is the same as
JSON schema. An unknown key is an error that names the nearest known one. `[]` marks a list. A bare
string stands for a section with one obvious key: `pool: pool.jsonl`, `model: demo`, `sae: FOLDER`.
`preset` fills in what the config does not say; the resolved config is stored with its run.

This page is written by `python -m flows.config.reference docs/reference/config.md`.
"""


class Key(NamedTuple):
    """A key: dotted name, values, default as JSON, description."""

    name: str
    values: str
    default: str
    what: str


def config_keys() -> list[Key]:
    """All keys, in the order of the config."""
    schema = SelectConfig.model_json_schema()
    return _keys(schema, schema, "")


def _keys(schema: Schema, root: Schema, prefix: str) -> list[Key]:
    keys = []
    for name, value in schema.get("properties", {}).items():
        inner, listed = _model_of(value, root)
        key = f"{prefix}{name}"
        if inner is not None:
            keys += _keys(inner, root, f"{key}[]." if listed else f"{key}.")
        else:
            required = name in schema.get("required", ())
            empty: dict[str, object] | None = {} if value.get("type") == "object" else None
            default = "required" if required else json.dumps(value.get("default", empty))
            keys.append(Key(key, _values(value), default, str(value.get("description", ""))))
    return keys


def _model_of(value: Schema, root: Schema) -> tuple[Schema | None, bool]:
    """The nested model that a property refers to, and whether it is one of a list of them."""
    for option in (value, *value.get("anyOf", ())):
        items = option.get("items")
        listed = isinstance(items, dict)
        reference = (items if listed else option).get("$ref")
        if reference:
            model: Schema = root["$defs"][reference.rsplit("/", 1)[1]]
            if "properties" in model:
                return model, listed
    return None, False


def _values(value: Schema) -> str:
    """Type, choices and bounds in a few words."""
    options = value.get("anyOf")
    if options:
        return " or ".join(dict.fromkeys(_values(option) for option in options))
    if "enum" in value:
        return ", ".join(f"`{choice}`" for choice in value["enum"])
    kind = str(value.get("type", "any"))
    names = {"null": "nothing", "object": "mapping", "array": "list", "boolean": "true or false"}
    signs = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
    bounds = ", ".join(
        f"{sign} {value[bound]:g}" for bound, sign in signs.items() if bound in value
    )
    if kind == "array" and isinstance(value.get("items"), dict):
        return f"list of {_values(value['items'])}"
    return f"{names.get(kind, kind)} {bounds}".strip()


def page() -> str:
    """The page as Markdown: the run's own keys, then a table for each section."""
    sections: dict[str, list[Key]] = {"": []}
    for key in config_keys():
        section = key.name.split(".")[0].removesuffix("[]") if "." in key.name else ""
        sections.setdefault(section, []).append(key)
    parts = [_HEAD]
    for section, keys in sections.items():
        title = f"`{section}`" if section else "The run"
        parts.append(
            f"\n## {title}\n\n| key | values | default | description |\n|---|---|---|---|\n"
        )
        for key in keys:
            cells = (f"`{key.name}`", key.values, f"`{key.default}`", key.what)
            parts.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n")
    return "".join(parts)


if __name__ == "__main__":
    write_bytes(Path(sys.argv[1]), page().encode())
