"""Sources to a prepared pool on disk: read, scatter, sort, group. Memory is flat.

The result depends on the sources' bytes and settings alone. It is written beside its final place
and renamed, so a killed run leaves nothing that could be taken for a pool.
"""

import logging
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from selection.core.errors import InputError
from selection.core.hashing import content_id, file_sha256
from selection.core.redaction import without_secrets
from selection.data.checks import check_source
from selection.data.containers.listing import find_files, is_dataset_name, named_apart, source_name
from selection.data.containers.streams import is_url, refuse_empty
from selection.data.coverage import ReadReport
from selection.data.read import ReadBatch, read_pool
from selection.data.remedies import drop_lines
from selection.data.shapes.columns import ColumnKinds
from selection.records import DROP_SCHEMA, POOL_SCHEMA, PoolSource
from storage.files.atomic import (
    MANIFEST,
    ensure_free,
    full_disk_explained,
    is_complete,
    publish_folder,
    remove_stale_temps,
    temp_path,
    write_json,
)
from storage.files.external_sort import Buckets, digits_for
from storage.files.parquet_parts import PartWriter
from storage.pools.pool import FORMAT, PreparedPool, open_pool

log = logging.getLogger(__name__)

EXAMPLE_SCHEMA = pa.schema(
    [
        ("example_id", pa.string()),
        ("messages", pa.string()),
        ("tools", pa.string()),
        ("n_chars", pa.int32()),
    ]
)
"""Unique examples; see POOL_SCHEMA for the columns."""

READ_SCHEMA = POOL_SCHEMA.append(pa.field("n_chars", pa.int32()))
OCCURRENCE_SCHEMA = pa.schema(
    [("example_row", pa.int64())]
    + [field for field in READ_SCHEMA if field.name not in ("messages", "tools")]
)
"""Every row that says an example: POOL_SCHEMA without its texts, with the example's position."""

_DISK_FACTOR = 3  # raw rows and messages unsorted, and the result, for one byte of text
_UNKNOWN_BYTES = 1 << 32  # taken for a dataset on the hub, whose size nobody knows before
_STALE_S = 86_400.0


def prepare_pool(
    sources: Sequence[PoolSource],
    pools_dir: Path,
    progress: Callable[[int], None] | None = None,
    hash_file: Callable[[Path], str] = file_sha256,
) -> PreparedPool:
    """Read all sources into one prepared pool, or open it when it is there already.

    pools_dir: the pool becomes the folder `<pool_id>` in it.
    progress:  called with how many rows were read since the last call.
    hash_file: SHA-256 of a source's file.
    The same files and settings give the same bytes. Raises InputError for what is wrong with a
    source, too little disk, and a pool of which every row is dropped.
    """
    if not sources:
        raise InputError("there is no pool", field="pool", remedy="Name at least one.")
    for source in sources:
        check_source(source)
    names = zip(sources, named_apart(sources), strict=True)
    sources = [
        source if name == source_name(source) else replace(source, name=name)
        for source, name in names
    ]
    pinned, files = _fingerprints(sources, hash_file)
    settings = [asdict(source) for source in pinned]
    pool_id = content_id({"format": FORMAT, "sources": settings, "files": files})
    folder = pools_dir / pool_id
    if not is_complete(folder):
        n_bytes = _text_bytes(pinned)
        remove_stale_temps(pools_dir, _STALE_S)
        ensure_free(pools_dir, _DISK_FACTOR * n_bytes, "preparing the pool")
        pools_dir.mkdir(parents=True, exist_ok=True)
        temp = temp_path(folder)
        public = {"sources": without_secrets(settings), "files": without_secrets(files)}
        identity = {"format": FORMAT, "pool_id": pool_id, **public}
        try:
            with full_disk_explained(folder):
                _Preparation(temp, digits_for(2 * n_bytes), progress).run(pinned, identity)
                publish_folder(temp, folder)
        finally:
            shutil.rmtree(temp, ignore_errors=True)
            pa.default_memory_pool().release_unused()  # a model may be loaded next
    return open_pool(folder)


class _Preparation:
    """One pool on its way, in a temporary folder."""

    def __init__(self, temp: Path, digits: int, progress: Callable[[int], None] | None) -> None:
        self._temp, self._progress = temp, progress or (lambda n_rows: None)
        self._kinds, self._drops = ColumnKinds(), Counter[str]()
        self._n_rows, self._report = 0, list[str]()
        self._first_drops: dict[str, dict[str, object]] = {}
        temp.mkdir(parents=True)
        self._buckets = Buckets(temp / "buckets", READ_SCHEMA, "example_id", digits)

    def run(self, sources: Sequence[PoolSource], identity: dict[str, object]) -> None:
        """Fill the folder; its manifest comes last."""
        self._read(sources)
        pa.default_memory_pool().release_unused()
        n_examples, n_occurrences = self._group()
        shutil.rmtree(self._temp / "buckets")
        counts = {"n_rows": self._n_rows, "n_examples": n_examples}
        counts |= {"n_occurrences": n_occurrences}
        read = {
            "drops": dict(sorted(self._drops.items())),
            "first_drops": self._first_drops,
            "report": self._report,
            "columns": self._kinds.to_dict(),
        }
        hashes = {file.name: file_sha256(file) for file in sorted(self._temp.glob("*.parquet"))}
        read["sha256"] = hashes
        write_json(self._temp / MANIFEST, identity | counts | without_secrets(read))

    def _read(self, sources: Sequence[PoolSource]) -> None:
        """Rows to buckets, drops to their file. Raises InputError when no row is left."""
        drops, n_kept = PartWriter(self._temp, "drops", DROP_SCHEMA, one_file=True), 0
        for source in sources:
            report = ReadReport()
            for batch in read_pool(source, report):
                self._add(batch, drops)
                n_kept += batch.rows.num_rows
                self._progress(batch.n_rows)
            self._report += report.lines()
        drops.close()
        if not n_kept:
            raise InputError(
                "every row was dropped while reading ("
                f"{'; '.join(drop_lines(self._drops, self._first_drops))})",
                file=", ".join(source.path for source in sources),
                remedy="Check the shape and the columns that hold the text.",
            )

    def _add(self, batch: ReadBatch, drops: PartWriter) -> None:
        for drop in batch.drops.to_pylist():
            self._first_drops.setdefault(drop["reason"], drop)
        if batch.drops.num_rows:
            drops.add(pa.Table.from_batches([batch.drops]))
            self._drops.update(batch.drops["reason"].to_pylist())
        n_kept = len(
            set(zip(batch.rows["file"].to_pylist(), batch.rows["row"].to_pylist(), strict=True))
        )
        if n_kept + batch.drops.num_rows != batch.n_rows:
            raise AssertionError(f"{batch.n_rows} rows read, {n_kept} kept, {batch.drops} dropped")
        columns = [*batch.rows.columns, batch.n_chars]
        self._buckets.add(pa.RecordBatch.from_arrays(columns, schema=READ_SCHEMA))
        self._kinds.merge(batch.kinds)
        self._n_rows += batch.n_rows

    def _group(self) -> tuple[int, int]:
        """Sorted rows to examples and occurrences; returns how many of each."""
        examples = PartWriter(self._temp, "examples", EXAMPLE_SCHEMA)
        occurrences = PartWriter(self._temp, "occurrences", OCCURRENCE_SCHEMA)
        n_examples = 0
        for table in self._buckets.sorted_tables("file", "row"):
            ids = table["example_id"].to_numpy()
            is_first = np.concatenate([[True], ids[1:] != ids[:-1]])
            example_row = pa.array(n_examples + np.cumsum(is_first) - 1, pa.int64())
            n_examples += int(is_first.sum())
            texts = table.select(EXAMPLE_SCHEMA.names)
            examples.add(texts.filter(pa.array(is_first)))
            del texts
            numbered = table.append_column("example_row", example_row)
            occurrences.add(numbered.select(OCCURRENCE_SCHEMA.names))
        examples.close()
        occurrences.close()
        return n_examples, occurrences.n_rows


def _fingerprints(
    sources: Sequence[PoolSource], hash_file: Callable[[Path], str]
) -> tuple[list[PoolSource], list[dict[str, object]]]:
    """Sources with datasets pinned to a commit, and every file with what identifies its content.

    A file: source, file, sha256, bytes. A dataset: sha256 is `git:COMMIT`, bytes null.
    """
    pinned, files = [], list[dict[str, object]]()
    for source in sources:
        name = source_name(source)
        if is_dataset_name(source):
            from selection.data.containers.huggingface import (
                dataset_commit,  # needs the network, and takes its time
            )

            commit = dataset_commit(source)
            pinned.append(replace(source, revision=commit))
            files.append({"source": name, "file": source.path, "sha256": f"git:{commit}"})
            files[-1]["bytes"] = None
            continue
        pinned.append(source)
        for file in find_files(source):
            refuse_empty(file)
            sha256 = file.sha256() if is_url(file.location) else hash_file(Path(file.location))
            content = {"sha256": sha256, "bytes": file.n_bytes()}
            files.append({"source": name, "file": file.name} | content)
    return pinned, files


def _text_bytes(sources: Sequence[PoolSource]) -> int:
    """Bytes of text in all sources, roughly."""
    n_bytes = 0
    for source in sources:
        if is_dataset_name(source):
            n_bytes += _UNKNOWN_BYTES
        else:
            n_bytes += sum(file.text_bytes() for file in find_files(source))
    return n_bytes
