"""CSV and TSV files to raw rows: delimiter, quoting and encoding are detected or given."""

import csv
import itertools
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from selection.core.errors import InputError
from selection.data.containers.rows import RawRow
from selection.data.containers.streams import DataFile, open_text

_FIELD_LIMIT = 1 << 30  # characters of one field; the standard's 131,072 is short of long texts
_DELIMITERS = {".csv": ",;\t|", ".tsv": "\t,;|"}
_MISSING = frozenset(("nan", "NaN", "None", "<NA>", "NULL", "null", "NaT"))
"""What pandas and databases write for a missing value; in JSON it would be null."""

_SWALLOWED_LINES = 4  # lines of a field, each with all fields of a row, that are no coincidence
_SEPARATOR = re.compile(r'"?sep=([^"\r\n])"?\s*', re.I)
INDEX = "Unnamed: 0"
"""What a first column without a name is called: the index that pandas writes."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a table is written; None and "auto" are detected.

    quoting: standard (fields may be in double quotes, doubled inside them), backslash (which has a
             backslash before those inside) or none (a quotation mark is a character).
    """

    delimiter: str | None = None
    quoting: str = "auto"
    encoding: str | None = None


def iter_csv(file: DataFile, dialect: Dialect) -> Iterator[RawRow]:
    """Rows of a CSV or TSV file, every value a text; the header is not counted as a row.

    Raises InputError for a table that cannot be read, and for a quotation mark that swallows rows.
    """
    csv.field_size_limit(_FIELD_LIMIT)
    delimiter = dialect.delimiter or _delimiter(file, dialect)
    quoted = dialect.quoting in ("standard", "backslash") or (
        dialect.quoting == "auto" and _is_quoted(file, dialect, delimiter)
    )
    with _opened(file, dialect) as stream:
        reader = csv.reader(
            stream,
            delimiter=delimiter,
            strict=True,
            quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE,
            escapechar="\\" if dialect.quoting == "backslash" else None,
            doublequote=dialect.quoting != "backslash",
        )
        try:
            whole = next(filter(None, reader), [])
            header = _header(_named_part(whole), file.name)
            row, line = 0, reader.line_num
            for fields in reader:
                n_lines, line = reader.line_num - line, reader.line_num
                if not fields:
                    continue
                row += 1
                if quoted and n_lines > 1 and dialect.quoting == "auto":
                    _refuse_swallowed(fields, len(header), delimiter, file.name, line - n_lines + 1)
                while len(header) < len(fields) <= len(whole) and not fields[-1]:
                    del fields[-1]  # of a column without a name
                yield _row(fields, header, file.name, row, line)
        except csv.Error as error:
            raise _bad_table(file.name, reader.line_num, str(error)) from None


def _row(fields: list[str], header: list[str], name: str, row: int, line: int) -> RawRow:
    if len(fields) != len(header):
        problem = f"{len(fields)} fields, but the first line names {len(header)}"
        return RawRow(name, row, None, problem, line=line)
    if fields == header:
        problem = "the first line of names stands here again, as in joined files"
        return RawRow(name, row, None, problem, line=line)
    values: dict[str, object] = dict(zip(header, fields, strict=True))
    missing = tuple(key for key, field in values.items() if field in _MISSING)
    return RawRow(name, row, values, line=line, missing=missing)


def header_of(file: DataFile, dialect: Dialect) -> list[str]:
    """The columns that the first line names."""
    delimiter = dialect.delimiter or _delimiter(file, dialect)
    with _opened(file, dialect) as stream:
        first = next(filter(None, csv.reader(stream, delimiter=delimiter)), [])
        return _named(_named_part(first))


@contextmanager
def _opened(file: DataFile, dialect: Dialect) -> Iterator[Iterator[str]]:
    """The lines of a table; the line `sep=;` that spreadsheets put before it is made empty."""
    with open_text(file, dialect.encoding) as stream, _explained(file):
        first = next(stream, "")
        yield itertools.chain(["\n" if _SEPARATOR.fullmatch(first) else first], stream)


@contextmanager
def _explained(file: DataFile) -> Iterator[None]:
    try:
        yield
    except UnicodeDecodeError as error:
        around = error.object[max(0, error.start - 12) : error.start + 12]
        raise InputError(
            f"not readable as a table: not UTF-8 text ({error.reason})",
            file=file.name,
            field="encoding",
            value=around.decode("cp1252", "replace").strip(),
            remedy="If this text is right, set `encoding: cp1252`; else name the encoding that"
            " the file was saved in, or save it as UTF-8.",
        ) from None


def _delimiter(file: DataFile, dialect: Dialect) -> str:
    """The delimiter that gives the first line the most fields; the suffix's own wins a tie."""
    known = _DELIMITERS.get(file.suffix, _DELIMITERS[".csv"])
    with open_text(file, dialect.encoding) as stream, _explained(file):
        first = next(filter(str.strip, stream), "")
    if named := _SEPARATOR.fullmatch(first):
        return named[1]
    return max(known, key=lambda sign: (len(next(csv.reader([first], delimiter=sign), [])),))


def _is_quoted(file: DataFile, dialect: Dialect, delimiter: str) -> bool:
    """Whether quotation marks enclose fields.

    They do not where every line has all fields without regard to them, and a field begins with one
    that does not end it.
    """
    has_lone_mark = False
    with _opened(file, dialect) as stream:
        n_fields = len(next(filter(str.strip, stream), "").split(delimiter))
        for line in stream:
            fields = line.rstrip("\r\n").split(delimiter)
            if fields != [""] and len(fields) != n_fields:
                return True
            has_lone_mark = has_lone_mark or any(map(_is_lone_mark, fields))
    return not (has_lone_mark and n_fields > 1)


def _is_lone_mark(field: str) -> bool:
    """Whether a field begins with a quotation mark, but is no quoted field."""
    if not field.startswith('"'):
        return False
    inner = field[1:-1] if len(field) > 1 and field.endswith('"') else '"'
    return '"' in inner.replace('""', "").replace('\\"', "")


def _refuse_swallowed(
    fields: list[str], n_fields: int, delimiter: str, name: str, line: int
) -> None:
    """Refuse a field whose lines look like rows: a quotation mark without its partner opened it."""
    for field in fields:
        lines = field.splitlines()[1:] if "\n" in field else []
        is_row = [text.count(delimiter) == n_fields - 1 for text in lines]
        likely = len(lines) >= _SWALLOWED_LINES - 1 or (delimiter == "\t" and lines)
        if n_fields > 1 and likely and all(is_row):
            raise InputError(
                f"a quotation mark that opens a field here swallows {len(lines) + 1} rows",
                file=name,
                line=line,
                field="quoting",
                value=field[:60],
                remedy="Set `quoting: none` if quotation marks are characters of this file, or"
                " `quoting: standard` if the field is one text.",
            )


def _named_part(header: list[str]) -> list[str]:
    """The header without the empty columns that spreadsheets leave at its end."""
    n = len(header)
    while n and not header[n - 1].strip():
        n -= 1
    return header[:n]


def _named(header: list[str]) -> list[str]:
    """The header, a first column without a name named as pandas does when it reads its index."""
    if len(header) > 1 and not header[0].strip() and INDEX not in header:
        return [INDEX, *header[1:]]
    return header


def _header(header: list[str], name: str) -> list[str]:
    header = _named(header)
    wrong = [column for column in header if not column.strip() or header.count(column) > 1]
    if wrong or not header:
        raise InputError(
            "the first line must name every column once",
            file=name,
            line=1,
            field=wrong[0] if wrong else None,
            value=header,
            remedy="Add a first line such as `instruction,output`.",
        )
    return header


def _bad_table(name: str, line: int | None, problem: str) -> InputError:
    return InputError(
        f"not readable as a table: {problem}",
        file=name,
        line=line,
        remedy="Save it as UTF-8 with standard quoting, set `quoting: none` if quotation marks are"
        ' characters, or `quoting: backslash` if \\" stands for one, or convert it to JSONL.',
    )
