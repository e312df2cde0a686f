"""What a run asks of its exemplars, without labels: is it in the pool, and how far down."""

from pydantic import Field

from flows.config.strict import Strict


class CheckConfig(Strict):
    """The label-free check: held-out exemplars in the ranking, random samples as exemplars."""

    folds: int = Field(
        5, ge=2, description="Parts that exemplars are held out in; at most one each."
    )
    pseudo_exemplars: int = Field(
        128, ge=20, le=4096, description="Random samples of the pool that stand in for exemplars."
    )
    draws: int = Field(100, ge=20, description="Sets of them that a sample has to beat 95 % of.")
    max_rows: int = Field(
        200_000,
        ge=1000,
        description="Samples that held-out exemplars are ranked among, drawn by `seed` from a"
        " larger pool; and the deepest rank that is held against random samples.",
    )
    dominates: float = Field(
        0.5,
        gt=0,
        le=1,
        description="An exemplar is named that is the nearest of more than this share of picks.",
    )
