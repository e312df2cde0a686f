"""What of a source was read: columns, keys of messages, files; and what was not."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from selection.core.errors import shorten
from selection.data.containers.listing import Skipped
from selection.data.messages.contents import content_text
from selection.data.messages.names import CONTENT_LIKE, fold, role_of_column
from selection.data.messages.problems import Example
from selection.data.shapes.columns import ROLES

_SHOWN = 60  # characters of an example value
_MAX_COLUMNS = 1000  # columns kept track of in one file; rows may use data as column names


@dataclass
class FileCoverage:
    """What was read of the rows of one file, or of several that are alike.

    shapes: shape -> rows that were read in it.
    used:   columns that were read.
    values: column -> its first value that is not empty, shortened.
    looks:  column that looks like text of the conversation, was not read, and says what no turn
            says -> rows in which it does.
    keys:   key of messages that is kept but not read -> its first value, shortened.
    missing: column -> cells that spell a missing value and were read as empty.
    """

    file: str
    n_rows: int = 0
    n_files: int = 1
    shapes: Counter[str] = field(default_factory=Counter)
    used: set[str] = field(default_factory=set)
    values: dict[str, str] = field(default_factory=dict)
    looks: Counter[str] = field(default_factory=Counter)
    keys: dict[str, str] = field(default_factory=dict)
    missing: Counter[str] = field(default_factory=Counter)

    def add(self, row: Mapping[str, object], examples: Sequence[Example]) -> None:
        """Count one row, and what of it was read."""
        self.n_rows += 1
        for name, value in row.items():
            is_new = name not in self.values and len(self.values) < _MAX_COLUMNS
            if is_new and value not in (None, "", [], {}):
                self.values[name] = shorten(value, _SHOWN)
        for example in examples:
            if not example.used <= self.used:
                self.used |= example.used
            for key in sorted(example.unread - self.keys.keys()):
                held = next(m[key] for m in example.messages if key in m)
                self.keys[key] = shorten(held, _SHOWN)
        if examples and (names := _content_like(tuple(row))):
            self._look_at(row, names, examples)

    def _look_at(
        self, row: Mapping[str, object], names: tuple[str, ...], examples: Sequence[Example]
    ) -> None:
        texts: list[str] | None = None
        for name in names:
            value = row[name]
            if name in examples[0].used or not _may_be_text(name, value):
                continue
            if texts is None:
                texts = [content_text(m) for example in examples for m in example.messages]
            values = value if isinstance(value, list) else [value]
            held = [item.strip() for item in values if isinstance(item, str)]
            repeats = any(item in text for item in held for text in texts)
            self.looks[name] += not repeats

    @property
    def unused(self) -> list[str]:
        """Columns that no row's conversation and no role was read from, in their order."""
        return [name for name in self.values if name not in self.used]

    def kind(self) -> tuple[object, ...]:
        """What files that stand on one line have in common."""
        looks = tuple(sorted(name for name, n in self.looks.items() if n))
        return (
            tuple(sorted(self.shapes)),
            tuple(sorted(self.used)),
            tuple(sorted(self.unused)),
            looks,
            tuple(sorted(self.keys)),
            tuple(sorted(self.missing)),
        )

    def merge(self, other: "FileCoverage") -> None:
        """Add the rows of a file of the same kind."""
        self.n_rows += other.n_rows
        self.n_files += other.n_files
        self.shapes.update(other.shapes)
        self.looks.update(other.looks)
        self.missing.update(other.missing)


@lru_cache(maxsize=4096)
def _content_like(columns: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name for name in columns if role_of_column(name) is not None)


def _may_be_text(name: str, value: object) -> bool:
    """Whether a value under such a name says something; a name that only ends so needs words."""
    if value in (None, "", [], {}, "[]", "{}"):
        return False
    if role_of_column(name) == "turns" and isinstance(value, int | float):
        return False  # how many there are
    if isinstance(value, list) and fold(name) not in CONTENT_LIKE:
        return any(isinstance(item, dict) or _has_words(item) for item in value)
    return fold(name) in CONTENT_LIKE or _has_words(value)


def _has_words(value: object) -> bool:
    return isinstance(value, str) and " " in value.strip()


@dataclass
class ReadReport:
    """What reading a source left unread: filled while it is read.

    files:   coverage of every file, in order.
    skipped: files of folders that were not read.
    """

    files: list[FileCoverage] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)

    def start(self, file: str, columns: Mapping[str, str]) -> FileCoverage:
        """Coverage of the next file; the columns of roles count as read."""
        coverage = FileCoverage(file, used={columns.get(role, role) for role in ROLES})
        self.files.append(coverage)
        return coverage

    def lines(self) -> list[str]:
        """Sentences for people: what was read of which files, what was not, and warnings."""
        kinds: dict[tuple[object, ...], FileCoverage] = {}
        for file in self.files:
            if (known := kinds.get(file.kind())) is None:
                kinds[file.kind()] = FileCoverage(
                    **{
                        **vars(file),
                        "shapes": Counter(file.shapes),
                        "looks": Counter(file.looks),
                        "missing": Counter(file.missing),
                    }
                )
            else:
                known.merge(file)
        lines = [line for coverage in kinds.values() for line in _lines_of(coverage)]
        return lines + _skipped_lines(self.skipped)


def _lines_of(coverage: FileCoverage) -> list[str]:
    name = coverage.file
    if coverage.n_files > 1:
        name = f"{name} and {coverage.n_files - 1:,} more like it"
    shapes = ", ".join(f"{n:,} as {shape}" for shape, n in coverage.shapes.most_common() if n)
    read = [column for column in coverage.values if column in coverage.used]
    lines = [
        f"{name}: {coverage.n_rows:,} rows, {shapes or 'none read'};"
        f" columns read: {', '.join(read) or 'none'}"
    ]
    if coverage.unused:
        shown = (f"{column} (e.g. {coverage.values[column]})" for column in coverage.unused[:12])
        more = f" and {len(coverage.unused) - 12} more" if len(coverage.unused) > 12 else ""
        lines.append(f"  columns not read: {', '.join(shown)}{more}")
    if coverage.keys:
        shown = (f"{key} (e.g. {value})" for key, value in coverage.keys.items())
        lines.append(f"  keys of messages kept, but not read: {', '.join(shown)}")
    for column, n in coverage.missing.items():
        lines.append(
            f"  warning: {n:,} cells of `{column}` say nan, None or the like: read as empty"
        )
    for column, n in coverage.looks.items():
        if n and column not in ROLES:
            lines.append(
                f"  warning: `{column}` looks like a part of the conversation and is not"
                f" read in {n:,} rows (e.g. {coverage.values.get(column, '')})"
                f"{_config_line(column, coverage.values.get(column, ''))}"
            )
    if len([n for n in coverage.shapes.values() if n]) > 1:
        lines.append("  warning: rows of several shapes stand in one file; each is read in its own")
    return lines


def _config_line(column: str, example: str) -> str:
    role = role_of_column(column)
    if role == "response" and example.startswith(("['", '["')):
        mapped = f"columns: {{prompt: PROMPT, response: {column}}}"
        return f"; `{mapped}` with `answers: first` would use it"
    if role in ("prompt", "response", "reasoning") and example.startswith(("[", "{")):
        return "; it holds no text: write it as one to use it"
    if role == "turns":
        return f"; `turns: {{column: {column}}}` would use it"
    if role in ("system", "reasoning"):
        return f"; `columns: {{{role}: {column}}}` would use it"
    if role == "prompt":
        return f"; `columns: {{prompt: PROMPT+{column}, response: ANSWER}}` would use it"
    if role == "response":
        return f"; `columns: {{prompt: PROMPT, response: {column}}}` would use it"
    if role == "rejected":
        return f"; `columns: {{prompt: PROMPT, response: ANSWER, rejected: {column}}}` would use it"
    return "; it is read as a key of each message, or not at all"


def _skipped_lines(skipped: Sequence[Skipped]) -> list[str]:
    by_reason: dict[str, list[str]] = {}
    for item in skipped:
        by_reason.setdefault(item.why, []).append(item.name)
    return [
        f"not read, {why}: {len(names):,} files ({', '.join(names[:3])}"
        f"{', …' if len(names) > 3 else ''})"
        for why, names in by_reason.items()
    ]
