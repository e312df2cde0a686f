"""Why a sample is in a selection, or what would bring it in. Reads the snapshot and `scores/`."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from selection.errors import InputError
from storage.database import Connection, open_snapshot
from storage.read import find_example, find_selection
from storage.rows import SelectionRow
from storage.workspace import Workspace


@dataclass(frozen=True, slots=True)
class NearExemplar:
    """An exemplar beside the sample, or the rest of them together (exemplar_id None).

    part: what it gives to a mean, in units of 2^-40; None for other reductions.
    """

    nearness: int
    exemplar_id: str | None
    n: int
    similarity: float | None
    numerator: int | None
    denominator: int | None
    part: int | None
    text: str | None


@dataclass(frozen=True, slots=True)
class SharedLatent:
    """One line of an explanation; latent -1 is the rest, -2 the generic latents together."""

    exemplar_id: str
    space: str | None
    latent: int
    description: str | None
    contribution: int
    share: float | None
    pool_share: float | None


@dataclass(frozen=True, slots=True)
class Change:
    """The smallest change of one config key that would have picked the sample."""

    key: str
    value: int | float
    old: int | float


@dataclass(frozen=True, slots=True)
class Explanation:
    """Everything that is known about one sample and one selection.

    standing: pick, near miss, ranked (further behind) or not ranked.
    margin:   score minus the score at the cut; negative behind it.
    """

    selection: SelectionRow
    example_id: str
    standing: str
    rank: int | None
    score: float | None
    margin: float | None
    text: str | None
    reduction: str | None
    exemplars: Sequence[NearExemplar]
    latents: Sequence[SharedLatent]
    change: Change | None


def explain(workspace: Workspace, selection: str, example: str) -> Explanation:
    """Explain a sample's place in a selection.

    selection: name, id, prefix or `latest`. example: id, its beginning, or the data's own id; an
    example that no selection picked or nearly picked needs its whole id.
    Raises InputError for unknown ones.
    """
    chosen = find_selection(workspace, selection)
    example_id = _example(workspace, example)
    with open_snapshot(workspace) as connection:
        standing, rank, score, text = _standing(connection, workspace, chosen, example_id)
        exemplars = [NearExemplar(*row) for row in connection.execute(
            _EXEMPLARS, [chosen.selection_id, example_id]).fetchall()]  # fmt: skip
        latents = [SharedLatent(*row) for row in connection.execute(
            _LATENTS, [chosen.selection_id, example_id]).fetchall()]  # fmt: skip
        ((reduction,),) = connection.execute(
            "SELECT exemplar_reduction FROM selection WHERE selection_id = ?",
            [chosen.selection_id],
        ).fetchall()
        change = None
        if rank is not None and standing != "pick":
            change = admitting_change(connection, chosen, rank)
    cut, known = chosen.cut_score, score is not None
    margin = score - cut if known and cut is not None and score is not None else None
    return Explanation(
        chosen, example_id, standing, rank, score, margin, text, reduction, exemplars, latents,
        change,
    )  # fmt: skip


_EXEMPLARS = """
SELECT w.nearness, w.exemplar_id, w.n, w.similarity, w.numerator, w.denominator, w.part, e.text
FROM why_exemplar w JOIN selection s USING (selection_id)
LEFT JOIN (SELECT run_id, exemplar_id, any_value(text) AS text FROM exemplar GROUP BY ALL) e
    ON e.run_id = s.run_id AND e.exemplar_id = w.exemplar_id
WHERE w.selection_id = ? AND w.example_id = ? ORDER BY w.nearness"""

_LATENTS = """
SELECT w.exemplar_id, w.space, w.latent, coalesce(w.term, d.description), w.contribution,
    w.share, w.pool_share
FROM why w JOIN selection s USING (selection_id) JOIN run r USING (run_id)
LEFT JOIN latent_description d ON d.sae = r.sae_sha256 AND d.latent = w.latent
    AND (w.space = r.hookpoint OR starts_with(w.space, r.hookpoint || '/'))
WHERE w.selection_id = ? AND w.example_id = ?
ORDER BY coalesce(w.nearness, 1), w.exemplar_id, w.place, w.latent < 0, w.contribution DESC,
    w.latent"""


def admitting_change(connection: Connection, chosen: SelectionRow, rank: int) -> Change | None:
    """The budget that reaches down to `rank`; None where a larger budget is not known to be enough.

    A ranking does not depend on the budget, so a budget that holds `rank` examples picks it. With
    quotas, diversity or near-duplicates the picks are not a prefix of the ranking, and of a token
    budget the tokens are known only as far as the near misses: then nothing is claimed.
    """
    budget, is_prefix = connection.execute(
        "SELECT s.budget, s.cut_score IS NOT NULL AND NOT EXISTS (FROM selection_drop d"
        " WHERE d.selection_id = s.selection_id AND d.stage <> 'rank')"
        " FROM selection s WHERE s.selection_id = ?",
        [chosen.selection_id],
    ).fetchall()[0]
    asked: Mapping[str, int | float] = json.loads(budget) if budget else {}
    if not is_prefix:
        return None
    if asked.get("examples"):
        return Change("budget.examples", rank, asked["examples"])
    if asked.get("fraction"):
        return Change("budget.fraction", _fraction(rank, chosen.n_eligible), asked["fraction"])
    found = connection.execute(
        "SELECT count(*), sum(tokens) FROM near_miss WHERE selection_id = ? AND rank <= ?",
        [chosen.selection_id, rank],
    ).fetchall()[0]
    if asked.get("tokens") and found[0] == rank - chosen.n_selected and chosen.n_tokens is not None:
        return Change("budget.tokens", chosen.n_tokens + int(found[1]), asked["tokens"])
    return None


def _fraction(rank: int, n_eligible: int) -> float:
    """The smallest decimal that, as written, is at least `rank` of `n_eligible`."""
    value = rank / n_eligible
    while int(Fraction(repr(value)) * n_eligible) < rank:
        value = math.nextafter(value, 1.0)
    return value


def _standing(
    connection: Connection, workspace: Workspace, chosen: SelectionRow, example_id: str
) -> tuple[str, int | None, float | None, str | None]:
    """(standing, rank, score, text) of an example in a selection."""
    for table, name in (("pick", "pick"), ("near_miss", "near miss")):
        found = connection.execute(
            f"SELECT rank, score, text FROM {table} WHERE selection_id = ? AND example_id = ?",
            [chosen.selection_id, example_id],
        ).fetchall()
        if found:
            return (name, *found[0])
    file = workspace.scores / f"{chosen.selection_id}.parquet"
    if file.exists():
        found = connection.execute(
            "SELECT rank, score, NULL FROM read_parquet(?) WHERE example_id = ?",
            [str(file), example_id],
        ).fetchall()
        if found:
            return ("ranked", *found[0])
    return ("not ranked", None, None, None)


def _example(workspace: Workspace, example: str) -> str:
    """The example meant; a whole id is taken as it is."""
    try:
        return find_example(workspace, example)
    except InputError:
        if len(example) == 32 and not set(example.lower()) - set("0123456789abcdef"):
            return example.lower()
        raise
