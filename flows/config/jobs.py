"""The config of a run. Every key that changes a result is here, by name.

A resolved config (preset merged in, defaults filled) is stored with its run, so a later change of a
preset never changes the meaning of a stored config.
"""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from flows.config.base import DEMO, Strict, as_list, as_mapping
from flows.config.data import DecontaminationConfig, ExemplarsConfig, PoolConfig
from flows.config.model import ComputeConfig, ModelConfig, RenderingConfig, SaeConfig
from flows.config.ranking import FaissConfig, RankingConfig, RepresentationConfig
from flows.config.rules import (
    BudgetConfig,
    CheckConfig,
    DiversityConfig,
    LengthConfig,
    NearDuplicatesConfig,
    QuotaConfig,
    ReplayConfig,
)
from selection.data.training_rows import RowLayout
from selection.similarity.kernels.limits import max_total_weight

ExportFormat = Literal[
    "messages", "preference", "original", "ids", "hf", "llama_factory", "axolotl"
]


def _formats(value: object) -> object:
    """Accept a list of formats for the section."""
    return {"formats": value} if isinstance(value, list | tuple) else value


class PoolJob(Strict):
    """The keys that reading and preparing pools needs."""

    pool: Annotated[list[PoolConfig], BeforeValidator(as_list), Field(min_length=1)]


class VectorJob(PoolJob):
    """The keys that computing the vectors of pools needs."""

    model: Annotated[ModelConfig, as_mapping("name")] = ModelConfig()
    sae: Annotated[SaeConfig, as_mapping("path")] = SaeConfig(path=DEMO)
    rendering: RenderingConfig = RenderingConfig()
    representation: RepresentationConfig = RepresentationConfig()
    faiss: FaissConfig = FaissConfig()
    compute: ComputeConfig = ComputeConfig()


class ExportConfig(Strict):
    """Which training files are written, and how their rows stand in them."""

    formats: tuple[ExportFormat, ...] = Field(
        ("messages",), description="Formats of the training files; `export: [ids]` is short for it."
    )
    columns: tuple[Literal["score", "rank", "weight", "reason"], ...] = Field(
        (),
        description="Further columns of each row; `weight`: a softmax of the scores, mean 1 within"
        " a target; `reason`: what brought it in, e.g. replay.",
    )
    order: Literal["score", "random", "length"] = Field(
        "score", description="Order of the rows; `length`: by tokens, shortest first."
    )
    seed: int = Field(0, ge=0, description="Of the order `random`.")
    temperature: float = Field(
        1.0,
        gt=0,
        description="Of `weight`, in standard deviations of a target's scores; more: weights more"
        " alike.",
    )

    def as_layout(self) -> RowLayout:
        """The record that the export takes."""
        return RowLayout(self.columns, self.order, self.seed, self.temperature)


class SelectConfig(VectorJob):
    """One selection run: pool and exemplars in, selections with their audit trail out."""

    exemplars: Annotated[ExemplarsConfig, as_mapping("path")]
    budget: BudgetConfig
    preset: str = Field(
        "best",
        description="Named settings that this config overrides: `best` (measured best), `paper`"
        " (the published method), `demo` (`best` for short texts).",
    )
    name: str | None = Field(
        None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="Name of the run."
    )
    note: str = Field("", description="Free text, kept with the run.")
    where: str | None = Field(
        None, description="Boolean expression over columns; other examples are dropped."
    )
    drop_exemplar_copies: bool = Field(
        True, description="Drop pool examples that are exact copies of an exemplar."
    )
    combine: Literal["separate", "joint"] = Field(
        "separate",
        description="Several targets: a budget each, or one shared budget, picked from in turn.",
    )
    target_weights: dict[str, int] = Field(
        default_factory=dict,
        description="With `combine: joint`: share of each target in the picks, and with a budget of"
        " tokens in the tokens (default 1).",
    )
    include: str | tuple[str, ...] = Field(
        (),
        description="Always picked, first: example ids, ids in the data, or a file of them.",
    )
    exclude: str | tuple[str, ...] = Field(
        (), description="Never picked: example ids, ids in the data, or a file of them."
    )
    min_score: float | None = Field(None, description="Lowest score of a pick.")
    length: LengthConfig = LengthConfig()
    quotas: tuple[QuotaConfig, ...] = Field(
        (), description="Bounds on the number of picks per value of a column."
    )
    near_duplicates: NearDuplicatesConfig | None = None
    diversity: DiversityConfig | None = None
    replay: ReplayConfig | None = Field(
        None,
        title="Replay",
        description="General samples inside the budget, so that a model forgets less.",
    )
    decontamination: DecontaminationConfig | None = DecontaminationConfig()
    controls: tuple[Literal["random", "length_matched", "bm25"], ...] = Field(
        (), description="Further selections with the same budget, to compare training with."
    )
    ranking: RankingConfig = RankingConfig()
    check: CheckConfig | None = Field(
        CheckConfig(),
        title="Label-free check",
        description="Estimates quality without labels; null: no check.",
    )
    index: bool = Field(True, description="Build the FAISS index that `saelect neighbors` uses.")
    export: Annotated[ExportConfig, BeforeValidator(_formats)] = ExportConfig()
    track: Literal["mlflow", "wandb", "trackio"] | None = Field(
        None,
        description="Tracker that is given config, counts, check and file paths of the run; its own"
        " environment variables say where.",
    )
    explain_top: int = Field(12, ge=1, description="Latents recorded per pick and exemplar.")
    explain_exemplars: int = Field(
        5, ge=1, description="Nearest exemplars recorded per pick and near miss."
    )
    explain_generic: float = Field(
        0.5,
        gt=0,
        le=1,
        description="Explanations merge latents active in this share of the pool into one.",
    )
    explain_tokens: int = Field(
        50,
        ge=0,
        description="Top picks of each selection whose token activations are recorded, with a tenth"
        " as many near misses; costs another forward pass over these. 0: none.",
    )
    seed: int = Field(
        0,
        ge=0,
        le=2**32 - 1,
        description="Seed of the random control and the label-free check.",
    )

    @field_validator("name")
    @classmethod
    def name_is_no_word_of_the_commands(cls, name: str | None) -> str | None:
        """Refuse `latest`, which means the last selection."""
        if name == "latest":
            raise ValueError("`latest` means the last selection; choose another name")
        return name

    @model_validator(mode="after")
    def replay_has_tokens_and_all_rows(self) -> "SelectConfig":
        """Refuse replay in tokens of another budget, and from what a search retrieved."""
        if self.replay is not None and self.replay.tokens and self.budget.tokens is None:
            raise ValueError("`replay.tokens` needs `budget.tokens`; give `replay.share`")
        if self.replay is not None and self.ranking.search == "faiss":
            raise ValueError(
                "`replay` is drawn from all rows, and `ranking.search: faiss` ranks those nearest"
                " to the exemplars; use `search: exact`"
            )
        return self

    @model_validator(mode="after")
    def search_has_an_index(self) -> "SelectConfig":
        """Refuse a search without an index."""
        if self.ranking.search == "faiss" and not self.index:
            raise ValueError("`ranking.search: faiss` needs `index: true`")
        return self

    @model_validator(mode="after")
    def spaces_are_not_too_heavy(self) -> "SelectConfig":
        """Refuse weights whose sums would overflow."""
        normalize, weights = self.ranking.normalize, [s.weight for s in self.representation.spaces]
        if normalize != "none" and sum(weights) >= max_total_weight(by_average=normalize == "pool"):
            raise ValueError(
                f"the weights of `representation.spaces` add up to {sum(weights)}; with"
                f" `ranking.normalize: {normalize}` they must stay below"
                f" {max_total_weight(by_average=normalize == 'pool'):,}"
            )
        return self
