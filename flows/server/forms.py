"""What the pages of the deployments ask for: a few fields, and everything else under Advanced.

An advanced field that is left empty keeps what the preset or the default says, so a page that
submits all its fields changes nothing. Unknown fields are refused at every depth, and no field
takes a secret: tokens of a hub come from the worker's environment.
"""

from collections.abc import Mapping
from copy import copy
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, Field, create_model
from pydantic.fields import FieldInfo

from flows.config.base import Strict
from flows.config.data import BenchRequest, ExemplarsConfig, PoolConfig
from flows.config.jobs import SelectConfig, VectorJob
from flows.config.load import load_config, resolve
from selection.core.errors import InputError

Preset = Literal["best", "paper", "demo"]
MAX_HOURS = 24 * 30

PoolField = Annotated[
    str,
    Field(
        title="Pool",
        min_length=1,
        description="File, folder or glob on the worker, or a Hugging Face dataset."
        " `demo:pool.jsonl` is the packaged demonstration.",
        examples=["data/pool.jsonl"],
    ),
]
ExemplarsField = Annotated[
    str,
    Field(
        title="Exemplars",
        min_length=1,
        description="Known examples of the target task: a file of 5 to 500, or a targets file."
        " `demo:exemplars.jsonl` belongs to the demonstration.",
        examples=["data/exemplars.jsonl"],
    ),
]
PresetField = Annotated[
    Preset,
    Field(
        title="Preset",
        description="Named settings: `best` (what measured best), `paper` (the published rule),"
        " `demo` (short texts, small model).",
    ),
]
LabelledPoolField = Annotated[
    str,
    Field(
        title="Labelled pool",
        min_length=1,
        description="One Parquet file on the worker, of which every row says what it is.",
    ),
]
TargetsField = Annotated[
    str,
    Field(
        title="Targets",
        min_length=1,
        description="Target tasks with their exemplars and relevant rows, one JSON object a line.",
    ),
]
HoursField = Annotated[
    float | None,
    Field(
        title="Max hours",
        gt=0,
        le=MAX_HOURS,
        description="Stop after so many hours; finished work is kept and the next run resumes.",
    ),
]


class BudgetForm(Strict):
    """How much to select; there is no default amount."""

    unit: Literal["examples", "fraction", "tokens"] = Field(
        "examples",
        title="Unit",
        description="Unique examples, a fraction of the eligible ones, or trainee tokens.",
    )
    amount: float = Field(
        title="Amount", gt=0, description="For a fraction at most 1, for example 0.05."
    )

    def as_mapping(self) -> dict[str, object]:
        """The budget as a config writes it."""
        whole = self.unit != "fraction"
        if whole and self.amount != int(self.amount):
            raise InputError(
                "a number of " + self.unit + " is whole",
                field="budget.amount",
                value=self.amount,
                remedy="Give a whole number, or choose the unit `fraction`.",
            )
        return {self.unit: int(self.amount) if whole else self.amount}


def optional(model: type[BaseModel], name: str, without: set[str] | None = None) -> type[Strict]:
    """The model with every field optional and empty, at every depth.

    without: fields that are left out.
    """
    fields: dict[str, Any] = {}
    for key, info in model.model_fields.items():
        if key in (without or set()):
            continue
        annotation = _optional_type(info.annotation, f"{name}{key.title().replace('_', '')}")
        fields[key] = (annotation, _emptied(key, info))
    doc = (model.__doc__ or "").split("\n")[0]
    made: type[Strict] = create_model(name, __base__=Strict, __doc__=doc, **fields)
    return made


def _emptied(key: str, info: FieldInfo) -> FieldInfo:
    """A copy of a field's description and bounds whose default is empty; the default is told."""
    field = copy(info)
    told = info.get_default(call_default_factory=True) if not info.is_required() else None
    simple = isinstance(told, (str, int, float)) and told != ""
    words = info.description or _first_line(info.annotation)
    field.description = (words + (f" Default: {told}." if simple else "")).strip()
    field.title = info.title or key.replace("_", " ").capitalize()
    # A config's shorthands ("a string stands for a list of one") would turn emptiness into a value.
    field.metadata = [each for each in info.metadata if not isinstance(each, BeforeValidator)]
    field.default, field.default_factory, field.validate_default = None, None, None
    if hasattr(field, "_attributes_set"):
        field._attributes_set = {
            **{k: v for k, v in info._attributes_set.items() if k != "default_factory"},
            "default": None,
            "description": field.description,
            "title": field.title,
        }
    return field


def _first_line(annotation: Any) -> str:  # noqa: ANN401 - any type annotation
    """What a section says of itself."""
    kinds = (annotation, *get_args(annotation))
    models = (k for k in kinds if isinstance(k, type) and issubclass(k, BaseModel))
    return next(((model.__doc__ or "").split("\n")[0] for model in models), "")


def _optional_type(annotation: Any, name: str) -> Any:  # noqa: ANN401 - any type annotation
    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return optional(annotation, name) | None
    if get_origin(annotation) in (Union, UnionType):
        inner = [_optional_type(each, name) for each in get_args(annotation)]
        return Union[(*inner, None)]
    return annotation | None


_Bench = optional(BenchRequest, "BenchOptions", {"pool", "targets"})
ASKED = {"pool", "exemplars", "budget", "preset"}
_Pool = optional(PoolConfig, "PoolOptions", {"path"})
_Exemplars = optional(ExemplarsConfig, "ExemplarOptions", {"path"})
_Vectors = optional(VectorJob, "VectorOptions", {"pool"})
_Select = optional(SelectConfig, "SelectOptions", ASKED)


class VectorAdvanced(_Vectors):  # type: ignore[valid-type, misc]
    """Everything else; an empty field keeps its default."""

    pool_options: _Pool | None = Field(  # type: ignore[valid-type]
        None, title="Pool options", description="Shape, columns, split and so on of the pool."
    )
    max_hours: HoursField = None


class SelectAdvanced(_Select):  # type: ignore[valid-type, misc]
    """Everything else; an empty field keeps what the preset says."""

    pool_options: _Pool | None = Field(  # type: ignore[valid-type]
        None, title="Pool options", description="Shape, columns, split and so on of the pool."
    )
    exemplar_options: _Exemplars | None = Field(  # type: ignore[valid-type]
        None, title="Exemplar options", description="Which targets to use, shape, columns."
    )
    budget_tokenizer: str | None = Field(
        None, title="Budget tokenizer", description="Tokenizer that counts a budget of tokens."
    )
    budget_max_length: int | None = Field(
        None, title="Budget max length", ge=8, description="Training max_length of the trainee."
    )
    max_hours: HoursField = None


class BenchAdvanced(_Bench):  # type: ignore[valid-type, misc]
    """Everything else; an empty field keeps its default."""

    max_hours: HoursField = None


def select_config(
    pool: str, exemplars: str, budget: BudgetForm, preset: str, advanced: SelectAdvanced
) -> SelectConfig:
    """The config that a filled page means. Raises InputError for what contradicts itself."""
    given = given_fields(advanced)
    given.pop("max_hours", None)
    amounts = budget.as_mapping()
    for key, name in (
        ("budget_tokenizer", "trainee_tokenizer"),
        ("budget_max_length", "max_length"),
    ):
        if key in given:
            amounts[name] = given.pop(key)
    return resolve(
        {
            "pool": {"path": pool, **given.pop("pool_options", {})},
            "exemplars": {"path": exemplars, **given.pop("exemplar_options", {})},
            "budget": amounts,
            "preset": preset,
            **given,
        },
        source="the page",
    )


def vector_job(pool: str, advanced: VectorAdvanced) -> VectorJob:
    """The job that a filled page of a stage means. Raises InputError."""
    given = given_fields(advanced)
    given.pop("max_hours", None)
    whole = resolve(
        {
            "pool": {"path": pool, **given.pop("pool_options", {})},
            "exemplars": "none",
            "budget": {"examples": 1},
            **given,
        },
        source="the page",
    )
    return VectorJob.model_validate(whole.model_dump(include=set(VectorJob.model_fields)))


def bench_request(pool: str, targets: str, advanced: BenchAdvanced) -> BenchRequest:
    """The comparison that a filled page means."""
    given = given_fields(advanced)
    given.pop("max_hours", None)
    return BenchRequest(pool=pool, targets=targets, **given)


def file_config(path: str, overrides: Mapping[str, str]) -> SelectConfig:
    """The config of a file on the worker, with dotted keys replaced. Raises InputError."""
    return load_config(path, dict(overrides))


def given_fields(form: BaseModel) -> dict[str, Any]:
    """What was filled in, without empty sections."""
    return _pruned(form.model_dump(mode="json", exclude_none=True))


def _pruned(value: dict[str, Any]) -> dict[str, Any]:
    kept = {k: _pruned(v) if isinstance(v, dict) else v for k, v in value.items()}
    return {k: v for k, v in kept.items() if v != {}}
