"""What stands on the report's page: one frozen record per kind of thing it shows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from storage.export.facts import JsonRow, SelectionFacts
from storage.report.charts import LengthBin, ScoreCurve, SourceBar
from storage.wording.checks import Figure, Sentence
from storage.wording.reasons import Label, merge_labels


@dataclass(frozen=True, slots=True)
class Piece:
    """A run of characters of a turn.

    heat:   0 for plain text; 1 to 4 for a token that fired, by how much of the similarity with the
            exemplar goes through it.
    levels: a digit per shown latent, 0 where it is silent, 9 where it is strongest in the sample.
    """

    text: str
    heat: int = 0
    levels: str = ""


@dataclass(frozen=True, slots=True)
class Turn:
    """One message of a sample. n_hidden: characters that the report leaves out."""

    role: str
    pieces: Sequence[Piece]
    n_hidden: int

    @property
    def text(self) -> str:
        """What is shown of it."""
        return "".join(piece.text for piece in self.pieces)


@dataclass(frozen=True, slots=True)
class Latent:
    """A latent, word or token that a pick shares with its exemplar.

    name:   its description, the word or token as it is, or its number.
    label:  the same as a short list says it.
    """

    name: str
    space: str
    number: int
    is_described: bool
    contribution: int
    share: float
    label: Label


@dataclass(frozen=True, slots=True)
class Chip:
    """One item of a short list of reasons. places: of the latents that it stands for."""

    words: str
    share: float
    places: Sequence[int]
    is_plain: bool


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
    reason: str | None = None

    @property
    def is_marked(self) -> bool:
        """Whether any of its tokens is."""
        return any(piece.heat for turn in self.turns for piece in turn.pieces)

    def reasons(self, most: int | None = None) -> list[Chip]:
        """Its latents as a short list: the first `most` that can be read, signs as a number."""
        chips = []
        for words, places in merge_labels([latent.label for latent in self.latents], most):
            latents = [self.latents[at] for at in places]
            share = sum([latent.share for latent in latents])
            is_plain = not any([latent.is_described for latent in latents])
            chips.append(Chip(words, share, places, is_plain))
        return chips


@dataclass(frozen=True, slots=True)
class Drop:
    """How many left, where and why."""

    stage: str
    reason: str
    words: str
    n: int


@dataclass(frozen=True, slots=True)
class Context:
    """A token on which a latent fires, in its text."""

    rank: int
    before: str
    token: str
    after: str


@dataclass(frozen=True, slots=True)
class TargetLatent:
    """A latent that the exemplars of a target task are made of.

    share:       of an exemplar's weighted length, mean over the exemplars.
    n_exemplars: in which it fires; pool_share: share of the pool in which it does.
    carried:     share of the similarity of picks that it carries, mean over all picks.
    """

    target: str
    name: str
    number: int
    space: str
    is_described: bool
    share: float
    n_exemplars: int
    pool_share: float | None
    carried: float
    examples: Sequence[Context]


@dataclass(frozen=True, slots=True)
class ReportFacts:
    """Everything on the page; the templates compute nothing.

    passed_over: better candidates that a rule kept out. stages: of the run, with their seconds.
    budgets:     of a sweep, smallest first; mix_by_budget: (column, value, share in each of them).
    beside:      other selections of the run, and how many picks each shares with this one.
    figures:     of the check and of what BM25 shares, for a glance.
    """

    facts: SelectionFacts
    licences: Sequence[SourceBar]
    target_latents: Sequence[TargetLatent]
    passed_over: Sequence[JsonRow]
    stages: Sequence[JsonRow]
    picks: Sequence[ShownPick]
    near_misses: Sequence[ShownPick]
    exemplars: Mapping[str, Sequence[Turn]]
    n_exemplars_hidden: int
    curve: ScoreCurve | None
    lengths: Sequence[LengthBin]
    sources: Sequence[SourceBar]
    drops: Sequence[Drop]
    beside: Sequence[JsonRow]
    per_target: Sequence[tuple[str, int, int, float | None]]
    exports: Sequence[tuple[str, str]]
    lineage: Sequence[tuple[str, str, str, str]]
    check: Sequence[Sentence]
    figures: Sequence[Figure]
    best_score: float | None
    budgets: Sequence[JsonRow]
    mix_by_budget: Sequence[tuple[str, str, Sequence[float]]]
