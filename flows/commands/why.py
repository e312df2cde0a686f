"""`saelect why SELECTION ID` in words: the place, the nearest exemplars, the shared latents."""

import json
import sys

from flows.commands.terminal import one_line, say, table_text
from storage.explanation import Explanation

SUMS = {-1: "all other", -2: "generic"}
REASONS = {
    "score": "for its score",
    "included": "because it is on the list of examples always to take",
    "floor": "to fill a floor",
    "diversity": "because it differs from what was chosen before; its score alone would not do",
}
"""Words for why a pick was taken; the keys are the names that stand in the data."""


def print_why(found: Explanation, n_exemplars: int) -> None:
    """Print an explanation; latents are shown beside the `n_exemplars` nearest exemplars."""
    say(f"{found.example_id} in {found.selection.name}: {_place(found)}")
    if found.text:
        say(f"  {one_line(found.text)}")
    if found.reason:
        told = f" ({found.detail})" if found.detail else ""
        say(f"Picked {REASONS.get(found.reason, found.reason)}{told}.")
    if found.refusal is not None:
        say(f"Not picked: {found.refusal.words} (`{found.refusal.rule}`).")
    if found.change is not None:
        new, old = (_as_yaml(value) for value in (found.change.value, found.change.old))
        say(f"It would be picked with `{found.change.key}: {new}` instead of `{old}`.")
    if found.exemplars:
        say("\nNearest exemplars" + _parts_note(found))
        rows = [
            (
                str(each.nearness) if each.exemplar_id else f"{each.n} others",
                "" if each.similarity is None else f"{each.similarity:.4f}",
                "" if each.part is None else f"{each.part:,}",
                (each.exemplar_id or "")[:12],
                one_line(each.text),
            )
            for each in found.exemplars
        ]
        header = ("nearness", "similarity", "part", "exemplar", "text")
        sys.stdout.write(table_text(header, rows, right={1, 2}))
    shown = list(dict.fromkeys(latent.exemplar_id for latent in found.latents))[:n_exemplars]
    for exemplar_id in shown:
        say(f"\nShared with exemplar {exemplar_id}; first what sets the sample apart")
        lines = [
            (
                latent.space or "",
                SUMS.get(latent.latent, str(latent.latent)),
                f"{latent.contribution:,}",
                "" if latent.share is None else f"{latent.share:.1%}",
                "" if latent.pool_share is None else f"{latent.pool_share:.1%}",
                latent.words,
            )
            for latent in found.latents
            if latent.exemplar_id == exemplar_id
        ]
        columns = (
            "space",
            "latent",
            "contribution",
            "share",
            "in pool",
            "token, or hint at a latent",
        )
        sys.stdout.write(table_text(columns, lines, right={1, 2, 3, 4}))
    if not found.latents:
        say(f"No latents are recorded for it; the method is {found.selection.method}.")


def _place(found: Explanation) -> str:
    if found.rank is None:
        return "not ranked; `saelect sql` on v_drops counts what was dropped before"
    behind = found.rank - found.selection.n_selected
    place = f"{found.standing}, rank {found.rank:,}"
    if found.standing == "passed over":  # It stands at the end of the order, behind all others.
        behind, place = 0, f"passed over, rank by score {found.score_rank or 0:,}"
    if found.score is not None:
        place += f", score {found.score:.6f}"
    if found.margin is not None:
        place += f", {found.margin:+.6f} from the cut"
    return place + (f" ({behind:,} ranks behind it)" if behind > 0 else "")


def _as_yaml(value: object) -> str:
    """A value as it would stand in a config, on one line; a long one is cut."""
    return one_line(value if isinstance(value, str) else json.dumps(value))


def _parts_note(found: Explanation) -> str:
    """How the parts make the score, where they do."""
    n = sum(each.n for each in found.exemplars)
    if any(each.part is None for each in found.exemplars):
        return f" (the score is their {found.reduction})"
    total = sum(each.part or 0 for each in found.exemplars)
    return f": the score is the sum of parts {total:,} / ({n} x 2^40)"
