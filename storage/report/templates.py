"""The templates of the HTML pages, compiled once per installation.

Compiling them takes longer than everything else that a report does. So what jinja2 made of them is
kept where Python keeps what it made of our modules, and is trusted as far: in `__pycache__`.
"""

import sys
from functools import cache
from pathlib import Path

import jinja2
from jinja2.bccache import Bucket

from selection.core import numbers
from selection.core.errors import InputError
from storage.files.atomic import write_bytes

TEMPLATES = Path(__file__).parent / "templates"
_COMPILED = TEMPLATES / "__pycache__"


@cache
def page_environment() -> jinja2.Environment:
    """Templates with the formats that every page of ours uses.

    Whatever is written out is escaped, and controls of writing direction are spelled out.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_spelled,
        lstrip_blocks=True,
        bytecode_cache=CompiledTemplates(_COMPILED),
    )
    environment.filters |= {
        "count": numbers.count,
        "percent": lambda share: numbers.unbroken(numbers.percent(share)),
        "score": numbers.score,
        "moment": numbers.moment,
        "duration": lambda seconds: numbers.unbroken(numbers.duration(seconds)),
        "plural": numbers.plural,
    }
    return environment


class CompiledTemplates(jinja2.BytecodeCache):
    """Compiled templates in a folder; without the right to write there, nothing is kept."""

    def __init__(self, folder: Path) -> None:
        """folder: made at the first write."""
        self.folder = folder

    def get_source_checksum(self, source: str) -> str:
        """Of the template, of jinja2 and of this file: its options are compiled in, too."""
        made_with = f"{jinja2.__version__}\n{Path(__file__).read_text(encoding='utf-8')}\n"
        return super().get_source_checksum(made_with + source)

    def load_bytecode(self, bucket: Bucket) -> None:
        """Fill the bucket, unless the folder has nothing for it."""
        file = self._file(bucket)
        if file.is_file():
            bucket.bytecode_from_string(file.read_bytes())

    def dump_bytecode(self, bucket: Bucket) -> None:
        """Keep what was compiled, where Python may keep its own."""
        if not sys.dont_write_bytecode:
            try:
                write_bytes(self._file(bucket), bucket.bytecode_to_string())
            except (OSError, InputError):
                return  # the page is made all the same, only not faster next time

    def _file(self, bucket: Bucket) -> Path:
        return self.folder / f"{bucket.key}.{sys.implementation.cache_tag}.jinja"


def _spelled(value: object) -> object:
    """Plain text spelled out; what is markup already was made of such text."""
    return numbers.spelled(value) if type(value) is str else value
