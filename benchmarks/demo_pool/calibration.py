"""Short chat samples over many topics, from which a representation's numeric unit is calibrated.

A third is written by hand, the rest comes from the families of the pool under another seed.
"""

from random import Random

from benchmarks.demo_pool.calibration_text import PAIRS
from benchmarks.demo_pool.families import TEMPLATES
from benchmarks.demo_pool.rows import turn

N_TEXTS = 160


def calibration_rows(seed: int) -> list[dict[str, object]]:
    """`N_TEXTS` rows of messages, in a fixed mixed order."""
    rng = Random(f"{seed}/calibration")
    rows: list[dict[str, object]] = [
        {"messages": [turn("user", prompt), turn("assistant", answer)]} for prompt, answer in PAIRS
    ]
    families = sorted(TEMPLATES)
    for number in range(N_TEXTS - len(rows)):
        draft = rng.choice(TEMPLATES[families[number % len(families)]])(rng)
        row: dict[str, object] = {"messages": draft.messages}
        if draft.tools is not None:
            row["tools"] = draft.tools
        rows.append(row)
    rng.shuffle(rows)
    return rows
