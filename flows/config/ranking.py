"""How an example becomes a vector, and how vectors are ranked against the exemplars."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from flows.config.base import Strict

Weights = Literal["none", "idf", "target_unique"]


class SpaceConfig(Strict):
    """One space of the representation: latents of an SAE, or counts of words or tokens.

    A space of kind `sae` with nothing else is the run's own: `model`, `sae`, `token_aggregate`.
    """

    kind: Literal["sae", "words", "tokens"] = Field(
        "sae", description="Latents of an SAE, words of the counted text, or the model's tokens."
    )
    weight: int = Field(1, ge=1, le=1000, description="Of the space relative to the others.")
    sae: str | None = Field(
        None, min_length=1, description="Another SAE of the same model; default: the run's."
    )
    hookpoint: str | None = Field(None, description="Of `sae`; default: where it was trained.")
    token_aggregate: Literal["mean", "sum", "max"] | None = Field(
        None, description="Default: that of the representation."
    )
    weights: Weights | None = Field(None, description="Default: `ranking.weights`.")

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

    token_aggregate: Literal["mean", "sum", "max"] = Field(
        "mean", description="How the latents of counted tokens become one value per sample."
    )
    spaces: Annotated[tuple[SpaceConfig, ...], BeforeValidator(_as_spaces)] = Field(
        (SpaceConfig(),), description="Joined side by side, e.g. `[sae, words]`."
    )
    keep_top: int | None = Field(
        None, ge=1, description="Keep the largest latents of a sample; the lost mass is recorded."
    )
    encoder_inputs: Literal["float32", "tf32", "bfloat16"] = Field(
        "float32",
        description="Precision of what the SAE's encoder multiplies, summed in float32; the others"
        " are faster on a GPU, and change some latents.",
    )
    max_norm_ratio: float | None = Field(
        10.0,
        gt=1,
        description="Leave out tokens whose activation norm is above this many times the median of"
        " the calibration texts; null: keep all.",
    )
    drop_ever_present: float | None = Field(
        None,
        gt=0,
        le=1,
        description="Leave out latents active in more than this share of calibration texts.",
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

    method: Literal["jaccard", "bm25", "random"] = Field(
        "jaccard", description="Exact generalized Jaccard of vectors; the others as baselines."
    )
    exemplar_reduction: Literal["prototype", "max", "mean", "round_robin"] = Field(
        "mean", description="How several exemplars give a candidate one score."
    )
    weights: Weights = Field(
        "idf",
        description="Of latents. idf: inverse document frequency in the pool. target_unique: share"
        " of a target's exemplars that have the latent, less that of the pool, at least 0; every"
        " target has its own.",
    )
    max_document_frequency: float | None = Field(
        None, gt=0, le=1, description="Latents in a larger share of the pool get weight 0."
    )
    search: Literal["exact", "faiss"] = Field(
        "exact", description="faiss: score only what FAISS retrieves; needs `index: true`."
    )
    candidates: int = Field(
        2000, ge=1, description="search: faiss; candidates retrieved per exemplar."
    )
    recall_vectors: int = Field(
        100_000,
        ge=1,
        description="search: faiss; vectors scored exactly to measure the recall.",
    )
    normalize: Literal["none", "l1", "pool"] = Field(
        "none",
        description="l1: scale each sample's vector to unit L1 norm per space; pool: divide by the"
        " pool's mean L1 norm per space, so that longer samples keep larger vectors.",
    )


class FaissConfig(Strict):
    """How vectors are sketched, indexed and looked up. Whatever is found is then compared exactly.

    What the sketches miss stays missed; the share is measured and kept with the index and the run.
    """

    n_dims: int = Field(256, ge=8, le=4096, description="Dimensions of a sketch.")
    seed: int = Field(0, ge=0, description="Of sketches and of the cells of large indexes.")
    flat_up_to: int = Field(
        1_000_000,
        ge=0,
        description="Larger pools are searched by cells, smaller ones in full.",
    )
    n_lists: int | None = Field(
        None, ge=1, description="Cells of a large index; default: 4 times the root of its vectors."
    )
    n_probes: int = Field(64, ge=1, description="Cells searched, of a large index.")
    candidates_per_neighbor: int = Field(
        20, ge=1, description="Candidates retrieved for every neighbor."
    )
    recall_queries: int = Field(
        32,
        ge=1,
        description="Vectors whose neighbors are also searched exactly, to measure recall.",
    )
    gpu: Literal["auto", "off"] = Field(
        "auto", description="auto: a GPU makes the cells where FAISS sees one."
    )
