"""Writes the demo pool, its exemplars and the calibration texts: `python -m benchmarks.demo_pool`.

All text is written here or put together by this package; nothing is taken from elsewhere. The
licences in the rows are examples that show the feature: everything is under the project's licence.
Same seed, same bytes.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from benchmarks.demo_pool.families import COUNTS, TEMPLATES
from benchmarks.demo_pool.rows import Draft
from selection.ids import canonical_json, example_id

SEED = 7
ROOT = Path(__file__).resolve().parents[2]
POOL = ROOT / "flows" / "demo" / "pool.jsonl"
EXEMPLARS = ROOT / "flows" / "demo" / "exemplars.jsonl"
CALIBRATION = ROOT / "selection" / "calibration" / "texts.jsonl"
DUPLICATE_SHARE = 0.02
SOURCES = (
    ("evening-school", "CC-BY-4.0"),
    ("harbor-desk", "Apache-2.0"),
    ("village-archive", "CC0-1.0"),
    ("tutor-notes", "CC-BY-SA-4.0"),
    ("market-letters", "CC-BY-NC-4.0"),
    ("workbench", "MIT"),
)
NOTES = ("checked twice", "shortened", "from a workshop", "needs a second look")


@dataclass(frozen=True, slots=True)
class PoolRow:
    """One row of the pool file and the draft it came from."""

    family: str
    draft: Draft
    value: dict[str, object]


def unique_drafts(seed: int, family: str, count: int) -> list[Draft]:
    """`count` different samples of a family, its templates in turn.

    Raises ValueError if a template cannot give enough different samples.
    """
    rng = Random(f"{seed}/{family}")
    templates, drafts, seen = TEMPLATES[family], [], set[str]()
    for number in range(count):
        for _ in range(200):
            draft = templates[number % len(templates)](rng)
            key = example_id(draft.messages, draft.tools)
            if key not in seen:
                break
        else:
            raise ValueError(f"{family}: template {draft.template} gives too few different samples")
        seen.add(key)
        drafts.append(draft)
    return drafts


def _row(rng: Random, family: str, draft: Draft, source: tuple[str, str]) -> dict[str, object]:
    row: dict[str, object] = {"id": "", "messages": draft.messages}
    if draft.tools is not None:
        row["tools"] = draft.tools
    row.update(licence=source[1], language=draft.language, source=source[0], group=draft.group)
    row["family"] = family
    if rng.random() < 0.25:
        row["quality"] = rng.randint(1, 5)
    if rng.random() < 0.02:
        row["note"] = rng.choice(NOTES)
    return row


def pool_rows(seed: int = SEED, counts: Mapping[str, int] = COUNTS) -> list[PoolRow]:
    """All rows in file order, duplicates under another source and licence included."""
    rng = Random(f"{seed}/rows")
    rows: list[PoolRow] = []
    for family, count in counts.items():
        weights = [rng.random() for _ in SOURCES]
        for draft in unique_drafts(seed, family, count):
            source = rng.choices(SOURCES, weights)[0]
            rows.append(PoolRow(family, draft, _row(rng, family, draft, source)))
    for copied in rng.sample(rows, round(DUPLICATE_SHARE * len(rows))):
        others = [s for s in SOURCES if s[1] != copied.value["licence"]]
        value = _row(rng, copied.family, copied.draft, rng.choice(others))
        rows.append(PoolRow(copied.family, copied.draft, value))
    rng.shuffle(rows)
    for number, row in enumerate(rows, 1):
        row.value["id"] = f"demo-{number:05d}"
    return rows


def lines(values: Iterable[Mapping[str, object]]) -> bytes:
    """JSONL in UTF-8, keys in the order given."""
    texts = (json.dumps(v, ensure_ascii=False, separators=(",", ":")) + "\n" for v in values)
    return "".join(texts).encode()


def files(seed: int = SEED) -> dict[Path, bytes]:
    """Path and bytes of every generated file."""
    from benchmarks.demo_pool.calibration import calibration_rows
    from benchmarks.demo_pool.exemplars import target_lines

    return {
        POOL: lines(row.value for row in pool_rows(seed)),
        EXEMPLARS: lines(target_lines()),
        CALIBRATION: lines(calibration_rows(seed)),
    }


def messages_of(rows: Sequence[PoolRow]) -> set[str]:
    """Canonical JSON of the messages of every row."""
    return {canonical_json(row.draft.messages) for row in rows}
