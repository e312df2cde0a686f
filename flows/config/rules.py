"""What decides besides the score: budget, and rules for lengths, quotas, duplicates, diversity."""

from typing import Annotated

from pydantic import Field, model_validator

from flows.config.base import Strict
from selection.picking.rules.quotas import Bounds, Quota
from selection.records import Budget

Amount = Annotated[int, Field(strict=True, ge=0)] | Annotated[float, Field(ge=0, le=1)]
"""A whole number means examples, a decimal a share of the selection (1.0 is all of it)."""


class BudgetConfig(Strict):
    """How much to select: examples, a fraction of the eligible ones, or trainee tokens."""

    examples: int | None = Field(None, description="Unique examples.")
    fraction: float | None = Field(None, description="Of eligible unique examples, floored.")
    tokens: int | None = Field(None, description="Trainee tokens after `max_length`.")
    sweep: tuple[int | float, ...] | None = Field(
        None,
        description="Smaller budgets in the same unit. One selection is made, for the largest; each"
        " smaller one holds its first picks.",
    )
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
        largest = getattr(self, given[0])
        for value in self.sweep or ():
            if not 0 < value < largest or (given[0] != "fraction" and value != int(value)):
                raise ValueError(
                    f"`sweep` has {value}; it lists smaller budgets than {largest}, in {given[0]}"
                )
        return self

    def as_budget(self) -> Budget:
        """The record that the selection takes."""
        return Budget(self.examples, self.fraction, self.tokens)

    def sweep_budgets(self) -> list[Budget]:
        """The smaller ones, smallest first."""
        values = sorted(set(self.sweep or ()))
        if self.fraction is not None:
            return [Budget(fraction=float(value)) for value in values]
        if self.tokens is not None:
            return [Budget(tokens=int(value)) for value in values]
        return [Budget(examples=int(value)) for value in values]


class LengthConfig(Strict):
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


class BoundsConfig(Strict):
    """How many picks may have a value: whole numbers are examples, decimals are shares."""

    share: Amount | None = Field(None, description="This much, up to rounding.")
    floor: Amount | None = Field(None, description="At least this much.")
    cap: Amount | None = Field(None, description="At most this much.")

    def as_bounds(self) -> Bounds:
        """The record that the selection takes."""
        return Bounds(self.share, self.floor, self.cap)


class QuotaConfig(Strict):
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


class NearDuplicatesConfig(Strict):
    """When a candidate repeats a better one: near in vector, and in words."""

    similarity: float = Field(0.9, gt=0, le=1, description="Least generalized Jaccard.")
    text_overlap: float = Field(
        0.7, ge=0, le=1, description="Least share of word n-grams in common."
    )
    shingle_words: int = Field(3, ge=1, description="Words in an n-gram.")


class DiversityConfig(Strict):
    """Maximal marginal relevance on the exact similarity."""

    trade: float = Field(0.7, ge=0, le=1, description="1: scores alone; 0: differences alone.")
    multiple: float = Field(
        4.0, ge=1, description="Candidates considered, as a multiple of the budget."
    )


class ReplayConfig(Strict):
    """General samples inside the budget, drawn at random from rows that may be picked."""

    share: float | None = Field(
        None, gt=0, lt=1, description="Of the budget, in its unit; picks have the rest."
    )
    tokens: int | None = Field(
        None, gt=0, description="Instead of a share, tokens of a budget of tokens."
    )

    @model_validator(mode="after")
    def exactly_one(self) -> "ReplayConfig":
        """There is no default."""
        if (self.share is None) == (self.tokens is None):
            raise ValueError("give exactly one of `share` and `tokens`")
        return self


class CheckConfig(Strict):
    """The label-free check: held-out exemplars in the ranking, random samples as exemplars."""

    folds: int = Field(
        5, ge=2, description="Folds of the held-out check; at most one per exemplar."
    )
    pseudo_exemplars: int = Field(
        128, ge=20, le=4096, description="Random samples of the pool that stand in for exemplars."
    )
    draws: int = Field(
        100, ge=20, description="Sets of random samples that a ranked one is compared with."
    )
    max_rows: int = Field(
        200_000,
        ge=1000,
        description="Samples that held-out exemplars are ranked among, drawn by `seed` from a"
        " larger pool; and the deepest rank that is compared with random samples.",
    )
    dominates: float = Field(
        0.5,
        gt=0,
        le=1,
        description="Flag an exemplar that is the nearest one of more than this share of picks.",
    )
