"""Where examples come from: pools, exemplars, evaluation files."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, PositiveInt, model_validator

from flows.config.base import DEMO, Dtype, Strict, as_list
from selection.records import PoolSource


class PoolConfig(Strict):
    """One pool: files, a folder, a glob, an address or a Hugging Face dataset."""

    path: str = Field(
        min_length=1,
        description="File, folder or glob on the machine of the run, URL or Hugging Face dataset;"
        " `demo:pool.jsonl` is the packaged demonstration.",
    )
    name: str | None = Field(None, description="What `source` says where no column is mapped.")
    shape: Literal[
        "auto",
        "messages",
        "conversations",
        "preference",
        "alpaca",
        "prompt_completion",
        "message_rows",
        "transcript",
        "text",
        "mapping",
    ] = Field("auto", description="Shape of a row; auto looks at the first rows.")
    columns: dict[str, str] = Field(
        default_factory=dict,
        description="Role to column: id, licence, language, source, group, target, subtask,"
        " system, reasoning; for shape `mapping` also prompt, response, rejected.",
    )
    turns: dict[str, str] = Field(
        default_factory=dict,
        description="Turns under names of your own: `column` that holds them, and the keys of a"
        " turn: `role`, `content`.",
    )
    roles: dict[str, str] = Field(
        default_factory=dict,
        description="Names of roles in the data to system, developer, user, assistant, tool.",
    )
    answers: Literal["refuse", "first", "json"] = Field(
        "refuse",
        description="An answer that is a list or an object: drop the row, take the first text of"
        " the list, or the JSON as the file spells it.",
    )
    delimiter: str | None = Field(None, description="Of CSV and TSV; found out by default.")
    quoting: Literal["auto", "standard", "backslash", "none"] = Field(
        "auto",
        description="Of CSV and TSV: whether double quotes enclose fields; inside, they are doubled"
        " or have a backslash before them.",
    )
    encoding: str | None = Field(
        None, description="Of text files; by default UTF-8, or UTF-16 where a file begins so."
    )
    subset: str | None = Field(None, description="Subset (config) of a Hugging Face dataset.")
    split: str | None = Field(
        None, description="Split of a Hugging Face dataset or of a folder; of a folder: train."
    )
    revision: str | None = Field(None, description="Revision of a Hugging Face dataset.")
    broken_rows: Literal["refuse", "drop"] = Field(
        "refuse", description="Stop at an unreadable row, or drop and count it."
    )

    def as_source(self) -> PoolSource:
        """The record that the readers take."""
        names = PoolSource.__dataclass_fields__
        return PoolSource(**{name: getattr(self, name) for name in names})


class ExemplarsConfig(PoolConfig):
    """Known examples of the target task: any pool shape, or a targets file."""

    path: str = Field(
        min_length=1,
        description="Known examples of the target task: a file of 5 to 500, or a targets file;"
        " `demo:exemplars.jsonl` is the packaged demonstration.",
    )
    targets: list[str] | None = Field(None, description="Which targets of a targets file to use.")
    target: str = Field("target", description="Name of the target where rows do not carry one.")


class DecontaminationConfig(Strict):
    """Evaluation items that no training example may hold: question and answer, by runs of words."""

    exemplars: bool = Field(True, description="Search for the exemplars too.")
    files: Annotated[tuple[PoolConfig, ...], BeforeValidator(lambda value: as_list(value))] = Field(
        (), description="Evaluation files, in any shape a pool may have."
    )
    shortest: int = Field(8, ge=2, le=100, description="Words of the shortest run that counts.")
    longest: int = Field(13, ge=2, le=100, description="Words of a run where items are long.")
    pool_rows: int = Field(
        10, ge=0, description="Runs in more examples count only in one that holds the whole part."
    )
    pool_share: float = Field(0.001, ge=0, le=1, description="The same as a share; the larger.")
    template_share: float = Field(
        0.01, ge=0, le=1, description="Words in two or more and this share of a file's items."
    )
    item_share: float = Field(
        0.4, gt=0, le=1, description="Share of a part's counting runs that drops an example."
    )
    flag_similarity: float = Field(
        0.9, gt=0, le=1, description="A pick this similar to an exemplar is flagged, not dropped."
    )

    @model_validator(mode="after")
    def in_order(self) -> "DecontaminationConfig":
        """Refuse runs of no length."""
        if self.shortest > self.longest:
            raise ValueError(f"`shortest` is {self.shortest} and `longest` {self.longest}")
        return self


def _by_comma(value: object) -> object:
    """Accept names in one text, as a command line has them."""
    if not isinstance(value, str):
        return value
    return tuple(name.strip() for name in value.split(",") if name.strip())


Names = Annotated[tuple[str, ...], BeforeValidator(_by_comma)]


class UnderTest(Strict):
    """The model and SAE that every method of a benchmark reads, and what stands beside them."""

    model: str = Field(DEMO, description="Model that every method reads.")
    sae: str = Field(DEMO, min_length=1, description="SAE that `best` and `paper` read.")
    hookpoint: str = Field("", description="Where the model is read; empty: where the SAE was.")
    dtype: Dtype = Field("auto", description="auto: float32 on CPU, bfloat16 on CUDA.")
    encoder: str | None = Field(None, description="Folder of a sentence encoder to report.")
    scores: dict[str, str] = Field(
        default_factory=dict, description="Name -> file with columns id, score, maybe target."
    )


class BenchRequest(UnderTest):
    """What a retrieval benchmark compares."""

    pool: str = Field(description="One Parquet file, with labels.")
    targets: str = Field(description="Target tasks with exemplars and labels, one JSON a line.")
    subpool: str | None = Field(None, description="File of ids: only these rows of the pool.")
    setting: Literal["full", "instance", "both"] = Field(
        "both", description="The whole example, its bare question, or both."
    )
    methods: Names = Field(
        (),
        description="Names, name:variant, YAML files of configs; empty: all but `less` and"
        " `loss_drop`, which train the model.",
    )


class FinetuneRequest(Strict):
    """What a benchmark by fine-tuning compares."""

    pool: str = Field(description="Labelled Parquet pool.")
    targets_file: str = Field(description="Targets file, one JSON object a line.")
    exclude: str | None = Field(None, description="File of ids that the trainee has seen.")
    subpool: str | None = Field(None, description="File of ids: only these rows of the pool.")
    setting: Literal["full", "instance"] = Field(
        "full", description="The whole example, or its bare question."
    )
    arms: Names = Field(
        (),
        description="zero, random, length_matched, oracle, methods, selection:NAME; empty: usual.",
    )
    targets: Names = Field((), description="Their names; empty: all with enough rows.")
    budget_tokens: Annotated[tuple[PositiveInt, ...], BeforeValidator(_by_comma)] = Field(
        (4000, 12000), min_length=1, description="Tokens that each arm trains on."
    )
    seeds: int = Field(2, ge=1, description="Seeds of drawn rows and of the order of training.")
    trainee: str = Field(DEMO, description="Causal model to train: a folder, or `demo`.")
    tune: str = Field("full", description="full, last:N (blocks) or lora:RANK.")
    learning_rate: float = Field(3e-4, gt=0, description="Highest learning rate.")
    max_length: int = Field(512, ge=8, description="Tokens at which a sample is cut.")
    held_out: int = Field(100, ge=2, description="Rows that measure each target.")
    hours: float | None = Field(None, gt=0, description="Begin no run after so many hours.")
    device: str = Field("auto", description="Where the trainee runs.")
    dtype: Literal["bfloat16", "float32"] = Field(
        "bfloat16", description="What products of matrices are computed in."
    )
    model: str = Field(DEMO, description="Model that every method reads.")
    sae: str = Field(DEMO, min_length=1, description="SAE that `best` and `paper` read.")
    hookpoint: str = Field("", description="Where the model is read; empty: where the SAE was.")
    scores: dict[str, str] = Field(
        default_factory=dict, description="Arm -> file with columns id, score, maybe target."
    )
