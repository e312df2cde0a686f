"""Tool definitions and calls in OpenAI's form, from the forms of others."""

import ast
import json
import warnings
from collections.abc import Mapping

from selection.core.json_text import decoded
from selection.data.messages.problems import not_this_shape

_MAX_EXACT = 2**53
_DECLARATIONS = ("functionDeclarations", "function_declarations", "tools")


def compact(value: object) -> object:
    """A JSON value without the keys that are null, at every depth, and with whole numbers as such.

    Tables give every object the keys of all others, as null, and turn 1 beside 1.5 into 1.0. The
    absence of a key and null mean the same in messages, parts, arguments and tool schemas, and so
    do 1 and 1.0: the same sample has the same id in every format.
    """
    if isinstance(value, dict):
        return {key: compact(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [compact(item) for item in value]
    if isinstance(value, float) and value.is_integer() and abs(value) < _MAX_EXACT:
        return int(value)
    return value


def parsed(text: str) -> object:
    """The value that a text spells as JSON, else as Python does; None for neither.

    None also where a key stands twice, a character is half, or Python's value is none of JSON's.
    """
    try:
        return decoded(text)
    except (ValueError, RecursionError):
        pass
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Python's own about a backslash in somebody's text
            tree = ast.parse(text.strip(), mode="eval")
        if any(_has_a_key_twice(node) for node in ast.walk(tree)):
            return None
        return decoded(json.dumps(ast.literal_eval(tree)))  # evaluates literals alone
    except (TypeError, ValueError, SyntaxError, MemoryError, RecursionError):
        return None


def _has_a_key_twice(node: ast.AST) -> bool:
    keys = [key.value for key in getattr(node, "keys", ()) if isinstance(key, ast.Constant)]
    return len(set(keys)) < len(keys)


def definitions(tools: object, functions: object) -> list[object] | None:
    """Tool definitions of a row from its columns `tools` and `functions`; None for no tools.

    Each is a list, one object, or either as JSON text. Legacy functions and definitions without
    the object `function` around them become tools; Gemini's lists of declarations are taken apart.
    Names alone define nothing.
    """
    declared = [_declared(item) for item in _listed(tools, "tools")]
    legacy = _listed(functions, "functions")
    both = [one for many in declared for one in many]
    both += [_as_function(item) for item in legacy]
    return [compact(item) for item in both] or None


def _listed(value: object, name: str) -> list[dict[str, object]]:
    if isinstance(value, str):
        if not value.strip():
            return []
        if (value := parsed(value)) is None:
            raise not_this_shape(f"`{name}` is a text that is not JSON")
    if isinstance(value, dict):
        value = [value]
    values = value if isinstance(value, list) else []
    items = [parsed(item) if isinstance(item, str) else item for item in values if item is not None]
    objects = [item for item in items if isinstance(item, dict)]
    return objects if len(objects) == len(items) else []


def _declared(tool: dict[str, object]) -> list[object]:
    for name in _DECLARATIONS:
        if isinstance(declared := tool.get(name), list):
            return [_as_function(item) for item in declared if item is not None]
    is_bare = isinstance(tool.get("name"), str) and tool.get("type") in (None, "function", "custom")
    return [_as_function(tool) if is_bare else tool]


def _as_function(definition: object) -> object:
    if isinstance(definition, dict) and isinstance(spec := definition.get("toolSpec"), dict):
        definition = spec
    if isinstance(definition, dict) and "function" not in definition:
        function = {key: value for key, value in definition.items() if key != "type"}
        if "parameters" not in function and "input_schema" in function:
            function["parameters"] = function.pop("input_schema")
        return {"type": "function", "function": function}
    return definition


def call(
    name: object, arguments: object, call_id: object = None, **more: object
) -> dict[str, object]:
    """One tool call; keys without a value are left out."""
    function = {"name": name, "arguments": {} if arguments is None else arguments}
    named = {} if call_id is None else {"id": call_id}
    return {**named, "type": "function", "function": function, **more}


def calls_of(value: object) -> list[object]:
    """OpenAI tool calls of a function call, an object, a list or JSON text; empty for no call."""
    if isinstance(value, str):
        try:
            value = decoded(value)
        except (ValueError, RecursionError):
            return []
    calls = value if isinstance(value, list) else [value]
    if not all(isinstance(item, dict) and _name_of(item) for item in calls):
        return []
    return [_as_call(item) for item in calls if isinstance(item, dict)]


def _as_call(item: Mapping[str, object]) -> object:
    if isinstance(item.get("function"), Mapping):
        return compact({"type": "function", **item})
    return {"type": "function", "function": compact(dict(item))}


def _name_of(item: Mapping[str, object]) -> bool:
    inner = item.get("function")
    named = inner if isinstance(inner, Mapping) else item
    return isinstance(named.get("name"), str)
