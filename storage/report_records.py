"""What stands on the report's page: one frozen record per kind of thing it shows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from storage.charts import LengthBin, ScoreCurve, SourceBar
from storage.check_words import Sentence
from storage.export_facts import SelectionFacts


@dataclass(frozen=True, slots=True)
class Turn:
    """One message of a sample. n_hidden: characters that the report leaves out."""

    role: str
    text: str
    n_hidden: int


@dataclass(frozen=True, slots=True)
class Latent:
    """A latent that a pick shares with its exemplar; `name` is its description or its number."""

    name: str
    number: int
    is_described: bool
    contribution: int
    share: float


@dataclass(frozen=True, slots=True)
class ShownPick:
    """A pick or near miss as the report shows it."""

    rank: int
    score: float | None
    example_id: str
    target: str | None
    own_id: str | None
    source: str | None
    file: str | None
    row: int | None
    licence: str | None
    tokens: int | None
    n_places: int
    turns: Sequence[Turn]
    latents: Sequence[Latent]
    rest_share: float
    exemplar_id: str | None


@dataclass(frozen=True, slots=True)
class Drop:
    """How many left, where and why."""

    stage: str
    reason: str
    words: str
    n: int


@dataclass(frozen=True, slots=True)
class Beside:
    """Another selection of the same run, and how many picks it shares with this one."""

    name: str
    method: str
    role: str
    target: str | None
    n_selected: int
    n_tokens: int | None
    n_shared: int


@dataclass(frozen=True, slots=True)
class ReportFacts:
    """Everything on the page; the templates compute nothing."""

    facts: SelectionFacts
    picks: Sequence[ShownPick]
    near_misses: Sequence[ShownPick]
    exemplars: Mapping[str, Sequence[Turn]]
    n_exemplars_hidden: int
    curve: ScoreCurve | None
    lengths: Sequence[LengthBin]
    sources: Sequence[SourceBar]
    drops: Sequence[Drop]
    beside: Sequence[Beside]
    per_target: Sequence[tuple[str, int, int, float | None]]
    exports: Sequence[tuple[str, str]]
    lineage: Sequence[tuple[str, str, str, str]]
    check: Sequence[Sentence]
    best_score: float | None
