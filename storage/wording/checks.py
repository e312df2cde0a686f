"""The label-free check in words: is the task in the pool, how much is enough, is it beyond chance.

Sentences are made from the catalog alone, so they are the same in the terminal, in the report and
on a Prefect page, and for a copied snapshot.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from selection.core.numbers import percent
from storage.catalog.connection import Connection
from storage.catalog.snapshot import open_snapshot
from storage.files.workspace import Workspace

Topic = Literal["contains", "enough", "beats_random", "exemplar"]

RANDOM = 50  # Percentile of a random sample.
TAIL = 0.025  # Chance below which held-out exemplars are said to beat a random order.
HALF = 0.5  # Share of the pool from which random samples are of the task themselves.
MANY = 0.25  # Share of the pool from which "as close as the exemplars" tells little.
TEXT_CHARACTERS = 60

_NOT_MEASURED = "Whether the pool holds this task is not measured for a random order."


@dataclass(frozen=True, slots=True)
class Sentence:
    """One finding, plain text.

    target:     the target task it is about, so that several can be told apart.
    is_warning: whether something should be changed or looked at.
    """

    topic: Topic
    target: str
    text: str
    is_warning: bool = False


class Figure(NamedTuple):
    """One number for a glance: what it is about, the number, and what it counts."""

    name: str
    value: str
    words: str


class Depth(NamedTuple):
    """Rank down to which a ranking is better than random, with its 80 % interval.

    is_deepest: no lower rank was examined.
    """

    rank: int
    low: int | None
    high: int | None
    is_deepest: bool


@dataclass(frozen=True, slots=True)
class _Check:
    """A row of held_out_check with its selection's method, in the names of the columns."""

    target: str
    method: str
    n_exemplars: int
    n_folds: int | None
    n_rows: int
    n_ranked: int
    percentile: float | None
    percentile_lo: float | None
    percentile_hi: float | None
    p_random: float | None
    n_close: float | None
    n_close_lo: float | None
    n_close_hi: float | None
    n_examined: int | None
    depth: int | None
    depth_lo: int | None
    depth_hi: int | None
    n_picks: int | None
    n_beyond: int | None

    @property
    def beats_random(self) -> bool:
        """Whether random samples in the exemplars' place would hardly rank as high."""
        return self.p_random is not None and self.p_random <= TAIL

    @property
    def may_be_full(self) -> bool:
        """Whether the pool may be full of the task: its samples are as close as the exemplars."""
        return self.n_close is not None and (
            not self.beats_random or self.n_close > HALF * self.n_ranked
        )


_CHECKS = """
SELECT target, method, n_exemplars, n_folds, n_rows, n_ranked, percentile, percentile_lo,
    percentile_hi, p_random, n_close, n_close_lo, n_close_hi, n_examined, depth, depth_lo,
    depth_hi, n_picks, n_beyond
FROM held_out_check WHERE selection_id = ? ORDER BY target, method"""

_BETTER = """
SELECT count(*) FILTER (o.percentile > b.percentile), count(*)
FROM held_out_exemplar o JOIN held_out_exemplar b USING (selection_id, target, exemplar_id)
WHERE o.selection_id = ? AND o.target = ? AND o.method = ? AND b.method = 'bm25'"""

_NAMED = """
SELECT h.target, h.flag, h.percentile, c.percentile, h.near_share, h.nearest_share, h.exemplar_id,
    any_value(e.own_id), any_value(e.text)
FROM held_out_exemplar h JOIN selection s USING (selection_id)
LEFT JOIN held_out_check c ON c.selection_id = h.selection_id AND c.target = h.target
    AND c.method = h.method
LEFT JOIN exemplar e ON e.run_id = s.run_id AND e.exemplar_id = h.exemplar_id
    AND e.target = h.target
WHERE h.selection_id = ? AND h.flag IS NOT NULL
GROUP BY ALL ORDER BY h.target, h.flag, h.exemplar_id"""


def check_sentences(connection: Connection, selection_id: str) -> list[Sentence]:
    """What the check found for a selection, target by target, in the order in which to read it.

    Empty where no check was made: controls, runs that turned it off, runs of older versions.
    """
    sentences: list[Sentence] = []
    for own, by_method in _checks(connection, selection_id):
        check = by_method[own]
        better = connection.execute(_BETTER, [selection_id, check.target, check.method]).fetchall()[
            0
        ]
        sentences += [_contains(check), *_enough(check), _beats_random(by_method, check, better)]
    return sentences + _named(connection, selection_id)


def _checks(connection: Connection, selection_id: str) -> list[tuple[str, dict[str, "_Check"]]]:
    """The selection's own method and every method's row, target by target."""
    own = connection.execute(
        "SELECT method FROM selection WHERE selection_id = ?", [selection_id]
    ).fetchall()
    rows = [_Check(*row) for row in connection.execute(_CHECKS, [selection_id]).fetchall()]
    return [
        (own[0][0], {row.method: row for row in rows if row.target == target})
        for target in dict.fromkeys(row.target for row in rows)
    ]


def check_figures(connection: Connection, selection_id: str) -> tuple[list[Figure], Depth | None]:
    """What the check of a selection for one target says in a glance; ([], None) for others.

    A figure that the check calls worthless is left out: its sentence says why.
    """
    checks = _checks(connection, selection_id)
    if len(checks) != 1:
        return [], None
    ((own, by_method),) = checks
    check, figures = by_method[own], []
    if check.n_close is not None and check.beats_random:
        interval = ""
        if check.n_close_lo is not None:
            interval = f" (95 % interval {_count(check.n_close_lo)} to {_count(check.n_close_hi)})"
        words = f"samples are as close to the exemplars as these are to each other{interval}"
        figures.append(Figure("In the pool", f"about {_count(check.n_close)}", words))
    if check.percentile is not None:
        words = f"of the pool ranks below a held-out exemplar ({_median_of(check)})"
        if own != "bm25" and "bm25" in by_method:
            words += f"; by BM25 {_digits(by_method['bm25'].percentile or 0)} %, by chance 50 %"
        figures.append(Figure("Held-out exemplars", f"{_digits(check.percentile)} %", words))
    if check.depth is None or check.n_examined is None or check.may_be_full:
        return figures, None
    is_deepest = check.n_examined <= check.depth < check.n_ranked
    depth = Depth(check.depth, check.depth_lo, check.depth_hi, is_deepest)
    words = (
        f"ranks{' or more' if is_deepest else ''} are better than random{_depth_interval(check)}"
    )
    figures.append(Figure("Ranking depth", f"{check.depth:,}", words))
    return figures, depth


def check_lines(workspace: Workspace, selection_id: str) -> list[str]:
    """The sentences of a selection as lines, from the published snapshot."""
    with open_snapshot(workspace) as connection:
        return in_lines(check_sentences(connection, selection_id))


def in_lines(sentences: Sequence[Sentence]) -> list[str]:
    """One line a sentence, warnings marked; the target in front where there are several."""
    several = len({sentence.target for sentence in sentences}) > 1
    return [
        f"{'! ' if each.is_warning else ''}{f'{each.target}: ' if several else ''}{each.text}"
        for each in sentences
    ]


def _contains(check: _Check) -> Sentence:
    """Is this in the pool."""
    if check.percentile is None:
        text = (
            "Whether the pool holds this task cannot be checked: a single exemplar cannot be held"
            " out and ranked by others. Give at least 5."
        )
        return Sentence("contains", check.target, text, is_warning=True)
    if check.n_close is None:  # the method is a random order
        return Sentence("contains", check.target, _NOT_MEASURED, is_warning=True)
    several = f"{check.n_exemplars} exemplars"
    if not check.beats_random:
        text = (
            "The exemplars cannot be told from the pool: held out, they rank no higher than random"
            f" samples of it may ({_percentiles(check)}; 50 % is chance). Either the pool is full"
            " of this task, or the exemplars have too little in common. Read some picks."
        )
        return Sentence("contains", check.target, text, is_warning=True)
    if round(check.n_close) == 0:
        up_to = "" if check.n_close_hi is None else f"; up to {_count(check.n_close_hi)} may be"
        text = (
            "The pool seems not to hold this very task: most held-out exemplars rank above every"
            " sample of it, so that about none is as close to the exemplars as these are to each"
            f" other (from {several}{up_to}). The picks are its nearest relatives."
        )
        return Sentence("contains", check.target, text, is_warning=True)
    how_sure = f"{several} are too few for an interval"
    if check.n_close_lo is not None:
        interval = f"{_count(check.n_close_lo)} to {_count(check.n_close_hi)}"
        how_sure = f"95 % interval {interval}, from {several}"
    text = (
        f"About {_count(check.n_close)} samples of the pool are as close to the exemplars as these"
        f" are to each other ({how_sure})."
    )
    is_vague = check.n_close > MANY * check.n_ranked
    if is_vague:
        text += (
            f" That is {percent(check.n_close / check.n_ranked)} of the pool: either it is full of"
            " this task, or the representation hardly tells the task from the rest. Read some"
            " picks."
        )
    return Sentence("contains", check.target, text, is_warning=is_vague)


def _enough(check: _Check) -> list[Sentence]:
    """How much is enough."""
    if check.depth is None or check.n_examined is None:
        return []
    if check.may_be_full:
        text = (
            "How far down the ranking is better than random cannot be told: random samples of this"
            " pool are as close to the exemplars as these are to each other."
        )
        return [Sentence("enough", check.target, text, is_warning=True)]
    until, picks, beyond = check.depth, check.n_picks or 0, check.n_beyond or 0
    if until == 0:
        text = (
            "Not even the best-ranked samples are closer to the exemplars than to random samples"
            " of the pool: this ranking is no better than a random choice."
        )
        return [Sentence("enough", check.target, text, is_warning=True)]
    if check.n_examined <= until < check.n_ranked:
        text = (
            f"The ranking is better than random at least down to rank {until:,} (the deepest rank"
            " examined): most samples there are closer to the exemplars than to random samples of"
            " the pool."
        )
    else:
        text = (
            f"The ranking is better than random down to about rank {until:,} of"
            f" {check.n_ranked:,}{_depth_interval(check)}: below it, most samples are no closer to"
            " the exemplars than to random samples of the pool."
        )
    if beyond:
        text += (
            f" The budget reaches beyond that: {beyond:,} of {picks:,} picks"
            f" ({percent(beyond / max(picks, 1))}) rank below it."
        )
    else:
        text += f" All {picks:,} picks are above that rank."
    return [Sentence("enough", check.target, text, is_warning=beyond > 0)]


def _beats_random(by_method: dict[str, _Check], check: _Check, better: tuple[int, int]) -> Sentence:
    """Did it beat random, and BM25."""
    if check.percentile is None:
        return Sentence(
            "beats_random",
            check.target,
            "There is no comparison with random order either: it needs at least 2 exemplars.",
        )
    beats = check.beats_random
    text = (
        f"A held-out exemplar ranks above {_percentiles(check)}"
        f"{'' if beats else ', which is not clearly better than random'}."
    )
    others = [
        f"by {name} {_digits(by_method[method].percentile or 0)} %"
        for method, name in (("bm25", "BM25"), ("random", "random order"))
        if method in by_method and method != check.method
    ]
    if others:
        listed = ", ".join(others)
        text += f" {listed[0].upper()}{listed[1:]}."
    n_better, n = better
    if n and check.method != "bm25":
        text += f" {n_better} of {n} exemplars rank higher than by BM25."
    if check.n_rows < check.n_ranked:
        text += f" Measured among {check.n_rows:,} samples drawn from {check.n_ranked:,}."
    return Sentence("beats_random", check.target, text, is_warning=not beats)


def _named(connection: Connection, selection_id: str) -> list[Sentence]:
    """Exemplars without a close match, or that most picks go back to."""
    sentences = []
    for row in connection.execute(_NAMED, [selection_id]).fetchall():
        target, flag, percentile, usual, near, nearest, exemplar_id, own_id, text = row
        flat = " ".join((text or "").split())
        begins = (
            f", \u201c{flat[:TEXT_CHARACTERS]}{'…' if len(flat) > TEXT_CHARACTERS else ''}\u201d"
        )
        name = f"Exemplar {own_id or exemplar_id[:12]}{begins if flat else ''}"
        what = {
            "apart": f"is unlike the others: held out, it ranks above {percentile or 0:.0f} % of"
            f" the pool, {_than(percentile or 0, usual)}. Is it of this target task?",
            "unmatched": f"has no close match: {percent(near or 0)} of the picks are closer to it"
            " than to random samples, and 5 % would be by chance.",
            "dominates": f"dominates: it is the nearest exemplar of {percent(nearest or 0)} of the"
            " picks.",
        }[flag]
        sentences.append(Sentence("exemplar", target, f"{name}, {what}", is_warning=True))
    return sentences


def _than(percentile: float, usual: float | None) -> str:
    """How an odd exemplar compares; usual: the median of all of them."""
    if percentile <= RANDOM or usual is None:
        return "no better than a random sample"
    return f"the median exemplar above {_digits(usual)} %"


def _percentiles(check: _Check) -> str:
    if check.percentile is None:
        return "an unknown share of the pool"
    return f"{_digits(check.percentile)} % of the pool ({_median_of(check)})"


def _median_of(check: _Check) -> str:
    interval = ""
    if check.percentile_lo is not None and check.percentile_hi is not None:
        low, high = _digits(check.percentile_lo), _digits(check.percentile_hi)
        interval = f"; 95 % interval {low} to {high}"
    return f"median of {check.n_exemplars}{interval}"


def _depth_interval(check: _Check) -> str:
    if check.depth_lo is None or check.depth_hi is None:
        return ""
    return f" (80 % interval {_count(check.depth_lo)} to {_count(check.depth_hi)})"


def _digits(percentile: float) -> str:
    """One decimal near 100, where it matters; never 100 for what is less."""
    if percentile < 95:
        return f"{percentile:.0f}"
    return "100" if percentile == 100 else f"{min(percentile, 99.9):.1f}"


def _count(n: float | None) -> str:
    """Two digits that mean something."""
    if n is None:
        return "0"
    whole = round(n)
    return f"{whole:,}" if whole < 100 else f"{round(whole, 2 - len(str(whole))):,}"
