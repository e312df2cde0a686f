"""What a selection run may be told. Every key that changes a result is here, by name.

Unknown keys are errors. A resolved config (preset merged in, defaults filled) is stored with its
run, so a later change of a preset never changes the meaning of a stored config.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from flows.rules_config import DiversityConfig, LengthConfig, NearDuplicatesConfig, QuotaConfig
from selection.records import Budget, PoolSource

DEMO = "demo"
"""In place of a model or SAE name: the small demonstration model that ships with saelect."""

ExportFormat = Literal["messages", "original", "ids", "hf", "llama_factory", "axolotl"]


class Strict(BaseModel):
    """Frozen, and any key that is not declared is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class PoolConfig(Strict):
    """One pool: files, a folder, a glob or a Hugging Face dataset."""

    path: str = Field(min_length=1, description="File, folder, glob or Hugging Face dataset name.")
    name: str | None = Field(None, description="What `source` says where no column is mapped.")
    shape: Literal[
        "auto", "messages", "conversations", "alpaca", "prompt_completion", "text", "mapping"
    ] = Field("auto", description="Shape of a row; auto looks at the first rows.")
    columns: dict[str, str] = Field(
        default_factory=dict,
        description="Role to column: id, licence, language, source, group, target, subtask;"
        " for shape `mapping` also system, prompt, response.",
    )
    subset: str | None = Field(None, description="Subset (config) of a Hugging Face dataset.")
    split: str | None = Field(None, description="Split of a Hugging Face dataset.")
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

    targets: list[str] | None = Field(None, description="Which targets of a targets file to use.")
    target: str = Field("target", description="Name of the target where rows do not carry one.")


class DecontaminationConfig(Strict):
    """Evaluation items that no training example may hold, found by rare runs of words."""

    exemplars: bool = Field(True, description="Search for the exemplars too.")
    files: Annotated[tuple[PoolConfig, ...], BeforeValidator(lambda value: _as_list(value))] = (
        Field((), description="Evaluation files, in any shape a pool may have.")
    )
    shortest: int = Field(8, ge=2, le=100, description="Words of the shortest run that counts.")
    longest: int = Field(13, ge=2, le=100, description="Words of a run where items are long.")
    pool_rows: int = Field(10, ge=0, description="Runs in more examples of the pool do not count.")
    pool_share: float = Field(0.001, ge=0, le=1, description="The same as a share; the larger.")
    template_share: float = Field(
        0.01, ge=0, le=1, description="Runs in two or more and this share of a file's items."
    )
    item_share: float = Field(
        0.4, gt=0, le=1, description="Share of an item's counting runs that drops an example."
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


class ModelConfig(Strict):
    """The model whose activations represent a sample."""

    name: str = Field(DEMO, description="Local folder, Hugging Face id, or `demo`.")
    revision: str | None = Field(None, description="Branch, tag or commit on the hub.")
    hookpoint: str = Field(
        "", description="resid@<block index or relative depth>; empty: where the SAE was trained."
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="auto: float32 on CPU, bfloat16 on CUDA."
    )
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    trust_remote_code: bool = Field(False, description="Allow the model's repository to run code.")


class SaeTraining(Strict):
    """Train an SAE on the pool's activations; it is then frozen under its own id."""

    architecture: Literal["topk", "batchtopk", "matryoshka"] = Field(
        "topk", description="batchtopk and matryoshka select by a threshold afterwards."
    )
    num_latents: int = Field(4096, ge=8, description="Width of the SAE.")
    k: int = Field(32, ge=1, description="Active latents per token (batchtopk: on average).")
    k_start: int | None = Field(None, ge=1, description="Active latents in the first step.")
    k_anneal_share: float = Field(
        0.0, ge=0, le=1, description="Share of the steps over which k falls from k_start to k."
    )
    widths: tuple[int, ...] = Field(
        (), description="matryoshka: first latents that reconstruct alone; default M/16, M/4, M."
    )
    tokens: int = Field(2_000_000, ge=1, description="Training tokens (repeats allowed).")
    batch_tokens: int = Field(4096, ge=1, description="Tokens per step.")
    auxk_alpha: float = Field(1 / 32, ge=0, description="Weight of the AuxK loss.")
    dead_after_tokens: int | None = Field(
        None, ge=1, description="A latent that is silent so long is dead; default tokens / 20."
    )
    learning_rate: float | None = Field(None, gt=0, description="Default 2e-4 / sqrt(M / 2^14).")
    warmup_steps: int = Field(1000, ge=1, description="At most a tenth of the steps.")
    decay_share: float = Field(0.2, gt=0, le=1, description="Steps over which the rate ends.")
    max_norm_ratio: float = Field(
        10.0, gt=1, description="Tokens so many median lengths from the mean are left out."
    )
    threshold_rate: float = Field(
        0.01, gt=0, le=1, description="How fast the running threshold of batchtopk follows."
    )
    seed: int = 0

    @model_validator(mode="after")
    def agrees_with_itself(self) -> "SaeTraining":
        """Refuse what contradicts before any activation is made."""
        if self.k > self.num_latents:
            raise ValueError(f"k is {self.k}, more than num_latents ({self.num_latents})")
        if self.k_start is not None and not self.k <= self.k_start <= self.num_latents:
            raise ValueError(f"k_start is {self.k_start}, expected {self.k} to {self.num_latents}")
        if self.widths and self.architecture != "matryoshka":
            raise ValueError(f"`widths` are for matryoshka, not for {self.architecture}")
        rising = list(self.widths) == sorted({*self.widths})
        if self.widths and (not rising or self.widths[-1] != self.num_latents):
            raise ValueError(f"widths must rise and end with num_latents ({self.num_latents})")
        return self


class SaeConfig(Strict):
    """A sparse autoencoder: an existing one, or one to train."""

    path: str | None = Field(
        None, description="Folder, .pt file or hub id of a known format (docs/saes.md), or `demo`."
    )
    train: SaeTraining | None = None
    scale: Literal["as_saved", "decoder_norm"] = Field(
        "as_saved", description="decoder_norm: values times the length of the decoder row."
    )
    check: Literal["warn", "refuse", "off"] = Field(
        "warn", description="When L0 or FVU on a few thousand tokens are not as declared."
    )

    @model_validator(mode="after")
    def one_of_two(self) -> "SaeConfig":
        """Refuse both and neither."""
        if (self.path is None) == (self.train is None):
            raise ValueError("give either `path` (an existing SAE) or `train` (settings), not both")
        return self


class RenderingConfig(Strict):
    """How an example becomes tokens, and which of them count."""

    template: str = Field("auto", description="auto (the tokenizer's), plain, or a Jinja file.")
    counted: Literal["all", "response", "prompt", "all_and_template", "every_token"] = Field(
        "all",
        description="Content tokens that enter the aggregate; all_and_template adds what the"
        " template writes, every_token also BOS.",
    )
    max_length: int = Field(
        2048,
        ge=8,
        description="Tokens per example, template included; at most what the model allows.",
    )
    truncation: Literal["end", "start", "keep_response"] = Field(
        "end", description="What is cut from a longer example."
    )


Weights = Literal["none", "idf", "contrast", "idf*contrast"]
Values = Literal["raw", "sqrt"]


class SpaceConfig(Strict):
    """One space of the representation: latents of an SAE, or counts of words or tokens.

    A space of kind `sae` with nothing else is the run's own: `model`, `sae`, `token_aggregate`.
    """

    kind: Literal["sae", "words", "tokens"] = "sae"
    weight: int = Field(1, ge=1, le=1000, description="Of the space beside the others.")
    sae: str | None = Field(None, description="Another SAE of the same model; default: the run's.")
    hookpoint: str | None = Field(None, description="Of `sae`; default: where it was trained.")
    token_aggregate: Literal["mean", "sum", "max"] | None = Field(
        None, description="Default: that of the representation."
    )
    weights: Weights | None = Field(None, description="Default: `ranking.weights`.")
    values: Values | None = Field(None, description="Default: `ranking.values`.")

    @property
    def is_own(self) -> bool:
        """Whether it is the space of the run's own model and SAE."""
        return self.kind == "sae" and self.sae is None and self.token_aggregate is None

    @model_validator(mode="after")
    def no_stray_keys(self) -> "SpaceConfig":
        """Refuse keys that would do nothing."""
        if self.kind != "sae" and (self.sae or self.hookpoint or self.token_aggregate):
            raise ValueError(f"a space of kind `{self.kind}` has no SAE, hookpoint or aggregate")
        if self.hookpoint and not self.sae:
            raise ValueError("another `hookpoint` needs its own `sae`")
        return self


def _as_spaces(value: object) -> object:
    """Let `[sae, words]` stand for spaces of these kinds."""
    if not isinstance(value, list | tuple):
        return value
    return [{"kind": item} if isinstance(item, str) else item for item in value]


class RepresentationConfig(Strict):
    """How token latents become one vector per example, and what else is joined to it."""

    token_aggregate: Literal["mean", "sum", "max"] = "mean"
    spaces: Annotated[tuple[SpaceConfig, ...], BeforeValidator(_as_spaces)] = Field(
        (SpaceConfig(),), description="Joined side by side, e.g. `[sae, words]`."
    )
    keep_top: int | None = Field(
        None, ge=1, description="Keep the largest latents of a sample; the lost mass is recorded."
    )
    max_norm_ratio: float | None = Field(
        10.0,
        gt=1,
        description="Tokens whose activations are this many times longer than the median of the"
        " calibration texts do not count; null: all count.",
    )
    drop_ever_present: float | None = Field(
        None,
        gt=0,
        le=1,
        description="Leave out latents that are on in more than this share of calibration texts.",
    )

    @model_validator(mode="after")
    def has_own_space(self) -> "RepresentationConfig":
        """The run's own SAE is one of the spaces, once."""
        n_own = sum(space.is_own for space in self.spaces)
        if n_own != 1:
            raise ValueError(
                f"`spaces` names the run's own SAE {n_own} times; write `sae` once, for example"
                " `[sae, words]`"
            )
        return self


class RankingConfig(Strict):
    """How candidates are ranked against the exemplars."""

    method: Literal["jaccard", "bm25", "random"] = "jaccard"
    exemplar_reduction: Literal[
        "prototype", "max", "mean", "best_mean", "subtask_mean", "clusters", "round_robin"
    ] = "mean"
    best: int = Field(3, ge=1, description="Similarities that `best_mean` averages.")
    n_clusters: int = Field(4, ge=1, description="Prototypes that `clusters` makes.")
    weights: Weights = "idf"
    contrast_smoothing: int = Field(
        1, ge=1, description="Exemplars that look like the pool, added before contrast is taken."
    )
    max_document_frequency: float | None = Field(
        None, gt=0, le=1, description="Latents in a larger share of the pool weigh nothing."
    )
    values: Values = Field("raw", description="sqrt: square roots of the values, before weights.")
    normalize: Literal["none", "l1"] = Field(
        "none", description="l1: each space of a sample is brought to one length."
    )


class BudgetConfig(Strict):
    """How much to select: examples, a fraction of the eligible ones, or trainee tokens."""

    examples: int | None = Field(None, description="Unique examples.")
    fraction: float | None = Field(None, description="Of eligible unique examples, floored.")
    tokens: int | None = Field(None, description="Trainee tokens after `max_length`.")
    trainee_tokenizer: str | None = Field(
        None, description="Tokenizer that counts; default: the representing model's."
    )
    max_length: int | None = Field(
        None, ge=8, description="Training max_length; default: that of the rendering."
    )

    @model_validator(mode="after")
    def exactly_one(self) -> "BudgetConfig":
        """There is no default budget, and a budget has one unit."""
        given = [unit for unit in ("examples", "fraction", "tokens") if getattr(self, unit)]
        named = [
            unit for unit in ("examples", "fraction", "tokens") if unit in self.model_fields_set
        ]
        for unit in named:
            value = getattr(self, unit)
            if value is not None and value <= 0:
                raise ValueError(f"`{unit}` is {value}; a budget is larger than zero")
        if len(given) != 1:
            raise ValueError("give exactly one of `examples`, `fraction`, `tokens`")
        if self.fraction is not None and self.fraction > 1:
            raise ValueError(f"`fraction` is {self.fraction}; it is at most 1")
        return self

    def as_budget(self) -> Budget:
        """The record that the selection takes."""
        return Budget(self.examples, self.fraction, self.tokens)


class ComputeConfig(Strict):
    """How the work is cut; none of it changes which examples are chosen beyond float noise."""

    threads: int | None = Field(None, ge=1, description="CPU threads; default: all cores.")
    tokens_per_batch: int | None = Field(
        None,
        ge=1,
        description="Tokens in one forward batch, padding included; default: what suits the device",
    )
    packing: Literal["auto", "packed", "padded"] = Field(
        "auto", description="Samples end to end in a row, or padded; auto: packed on CPU."
    )
    workers: int = Field(1, ge=1, description="Processes that compute vectors, one GPU each.")
    unit_examples: int = Field(2048, ge=1, description="Examples in one unit of resumable work.")


def _as_mapping(key: str) -> Any:  # noqa: ANN401 - a pydantic validator accepts anything
    """Let a bare string stand for `{key: string}`."""
    return BeforeValidator(lambda value: {key: value} if isinstance(value, str) else value)


def _as_list(value: object) -> object:
    """Let one pool stand for a list of one."""
    if value is None:
        return None  # An untouched field of a page is not a list of nothing.
    items = value if isinstance(value, list | tuple) else [value]
    return [{"path": item} if isinstance(item, str) else item for item in items]


class PoolJob(Strict):
    """What it takes to read and prepare pools."""

    pool: Annotated[list[PoolConfig], BeforeValidator(_as_list), Field(min_length=1)]


class VectorJob(PoolJob):
    """What it takes to turn pools into vectors."""

    model: Annotated[ModelConfig, _as_mapping("name")] = ModelConfig()
    sae: Annotated[SaeConfig, _as_mapping("path")] = SaeConfig(path=DEMO)
    rendering: RenderingConfig = RenderingConfig()
    representation: RepresentationConfig = RepresentationConfig()
    compute: ComputeConfig = ComputeConfig()


class SelectConfig(VectorJob):
    """One selection run: pool and exemplars in, selections with their audit trail out."""

    exemplars: Annotated[ExemplarsConfig, _as_mapping("path")]
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
    seed: int = Field(0, description="Seed of the random control.")
