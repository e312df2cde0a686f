"""Files to raw rows: JSONL, JSON, CSV, Parquet, folders, globs. Memory is flat.

A row is counted from 1 in its file. What can be read as rows but not as a row is a `RawRow` with an
error, so that the caller decides; what is wrong with a whole file is refused here, by name.
"""

import glob
import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from selection.core.errors import InputError
from selection.core.redaction import without_secrets
from selection.data.readers.json_files import iter_json
from selection.data.readers.rows import RawRow, parse_row
from selection.data.readers.streams import (
    COMPRESSIONS,
    DataFile,
    open_bytes,
    plain_stem,
    plain_suffix,
    refuse_empty,
)
from selection.data.readers.tables import TABLES, iter_csv, iter_parquet
from selection.records import PoolSource

LINES = (".jsonl", ".ndjson")
SUFFIXES = (*LINES, ".json", *TABLES, ".parquet")
_NO_POOL = {"dataset_info.json", "dataset_infos.json", "state.json", "manifest.json"}
_DATASET_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")


def is_dataset_name(source: PoolSource) -> bool:
    """Whether the path can only be the name of a Hugging Face dataset: nothing local has it."""
    path = source.path
    if Path(path).exists() or plain_suffix(Path(path)) in SUFFIXES or glob.has_magic(path):
        return False
    return _DATASET_NAME.fullmatch(path) is not None


def source_name(source: PoolSource) -> str:
    """The pool's name: as given, else the file's stem, the folder's name or the dataset's name."""
    if source.name:
        return source.name
    path = Path(source.path)
    if is_dataset_name(source) or path.is_dir():
        return source.path.rstrip("/") if is_dataset_name(source) else path.resolve().name
    return plain_stem(path)


def find_files(source: PoolSource) -> list[DataFile]:
    """The files of a local source, in a fixed order: by their path, as text.

    A folder is searched with its sub-folders; hidden files, other formats and the metadata files
    of saved datasets are passed over. Names are as the user wrote them, secrets of an address
    hidden: they end up in catalogs and messages. Raises InputError when there is nothing to read.
    """
    given, path = without_secrets(source.path), Path(source.path)
    if path.is_dir():
        files = [DataFile(p, f"{given.rstrip('/')}/{p.relative_to(path).as_posix()}")
                 for p in path.rglob("*") if _is_pool_file(p, path)]  # fmt: skip
        if not files:
            raise _nothing_in(given, sorted({p.name for p in path.rglob("*") if p.is_file()}))
        return sorted(files, key=lambda file: file.name)
    if path.exists():
        return [DataFile(path, given)]
    if glob.has_magic(source.path):
        matches = [Path(match) for match in sorted(glob.glob(source.path, recursive=True))]
        files = [DataFile(match, without_secrets(str(match))) for match in matches
                 if match.is_file()]  # fmt: skip
        if files:
            return files
    raise InputError(
        "no such file, folder or pattern",
        file=given,
        remedy="Check the path; a relative one starts in the current folder"
        f" ({Path.cwd()}). A Hugging Face dataset is named ORGANISATION/NAME.",
    )


def iter_raw(source: PoolSource) -> Iterator[RawRow]:
    """Every row of a source, file by file."""
    for _, rows in open_parts(source):
        yield from rows


def open_parts(source: PoolSource) -> Iterator[tuple[str, Iterator[RawRow]]]:
    """Each file of a source by name, with its rows; a Hugging Face dataset is one part."""
    if is_dataset_name(source):
        from selection.data.readers.huggingface import iter_dataset  # `datasets` is slow to import

        yield source.path, iter_dataset(source)
        return
    for file in find_files(source):
        yield file.name, iter_file(file)


def iter_file(file: DataFile) -> Iterator[RawRow]:
    """The rows of one file, by its suffix. Raises InputError for an unknown one or no content."""
    suffix = plain_suffix(file.path)
    if suffix not in SUFFIXES:
        raise InputError(
            "the file's format is not known by its name",
            file=file.name,
            value=file.path.suffix,
            remedy=f"Known are {', '.join(SUFFIXES)}, all but .parquet also with"
            f" {' or '.join(COMPRESSIONS)}.",
        )
    refuse_empty(file)
    if suffix in LINES:
        return _iter_lines(file)
    if suffix in TABLES:
        return iter_csv(file)
    if suffix == ".parquet":
        return iter_parquet(file)
    return iter_json(file.path, file.name)


def _iter_lines(file: DataFile) -> Iterator[RawRow]:
    with open_bytes(file.path, file.name) as stream:
        yield from iter_lines(stream, file.name)


def iter_lines(stream: BinaryIO, name: str) -> Iterator[RawRow]:
    """Rows of JSON lines; blank lines are no rows, but they count as lines."""
    for number, line in enumerate(stream, 1):
        content = line.removeprefix(b"\xef\xbb\xbf").strip() if number == 1 else line.strip()
        if content:
            yield parse_row(content, name, number)


def _is_pool_file(path: Path, folder: Path) -> bool:
    hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
    known = plain_suffix(path) in SUFFIXES and path.name not in _NO_POOL
    return known and not hidden and path.is_file()


def _nothing_in(folder: str, names: list[str]) -> InputError:
    return InputError(
        "the folder holds no file that can be read as a pool",
        file=folder,
        value=names[:5] if names else None,
        remedy=f"Known formats: {', '.join(SUFFIXES)}, also with .gz or .zst.",
    )
