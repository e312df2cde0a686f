"""The families of the pool and how many rows each has."""

from benchmarks.demo_pool import (
    arithmetic,
    coding,
    cooking,
    decoys,
    french,
    grammar,
    ideas,
    letters,
    measures,
    puzzles,
    reviews,
    science,
    sorting_desk,
    spanish,
    sql,
    support,
    texts,
    tool_use,
    translation,
    travel,
)
from benchmarks.demo_pool.rows import Template

_MODULES = (
    arithmetic, sql, reviews, translation, coding, texts, measures, puzzles, grammar, sorting_desk,
    letters, ideas, cooking, travel, science, support, spanish, tool_use,
    decoys, french,
)  # fmt: skip


def _collected() -> dict[str, tuple[Template, ...]]:
    """Templates of all modules by family; a family may have some in several modules."""
    families: dict[str, tuple[Template, ...]] = {}
    for module in _MODULES:
        for family, templates in module.TEMPLATES.items():
            families[family] = families.get(family, ()) + templates
    return families


TEMPLATES = _collected()
# The families with exemplars are the largest; a selection of 100 can then be right throughout.
COUNTS: dict[str, int] = {
    "word_problems": 190,
    "sql": 150,
    "sentiment": 190,
    "french_translation": 160,
    "german_translation": 110,
    "python_code": 150,
    "summaries": 150,
    "headlines": 100,
    "extraction": 110,
    "reading": 110,
    "claim_check": 110,
    "dates_and_times": 100,
    "units": 100,
    "logic_puzzles": 100,
    "word_games": 100,
    "grammar": 130,
    "routing": 110,
    "emails": 120,
    "brainstorming": 100,
    "stories": 100,
    "cooking": 110,
    "travel": 110,
    "science": 120,
    "support_chats": 110,
    "spanish": 100,
    "tool_use": 60,
    "review_writing": 120,
    "code_reading": 110,
    "exercise_writing": 60,
    "french_chat": 100,
}
