"""Config files: YAML in, `SelectConfig` out, with every mistake named by line, field and remedy."""

import difflib
from collections.abc import Iterable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from flows.config.jobs import SelectConfig, VectorJob
from selection.core.errors import InputError, shorten

PRESETS = ("best", "paper", "demo")

Place = tuple[str | int, ...]


def load_config(path: Path | str, overrides: Mapping[str, object] | None = None) -> SelectConfig:
    """Read a config file, or a preset by name (`demo`), and merge its preset below it.

    overrides: dotted key -> value, as from `--set budget.examples=500`; strings are read as YAML.

    Raises InputError for a missing file, broken YAML, unknown keys or presets and wrong values.
    """
    text, name = _read(path)
    given = _parse(text, name)
    for key, value in (overrides or {}).items():
        _set(given, key, _value(value, key) if isinstance(value, str) else value)
    if "name" not in given and Path(name).suffix in (".yaml", ".yml"):
        given["name"] = Path(name).stem
    return resolve(given, source=name, lines=_lines(text))


def load_vector_job(path: Path | str, overrides: Mapping[str, object] | None = None) -> VectorJob:
    """Pool, model, SAE and rendering of a config file; what only a selection needs is left aside.

    So a config for `saelect run` serves, and so does one without exemplars and budget. Raises
    InputError as `load_config` does.
    """
    text, name = _read(path)
    given = _parse(text, name)
    for key, value in (overrides or {}).items():
        _set(given, key, _value(value, key) if isinstance(value, str) else value)
    aside = set(SelectConfig.model_fields) - set(VectorJob.model_fields)
    below = _preset_below(given, name, _lines(text))
    merged = {k: v for k, v in merge(below, given).items() if k not in aside}
    try:
        return VectorJob.model_validate(merged)
    except ValidationError as error:
        raise explain(error, VectorJob, name, _lines(text)) from None


def resolve(
    given: Mapping[str, Any], source: str = "config", lines: Mapping[Place, int] | None = None
) -> SelectConfig:
    """Validate a mapping over its preset; the preset's sections are merged key by key."""
    merged = merge(_preset_below(given, source, lines or {}), given)
    try:
        return SelectConfig.model_validate(merged)
    except ValidationError as error:
        raise explain(error, SelectConfig, source, lines or {}) from None


def _preset_below(
    given: Mapping[str, Any], source: str, lines: Mapping[Place, int]
) -> dict[str, Any]:
    """The preset that a config names. Raises InputError for an unknown one."""
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
    below: dict[str, Any] = yaml.safe_load(_preset_text(preset))
    return below


def merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """`above` over `below`; mappings are merged, anything else is replaced whole.

    A budget is replaced whole: a budget of tokens over a preset's budget of examples is one budget.
    """
    merged = dict(below)
    for key, value in above.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        keep = both and key not in ("budget", "sae", "exemplars")
        merged[key] = merge(merged[key], value) if keep else value
    return merged


def explain(
    error: ValidationError,
    model: type[BaseModel],
    source: str,
    lines: Mapping[Place, int],
) -> InputError:
    """All mistakes of a config in one message; the first one gives the place."""
    problems = [_problem(item, model, lines) for item in error.errors()]
    problems.sort(key=lambda problem: problem[0] or 0)
    line, field, value, text, remedy = problems[0]
    more = "".join(
        f"\n  also {f'line {n}: ' if n else ''}`{name}`: {other}"
        f" (found: {shorten(found)}). {advice}"
        for n, name, found, other, advice in problems[1:]
    )
    return InputError(text, file=source, line=line, field=field, value=value, remedy=remedy + more)


def _problem(
    item: Mapping[str, Any], model: type[BaseModel], lines: Mapping[Place, int]
) -> tuple[int | None, str, object, str, str]:
    """(line, field, value, problem, remedy) of one pydantic error."""
    place: Place = tuple(item["loc"])
    field = ".".join(str(part) for part in place) or "config"
    line = next((lines[place[:n]] for n in range(len(place), 0, -1) if place[:n] in lines), None)
    if item["type"] == "extra_forbidden":
        known = sorted(_fields_at(model, place[:-1]))
        close = difflib.get_close_matches(str(place[-1]), known, n=1, cutoff=0.5)
        hint = f"Did you mean `{close[0]}`? " if close else ""
        return line, field, item["input"], "no such key", f"{hint}Known keys: {', '.join(known)}."
    if item["type"] == "missing":
        remedy = _MISSING.get(field, f"Add `{field}` to the config.")
        return line, field, None, "is missing", remedy
    if field == "budget":
        remedy = _MISSING["budget"]
    else:
        remedy = f"`saelect config --schema` says what `{field}` may be."
    return line, field, item["input"], item["msg"].removeprefix("Value error, "), remedy


_MISSING = {
    "budget": "There is no default budget: write `budget: {examples: 500}`,"
    " `{fraction: 0.05}` or `{tokens: 1000000}`.",
    "pool": "Write `pool: path/to/pool.jsonl`, or run `saelect init --pool P --exemplars E`.",
    "exemplars": "Write `exemplars: path/to/exemplars.jsonl` (5 to 500 examples of the target).",
}


def _fields_at(model: type[BaseModel], place: Place) -> Iterable[str]:
    """Names of the keys that are known at a place in the config."""
    for part in place:
        if isinstance(part, int) or part not in model.model_fields:
            continue
        inner = _model_in(model.model_fields[part].annotation)
        if inner is None:
            return []
        model = inner
    return model.model_fields


def _model_in(annotation: Any) -> type[BaseModel] | None:  # noqa: ANN401 - any annotation
    """The pydantic model inside an annotation such as `list[Model]` or `Model | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    inner = (_model_in(part) for part in getattr(annotation, "__args__", ()))
    return next((found for found in inner if found is not None), None)


def _read(path: Path | str) -> tuple[str, str]:
    if str(path) in PRESETS and not Path(path).exists():
        return _preset_text(str(path)), str(path)
    try:
        return Path(path).read_text(encoding="utf-8"), str(path)
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


def _preset_text(name: str) -> str:
    return (files("flows.config") / "presets" / f"{name}.yaml").read_text(encoding="utf-8")


def _parse(text: str, name: str) -> dict[str, Any]:
    value = _load(text, file=name)
    if not isinstance(value, dict):
        raise InputError(
            "holds no keys", file=name, value=value, remedy="See `saelect init` for a start."
        )
    return value


def _value(text: str, key: str) -> object:
    """The value of an override, read as YAML."""
    return _load(text, field=key)


def _load(text: str, file: str | None = None, field: str | None = None) -> object:
    """What a YAML text means. Raises InputError for whatever the parser has to say."""
    remedy = "Check indentation, quotes and brackets near that place."
    line = None
    try:
        value = yaml.safe_load(text)
        _refuse_repeated_keys(yaml.compose(text), file or "")
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else None
        problem = str(error.problem)
    except yaml.YAMLError as error:  # a character that YAML does not allow
        problem = " ".join(str(error).split())
    except RecursionError:
        problem = "it is nested too deeply, or contains itself"
    except (ValueError, AttributeError, OverflowError) as error:  # a tag or date of no value
        problem = f"a value is not what it looks like ({error})"
        remedy = "Put quotes around texts that look like dates or numbers, and write no tags."
    else:
        return value
    raise InputError(f"not valid YAML: {problem}", file=file, line=line, field=field, remedy=remedy)


def _refuse_repeated_keys(node: yaml.Node | None, name: str) -> None:
    """YAML lets a later key replace an earlier one silently; a config must not."""
    if isinstance(node, yaml.ScalarNode):
        node.value.encode()  # half a character, which only an escape can spell, is no text
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if key.value in seen:
                raise InputError(
                    "appears twice",
                    file=name,
                    line=key.start_mark.line + 1,
                    field=key.value,
                    remedy="Keep one of the two.",
                )
            seen.add(key.value)
            _refuse_repeated_keys(key, name)
            _refuse_repeated_keys(value, name)
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _refuse_repeated_keys(item, name)


def _lines(text: str) -> dict[Place, int]:
    """Place in the config -> 1-based line of its key."""
    found: dict[Place, int] = {}

    def walk(node: yaml.Node | None, place: Place) -> None:
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                found[(*place, key.value)] = key.start_mark.line + 1
                walk(value, (*place, key.value))
        elif isinstance(node, yaml.SequenceNode):
            for position, item in enumerate(node.value):
                found[(*place, position)] = item.start_mark.line + 1
                walk(item, (*place, position))

    walk(yaml.compose(text), ())
    return found


def _set(config: dict[str, Any], key: str, value: object) -> None:
    """Set a dotted key, making the sections on its way; a number counts in a list, from 0."""
    *sections, last = key.split(".")
    place: Any = config
    for section in sections:
        if isinstance(place, list):
            place = place[_position(place, section, key)]
            continue
        if not isinstance(place.get(section), (dict, list)):
            place[section] = {}
        place = place[section]
    if isinstance(place, list):
        place[_position(place, last, key)] = value
    else:
        place[last] = value


def _position(items: list[Any], text: str, key: str) -> int:
    if not text.isdecimal() or int(text) >= len(items):
        raise InputError(
            f"the config has {len(items)} entries there, counted from 0",
            field=key,
            value=text,
            remedy="For example: --set pool.0.path=FILE",
        )
    return int(text)
