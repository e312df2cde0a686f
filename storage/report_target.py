"""The latents of a target task as the report shows them: what they carry, and where they fire."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from selection.plain_text import turn_texts
from storage.database import Connection
from storage.read import described
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
    found = connection.execute(_EXAMPLES, [key, EXAMPLES]).fetchall() if rows else []
    for space, latent, rank, *place, messages in found:
        context = _context(rank, place, json.loads(messages))
        if context is not None:
            examples.setdefault((space, latent), []).append(context)
    return [
        TargetLatent(
            target,
            text or f"latent {latent}",
            latent,
            space,
            bool(text),
            share,
            n_exemplars,
            pool_share,
            carried,
            examples.get((space, latent), []),
        )
        for target, text, latent, space, share, n_exemplars, pool_share, carried in rows
    ]


def _context(
    rank: int, place: Sequence[int], messages: Sequence[Mapping[str, Any]]
) -> Context | None:
    """The token with the text around it on one line."""
    turn, first, end = place
    texts = turn_texts(messages)
    if turn >= len(texts):
        return None
    before, after = texts[turn][max(0, first - BEFORE) : first], texts[turn][end : end + AFTER]
    return Context(rank, _line(before), _line(texts[turn][first:end]), _line(after))


def _line(text: str) -> str:
    return text.replace("\n", "⏎").replace("\t", "⇥")
