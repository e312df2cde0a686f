"""Config files: YAML in, `SelectConfig` out, with every mistake named by line, field and remedy."""

import difflib
import re
from collections.abc import Iterable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from flows.config.jobs import SelectConfig, VectorJob
from selection.core.errors import InputError, shorten

PRESETS = ("best", "paper", "demo")
MAX_VALUES, MAX_BYTES = 100_000, 4_000_000
_BOOL, _INT, _FLOAT = (f"tag:yaml.org,2002:{name}" for name in ("bool", "int", "float"))

KeyPath = tuple[str | int, ...]
Lines = Mapping[KeyPath, int]
Model = TypeVar("Model", bound=BaseModel)


class _Loader(yaml.SafeLoader):
    """YAML with the numbers and booleans of YAML 1.2: `yes` is a text, and so are 1:30 and 010."""


_Loader.yaml_implicit_resolvers = {
    first: [pair for pair in resolvers if pair[0] not in (_BOOL, _INT, _FLOAT)]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    _BOOL, re.compile(r"^(true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
_Loader.add_implicit_resolver(_INT, re.compile(r"^[-+]?(0|[1-9][0-9_]*)$"), list("-+0123456789"))
_Loader.add_implicit_resolver(
    _FLOAT,
    re.compile(r"^[-+]?((\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|\.(inf|nan))$"),
    list("-+0123456789."),
)


def load_config(path: Path | str, overrides: Mapping[str, object] | None = None) -> SelectConfig:
    """Read a config file, or a preset by name (`demo`), and merge its preset below it.

    overrides: dotted key -> value, as from `--set budget.examples=500`; strings are read as YAML.

    Raises InputError for a missing file, broken YAML, unknown keys or presets and wrong values.
    """
    given, lines = _read(str(path), overrides or {})
    if "name" not in given and Path(path).suffix in (".yaml", ".yml"):
        given["name"] = Path(path).stem
    return resolve(given, source=str(path), lines=lines)


def load_vector_job(path: Path | str, overrides: Mapping[str, object] | None = None) -> VectorJob:
    """Pool, model, SAE and rendering of a config file; keys of a selection are ignored.

    So a config for `saelect run` serves, and so does one without exemplars and budget. Raises
    InputError as `load_config` does.
    """
    given, lines = _read(str(path), overrides or {})
    return resolve_job(given, str(path), lines)


def resolve(
    given: Mapping[str, Any], source: str = "config", lines: Lines | None = None
) -> SelectConfig:
    """Validate a mapping over its preset; the preset's sections are merged key by key."""
    merged = _over_preset(given, source, lines or {})
    return validated(SelectConfig, merged, source, lines or {})


def resolve_job(
    given: Mapping[str, Any], source: str = "config", lines: Lines | None = None
) -> VectorJob:
    """As `resolve`, for the keys of a job without a selection; those of a selection are ignored."""
    merged = _over_preset(given, source, lines or {})
    ignored = set(SelectConfig.model_fields) - set(VectorJob.model_fields)
    kept = {key: value for key, value in merged.items() if key not in ignored}
    return validated(VectorJob, kept, source, lines or {})


def validated(model: type[Model], value: Mapping[str, Any], source: str, lines: Lines) -> Model:
    """The model of a mapping. Raises InputError with everything that is wrong in it."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise input_error(error, model, source, lines) from None


def _over_preset(given: Mapping[str, Any], source: str, lines: Lines) -> dict[str, Any]:
    """The mapping merged over the preset that it names. Raises InputError for an unknown one."""
    preset = given.get("preset", "best")
    if preset not in PRESETS:
        raise InputError(
            "no such preset",
            file=source,
            line=lines.get(("preset",)),
            field="preset",
            value=preset,
            remedy=f"Known presets: {', '.join(PRESETS)}.",
        )
    return merge(yaml.safe_load(preset_text(preset)), given)


def preset_text(name: str) -> str:
    """The YAML of a preset."""
    return (files("flows.config") / "presets" / f"{name}.yaml").read_text(encoding="utf-8")


def merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """`above` over `below`; mappings are merged, anything else is replaced whole.

    Some sections are replaced whole: a budget has one unit, and columns belong to one pool.
    """
    merged = dict(below)
    for key, value in above.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        keep = both and key not in ("pool", "exemplars", "budget", "sae")
        merged[key] = merge(merged[key], value) if keep else value
    return merged


def input_error(
    error: ValidationError, model: type[BaseModel], source: str, lines: Lines
) -> InputError:
    """All mistakes of a config, or of a command's options, in one message, in order of lines."""
    command = source if source.startswith("saelect bench ") else None
    problems = [_problem(item, model, lines, command) for item in error.errors()]
    if command:  # of an option the first alone: pydantic adds what follows from it
        problems = list({problem[1]: problem for problem in reversed(problems)}.values())[::-1]
    problems.sort(key=lambda problem: problem[0] or 0)
    line, field, value, text, remedy = problems[0]
    more = "".join(
        f"\n  also {f'line {n}: ' if n else ''}`{name}`: {other}"
        f"{'' if given is None else f' (found: {shorten(given)})'}. {advice}"
        for n, name, given, other, advice in problems[1:]
    )
    return InputError(text, file=source, line=line, field=field, value=value, remedy=remedy + more)


def _problem(
    item: Mapping[str, Any], model: type[BaseModel], lines: Lines, command: str | None
) -> tuple[int | None, str, object, str, str]:
    """(line, field, value, problem, remedy) of one pydantic error.

    command: whose options the values are, where they are not keys of a config.
    """
    path: KeyPath = tuple(item["loc"])
    field = ".".join(str(part) for part in path) or "config"
    line = next((lines[path[:n]] for n in range(len(path), 0, -1) if path[:n] in lines), None)
    if item["type"] == "extra_forbidden":
        known = sorted(_fields_at(model, path[:-1]))
        close = difflib.get_close_matches(str(path[-1]), known, n=1, cutoff=0.5)
        hint = f"Did you mean `{close[0]}`? " if close else ""
        return line, field, item["input"], "no such key", f"{hint}Known keys: {', '.join(known)}."
    if command:
        text = "is missing" if item["type"] == "missing" else item["msg"]
        option = "--" + str(path[0]).replace("_", "-") if path else "config"
        value = None if item["type"] == "missing" else item["input"]
        return line, option, value, text, f"`{command} --help` lists the options."
    if item["type"] == "missing":
        remedy = _MISSING.get(field, f"Add `{field}` to the config.")
        return line, field, None, "is missing", remedy
    remedy = f"`saelect config --schema` lists the values of `{field}`."
    if field == "budget":
        remedy = _MISSING["budget"]
    return line, field, item["input"], item["msg"].removeprefix("Value error, "), remedy


_MISSING = {
    "budget": "There is no default budget: write `budget: {examples: 500}`,"
    " `{fraction: 0.05}` or `{tokens: 1000000}`.",
    "pool": "Write `pool: path/to/pool.jsonl`, or run `saelect init --pool P --exemplars E`.",
    "exemplars": "Write `exemplars: path/to/exemplars.jsonl` (5 to 500 examples of the target).",
}


def _fields_at(model: type[BaseModel], path: KeyPath) -> Iterable[str]:
    """Names of the keys that are known at a path of the config."""
    for part in path:
        if isinstance(part, int) or part not in model.model_fields:
            continue
        inner = _model_in(model.model_fields[part].annotation)
        if inner is None:
            return []
        model = inner
    return model.model_fields


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The pydantic model inside an annotation such as `list[Model]` or `Model | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    inner = (_model_in(part) for part in getattr(annotation, "__args__", ()))
    return next((model for model in inner if model is not None), None)


def _read(path: str, overrides: Mapping[str, object]) -> tuple[dict[str, Any], Lines]:
    """The mapping in a file or preset with overrides set, and the line of each of its keys."""
    try:
        is_preset = path in PRESETS and not Path(path).exists()
        text = preset_text(path) if is_preset else _text_of(path)
    except FileNotFoundError:
        raise InputError(
            "no such config file",
            file=path,
            remedy="`saelect init --pool P --exemplars E` writes one, and"
            " `saelect run demo` needs none.",
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"cannot be read ({error})", file=path, remedy="A config is a UTF-8 YAML file."
        ) from None
    given, lines = _parse(text, file=path)
    if not isinstance(given, dict):
        raise InputError("has no keys", file=path, remedy="`saelect init` writes an example.")
    for key, value in overrides.items():
        _set(given, key, _parse(value, field=key)[0] if isinstance(value, str) else value)
    return given, lines


def _text_of(path: str) -> str:
    """The text of a config file. Raises InputError where it is too long to be one."""
    with Path(path).open("rb") as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise InputError(
            f"is larger than {MAX_BYTES / 1e6:.0f} MB",
            file=path,
            remedy="A config is a short YAML file; long lists of ids go into files of their own.",
        )
    return content.decode("utf-8")


def _parse(text: str, file: str | None = None, field: str | None = None) -> tuple[Any, Lines]:
    """The value of a YAML text, and the line of each key. Raises InputError for any mistake."""
    remedy = "Check indentation, quotes and brackets near that line."
    line = None
    lines: dict[KeyPath, int] = {}
    try:
        node = yaml.compose(text, Loader=_Loader)
        if _count_values(node, {}) > MAX_VALUES:
            problem = f"with its aliases it holds more than {MAX_VALUES:,} values"
            raise yaml.YAMLError(problem)
        value = yaml.load(text, Loader=_Loader)
        _collect_lines(node, (), lines, file)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else None
        problem = str(error.problem)
    except yaml.YAMLError as error:  # a character that YAML does not allow
        problem = " ".join(str(error).split())
    except RecursionError:
        problem = "it is nested too deeply, or contains itself"
    except InputError:
        raise
    except (ValueError, AttributeError, OverflowError) as error:  # a tag or date of no value
        problem = f"a value cannot be read ({error})"
        remedy = "Put quotes around texts that look like dates or numbers, and write no tags."
    else:
        return value, lines
    raise InputError(f"not valid YAML: {problem}", file=file, line=line, field=field, remedy=remedy)


def _count_values(node: yaml.Node | None, known: dict[int, int]) -> int:
    """Values below a node, those of an alias counted at each place where it stands.

    known: counts by the id of a node; one that is not finished contains itself, so it has no end.
    """
    if not isinstance(node, yaml.CollectionNode):
        return 1
    if id(node) not in known:
        known[id(node)] = MAX_VALUES + 1
        inner = [
            part for item in node.value for part in (item if isinstance(item, tuple) else (item,))
        ]
        known[id(node)] = 1 + sum(_count_values(part, known) for part in inner)
    return known[id(node)]


def _collect_lines(
    node: yaml.Node | None, path: KeyPath, lines: dict[KeyPath, int], file: str | None
) -> None:
    """Add the 1-based line of every key below a node; refuse keys that appear twice.

    YAML lets a later key replace an earlier one silently; a config must not.
    """
    if isinstance(node, yaml.ScalarNode):
        node.value.encode()  # raises for half a character, which an escape can spell
    elif isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            inner, line = (*path, str(key.value)), key.start_mark.line + 1
            if inner in lines:
                raise InputError(
                    "appears twice",
                    file=file,
                    line=line,
                    field=key.value,
                    remedy="Keep one of the two.",
                )
            lines[inner] = line
            _collect_lines(key, path, {}, file)
            _collect_lines(value, inner, lines, file)
    elif isinstance(node, yaml.SequenceNode):
        for position, item in enumerate(node.value):
            lines[(*path, position)] = item.start_mark.line + 1
            _collect_lines(item, (*path, position), lines, file)


def _set(config: dict[str, Any], key: str, value: object) -> None:
    """Set a dotted key, adding missing sections; numbers are positions in lists, from 0."""
    *sections, last = key.split(".")
    parent: Any = config
    for section in sections:
        if isinstance(parent, list):
            parent = parent[_position(parent, section, key)]
            continue
        if not isinstance(parent.get(section), (dict, list)):
            parent[section] = {}
        parent = parent[section]
    parent[_position(parent, last, key) if isinstance(parent, list) else last] = value


def _position(items: list[Any], text: str, key: str) -> int:
    if not text.isdecimal() or int(text) >= len(items):
        raise InputError(
            f"the list has {len(items)} entries, counted from 0",
            field=key,
            value=text,
            remedy="For example: --set pool.0.path=FILE",
        )
    return int(text)
