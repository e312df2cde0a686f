"""The latents of a target task as the report shows them: what they carry, and where they fire."""

import json
from typing import NamedTuple

from selection.plain_text import turn_texts
from storage.database import Connection
from storage.read import described
from storage.reason_words import Spot, full_words, reason_words, visible
from storage.report_records import Context, TargetLatent
from storage.rows import SelectionRow

SHOWN = 12  # per target task
EXAMPLES = 2  # per latent, of different samples
BEFORE, AFTER = 44, 28  # characters around an example's token

_LATENTS = f"""
SELECT t.target, coalesce(t.term, d.description), t.latent, t.space, t.share, t.n_exemplars,
    t.pool_share, coalesce(c.carried, 0)
FROM target_latent t JOIN run r USING (run_id)
{described("t")}
LEFT JOIN (
    SELECT p.target, w.space, w.latent, sum(w.share) / any_value(n.n) AS carried
    FROM why w
    JOIN (SELECT x.selection_id, x.example_id, coalesce(x.target, s.target) AS target
        FROM pick x JOIN selection s USING (selection_id)) p USING (selection_id, example_id)
    JOIN (SELECT coalesce(x.target, s.target) AS target, count(*) AS n
        FROM pick x JOIN selection s USING (selection_id)
        WHERE x.selection_id = $1 GROUP BY 1) n ON n.target = p.target
    WHERE w.selection_id = $1 AND coalesce(w.nearness, 1) = 1 AND w.latent >= 0
    GROUP BY ALL) c ON c.target = t.target AND c.space = t.space AND c.latent = t.latent
WHERE t.run_id = $2 AND t.place <= $3 AND t.target IN (
    SELECT coalesce(x.target, s.target) FROM pick x JOIN selection s USING (selection_id)
    WHERE x.selection_id = $1)
ORDER BY t.target, t.place"""

_EXAMPLES = """
SELECT f.space, f.latent, p.rank, f.turn, f.first_char, f.end_char, x.messages
FROM (FROM fired WHERE selection_id = $1 AND turn IS NOT NULL
    QUALIFY row_number() OVER (PARTITION BY space, latent, example_id
        ORDER BY strength DESC, turn, first_char) = 1) f
JOIN pick p ON p.selection_id = f.selection_id AND p.example_id = f.example_id
JOIN sample x ON x.example_id = f.example_id
QUALIFY row_number() OVER (PARTITION BY f.space, f.latent
    ORDER BY f.strength DESC, p.rank) <= $2
ORDER BY f.space, f.latent, f.strength DESC, p.rank"""


def target_latents(connection: Connection, chosen: SelectionRow) -> list[TargetLatent]:
    """What the exemplars of a selection's target tasks are made of, in order of target and place.

    Empty for methods without latents, and for runs of older versions.
    """
    if chosen.method != "jaccard":
        return []
    key = chosen.selection_id
    rows = connection.execute(_LATENTS, [key, chosen.run_id, SHOWN]).fetchall()
    examples: dict[tuple[str, int], list[Context]] = {}
    fired: dict[tuple[str, int], list[_Fired]] = {}
    found = connection.execute(_EXAMPLES, [key, EXAMPLES]).fetchall() if rows else []
    for space, latent, rank, turn, first, end, messages in found:
        texts = turn_texts(json.loads(messages))
        if turn < len(texts):
            one = _Fired(rank, texts[turn], first, end)
            examples.setdefault((space, latent), []).append(_context(one))
            fired.setdefault((space, latent), []).append(one)
    exemplars = _exemplar_texts(connection, chosen.run_id) if rows else {}
    latents = []
    for target, text, latent, space, share, n_exemplars, pool_share, carried in rows:
        here = fired.get((space, latent), ())
        turns = [one.text for one in here] or exemplars.get(target, [])
        places = [Spot(n, one.first, one.end) for n, one in enumerate(here)]
        worded = reason_words(space, latent, text, turns, places)
        latents.append(
            TargetLatent(
                target,
                full_words(space, text, worded) if text else f"latent {latent}",
                latent,
                space,
                bool(text),
                share,
                n_exemplars,
                pool_share,
                carried,
                examples.get((space, latent), []),
            )
        )
    return latents


class _Fired(NamedTuple):
    """A token of a pick on which a latent is active, in its turn's text."""

    rank: int
    text: str
    first: int
    end: int


def _exemplar_texts(connection: Connection, run_id: str) -> dict[str, list[str]]:
    """Texts of the turns of the exemplars of each target task."""
    texts: dict[str, list[str]] = {}
    rows = connection.execute(
        "SELECT target, messages FROM exemplar WHERE run_id = ? AND messages IS NOT NULL"
        " ORDER BY rowid",
        [run_id],
    )
    for target, messages in rows.fetchall():
        texts.setdefault(target, []).extend(turn_texts(json.loads(messages)))
    return texts


def _context(fired: _Fired) -> Context:
    """The token with the text around it on one line."""
    rank, text, first, end = fired
    before, after = text[max(0, first - BEFORE) : first], text[end : end + AFTER]
    return Context(rank, visible(before), visible(text[first:end]), visible(after))
