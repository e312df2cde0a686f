"""Forms of the deployments: a few fields on the first screen, every other config key folded.

A folded field that is left empty keeps the value of the preset or the default, so a form that
submits all its fields changes nothing. Unknown fields are refused at every depth. No field takes a
secret: hub tokens come from the worker's environment.
"""

import os
import re
from collections.abc import Iterator, Mapping
from copy import copy
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, create_model, model_serializer
from pydantic.fields import FieldInfo

from flows.config.base import DEMO, Strict
from flows.config.data import BenchRequest, ExemplarsConfig, PoolConfig
from flows.config.jobs import SelectConfig, VectorJob
from flows.config.load import load_config, merge, preset_text, resolve
from flows.config.model import ModelConfig, SaeConfig
from flows.orchestration.prefect_settings import DATA_FOLDERS
from selection.core.errors import InputError
from selection.sae.training.settings import TrainSettings
from storage.files.workspace import chosen_root

Text = Annotated[str, Field(min_length=1)]
Hours = Annotated[float, Field(ge=0, le=24 * 30)]
SOURCE = "form"
Model = TypeVar("Model", bound=BaseModel)
_BEST = yaml.safe_load(preset_text("best"))


def shown(title: str, description: str, default: Any = ...) -> Any:
    """The default value of a flow's parameter, with its title and description on the form."""
    return Field(default, description=description, json_schema_extra={"title": title})


POOL = shown(
    "Pool",
    "File, folder or glob on the worker, or a Hugging Face dataset."
    " `demo:pool.jsonl` is the packaged demonstration.",
)
EXEMPLARS = shown(
    "Exemplars",
    "Known examples of the target task: a file of 5 to 500, or a targets"
    " file. `demo:exemplars.jsonl` is the packaged demonstration.",
)
BUDGET = shown("Budget", "How much to select; there is no default amount.")
MODEL = shown(
    "Model",
    "The model that represents samples: a folder on the worker or a Hugging Face"
    " model. `demo` is a small demonstration model: do not train on its selections.",
    DEMO,
)
SAE = shown(
    "SAE",
    "Sparse autoencoder of the model: folder, file or Hugging Face repository."
    " `demo` belongs to the demonstration model.",
    DEMO,
)
PRESET = shown(
    "Preset",
    "Named settings: `best` (measured best), `paper` (the published method),"
    " `demo` (`best` for short texts).",
    "best",
)
HOURS = shown(
    "Max hours",
    "Stop after this time; finished work is kept and the next run resumes. 0: no limit.",
    0,
)


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

    def as_mapping(self) -> dict[str, object]:
        """The budget as a config writes it. Raises InputError for a part of an example."""
        if self.unit == "fraction":
            return {self.unit: self.amount}
        if self.amount != int(self.amount):
            raise InputError(
                f"a number of {self.unit} is whole",
                field="budget.amount",
                value=self.amount,
                remedy="Give a whole number, or choose the unit `fraction`.",
            )
        return {self.unit: int(self.amount)}


class Form(Strict):
    """A section whose empty fields are left out, in values, defaults and schema."""

    @model_serializer(mode="wrap")
    def _filled(self, handler: Any) -> dict[str, Any]:
        return {k: v for k, v in handler(self).items() if v is not None and v != {}}

    @classmethod
    def __get_pydantic_json_schema__(cls, core: Any, handler: Any) -> dict[str, Any]:
        """The schema of the section with plain fields."""
        schema: dict[str, Any] = handler(core)
        section = handler.resolve_ref_schema(schema)
        fields = section.get("properties", {})
        section["properties"] = {name: _plain(field) for name, field in fields.items()}
        return schema


def _plain(field: dict[str, Any]) -> dict[str, Any]:
    """A field without its null, so that the UI shows a field and not a choice of types."""
    kinds = [kind for kind in field.get("anyOf", ()) if kind.get("type") != "null"]
    # The UI sends `false` for an untouched switch and `[]` for an untouched list.
    if len(kinds) != 1 or kinds[0].get("type") not in ("string", "number", "integer"):
        return field  # A section that may be null is folded until its tab is chosen.
    return {**kinds[0], **{k: v for k, v in field.items() if k not in ("anyOf", "default")}}


def optional(
    model: type[BaseModel],
    name: str,
    without: frozenset[str] = frozenset(),
    preset: Mapping[str, Any] = _BEST,
) -> type[Form]:
    """The model with every field optional and empty, at every depth.

    without: fields that are left out. preset: values that are described as the default.
    """
    fields: dict[str, Any] = {}
    for key, info in model.model_fields.items():
        if key not in without:
            inner = preset.get(key)
            section = f"{name}{key.title().replace('_', '')}"
            annotation = _optional_type(
                info.annotation, section, inner if isinstance(inner, Mapping) else {}
            )
            fields[key] = (annotation, _emptied(key, info, inner))
    doc = (model.__doc__ or "").split("\n")[0]
    form: type[Form] = create_model(name, __base__=Form, __doc__=doc, **fields)
    return form


def _optional_type(annotation: Any, name: str, preset: Mapping[str, Any]) -> Any:
    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return optional(annotation, name, preset=preset) | None
    if get_origin(annotation) in (Union, UnionType):
        return Union[(*(_optional_type(each, name, preset) for each in get_args(annotation)), None)]
    return annotation | None


def _emptied(key: str, info: FieldInfo, preset: object) -> FieldInfo:
    """A copy of a field that is empty by default; the description names the real default."""
    default = None if info.is_required() else info.get_default(call_default_factory=True)
    default = default if preset is None else preset
    is_simple = isinstance(default, (str, int, float)) and default != ""
    words = info.description or _first_line(info.annotation)
    field = copy(info)
    field.description = (words + (f" Default: {default}." if is_simple else "")).strip()
    field.title = info.title or key.replace("_", " ").capitalize()
    # A config's shorthands ("a string stands for a list of one") would turn emptiness into a value.
    field.metadata = [each for each in info.metadata if not isinstance(each, BeforeValidator)]
    field.default, field.default_factory, field.validate_default = None, None, None
    changed = {"default": None, "description": field.description, "title": field.title}
    kept = {k: v for k, v in info._attributes_set.items() if k != "default_factory"}
    field._attributes_set = {**kept, **changed}
    return field


def _first_line(annotation: Any) -> str:
    """The first line of a section's docstring."""
    kinds = (annotation, *get_args(annotation))
    models = (k for k in kinds if isinstance(k, type) and issubclass(k, BaseModel))
    return next(((model.__doc__ or "").split("\n")[0] for model in models), "")


_FIRST = frozenset({"pool", "exemplars", "budget", "model", "sae", "preset"})
_Pool = optional(PoolConfig, "PoolOptions", frozenset({"path"}))
_Exemplars = optional(ExemplarsConfig, "ExemplarOptions", frozenset({"path"}))
_Model = optional(ModelConfig, "ModelOptions", frozenset({"name"}))
_Sae = optional(SaeConfig, "SaeOptions", frozenset({"path"}))
_Training = optional(TrainSettings, "Training")
_Vectors = optional(VectorJob, "Vectors", _FIRST)
_Select = optional(SelectConfig, "Select", _FIRST)
_Bench = optional(BenchRequest, "Bench", frozenset({"pool", "targets"}), {})
_POOL_OPTIONS = Field(None, title="Pool options", description="Shape, columns, split of the pool.")
_MODEL_OPTIONS = Field(None, title="Model options", description="Hookpoint, dtype, device.")
_SAE_OPTIONS = Field(None, title="SAE options", description="Settings to train one; its checks.")


class TrainingForm(_Training, Form):  # type: ignore[valid-type, misc]
    """Width, sparsity and length of the training; an empty field keeps its default."""


class Advanced(Form):
    """What every form has."""

    model_config = ConfigDict(title="Settings")

    max_hours: Hours | None = Field(None, title="Max hours", description=HOURS.description)


class VectorAdvanced(_Vectors, Advanced):  # type: ignore[valid-type, misc]
    """All other settings; an empty field keeps its default."""

    pool_options: _Pool | None = _POOL_OPTIONS  # type: ignore[valid-type]
    model_options: _Model | None = _MODEL_OPTIONS  # type: ignore[valid-type]
    sae_options: _Sae | None = _SAE_OPTIONS  # type: ignore[valid-type]


class SelectAdvanced(_Select, Advanced):  # type: ignore[valid-type, misc]
    """All other settings; an empty field keeps the value of the preset."""

    pool_options: _Pool | None = _POOL_OPTIONS  # type: ignore[valid-type]
    exemplar_options: _Exemplars | None = Field(  # type: ignore[valid-type]
        None, title="Exemplar options", description="Targets to use, shape, columns."
    )
    model_options: _Model | None = _MODEL_OPTIONS  # type: ignore[valid-type]
    sae_options: _Sae | None = _SAE_OPTIONS  # type: ignore[valid-type]
    budget_tokenizer: str | None = Field(
        None, title="Budget tokenizer", description="Tokenizer that counts a budget of tokens."
    )
    budget_max_length: int | None = Field(
        None, title="Budget max length", ge=8, description="Training max_length of the trainee."
    )


class BenchAdvanced(_Bench, Advanced):  # type: ignore[valid-type, misc]
    """All other settings; an empty field keeps its default."""


ADVANCED = shown("Advanced", "All other settings; the tab Settings opens them.", None)
TRAINING = shown("Training", "Width, sparsity and length of the training.", TrainingForm())


def select_config(
    pool: str,
    exemplars: str,
    budget: BudgetForm,
    model: str,
    sae: str,
    preset: str,
    advanced: SelectAdvanced | None,
) -> SelectConfig:
    """The config of a filled form. Raises InputError for contradictions and forbidden paths."""
    given = _given(pool, model, sae, advanced)
    amounts = budget.as_mapping()
    for key, name in (
        ("budget_tokenizer", "trainee_tokenizer"),
        ("budget_max_length", "max_length"),
    ):
        if key in given:
            amounts[name] = given.pop(key)
    given["exemplars"] = {"path": exemplars, **given.pop("exemplar_options", {})}
    return _allowed(resolve({**given, "budget": amounts, "preset": preset}, source=SOURCE))


def vector_job(
    pool: str,
    model: str,
    sae: str,
    advanced: VectorAdvanced | None,
    training: TrainingForm | None = None,
) -> VectorJob:
    """The job of a filled form of a stage; raises as `select_config`. training: of a new SAE."""
    given = {**_given(pool, model, sae, advanced), "exemplars": "none", "budget": {"examples": 1}}
    if training is not None:
        given["sae"] = {"train": training.model_dump(mode="json")}
    whole = _allowed(resolve(given, source=SOURCE))
    return VectorJob.model_validate(whole.model_dump(include=set(VectorJob.model_fields)))


def _given(pool: str, model: str, sae: str, advanced: Form | None) -> dict[str, Any]:
    """The filled fields as a config writes them."""
    given = advanced.model_dump(mode="json") if advanced else {}
    given.pop("max_hours", None)
    path, options = {"path": pool}, given.pop("pool_options", {})
    if pool == _demo_pool()["path"]:
        path = _demo_pool()
    options_of_sae = given.pop("sae_options", {})
    given["pool"] = {**path, **options}
    given["model"] = {"name": model, **given.pop("model_options", {})}
    given["sae"] = {**({} if "train" in options_of_sae else {"path": sae}), **options_of_sae}
    return given


def _demo_pool() -> dict[str, Any]:
    """The packaged pool with its columns."""
    pool: dict[str, Any] = yaml.safe_load(preset_text("demo"))["pool"]
    return pool


def bench_request(pool: str, targets: str, advanced: BenchAdvanced | None) -> BenchRequest:
    """The comparison of a filled form."""
    given = advanced.model_dump(mode="json") if advanced else {}
    given.pop("max_hours", None)
    return _allowed(BenchRequest(pool=pool, targets=targets, **given))


def file_config(path: str, overrides: Mapping[str, str]) -> SelectConfig:
    """The config of a file on the worker, with dotted keys replaced. Raises InputError."""
    if "/" in path or Path(path).exists():
        refuse_outside(path)
    return _allowed(load_config(path, merge({}, overrides)))


def _allowed(config: Model) -> Model:
    """The config, if all its paths are in allowed folders. Raises InputError."""
    for text in _texts(config.model_dump(mode="json")):
        refuse_outside(text)
    return config


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
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
    folders = [
        *filter(None, os.environ.get(DATA_FOLDERS, "").split(os.pathsep)),
        os.getcwd(),
        str(chosen_root(None)),
    ]
    if not any(path.resolve().is_relative_to(Path(folder).resolve()) for folder in folders):
        raise InputError(
            "is outside of the folders that forms may read",
            value=text,
            remedy="Start `saelect serve --data FOLDER` with its folder, or set"
            f" {DATA_FOLDERS} for the worker.",
        )
