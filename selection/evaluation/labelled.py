"""A labelled pool and target tasks, for measuring how well rankings find what belongs to a target.

Pool columns: id, task, family, category, label_quality (`weak` = unjudged), instruction, input,
output. Targets, one JSON object a line: target, kind, category, tasks, families, exemplars[].
A pool is scored under its own ids: nothing is deduplicated, decontaminated or left out.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from selection.core.errors import InputError
from selection.core.hashing import content_id, file_sha256
from selection.evaluation.metrics import grade_pool

Rows = NDArray[np.int64]
RowScores = NDArray[np.float64]
Mask = NDArray[np.bool_]

Setting = Literal["full", "instance"]
SETTINGS: tuple[Setting, ...] = get_args(Setting)

_LABELS = ("task", "family", "category", "label_quality")
_TEXTS = ("instruction", "input", "output")
_TARGET_KEYS = ("target", "kind", "category", "tasks", "families", "exemplars")


@dataclass(frozen=True, slots=True)
class LabelledTarget:
    """One target task with its labels and exemplars."""

    name: str
    kind: str
    category: str
    tasks: tuple[str, ...]
    families: tuple[str, ...]
    exemplars: tuple[dict[str, Any], ...]

    @property
    def target_id(self) -> str:
        """Hash of labels and exemplars."""
        return content_id(
            [self.name, self.kind, self.category, self.tasks, self.families, self.exemplars]
        )

    def turns(self, setting: Setting) -> list[tuple[str, str]]:
        """(user turn, assistant turn) of each exemplar."""
        return [
            turns_of(row.get("instruction"), row.get("input"), row.get("output"), setting)
            for row in self.exemplars
        ]


@dataclass(frozen=True)
class LabelledPool:
    """n labelled rows in file order; texts stay in Arrow.

    sha256: of the file, and of the sub-pool's ids where there is one.
    """

    path: Path
    sha256: str
    table: pa.Table

    def __len__(self) -> int:
        """Number of rows."""
        return int(self.table.num_rows)

    @cached_property
    def ids(self) -> NDArray[np.str_]:
        """(n,) the rows' own ids."""
        return np.array(self.table["id"].to_pylist(), dtype=np.str_)

    @cached_property
    def id_order(self) -> NDArray[np.int64]:
        """(n,) rows in ascending order of id."""
        return np.argsort(self.ids, kind="stable").astype(np.int64)

    @cached_property
    def _labels(self) -> dict[str, NDArray[np.str_]]:
        return {
            name: np.array([value or "" for value in self.table[name].to_pylist()], dtype=np.str_)
            for name in _LABELS
        }

    def grades(self, target: LabelledTarget) -> NDArray[np.int8]:
        """(n,) relevance of each row for a target, -1 where unjudged."""
        labels = self._labels
        return grade_pool(
            labels["task"],
            labels["family"],
            labels["category"],
            labels["label_quality"] == "weak",
            tasks=target.tasks,
            families=target.families,
            target_category=target.category,
        )

    def match(self, occurrences_at: Callable[[Rows], pa.Table], n_examples: int) -> Rows:
        """(n,) prepared example of each labelled row; -1 where reading dropped the row.

        occurrences_at: example rows -> a table with `own_id` and `example_row`.
        """
        at = {name: row for row, name in enumerate(self.ids.tolist())}
        table = occurrences_at(np.arange(n_examples))
        examples = np.full(len(self), -1, np.int64)
        rows = [at[own_id] for own_id in table["own_id"].to_pylist()]
        examples[rows] = table["example_row"].to_numpy()
        return examples

    def example_order(self, examples: Rows) -> Rows:
        """Prepared examples in order of the first own id of each, so that ties go by own id.

        examples: of each labelled row, see `match`.
        """
        rows = examples[self.id_order]
        rows = rows[rows >= 0]
        _, first = np.unique(rows, return_index=True)
        return rows[np.sort(first)]

    def turns(
        self, setting: Setting, first: int = 0, n: int | None = None
    ) -> list[tuple[str, str]]:
        """(user turn, assistant turn) of `n` rows from row `first` on."""
        return _turns_of_table(self.table.slice(first, n), setting)

    def turns_at(self, setting: Setting, rows: Rows) -> list[tuple[str, str]]:
        """(user turn, assistant turn) of some rows, in their order."""
        return _turns_of_table(self.table.take(pa.array(rows)), setting)


def batches_of(n: int, size: int) -> list[Rows]:
    """Row numbers 0 to n - 1, `size` together."""
    return [np.arange(first, min(first + size, n)) for first in range(0, n, size)]


def spread_scores(scores: RowScores, examples: Rows) -> RowScores:
    """(n,) scores of labelled rows from scores of examples; a dropped row is below all."""
    lowest = min(scores.min(initial=0.0), 0.0) - 1.0
    return np.where(examples >= 0, scores[examples], lowest)


def _turns_of_table(table: pa.Table, setting: Setting) -> list[tuple[str, str]]:
    rows = zip(*(table[name].to_pylist() for name in _TEXTS), strict=True)
    return [turns_of(given, more, output, setting) for given, more, output in rows]


def turns_of(
    instruction: str | None, given: str | None, output: str | None, setting: Setting
) -> tuple[str, str]:
    """User and assistant turn.

    full: instruction, newline, input where there is any. instance: the input, or the instruction
    where the input is empty or white space. The assistant turn is the output in both.
    """
    instruction, given = instruction or "", given or ""
    if not given.strip():
        given = ""
    if setting == "instance":
        return given or instruction, output or ""
    return (f"{instruction}\n{given}" if given else instruction), output or ""


def as_messages(turns: tuple[str, str]) -> list[dict[str, str]]:
    """What models read: a user and an assistant message; an empty turn is left out."""
    roles = zip(("user", "assistant"), turns, strict=True)
    return [{"role": role, "content": text} for role, text in roles if text]


def as_text(turns: tuple[str, str]) -> str:
    """What lexical methods read: the turns joined by a newline, uncut."""
    return "\n".join(turns)


def read_labelled_pool(path: Path | str, subpool: Path | str | None = None) -> LabelledPool:
    """Read a labelled Parquet pool; with `subpool`, a file of one id per line, only those rows.

    Raises InputError for a missing file or column, and for ids that are unknown or repeated.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(
            "no such file", file=path, remedy="Give the labelled pool as one Parquet file."
        )
    try:
        known = pq.read_schema(path).names
    except pa.ArrowInvalid as error:
        raise InputError(
            f"not readable as Parquet ({error})",
            file=path,
            remedy="The labelled pool is one Parquet file.",
        ) from None
    wanted = ["id", *_LABELS, *_TEXTS]
    for name in wanted:
        if name not in known:
            raise InputError(
                "the labelled pool has no such column",
                file=path,
                field=name,
                value=known,
                remedy=f"It needs: {', '.join(wanted)}.",
            )
    table = pq.read_table(path, columns=wanted)
    table = table.set_column(0, "id", pc.cast(table["id"], pa.string()))
    _refuse_repeated(table, path)
    sha256 = file_sha256(path)
    if subpool is not None:
        table, sha256 = _only(table, Path(subpool), sha256)
    return LabelledPool(path, sha256, table)


def _refuse_repeated(table: pa.Table, path: Path) -> None:
    counts = pc.value_counts(table["id"])
    for pair in counts.filter(pc.greater(counts.field("counts"), 1)).slice(0, 1).to_pylist():
        raise InputError(
            "the id stands in several rows",
            file=path,
            field="id",
            value=pair["values"],
            remedy="A benchmark scores every row under its own id.",
        )


def _only(table: pa.Table, subpool: Path, sha256: str) -> tuple[pa.Table, str]:
    """The rows of a file of ids, in file order of the pool."""
    ids = read_ids(subpool, "subpool")
    unknown = sorted(set(ids) - set(table["id"].to_pylist()))
    if unknown or not ids:
        raise InputError(
            "no such id in the pool" if unknown else "holds no ids",
            file=subpool,
            value=unknown[0] if unknown else None,
            remedy="One id of the pool per line.",
        )
    kept = table.filter(pc.is_in(table["id"], pa.array(sorted(set(ids)))))
    return kept.combine_chunks(), content_id([sha256, sorted(set(ids))], n_hex=64)


def read_ids(path: Path, field: str) -> list[str]:
    """Ids of a file, one a line. Raises InputError, naming the option that gave the file."""
    try:
        return path.read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(
            f"cannot be read ({reason})", file=path, field=field, remedy="Give one id a line."
        ) from None


def read_labelled_targets(
    path: Path | str, wanted: Sequence[str] | None = None
) -> list[LabelledTarget]:
    """Read target tasks, all or the named ones, in file order. Raises InputError with its line."""
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise InputError(
            f"cannot be read ({error.strerror})", file=path, remedy="Give a file of target tasks."
        ) from None
    targets = [_target(path, n, line) for n, line in enumerate(lines, 1) if line.strip()]
    names = [target.name for target in targets]
    for name in wanted or ():
        if name not in names:
            raise InputError(
                "no such target", file=path, value=name, remedy=f"There are: {', '.join(names)}."
            )
    kept = [target for target in targets if wanted is None or target.name in wanted]
    if not kept or len(set(names)) < len(names):
        raise InputError(
            "a target stands in two lines" if kept else "there are no targets",
            file=path,
            remedy="One line per target task.",
        )
    return kept


def _target(path: Path, number: int, line: str) -> LabelledTarget:
    try:
        value = json.loads(line)
    except ValueError as error:
        raise InputError(
            f"not JSON ({error})", file=path, line=number, remedy="One target task a line."
        ) from None
    for key in _TARGET_KEYS:
        may_be_empty = key in ("tasks", "families")
        if not isinstance(value, dict) or not (value.get(key) or may_be_empty):
            raise InputError(
                "is missing or empty",
                file=path,
                line=number,
                field=key,
                remedy=f"A target needs: {', '.join(_TARGET_KEYS)}.",
            )
    return LabelledTarget(
        str(value["target"]),
        str(value["kind"]),
        str(value["category"]),
        tuple(value.get("tasks") or ()),
        tuple(value.get("families") or ()),
        tuple(value["exemplars"]),
    )
