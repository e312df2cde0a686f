"""The families of the pool and how many rows each has."""

from benchmarks.demo_pool import arithmetic, reviews, sql, texts, translation
from benchmarks.demo_pool.rows import Template

TEMPLATES: dict[str, tuple[Template, ...]] = {
    **arithmetic.TEMPLATES,
    **sql.TEMPLATES,
    **reviews.TEMPLATES,
    **translation.TEMPLATES,
    **texts.TEMPLATES,
}
COUNTS: dict[str, int] = {family: 100 for family in TEMPLATES}
