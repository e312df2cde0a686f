"""What decides besides the score: lengths, quotas, duplicates, diversity. All off by default."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

from selection.quotas import Bounds, Quota

Amount = Annotated[int, Field(strict=True, ge=0)] | Annotated[float, Field(ge=0, le=1)]
"""A whole number means examples, a decimal a share of the selection (1.0 is all of it)."""


class Rule(BaseModel):
    """Frozen, and any key that is not declared is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class LengthConfig(Rule):
    """Tokens of an example as rendered for the representing model, before anything is cut."""

    min_tokens: int | None = Field(None, ge=1, description="Shorter examples are dropped.")
    max_tokens: int | None = Field(None, ge=1, description="Longer examples are dropped.")

    @model_validator(mode="after")
    def in_order(self) -> "LengthConfig":
        """Refuse bounds that nothing lies between."""
        low, high = self.min_tokens, self.max_tokens
        if low is not None and high is not None and low > high:
            raise ValueError(f"`min_tokens` is {low} and `max_tokens` {high}: nothing lies between")
        return self


class BoundsConfig(Rule):
    """How many picks may have a value: whole numbers are examples, decimals are shares."""

    share: Amount | None = Field(None, description="This much, up to rounding.")
    floor: Amount | None = Field(None, description="At least this much.")
    cap: Amount | None = Field(None, description="At most this much.")

    def as_bounds(self) -> Bounds:
        """The record that the selection takes."""
        return Bounds(self.share, self.floor, self.cap)


class QuotaConfig(Rule):
    """Quotas of one column; an example has the value of its first occurrence that passes."""

    column: str = Field(description="A role (source, licence, ...) or a column of the pool.")
    values: dict[str, BoundsConfig] = Field(default_factory=dict, description="Value to bounds.")
    others: BoundsConfig = Field(
        BoundsConfig(), title="Others", description="Bounds of each value not named."
    )

    def as_quota(self) -> Quota:
        """The record that the selection takes."""
        values = {name: bounds.as_bounds() for name, bounds in self.values.items()}
        return Quota(self.column, values, self.others.as_bounds())


class NearDuplicatesConfig(Rule):
    """When a candidate repeats a better one: near in vector, and in words."""

    similarity: float = Field(0.9, gt=0, le=1, description="Generalized Jaccard from which.")
    text_overlap: float = Field(
        0.7, ge=0, le=1, description="Share of runs of words in common that must confirm it."
    )
    shingle_words: int = Field(3, ge=1, description="Words in a run.")


class DiversityConfig(Rule):
    """Maximal marginal relevance on the exact similarity."""

    trade: float = Field(0.7, ge=0, le=1, description="1: scores alone; 0: differences alone.")
    multiple: float = Field(
        4.0, ge=1, description="Budgets' worth of the best candidates that may change places."
    )
