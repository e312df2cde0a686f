"""Why a sample is in a selection, or what would bring it in. Reads the snapshot and `scores/`."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from selection.core.errors import InputError
from selection.data.messages.normalize import turn_texts
from storage.audit.exclusions import (
    Change,
    RankedExample,
    Refusal,
    drop_of,
    refusal_of,
    row_in_pool,
)
from storage.catalog.connection import Connection
from storage.catalog.snapshot import open_snapshot
from storage.files.scores import find_rank, scores_file
from storage.files.workspace import Workspace
from storage.queries.lookup import SelectionRow, described, find_example, find_selection
from storage.wording.reasons import Span, full_words, reason_words


@dataclass(frozen=True, slots=True)
class NearExemplar:
    """An exemplar beside the sample, or the rest of them together (exemplar_id None).

    part: what it gives to a mean, in units of 2^-40; None for other reductions.
    """

    exemplar_rank: int
    exemplar_id: str | None
    n: int
    similarity: float | None
    numerator: int | None
    denominator: int | None
    part: int | None
    text: str | None


@dataclass(frozen=True, slots=True)
class SharedLatent:
    """One line of an explanation; latent -1 is the rest, -2 the generic latents together.

    description: the word or token as it is, or what a latent is described by.
    words:       the same on one line, a token with the word of the sample that it is a piece of.
    """

    exemplar_id: str
    space: str | None
    latent: int
    description: str | None
    contribution: int
    share: float | None
    pool_share: float | None
    words: str


@dataclass(frozen=True, slots=True)
class Standing:
    """What is recorded of one sample in one selection; all None where it was not ranked.

    standing:   pick, near miss, passed over (by a rule), ranked (further behind) or not ranked.
    rank:       in the order of the selection; score_rank: by score alone; None in older runs.
    reason, detail: what brought a pick in; None for others, and in older runs.
    """

    standing: str
    rank: int | None = None
    score_rank: int | None = None
    score: float | None = None
    text: str | None = None
    reason: str | None = None
    detail: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation(Standing):
    """Everything that is known about one sample and one selection.

    margin:  score minus the score at the cut; negative behind it.
    refusal: what kept any sample out that is no pick, and `change` the one change known to let it
             in.
    """

    selection: SelectionRow
    example_id: str
    margin: float | None
    reduction: str | None
    exemplars: Sequence[NearExemplar]
    latents: Sequence[SharedLatent]
    refusal: Refusal | None
    change: Change | None


def explain(workspace: Workspace, selection: str, example: str) -> Explanation:
    """Explain a sample's place in a selection.

    selection: name, id, prefix or `latest`. example: id, its beginning, or the data's own id; an
    example that no selection picked or nearly picked needs its whole id, or an own id of the pool.
    Raises InputError for unknown ones.
    """
    chosen = find_selection(workspace, selection)
    with open_snapshot(workspace) as connection:
        example_id = _example(connection, workspace, chosen, example)
        recorded = _standing(connection, workspace, chosen, example_id)
        exemplars = [
            NearExemplar(*row)
            for row in connection.execute(_EXEMPLARS, [chosen.selection_id, example_id]).fetchall()
        ]
        latents = _latents(connection, chosen, example_id)
        ((reduction,),) = connection.execute(
            "SELECT exemplar_reduction FROM selection WHERE selection_id = ?",
            [chosen.selection_id],
        ).fetchall()
        refusal, change, standing = None, None, recorded.standing
        if recorded.rank is None:
            refusal = drop_of(connection, workspace, chosen, example_id)
        elif standing != "pick":
            ranked = RankedExample(example_id, recorded.rank, recorded.score, recorded.score_rank)
            refusal, change = refusal_of(connection, workspace, chosen, ranked)
            standing = "passed over" if refusal.rule not in ("budget", "min_score") else standing
    cut = chosen.cut_score
    margin = recorded.score - cut if recorded.score is not None and cut is not None else None
    return Explanation(
        **asdict(replace(recorded, standing=standing)),
        selection=chosen,
        example_id=example_id,
        margin=margin,
        reduction=reduction,
        exemplars=exemplars,
        latents=latents,
        refusal=refusal,
        change=change,
    )


_EXEMPLARS = """
SELECT w.exemplar_rank, w.exemplar_id, w.n, w.similarity, w.numerator, w.denominator, w.part, e.text
FROM explanation_exemplar w JOIN selection s USING (selection_id)
LEFT JOIN (SELECT run_id, exemplar_id, any_value(text) AS text FROM exemplar GROUP BY ALL) e
    ON e.run_id = s.run_id AND e.exemplar_id = w.exemplar_id
WHERE w.selection_id = ? AND w.example_id = ? ORDER BY w.exemplar_rank"""

_LATENTS = f"""
SELECT w.exemplar_id, w.space, w.latent, coalesce(w.term, d.description), w.contribution,
    w.share, w.pool_share
FROM explanation w JOIN selection s USING (selection_id) JOIN run r USING (run_id)
{described("w")}
WHERE w.selection_id = ? AND w.example_id = ?
ORDER BY coalesce(w.exemplar_rank, 1), w.exemplar_id, w.position, w.latent < 0, w.contribution DESC,
    w.latent"""


_PLACES = """
SELECT space, latent, turn, first_char, end_char FROM token_activations
WHERE selection_id = ? AND example_id = ? AND turn IS NOT NULL
ORDER BY activation DESC, turn, first_char"""


def _latents(connection: Connection, chosen: SelectionRow, example_id: str) -> list[SharedLatent]:
    """Every line of the explanation, worded by the sample's own text where that is known."""
    key = [chosen.selection_id, example_id]
    texts = connection.execute(
        "SELECT messages FROM sample WHERE example_id = ?", [example_id]
    ).fetchall()
    turns = turn_texts(json.loads(texts[0][0])) if texts else []
    places: dict[tuple[str, int], list[Span]] = {}
    for space, latent, *span in connection.execute(_PLACES, key).fetchall():
        places.setdefault((space, latent), []).append(Span(*span))
    latents = []
    for row in connection.execute(_LATENTS, key).fetchall():
        _, space, latent, text, *_ = row
        label = reason_words(space, latent, text, turns, places.get((space, latent), ()))
        latents.append(SharedLatent(*[*row, full_words(space, text, label)]))
    return latents


_RECORDED = {
    "pick": "SELECT rank, score_rank, score, text, reason, detail FROM pick",
    "near miss": "SELECT rank, score_rank, score, text, NULL, NULL FROM near_miss",
}


def _standing(
    connection: Connection, workspace: Workspace, chosen: SelectionRow, example_id: str
) -> Standing:
    """Among picks, near misses, or in the file of all scores."""
    key = [chosen.selection_id, example_id]
    for name, query in _RECORDED.items():
        where = " WHERE selection_id = ? AND example_id = ?"
        rows = connection.execute(query + where, key).fetchall()
        if rows:
            return Standing(name, *rows[0])
    file = scores_file(workspace.scores, chosen.selection_id)
    if file.exists():
        ranked = find_rank(file, example_id)
        if ranked is not None:
            return Standing("ranked", *ranked)
    return Standing("not ranked")


def _example(
    connection: Connection, workspace: Workspace, chosen: SelectionRow, example: str
) -> str:
    """The example meant; a whole id is taken as it is, another name is looked for in the pool."""
    try:
        return find_example(workspace, example)
    except InputError:
        if len(example) == 32 and not set(example.lower()) - set("0123456789abcdef"):
            return example.lower()
        in_pool = row_in_pool(connection, workspace, chosen, example)
        if in_pool is None:
            raise
        return in_pool
