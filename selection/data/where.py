"""`where`: one boolean SQL expression over a pool's columns, in polars' dialect.

It sees the roles (own_id, source, file, "row", licence, language, "group"), n_chars, and every
top-level column of the raw rows; a role hides a raw column of the same name. How a raw column
is read follows from what the whole pool holds in it, never from a batch: booleans, integers and
numbers as such; texts that all spell numbers (CSV has nothing else) as numbers where the
expression compares them with numbers, else as text; anything else as text, lists and objects as
JSON. A missing value is NULL, and a row for which the expression is NULL does not pass.
"""

import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass

import polars as pl
from polars.exceptions import PolarsError

from selection.core.errors import InputError

Kinds = Mapping[str, Mapping[str, int]]
"""Raw column -> kind of value -> how many; from `ColumnKinds.to_dict` over the whole pool."""

ROLE_TYPES: Mapping[str, type[pl.DataType]] = {
    "own_id": pl.String,
    "source": pl.String,
    "file": pl.String,
    "row": pl.Int64,
    "licence": pl.String,
    "language": pl.String,
    "group": pl.String,
    "n_chars": pl.Int64,
}
"""Columns that every pool has."""

_NODES = {"BinaryExpr", "Column", "Literal", "Cast", "Ternary", "Function"}
_FUNCTIONS = {"Boolean", "StringExpr", "ListExpr", "TemporalExpr", "Sql", "Pow", "Abs", "Sign"}
_FUNCTIONS |= {"Floor", "Ceil", "FillNull", "Coalesce", "MinHorizontal", "MaxHorizontal"}
# Members of these families that look at several rows. SQL leads to none of them today.
_NOT_BY_ROW = {"ConcatVertical", "Any", "All", "IsUnique", "IsDuplicated"}
_NOT_BY_ROW |= {"IsFirstDistinct", "IsLastDistinct"}
_NOT_BY_ROW |= {"PadStart", "PadEnd"}  # one number in them asks for any amount of memory
_MAX_CHARACTERS = 4_000
_MAX_REPLACED = 8  # REPLACE in REPLACE multiplies the length of a text
_MAX_CHOICES = 256  # ways to read texts that spell numbers, tried in order


@dataclass(frozen=True, slots=True)
class Where:
    """An expression that parses and looks at one row at a time; its columns are not known yet.

    text:       as the user wrote it.
    expression: as polars reads it.
    names:      the columns it mentions, sorted.
    """

    text: str
    expression: pl.Expr
    names: tuple[str, ...]

    def bind(self, kinds: Kinds) -> "BoundWhere":
        """Find the columns in a pool, and how they are to be read.

        Raises InputError for a column that the pool does not have, and for types that do not fit.
        """
        for name in self.names:
            if name not in ROLE_TYPES and name not in kinds:
                raise _unknown(self.text, name, kinds)
        choices = [_types_of(name, kinds) for name in self.names]
        problem = ""
        for types in itertools.islice(itertools.product(*choices), _MAX_CHOICES):
            schema = dict(zip(self.names, types, strict=True))
            try:
                result = pl.DataFrame(schema=schema).select(where=self.expression)
            except PolarsError as error:
                problem = problem or str(error).splitlines()[0]
                continue
            if result.schema["where"] in (pl.Boolean, pl.Null):
                return BoundWhere(self.text, self.expression, schema)
            problem = problem or f"it gives {result.schema['where']}, not true or false"
        raise _mistyped(self, problem, kinds)


@dataclass(frozen=True, slots=True)
class BoundWhere:
    """A `where` that knows the pool's columns.

    schema: the type in which every column is read.
    """

    text: str
    expression: pl.Expr
    schema: Mapping[str, type[pl.DataType]]

    @property
    def columns(self) -> list[str]:
        """Columns of the prepared pool that `passes` needs: roles, and `raw` if any is raw."""
        roles = [name for name in self.schema if name in ROLE_TYPES]
        return roles if len(roles) == len(self.schema) else [*roles, "raw"]

    def passes(self, batch: pl.DataFrame) -> pl.Series:
        """Which rows pass: Boolean without nulls, one per row of `batch`.

        batch: occurrences with at least `columns`. Raises InputError where a cast of the user's
        fails on a value.
        """
        read = [_read_column(name, dtype) for name, dtype in self.schema.items()]
        try:
            values = batch.select(read).select(where=self.expression)["where"]
        except PolarsError as error:
            raise InputError(
                f"the expression fails on the pool's values ({_first_lines(error)})",
                field="where",
                value=self.text,
                remedy="TRY_CAST gives NULL where CAST fails.",
            ) from None
        passed = values.cast(pl.Boolean).fill_null(False)
        if not self.schema:  # an expression without columns, such as 1 = 1
            return passed.new_from_index(0, batch.height)
        return passed


def compile_where(text: str) -> Where:
    """Parse a `where`. Raises InputError unless it is one expression about single rows."""
    if len(text) > _MAX_CHARACTERS or text.upper().count("REPLACE") > _MAX_REPLACED:
        raise InputError(
            f"longer than {_MAX_CHARACTERS:,} characters, or more than {_MAX_REPLACED} REPLACE",
            field="where",
            value=text[:60],
            remedy="Compute a column in the pool's file and ask for that.",
        )
    try:
        pl.sql_expr(f"({text}\n)")  # polars 1 may stop where an expression ends
        expression = pl.sql_expr(text)
        tree = json.loads(expression.meta.serialize(format="json"))
        names = tuple(sorted(set(expression.meta.root_names())))
    except (PolarsError, ValueError, RecursionError) as error:
        raise InputError(
            f"not an SQL expression ({_first_lines(error)})",
            field="where",
            value=text,
            remedy="Write e.g. licence = 'MIT' AND n_chars < 8000; a column whose name is a word of"
            ' SQL stands in double quotes ("group"), a text in single ones.',
        ) from None
    if strange := _not_by_row(tree):
        raise InputError(
            f"an expression about single rows, without padding, is needed, but this uses {strange}",
            field="where",
            value=text,
            remedy="Leave out sub-queries, windows and aggregates such as COUNT and MAX.",
        )
    return Where(text, expression, names)


def _not_by_row(node: object) -> str:
    """The first part of an expression that is not computed row by row; "" if there is none.

    node: an expression as polars serializes it: {kind: {parts}}, or just a kind. What is not
    known to be computed by row counts as not.
    """
    if isinstance(node, str):
        return node
    if not isinstance(node, dict) or len(node) != 1:
        return "something unknown"
    kind, body = next(iter(node.items()))
    if kind not in _NODES:
        return str(kind)
    if kind in ("Column", "Literal"):
        return ""
    parts = body.get("input", []) if kind == "Function" else _operands(body)
    if kind == "Function" and (strange := _strange_function(body["function"])):
        return strange
    return next((name for part in parts if (name := _not_by_row(part))), "")


def _strange_function(function: object) -> str:
    """The name of a function unless it is known to look at one row; {family: member} or a name."""
    family, member = function, None
    if isinstance(function, dict):
        family, member = next(iter(function.items()))
    name = next(iter(member)) if isinstance(member, dict) else member
    if family in _FUNCTIONS and name not in _NOT_BY_ROW:
        return ""
    return str(family if family not in _FUNCTIONS else name)


def _operands(body: dict[str, object]) -> list[object]:
    keys = ("left", "right", "expr", "predicate", "truthy", "falsy")
    return [body[key] for key in keys if key in body]


def _types_of(name: str, kinds: Kinds) -> list[type[pl.DataType]]:
    """Types in which a column can be read, the preferred one first."""
    if name in ROLE_TYPES:
        return [ROLE_TYPES[name]]
    seen = {kind for kind, n in kinds[name].items() if n}
    if not seen:
        return [pl.String, pl.Float64, pl.Boolean]
    if seen == {"boolean"}:
        return [pl.Boolean]
    if seen == {"integer"}:
        return [pl.Int64]
    if seen <= {"integer", "number"}:
        return [pl.Float64]
    if seen <= {"integer", "number", "number_text", "empty_text"} and seen != {"empty_text"}:
        return [pl.Float64, pl.String]
    return [pl.String]


def _read_column(name: str, dtype: type[pl.DataType]) -> pl.Expr:
    """A column of a batch by its name, in its type."""
    if name in ROLE_TYPES:
        return pl.col(name).cast(dtype)
    quote = "'" if '"' in name else '"'
    text = pl.col("raw").str.json_path_match(f"$[{quote}{name}{quote}]")
    if dtype == pl.Boolean:
        return (text == "true").alias(name)
    return text.cast(dtype, strict=False).alias(name)


def text_of_column(batch: pl.DataFrame, name: str) -> list[str | None]:
    """A column of a batch of occurrences as text; raw columns are read out of `raw`."""
    texts: list[str | None] = batch.select(_read_column(name, pl.String)).to_series().to_list()
    return texts


def refuse_unknown_column(name: str, kinds: Kinds, field: str = "quotas.column") -> None:
    """Raise InputError for a column that neither is a role nor in the raw rows."""
    if name not in ROLE_TYPES and name not in kinds:
        known = [*ROLE_TYPES, *(column for column in kinds if column not in ROLE_TYPES)]
        raise InputError(
            "the pool has no such column",
            field=field,
            value=name,
            remedy=f"Columns: {', '.join(known)}.",
        )


def _unknown(text: str, name: str, kinds: Kinds) -> InputError:
    known = [*ROLE_TYPES, *(column for column in kinds if column not in ROLE_TYPES)]
    return InputError(
        f"the pool has no column `{name}`",
        field="where",
        value=text,
        remedy=f"Columns: {', '.join(known)}. A text stands in single quotes.",
    )


def _mistyped(where: Where, problem: str, kinds: Kinds) -> InputError:
    held = "; ".join(f"{name} holds {_held(name, kinds)}" for name in where.names)
    return InputError(
        f"the expression does not fit its columns ({problem})",
        field="where",
        value=where.text,
        remedy=f"Here {held}. Text is compared with numbers as TRY_CAST(column AS DOUBLE) > 3."
        if held
        else "Write a condition, e.g. n_chars < 8000.",
    )


def _held(name: str, kinds: Kinds) -> str:
    if name in ROLE_TYPES:
        return "integers" if ROLE_TYPES[name] == pl.Int64 else "text"
    return " and ".join(kind.replace("_", " ") for kind in kinds[name]) or "nothing"


def _first_lines(error: Exception) -> str:
    return str(error).strip().splitlines()[0].rstrip(".")
