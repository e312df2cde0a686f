"""Forms of the deployments: a few fields on the first screen, every other config key folded.

A form is a function: its parameters are the fields, its result is what a run is given. The folded
fields are those of the config's own schema, all of them empty: an empty field keeps the value of
the preset or the default, so a form that submits all its fields changes nothing. The schema refuses
unknown fields at every depth before a run exists, and the config does so again. No field takes a
secret: hub tokens come from the worker's environment.
"""

import os
import re
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema
from pydantic.fields import FieldInfo

from flows.config.base import DEMO, Strict
from flows.config.data import BenchRequest, ExemplarsConfig, PoolConfig
from flows.config.jobs import ExportFormat, SelectConfig, VectorJob
from flows.config.load import load_config, merge, preset_text, resolve, resolve_job, validated
from flows.config.model import ModelConfig, SaeConfig
from flows.orchestration.prefect_settings import DATA_FOLDERS
from selection.core.errors import InputError
from selection.sae.training.settings import TrainSettings
from storage.files.workspace import chosen_root

Text = Annotated[str, Field(min_length=1)]
Hours = Annotated[float, Field(ge=0, le=24 * 30)]
SOURCE = "form"
Model = TypeVar("Model", bound=BaseModel)
_BEST: Mapping[str, Any] = yaml.safe_load(preset_text("best"))


def shown(title: str, described: str | FieldInfo, default: Any = ...) -> Any:
    """The default value of a flow's parameter, with its title on the form.

    described: its description, or the config key that has it.
    """
    text = described if isinstance(described, str) else described.description
    return Field(default, description=text, json_schema_extra={"title": title})


POOL = shown("Pool", PoolConfig.model_fields["path"])
EXEMPLARS = shown("Exemplars", ExemplarsConfig.model_fields["path"])
BUDGET = shown("Budget", "How much to select; there is no default amount.")
MODEL = shown("Model", ModelConfig.model_fields["name"], DEMO)
SAE = shown("SAE", SaeConfig.model_fields["path"], DEMO)
PRESET = shown("Preset", SelectConfig.model_fields["preset"], "best")
HOOKPOINT = shown("Hookpoint", ModelConfig.model_fields["hookpoint"], "resid@0.66")
HOURS = shown(
    "Max hours",
    "Stop after this time; finished work is kept and the next run resumes. 0: no limit.",
    0,
)
ADVANCED = shown("Advanced", "All other settings; the tab Settings opens them.", None)

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


def settings_schema(model: type[BaseModel], without: Collection[str] = ()) -> dict[str, Any]:
    """The JSON schema of a config or a section of it with every field empty, at every depth.

    without: dotted names of fields that are left out.
    """
    schema = model.model_json_schema()
    definitions = schema.get("$defs", {})
    if "PoolConfig" in definitions:
        schema["properties"]["pool"] = {"$ref": "#/$defs/PoolConfig"}  # a form has one pool
    return _section(_resolved(schema, definitions), _BEST, without, "")


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
    words = (field.get("description") or kinds[0].get("description", "")).split("\n")[0]
    default = field.get("default") if preset is None else preset
    if isinstance(default, str | int | float) and default != "":
        words += f" Default: {default}."
    title = key if "properties" in field else field.get("title", key)  # a class has a name of code
    about = {"title": title.replace("_", " ").capitalize(), "description": words.strip()}
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


def _folded(model: type[BaseModel], *without: str) -> WithJsonSchema:
    """The schema of a form's folded fields: those of the config, and `max_hours`."""
    schema = settings_schema(model, without)
    hours = {"type": "number", "minimum": 0, "maximum": 720, "title": "Max hours"}
    schema["properties"]["max_hours"] = {**hours, "description": HOURS.description}
    return WithJsonSchema(schema)


_NAMED = ("pool.path", "model.name", "sae.path")  # on the first screen
_BUDGET = ("budget.examples", "budget.fraction", "budget.tokens", "preset")
Fields = dict[str, Any]
SelectSettings = Annotated[Fields, _folded(SelectConfig, *_NAMED, *_BUDGET, "exemplars.path")]
VectorSettings = Annotated[Fields, _folded(VectorJob, *_NAMED)]
TrainingJob = Annotated[Fields, _folded(VectorJob, *_NAMED, "model.hookpoint", "sae")]
BenchSettings = Annotated[Fields, _folded(BenchRequest, "pool", "targets")]
TrainingSettings = Annotated[Fields, WithJsonSchema(settings_schema(TrainSettings))]


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
    amount = {budget.unit: budget.amount}
    named = {"sae": {"path": sae}, "exemplars": {"path": exemplars}, "budget": amount}
    given = _config(advanced, pool, model, named) | {"preset": preset}
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
    given = _config(advanced, pool, model, {"sae": {"path": sae}})
    return _allowed(resolve_job(given, source=SOURCE))


def pool_job(
    pool: Text = POOL, model: Text = MODEL, advanced: VectorSettings | None = ADVANCED
) -> VectorJob:
    """What is to be done with a pool that needs no SAE; raises as `select_config`."""
    return vector_job(pool, model, DEMO, advanced)


def training_job(
    pool: Text = POOL,
    model: Text = MODEL,
    hookpoint: Text = HOOKPOINT,
    training: TrainingSettings = shown("Training", "Width, sparsity, length of the training.", {}),
    advanced: TrainingJob | None = ADVANCED,
) -> VectorJob:
    """The training of an SAE; raises as `select_config`."""
    given = _config(advanced, pool, model, {"sae": {"train": filled(training)}})
    given["model"]["hookpoint"] = hookpoint
    return _allowed(resolve_job(given, source=SOURCE))


def bench_request(
    pool: Text = shown("Labelled pool", BenchRequest.model_fields["pool"]),
    targets: Text = shown("Targets", BenchRequest.model_fields["targets"]),
    advanced: BenchSettings | None = ADVANCED,
) -> BenchRequest:
    """A comparison of ranking methods; raises as `select_config`."""
    given = {**filled(advanced or {}), "pool": pool, "targets": targets}
    return _allowed(validated(BenchRequest, given, SOURCE, {}))


def export_request(
    selection: Text = shown("Selection", "Name, id, prefix of an id, or `latest`.", "latest"),
    formats: Annotated[list[ExportFormat], Field(min_length=1)] = shown(
        "Formats", "Formats of the training files.", ["messages"]
    ),
) -> tuple[str, list[ExportFormat]]:
    """Which recorded selections to write again, and in which formats."""
    return selection, formats


def _config(
    advanced: Mapping[str, Any] | None, pool: str, model: str, named: Mapping[str, Any]
) -> dict[str, Any]:
    """The filled fields as a config writes them. named: further sections of the first screen."""
    demo = yaml.safe_load(preset_text("demo"))["pool"]  # with its columns
    pool_section = demo if pool == demo["path"] else {"path": pool}
    first = {**named, "pool": pool_section, "model": {"name": model}}
    given = filled(advanced or {})
    if "train" in given.get("sae", {}):  # an SAE is trained or named
        del first["sae"]
    return given | {name: {**fields, **given.get(name, {})} for name, fields in first.items()}


def _allowed(config: Model) -> Model:
    """The config, if all its paths are in allowed folders. Raises InputError."""
    refuse_outside(config.model_dump(mode="json"))
    return config


def refuse_outside(value: object) -> None:
    """Refuse a path of this machine outside of the folders that forms may name, at any depth.

    So nobody who fills a form learns what another file holds. Texts that are no path pass.
    """
    if isinstance(value, Mapping | list):
        for inner in value.values() if isinstance(value, Mapping) else value:
            refuse_outside(inner)
    if not isinstance(value, str):
        return
    path = Path(os.path.expanduser(re.split(r"[*?\[]", value.removeprefix("file://"))[0]))
    if not (path.is_absolute() or ".." in path.parts or os.path.exists(path)):
        return
    data = filter(None, os.environ.get(DATA_FOLDERS, "").split(os.pathsep))
    folders = [*data, os.getcwd(), str(chosen_root(None))]
    if not any(path.resolve().is_relative_to(Path(folder).resolve()) for folder in folders):
        raise InputError(
            "this path is outside of the folders that forms may read",
            value=value,
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
