"""Forms of the deployments: a few fields on the first screen, every other config key folded.

A form is a function: its parameters are the fields, its result is what a run is given. The folded
fields are those of the config's own schema, all of them empty: an empty field keeps the value of
the preset or the default, so a form that submits all its fields changes nothing. The schema refuses
unknown fields at every depth before a run exists, and the config does so again. No field takes a
secret: hub tokens come from the worker's environment.
"""

import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

from flows.config.base import DEMO, Strict
from flows.config.data import BenchRequest
from flows.config.jobs import ExportFormat, SelectConfig, VectorJob
from flows.config.load import load_config, merge, preset_text, resolve, resolve_job, validated
from flows.orchestration.prefect_settings import DATA_FOLDERS
from selection.core.errors import InputError
from selection.sae.training.settings import TrainSettings
from storage.files.workspace import chosen_root

Text = Annotated[str, Field(min_length=1)]
Hours = Annotated[float, Field(ge=0, le=24 * 30)]
SOURCE = "form"
Model = TypeVar("Model", bound=BaseModel)
_BEST: Mapping[str, Any] = yaml.safe_load(preset_text("best"))


def shown(title: str, description: str, default: Any = ...) -> Any:
    """The default value of a flow's parameter, with its title and description on the form."""
    return Field(default, description=description, json_schema_extra={"title": title})


POOL = shown(
    "Pool",
    "File, folder or glob on the worker, or a Hugging Face dataset. `demo:pool.jsonl` is the"
    " packaged demonstration.",
)
EXEMPLARS = shown(
    "Exemplars",
    "Known examples of the target task: a file of 5 to 500, or a targets file."
    " `demo:exemplars.jsonl` is the packaged demonstration.",
)
BUDGET = shown("Budget", "How much to select; there is no default amount.")
MODEL = shown(
    "Model",
    "The model that represents samples: a folder on the worker or a Hugging Face model. `demo` is a"
    " small demonstration model: do not train on its selections.",
    DEMO,
)
SAE = shown(
    "SAE",
    "Sparse autoencoder of the model: folder, file or Hugging Face repository. `demo` belongs to"
    " the demonstration model.",
    DEMO,
)
PRESET = shown(
    "Preset",
    "Named settings: `best` (measured best), `paper` (the published method), `demo` (`best` for"
    " short texts).",
    "best",
)
HOOKPOINT = shown(
    "Hookpoint",
    "Where the SAE reads the model: `resid@`, `mlp@` or `attn@`, and a block or a relative depth.",
    "resid@0.66",
)
HOURS = shown(
    "Max hours",
    "Stop after this time; finished work is kept and the next run resumes. 0: no limit.",
    0,
)
ADVANCED = shown("Advanced", "All other settings; the tab Settings opens them.", None)
TRAINING = shown("Training", "Width, sparsity and length of the training.", {})

_RANGES: dict[str, Any] = {
    "if": {"properties": {"unit": {"const": "fraction"}}, "required": ["unit"]},
    "then": {"properties": {"amount": {"maximum": 1}}},
    "else": {"properties": {"amount": {"minimum": 1, "multipleOf": 1}}},
}
"""Of an amount by its unit, so that a run out of range is refused before it starts."""


class BudgetForm(Strict):
    """How much to select; there is no default amount."""

    unit: Literal["examples", "fraction", "tokens"] = Field(
        "examples",
        title="Unit",
        description="Unique examples, a fraction of the eligible ones, or trainee tokens.",
    )
    amount: float = Field(
        title="Amount", gt=0, description="A whole number; for a fraction at most 1, as in 0.05."
    )
    model_config = ConfigDict(json_schema_extra=_RANGES)


def filled(fields: Any) -> Any:
    """The fields of a form without those that are empty, at every depth."""
    if not isinstance(fields, Mapping):
        return fields
    inner = {key: filled(value) for key, value in fields.items()}
    return {key: value for key, value in inner.items() if value is not None and value != {}}


def settings_schema(
    model: type[BaseModel], without: Collection[str] = (), preset: Any = _BEST
) -> dict[str, Any]:
    """The JSON schema of a config or a section of it with every field empty, at every depth.

    without: dotted names of fields that are left out.
    preset:  values that are described as the default.
    """
    schema = model.model_json_schema()
    definitions = schema.get("$defs", {})
    if "PoolConfig" in definitions:
        schema["properties"]["pool"] = {"$ref": "#/$defs/PoolConfig"}  # a form has one pool
    return _section(_resolved(schema, definitions), preset, without, "")


def _section(
    section: Mapping[str, Any], preset: Any, without: Collection[str], at: str
) -> dict[str, Any]:
    preset = preset if isinstance(preset, Mapping) else {}
    return {
        "type": "object",
        "title": "Settings",  # of the tab that opens the section
        "description": section["description"].split("\n")[0],
        "properties": {
            key: _empty_field(key, field, preset.get(key), without, f"{at}{key}.")
            for key, field in section["properties"].items()
            if f"{at}{key}" not in without
        },
        "additionalProperties": False,
    }


def _empty_field(
    key: str, field: Mapping[str, Any], preset: object, without: Collection[str], at: str
) -> dict[str, Any]:
    """A field that is empty by default; its description names the real default."""
    kinds = [kind for kind in field.get("anyOf", [field]) if kind.get("type") != "null"]
    default = field.get("default") if preset is None else preset
    is_simple = isinstance(default, str | int | float) and default != ""
    words = field.get("description") or kinds[0].get("description", "").split("\n")[0]
    generated = key.replace("_", " ").title()
    title = field.get("title", generated)
    about = {
        "title": generated.capitalize() if title == generated else title,
        "description": (words + (f" Default: {default}." if is_simple else "")).strip(),
    }
    choices = [
        _section(kind, preset, without, at)
        if "properties" in kind
        else {k: v for k, v in kind.items() if k not in ("default", *about)}
        for kind in kinds
    ]
    if len(choices) == 1 and choices[0].get("type") in ("string", "number", "integer"):
        # No choice of types, so that the UI shows a field. It sends `false` for an untouched switch
        # and `[]` for an untouched list: those may be null, and their tab has to be chosen.
        return {**choices[0], **about}
    return {"anyOf": [*choices, {"type": "null"}], "default": None, **about}


def _resolved(schema: Any, definitions: Mapping[str, Any]) -> Any:
    """A schema with its references resolved."""
    if isinstance(schema, list):
        return [_resolved(each, definitions) for each in schema]
    if not isinstance(schema, Mapping):
        return schema
    if "$ref" in schema:
        return _resolved(definitions[schema["$ref"].split("/")[-1]], definitions)
    return {key: _resolved(value, definitions) for key, value in schema.items()}


def _folded(
    model: type[BaseModel], without: Collection[str], preset: Any = _BEST
) -> WithJsonSchema:
    """The schema of a form's folded fields: those of the config, and `max_hours`."""
    schema = settings_schema(model, without, preset)
    hours = {"type": "number", "minimum": 0, "maximum": 720, "title": "Max hours"}
    schema["properties"]["max_hours"] = {**hours, "description": HOURS.description}
    return WithJsonSchema(schema)


_NAMED = ("pool.path", "model.name", "sae.path")  # on the first screen
_BUDGET = ("budget.examples", "budget.fraction", "budget.tokens")
SelectSettings = Annotated[
    dict[str, Any], _folded(SelectConfig, (*_NAMED, "exemplars.path", *_BUDGET, "preset"))
]
VectorSettings = Annotated[dict[str, Any], _folded(VectorJob, _NAMED)]
TrainingJob = Annotated[dict[str, Any], _folded(VectorJob, (*_NAMED, "model.hookpoint", "sae"))]
BenchSettings = Annotated[dict[str, Any], _folded(BenchRequest, ("pool", "targets"), {})]
TrainingSettings = Annotated[
    dict[str, Any], WithJsonSchema(settings_schema(TrainSettings, preset={}))
]


def select_config(
    pool: Text = POOL,
    exemplars: Text = EXEMPLARS,
    budget: BudgetForm = BUDGET,
    model: Text = MODEL,
    sae: Text = SAE,
    preset: Literal["best", "paper", "demo"] = PRESET,
    advanced: SelectSettings | None = ADVANCED,
) -> SelectConfig:
    """The config of a selection. Raises InputError for contradictions and forbidden paths."""
    first = _vectors(pool, model, sae)
    first |= {"exemplars": {"path": exemplars}, "budget": {budget.unit: budget.amount}}
    given = _config(first, advanced) | {"preset": preset}
    if not pool.startswith(f"{DEMO}:"):
        given.setdefault("name", None)  # not that of the preset
    return _allowed(resolve(given, source=SOURCE))


def file_config(
    config_path: Text = shown("Config", "A YAML file on the worker, or a preset: `demo`."),
    overrides: dict[str, str] = shown(
        "Overrides", 'Dotted keys: {"budget.examples": "500", "check": "null"}.', {}
    ),
    max_hours: Hours = HOURS,
) -> SelectConfig:
    """The config of a file on the worker, with dotted keys replaced. Raises InputError."""
    del max_hours
    if "/" in config_path or Path(config_path).exists():
        refuse_outside(config_path)
    return _allowed(load_config(config_path, merge({}, overrides)))


def vector_job(
    pool: Text = POOL,
    model: Text = MODEL,
    sae: Text = SAE,
    advanced: VectorSettings | None = ADVANCED,
) -> VectorJob:
    """What is to be done with the vectors of a pool; raises as `select_config`."""
    return _allowed(resolve_job(_config(_vectors(pool, model, sae), advanced), source=SOURCE))


def pool_job(
    pool: Text = POOL, model: Text = MODEL, advanced: VectorSettings | None = ADVANCED
) -> VectorJob:
    """What is to be done with a pool that needs no SAE; raises as `select_config`."""
    return vector_job(pool, model, DEMO, advanced)


def training_job(
    pool: Text = POOL,
    model: Text = MODEL,
    hookpoint: Text = HOOKPOINT,
    training: TrainingSettings = TRAINING,
    advanced: TrainingJob | None = ADVANCED,
) -> VectorJob:
    """The training of an SAE; raises as `select_config`."""
    first = _vectors(pool, model, DEMO)
    first |= {"model": {"name": model, "hookpoint": hookpoint}, "sae": {"train": filled(training)}}
    return _allowed(resolve_job(_config(first, advanced), source=SOURCE))


def bench_request(
    pool: Text = shown("Labelled pool", "One Parquet file on the worker, with labels."),
    targets: Text = shown("Targets", "Target tasks with exemplars and labels, one JSON a line."),
    advanced: BenchSettings | None = ADVANCED,
) -> BenchRequest:
    """A comparison of ranking methods; raises as `select_config`."""
    given = {**_config({}, advanced), "pool": pool, "targets": targets}
    return _allowed(validated(BenchRequest, given, SOURCE, {}))


def export_request(
    selection: Text = shown("Selection", "Name, id, prefix of an id, or `latest`.", "latest"),
    formats: Annotated[list[ExportFormat], Field(min_length=1)] = shown(
        "Formats", "Formats of the training files.", ["messages"]
    ),
) -> tuple[str, list[ExportFormat]]:
    """Which recorded selections to write again, and in which formats."""
    return selection, formats


def _vectors(pool: str, model: str, sae: str) -> dict[str, Mapping[str, Any]]:
    """The sections that the first screen of every form with a model fills."""
    demo = yaml.safe_load(preset_text("demo"))["pool"]  # with its columns
    return {
        "pool": demo if pool == demo["path"] else {"path": pool},
        "model": {"name": model},
        "sae": {"path": sae},
    }


def _config(
    first: Mapping[str, Mapping[str, Any]], advanced: Mapping[str, Any] | None
) -> dict[str, Any]:
    """The filled fields as a config writes them. first: sections of the first screen."""
    given = filled(advanced or {})
    given.pop("max_hours", None)
    if "train" in given.get("sae", {}):  # an SAE is trained or named
        first = {**first, "sae": {}}
    return given | {name: {**fields, **given.get(name, {})} for name, fields in first.items()}


def _allowed(config: Model) -> Model:
    """The config, if all its paths are in allowed folders. Raises InputError."""
    for text in _texts(config.model_dump(mode="json")):
        refuse_outside(text)
    return config


def _texts(value: object) -> Iterator[str]:
    """All texts of a value that JSON can write."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list):
        for inner in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(inner)


def refuse_outside(text: str) -> None:
    """Refuse a path of this machine outside of the folders that forms may name.

    So nobody who fills a form learns what another file holds. Texts that are no path pass.
    """
    path = Path(re.split(r"[*?\[]", text.removeprefix("file://"))[0]).expanduser()
    try:
        if not (path.is_absolute() or ".." in path.parts or path.exists()):
            return
    except (OSError, ValueError):  # a long text, which is no path
        return
    data = filter(None, os.environ.get(DATA_FOLDERS, "").split(os.pathsep))
    folders = [*data, os.getcwd(), str(chosen_root(None))]
    if not any(path.resolve().is_relative_to(Path(folder).resolve()) for folder in folders):
        raise InputError(
            "this path is outside of the folders that forms may read",
            value=text,
            remedy="Start `saelect serve --data FOLDER` with its folder, or set"
            f" {DATA_FOLDERS} for the worker.",
        )


FORMS: Mapping[str, Callable[..., Any]] = {
    "select-data": select_config,
    "select-data-from-config": file_config,
    "plan": select_config,
    "prepare-pool": pool_job,
    "train-sae": training_job,
    "embed-pool": vector_job,
    "index-pool": vector_job,
    "bench-retrieval": bench_request,
    "export-selection": export_request,
}
"""By the name of the flow that runs what a form gives."""
