"""How far word matching gets on the demo pool: `python -m benchmarks.demo_pool.measure`.

For each family, rows that are not in the pool are the queries; a candidate's score is the mean of
its BM25 scores (bm25s, Lucene form); printed is the share of the right family in the top 100. The
same for the targets of `exemplars.jsonl`. The last line is one JSON object.
"""

import json
from collections.abc import Sequence
from random import Random

import bm25s
import numpy as np
from numpy.typing import NDArray

from benchmarks.demo_pool.build import SEED, messages_of, pool_rows
from benchmarks.demo_pool.exemplars import TARGETS
from benchmarks.demo_pool.families import COUNTS, TEMPLATES
from benchmarks.demo_pool.rows import text_of
from selection.baselines import words
from selection.ids import canonical_json

N_QUERIES = 8
TOP = 100
BAR = 0.8


def held_out(family: str, known: set[str], seed: int = SEED + 1) -> list[str]:
    """Texts of `N_QUERIES` samples of a family that are not in the pool."""
    rng = Random(f"{seed}/{family}/held-out")
    texts: list[str] = []
    while len(texts) < N_QUERIES:
        draft = rng.choice(TEMPLATES[family])(rng)
        if canonical_json(draft.messages) not in known:
            texts.append(text_of(draft))
    return texts


def share_in_top(scores: NDArray[np.float64], families: Sequence[str], family: str) -> float:
    """Share of `family` among the `TOP` best rows (fewer where the family is smaller)."""
    size = min(TOP, families.count(family))
    best = np.argsort(-scores, kind="stable")[:size]
    return sum(families[row] == family for row in best) / size


def mean_scores(index: bm25s.BM25, queries: Sequence[str]) -> NDArray[np.float64]:
    """Mean over the queries of the BM25 score of every indexed row, (n,)."""
    scores = [np.asarray(index.get_scores(words(query)), np.float64) for query in queries]
    return np.mean(scores, axis=0)


def measure() -> dict[str, dict[str, float]]:
    """Shares by family, for held-out rows and for the exemplars."""
    rows = list({canonical_json(row.draft.messages): row for row in pool_rows()}.values())
    known, families = messages_of(rows), [row.family for row in rows]
    texts = [text_of(row.draft) for row in rows]
    index = bm25s.BM25(method="lucene", k1=1.5, b=0.75)
    index.index([words(text) for text in texts], show_progress=False)
    queries = {family: held_out(family, known) for family in COUNTS}
    exemplars = {t: [f"{q}\n{a}" for q, a in pairs] for t, pairs in TARGETS.items()}
    return {
        name: {
            family: share_in_top(mean_scores(index, asked), families, family)
            for family, asked in by_family.items()
        }
        for name, by_family in (("held_out", queries), ("exemplars", exemplars))
    }


def main() -> None:
    """Print the table and the JSON line."""
    shares = measure()
    print(f"{'family':<22}{'rows':>6}{'held-out':>10}{'exemplars':>11}")
    for family, share in sorted(shares["held_out"].items(), key=lambda item: item[1]):
        exemplar = shares["exemplars"].get(family)
        shown = "" if exemplar is None else f"{exemplar:.2f}"
        print(f"{family:<22}{COUNTS[family]:>6}{share:>10.2f}{shown:>11}")
    below = {name: sum(x < BAR for x in by.values()) for name, by in shares.items()}
    print(f"families below {BAR}: {below['held_out']} (held-out), {below['exemplars']} (exemplars)")
    print(json.dumps({**shares, "below": below}))


if __name__ == "__main__":
    main()
