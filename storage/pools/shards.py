"""Vectors on disk: one folder per unit of work, found again by the key of the rendered sample.

`<representation_id>/<unit_id>/` holds keys.npy (n, 16) uint8, indptr.npy, latents.npy, values.npy
and, written last, manifest.json with sizes and SHA-256. Equal input gives equal bytes. A unit may
be written twice after a worker died: the first manifest counts. Whatever has no manifest is not
there.
"""

import logging
import shutil
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from selection.core.errors import InputError
from selection.core.hashing import file_sha256
from selection.core.sparse import concatenate, empty, take
from selection.records import SparseRows
from storage.files.atomic import (
    MANIFEST,
    TEMP_PREFIX,
    full_disk_explained,
    is_complete,
    publish_folder,
    read_json,
    remove_stale_temps,
    sync_file,
    temp_path,
    write_json,
)

if TYPE_CHECKING:  # the report is made beside torch, which reading shards does not need
    from selection.representation.represent import UnitReport

log = logging.getLogger(__name__)

_FORMAT = 1
_STALE_SECONDS = 3600.0  # a younger temporary folder may belong to a worker that still writes
_DTYPES = {"keys": np.uint8, "indptr": np.int64, "latents": np.int32, "values": np.uint16}


def write_shard(
    folder: Path,
    unit_id: str,
    keys: NDArray[np.uint8],
    rows: SparseRows,
    report: "UnitReport",
) -> bool:
    """Publish the vectors of one unit; returns False when the unit was there already.

    folder:  of the representation; made when missing.
    unit_id: name of the unit, a function of the work it is.
    keys:    (n, 16), key of each row's rendered sample.
    report:  goes into the manifest.
    Raises InputError when the disk is full, ValueError when keys and rows disagree or a key is
    there twice.
    """
    if keys.shape != (len(rows), 16):
        raise ValueError(f"keys have shape {keys.shape}, expected ({len(rows)}, 16)")
    if len(np.unique(np.ascontiguousarray(keys).view("V16"))) < len(keys):
        raise ValueError("a key stands for two rows of one shard")
    final = folder / unit_id
    if is_complete(final):
        return False
    temp = temp_path(final)
    with full_disk_explained(final):
        try:
            temp.mkdir(parents=True)
            manifest = {
                "format": _FORMAT,
                "representation_id": folder.name,
                "unit_id": unit_id,
                "n_rows": len(rows),
                "n_values": len(rows.values),
                "n_latents": rows.n_latents,
                "sha256": write_vectors(temp, keys, rows),
                "report": report.as_record(),
            }
            write_json(temp / MANIFEST, manifest)
            return publish_folder(temp, final)
        except BaseException:
            shutil.rmtree(temp, ignore_errors=True)
            raise


def write_vectors(folder: Path, keys: NDArray[np.uint8], rows: SparseRows) -> dict[str, str]:
    """Write the arrays of some vectors into a folder; returns the hash of each file."""
    arrays = (keys, rows.indptr, rows.latents, rows.values)
    hashes = {}
    for (name, dtype), array in zip(_DTYPES.items(), arrays, strict=True):
        file = folder / f"{name}.npy"
        np.save(file, np.ascontiguousarray(array, dtype))
        sync_file(file)
        hashes[file.name] = file_sha256(file)
    return hashes


def open_shards(folder: Path) -> "ShardSet":
    """The complete shards of a representation; none when the folder does not exist.

    Half-written folders are ignored, and removed once nothing has touched them for an hour.
    """
    with suppress(PermissionError):  # a read-only workspace is still readable
        remove_stale_temps(folder, _STALE_SECONDS)
    units = sorted(folder.iterdir()) if folder.is_dir() else []
    shards = [
        _open(unit) for unit in units if not unit.name.startswith(TEMP_PREFIX) and is_complete(unit)
    ]
    widths = {shard.n_latents for shard in shards}
    if len(widths) > 1:
        raise InputError(
            "these shards have different numbers of latents",
            file=folder,
            value=sorted(widths),
            remedy="Folders of different representations were mixed; delete this one and run again",
        )
    return ShardSet(folder, shards)


@dataclass(frozen=True, slots=True)
class Shard:
    """One unit's folder as its manifest describes it."""

    folder: Path
    n_rows: int
    n_values: int
    n_latents: int
    sha256: dict[str, str]
    report: dict[str, object]

    def keys(self) -> NDArray[np.uint8]:
        """(n_rows, 16), read into memory."""
        return self._array("keys", (self.n_rows, 16))

    def rows(self) -> SparseRows:
        """The vectors; latents and values stay in their files until they are touched."""
        return SparseRows(
            self._array("indptr", (self.n_rows + 1,)),
            self._array("latents", (self.n_values,), mapped=True),
            self._array("values", (self.n_values,), mapped=True),
            self.n_latents,
        )

    def altered(self) -> Path | None:
        """The first file whose bytes are not those that were written; None where there is none."""
        for name, expected in self.sha256.items():
            file = self.folder / name
            if not file.is_file() or file_sha256(file) != expected:
                return file
        return None

    def verify(self) -> None:
        """Raises InputError naming the first altered file."""
        if (file := self.altered()) is not None:
            raise _altered(file)

    def _array(self, name: str, shape: tuple[int, ...], mapped: bool = False) -> NDArray[Any]:
        file = self.folder / f"{name}.npy"
        try:  # an empty array cannot be mapped
            mode: Literal["r"] | None = "r" if mapped and 0 not in shape else None
            array = np.load(file, mmap_mode=mode, allow_pickle=False)
        except (OSError, ValueError, EOFError):
            raise _altered(file) from None
        if array.shape != shape or array.dtype != _DTYPES[name]:
            raise _altered(file)
        return array


class ShardSet:
    """All vectors of one representation, as they were when it was opened.

    A key that is in several shards means the one whose unit comes first by name.
    """

    def __init__(self, folder: Path, shards: list[Shard]) -> None:
        """Shards in the order of their names."""
        self.folder, self.shards = folder, shards

    def __len__(self) -> int:
        """Number of shards."""
        return len(self.shards)

    @property
    def n_vectors(self) -> int:
        """Vectors in all shards; one that is in two of them counts twice."""
        return sum(shard.n_rows for shard in self.shards)

    def missing(self, keys: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """(n,) bool: which of the keys (n, 16) no shard holds."""
        return self.locate(keys)[0] < 0

    def rows_missing(self, keys: NDArray[np.uint8], rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Those of the rows of keys (n, 16) whose vectors no shard holds, in their order."""
        return rows[self.missing(keys[rows])]

    def locate(self, keys: NDArray[np.uint8]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """Shard number (n,) and row in that shard (n,) of each key (n, 16); -1 where missing."""
        names, order = self._sorted_keys
        wanted = as_bytes(keys)
        at = np.searchsorted(names, wanted)
        at[at == len(names)] = 0
        is_there = names[at] == wanted if len(names) else np.zeros(len(wanted), np.bool_)
        position = np.full(len(wanted), -1, np.int64)
        position[is_there] = order[at[is_there]]
        shard = np.searchsorted(self._starts, position, side="right").astype(np.int32) - 1
        row = position - self._starts[shard]
        return np.where(position < 0, -1, shard).astype(np.int32), np.where(position < 0, -1, row)

    def gather(self, keys: NDArray[np.uint8]) -> SparseRows:
        """Vectors of the keys (m, 16), in their order. Raises InputError when one is missing."""
        shard, row = self.locate(keys)
        if (shard < 0).any():
            raise InputError(
                f"{int((shard < 0).sum()):,} of {len(keys):,} vectors are not there",
                file=self.folder,
                remedy="Run the embedding again; it computes only what is missing.",
            )
        if not len(keys):
            return empty(0, self.shards[0].n_latents if self.shards else 0)
        order = np.argsort(shard, kind="stable")
        numbers, first = np.unique(shard[order], return_index=True)
        groups = np.split(row[order], first[1:])
        parts = [take(self.shards[n].rows(), g) for n, g in zip(numbers, groups, strict=True)]
        back = np.empty_like(order)
        back[order] = np.arange(len(order))
        return take(concatenate(parts), back)

    def verify(self, keys: NDArray[np.uint8] | None = None) -> None:
        """Hash every file again, or those of the shards that hold some keys (m, 16).

        Raises InputError naming the first one that was altered.
        """
        chosen = range(len(self)) if keys is None else np.unique(self.locate(keys)[0])
        for number in chosen:
            if number >= 0:
                self.shards[number].verify()

    def totals(self) -> dict[str, int | float]:
        """Sums of the unit reports' numbers, and `n_reduced`, units whose batches were halved."""
        sums: dict[str, int | float] = {"n_reduced": 0}
        for shard in self.shards:
            sums["n_reduced"] += shard.report.get("plan") == "reduced"
            for name, value in shard.report.items():
                if isinstance(value, int | float):
                    sums[name] = sums.get(name, 0) + value
        return sums

    @cached_property
    def _sorted_keys(self) -> tuple[NDArray[np.void], NDArray[np.int64]]:
        """All keys in order, and the position of each over all shards; 24 bytes a key."""
        keys = [shard.keys() for shard in self.shards]
        names = as_bytes(np.concatenate([np.zeros((0, 16), np.uint8), *keys]))
        order = np.argsort(names, kind="stable")  # the first of equal keys stays first
        return names[order], order

    @cached_property
    def _starts(self) -> NDArray[np.int64]:
        """Number of vectors before each shard."""
        counts = [shard.n_rows for shard in self.shards]
        return np.cumsum([0, *counts[:-1]], dtype=np.int64)


def as_bytes(keys: NDArray[np.uint8]) -> NDArray[np.void]:
    """(n,) 16-byte values from (n, 16) uint8, comparable and sortable as a whole."""
    return np.ascontiguousarray(keys).view("V16").ravel()


def _open(unit: Path) -> Shard:
    manifest = read_json(unit / MANIFEST)
    if manifest.get("format") != _FORMAT:
        raise InputError(
            "this shard was written by another version",
            file=unit / MANIFEST,
            field="format",
            value=manifest.get("format"),
            remedy="Update saelect, or use another workspace.",
        )
    _refuse_moved(unit, manifest)
    n_rows, n_values, n_latents = (
        manifest.get(name) for name in ("n_rows", "n_values", "n_latents")
    )
    sha256, report = manifest.get("sha256"), manifest.get("report")
    if not (
        isinstance(n_rows, int)
        and isinstance(n_values, int)
        and isinstance(n_latents, int)
        and isinstance(sha256, dict)
        and isinstance(report, dict)
    ):
        raise _altered(unit / MANIFEST)
    return Shard(unit, n_rows, n_values, n_latents, sha256, report)


def _refuse_moved(unit: Path, manifest: dict[str, object]) -> None:
    """A copied or renamed folder would stand for another model; the oldest name none."""
    for field, folder_name in (("representation_id", unit.parent.name), ("unit_id", unit.name)):
        recorded = manifest.get(field, folder_name)
        if recorded != folder_name:
            raise InputError(
                f"this shard was written as `{recorded}`, not as `{folder_name}`",
                file=unit / MANIFEST,
                field=field,
                value=recorded,
                remedy=f"Delete the folder {unit} and run again; only its vectors are recomputed.",
            )


def _altered(file: Path) -> InputError:
    return InputError(
        "this file is not what was written",
        file=file,
        remedy=f"Delete the folder {file.parent} and run again; only its vectors are recomputed.",
    )
