"""What a run may be told. Every key that changes a result is here, by name.

A resolved config (preset merged in, defaults filled) is stored with its run, so a later change of a
preset never changes the meaning of a stored config.
"""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

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
)
from selection.similarity.kernels.limits import most_weight

ExportFormat = Literal["messages", "original", "ids", "hf", "llama_factory", "axolotl"]


class PoolJob(Strict):
    """What it takes to read and prepare pools."""

    pool: Annotated[list[PoolConfig], BeforeValidator(as_list), Field(min_length=1)]


class VectorJob(PoolJob):
    """What it takes to turn pools into vectors."""

    model: Annotated[ModelConfig, as_mapping("name")] = ModelConfig()
    sae: Annotated[SaeConfig, as_mapping("path")] = SaeConfig(path=DEMO)
    rendering: RenderingConfig = RenderingConfig()
    representation: RepresentationConfig = RepresentationConfig()
    faiss: FaissConfig = FaissConfig()
    compute: ComputeConfig = ComputeConfig()


class SelectConfig(VectorJob):
    """One selection run: pool and exemplars in, selections with their audit trail out."""

    exemplars: Annotated[ExemplarsConfig, as_mapping("path")]
    budget: BudgetConfig
    preset: str = Field("best", description="Named settings that this config builds on.")
    name: str | None = Field(
        None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="Name of the run."
    )
    note: str = Field("", description="Free text, kept with the run.")
    where: str | None = Field(
        None, description="Boolean expression over columns; examples failing it are dropped."
    )
    drop_exemplar_copies: bool = Field(
        True, description="Drop pool examples that are exact copies of an exemplar."
    )
    combine: Literal["separate", "joint"] = Field(
        "separate", description="Several targets: a budget each, or one budget shared in turn."
    )
    target_weights: dict[str, int] = Field(
        default_factory=dict,
        description="combine: joint; a target of weight 2 has two turns where others have one.",
    )
    include: str | tuple[str, ...] = Field(
        (), description="Always taken, first: example ids or own ids, or a file of one per line."
    )
    exclude: str | tuple[str, ...] = Field(
        (), description="Never taken: example ids or own ids, or a file of one per line."
    )
    min_score: float | None = Field(None, description="Least score of a pick.")
    length: LengthConfig = LengthConfig()
    quotas: tuple[QuotaConfig, ...] = Field((), description="Numbers of picks by column.")
    near_duplicates: NearDuplicatesConfig | None = None
    diversity: DiversityConfig | None = None
    decontamination: DecontaminationConfig | None = DecontaminationConfig()
    controls: tuple[Literal["random", "length_matched", "bm25"], ...] = Field(
        (), description="Sibling selections of equal budget to compare with."
    )
    ranking: RankingConfig = RankingConfig()
    check: CheckConfig | None = Field(
        CheckConfig(), title="Label-free check", description="null: no label-free check."
    )
    index: bool = Field(True, description="Build the FAISS index that `saelect neighbors` uses.")
    export: tuple[ExportFormat, ...] = Field(
        ("messages",), description="Formats written after the selection."
    )
    explain_top: int = Field(12, ge=1, description="Latents named per pick and exemplar.")
    explain_exemplars: int = Field(
        5, ge=1, description="Nearest exemplars that explain each pick and near miss."
    )
    explain_generic: float = Field(
        0.5,
        gt=0,
        le=1,
        description="Explanations fold latents that fire in this share of the pool into one line.",
    )
    explain_tokens: int = Field(
        50,
        ge=0,
        description="Picks of each selection, from the first, whose tokens are marked where the"
        " explaining latents fire, and a tenth as many near misses; another pass of the model over"
        " these. 0: none.",
    )
    seed: int = Field(0, description="Seed of the random control and of the label-free check.")

    @model_validator(mode="after")
    def search_has_an_index(self) -> "SelectConfig":
        """Refuse a search in an index that is not built."""
        if self.ranking.search == "faiss" and not self.index:
            raise ValueError("`ranking.search: faiss` needs `index: true`")
        return self

    @model_validator(mode="after")
    def spaces_are_not_too_heavy(self) -> "SelectConfig":
        """Refuse weights whose sums would not fit the numbers they are counted in."""
        normalize, weights = self.ranking.normalize, [s.weight for s in self.representation.spaces]
        if normalize != "none" and sum(weights) >= most_weight(by_average=normalize == "pool"):
            raise ValueError(
                f"the weights of `representation.spaces` add up to {sum(weights)}; with"
                f" `ranking.normalize: {normalize}` they must stay below"
                f" {most_weight(by_average=normalize == 'pool'):,}"
            )
        return self
