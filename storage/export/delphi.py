"""What latents do on samples, in the cache layout that EleutherAI's delphi reads (0.1.3).

    FOLDER/<module>/<first>_<last>.safetensors  latents first to last, both included:
        tokens       (n_rows, row_length) int64, the same in every file
        locations    (n, 3) uint16 or uint32 row, position and latent - first, in that order
        activations  (n,) float16
    FOLDER/<module>/config.json                 what delphi keeps of a cache, and where it is from
    FOLDER/<module>/samples.parquet             where each sample lies; delphi does not look at it

Delphi cuts rows into windows and shows each as an example that activates a latent, or as one that
does not. A window here holds counted tokens of one sample, in order; behind the sample's last one
it is filled with padding. Tokens that do not count are left out: no latent is known there, and
delphi would take that for silence. Only the last row may hold windows of padding alone.
"""

import errno
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from selection.core.errors import InputError
from storage.files.atomic import full_disk_explained, sync_file, sync_folder, temp_path

WINDOW = 32  # delphi's default for an example, `example_ctx_len`
LEAST = 1e-5  # delphi caches what is larger
_WINDOWS_PER_ROW = 8  # delphi's default rows have 256 tokens; centered examples need three windows
_N_SPLITS = 5  # delphi's default
_LARGEST = float(np.finfo(np.float16).max)
_ENTRY = np.dtype(
    [("location", "<u4", (3,)), ("act", "<f2")]
)  # (row, position, latent) and activation

_REMEDY = "Name a folder that is empty or does not exist yet, where you may write."
_SAMPLES = pa.schema(
    [
        ("example_id", pa.string()),
        ("row", pa.int64()),  # of its first token
        ("position", pa.int64()),  # in that row; it goes on without gaps, also into later rows
        ("n_tokens", pa.int64()),
    ]
)


@dataclass(frozen=True, slots=True)
class CacheLayout:
    """Where n samples and M latents lie in a cache.

    window:     tokens of an example.
    n_tokens:   (n,) int64 counted tokens of each sample.
    first:      (n + 1,) int64 first window of each sample; at last, the number of windows.
    edges:      (s + 1,) int64 first latent of each split; at last, M.
    """

    window: int
    n_tokens: NDArray[np.int64]
    first: NDArray[np.int64]
    edges: NDArray[np.int64]

    @property
    def row_length(self) -> int:
        """Tokens of a row."""
        return self.window * _WINDOWS_PER_ROW

    @property
    def n_rows(self) -> int:
        """Rows of the tokens; the last one may be filled up."""
        return -(-int(self.first[-1]) // _WINDOWS_PER_ROW)

    @property
    def n_splits(self) -> int:
        """Files over which the latents are spread."""
        return len(self.edges) - 1

    def places(
        self, samples: NDArray[np.integer[Any]], positions: NDArray[np.integer[Any]]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Rows and positions in them, of tokens given by sample and position in the sample."""
        return np.divmod(self.first[samples] * self.window + positions, self.row_length)


def cache_layout(n_tokens: NDArray[np.int64], n_latents: int, window: int) -> CacheLayout:
    """Lay out samples one after the other, and latents in nearly equal splits.

    n_tokens: (n,) counted tokens of each sample.
    """
    n_splits = min(_N_SPLITS, n_latents)
    first = np.cumsum([0, *(-(-n_tokens // window))], dtype=np.int64)
    edges = np.arange(n_splits + 1, dtype=np.int64) * n_latents // n_splits
    return CacheLayout(window, n_tokens, first, edges)


class LatentSpill:
    """Active latents by sample and split, on disk: memory for one batch and two numbers a pair.

    n_clipped: activations that were larger than float16 can say, and became its largest number.
    """

    def __init__(self, file: IO[bytes], layout: CacheLayout) -> None:
        """file: empty and open for reading and writing."""
        self.n_clipped = 0
        self._file, self._layout, self._n_entries = file, layout, 0
        shape = (len(layout.n_tokens), layout.n_splits)
        self._starts, self._counts = np.zeros(shape, np.int64), np.zeros(shape, np.int64)

    def add(
        self,
        top_acts: NDArray[np.float32],
        top_indices: NDArray[np.integer[Any]],
        samples: NDArray[np.integer[Any]],
        positions: NDArray[np.integer[Any]],
    ) -> None:
        """Take in the latents of t tokens; all tokens of a sample must come in one call.

        top_acts, top_indices: (t, k), as `selection.sae.encode` gives them; zeros are no latents.
        samples, positions:    (t,) which sample, and which of its counted tokens, from 0.
        """
        token, slot = np.nonzero(top_acts > LEAST)
        act, latent = top_acts[token, slot], top_indices[token, slot]
        sample, position = samples[token], positions[token]
        split = np.searchsorted(self._layout.edges, latent, side="right") - 1
        entries = np.empty(len(token), _ENTRY)
        row, in_row = self._layout.places(sample, position)
        entries["location"] = np.stack([row, in_row, latent - self._layout.edges[split]], axis=1)
        entries["act"] = np.minimum(act, _LARGEST)
        order = np.lexsort((latent, position, split, sample))
        pair = (sample * self._layout.n_splits + split)[order]
        pairs, starts, counts = np.unique(pair, return_index=True, return_counts=True)
        self._starts.flat[pairs] = self._n_entries + starts
        self._counts.flat[pairs] = counts
        self._n_entries += len(order)
        self.n_clipped += int((act > _LARGEST).sum())
        self._file.write(entries[order].tobytes())

    def n_entries(self, split: int) -> int:
        """Active latents of a split."""
        return int(self._counts[:, split].sum())

    def entries(self, split: int) -> Iterator[NDArray[Any]]:
        """Arrays of _ENTRY of a split, sample by sample, by row, position and latent."""
        starts, counts = self._starts[:, split], self._counts[:, split]
        for sample in np.flatnonzero(counts):
            self._file.seek(int(starts[sample]) * _ENTRY.itemsize)
            yield np.frombuffer(self._file.read(int(counts[sample]) * _ENTRY.itemsize), _ENTRY)


def ensure_unused(folder: Path) -> None:
    """Raises InputError unless a cache can be written to `folder`: empty, or not there yet."""
    with full_disk_explained(folder), _refusal_explained(folder):
        target = folder.resolve()
        if target.is_dir() and any(target.iterdir()):
            raise InputError(
                "there is something in this folder already", file=folder, remedy=_REMEDY
            )
        parent = target.parent
        while not parent.exists():
            parent = parent.parent
        may_write = parent.is_dir() and os.access(parent, os.W_OK | os.X_OK)
        if not may_write or (os.path.lexists(target) and not target.is_dir()):
            raise _no_folder(folder)
        # Only trying tells: in /proc, for one, a folder may be refused where writing is allowed.
        trial = temp_path(parent / target.name)
        trial.mkdir()
        trial.rmdir()


@contextmanager
def _refusal_explained(folder: Path) -> Iterator[None]:
    """Turn an OSError in the block into InputError; a full disk is told elsewhere."""
    try:
        yield
    except (OSError, RuntimeError) as error:  # the latter for links that lead in a circle
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise _no_folder(folder) from error


def _no_folder(folder: Path) -> InputError:
    return InputError("no folder can be made here", file=folder, remedy=_REMEDY)


@contextmanager
def delphi_cache(
    folder: Path,
    module: str,
    samples: Sequence[NDArray[np.uint32]],
    names: Sequence[str],
    *,
    n_latents: int,
    window: int,
    pad: int,
    about: Mapping[str, object],
) -> Iterator[LatentSpill]:
    """Take in latents inside the block, and publish them as `folder` at its end.

    module:  the hookpoint as delphi names it, e.g. "layers.4".
    samples: counted tokens of each sample, (t,) each and not empty; names: their example ids.
    pad:     token id that fills windows.
    about:   for config.json.
    Nothing appears at `folder` before all of it is there, and an error leaves nothing behind. The
    same latents give the same bytes, in whatever batches they come. Raises InputError where
    `folder` holds something, and when the disk is full.
    """
    ensure_unused(folder)
    # Not inside `folder`, whose every entry delphi takes for a module.
    final = folder.resolve()
    temp = temp_path(final)
    lengths = np.array([len(sample) for sample in samples], np.int64)
    layout = cache_layout(lengths, n_latents, window)
    with full_disk_explained(final):
        try:
            with _refusal_explained(folder):
                (temp / module).mkdir(parents=True)
            with TemporaryFile(dir=temp) as file:
                spill = LatentSpill(file, layout)
                yield spill
                for split in range(layout.n_splits):
                    _write_split(temp / module, split, layout, spill, samples, pad)
            _write_samples(temp / module / "samples.parquet", layout, names)
            _write_config(temp / module / "config.json", layout, about)
            _publish(temp, final)
        except BaseException:
            shutil.rmtree(temp, ignore_errors=True)
            raise


def _publish(temp: Path, final: Path) -> None:
    """Sync a finished cache and give it its name; an empty folder of that name gives way."""
    for path in sorted(temp.rglob("*"), reverse=True):  # files before their folder
        sync_file(path)
    sync_folder(temp)
    ensure_unused(final)
    os.rename(temp, final)
    sync_folder(final.parent)


def _write_split(
    folder: Path,
    split: int,
    layout: CacheLayout,
    spill: LatentSpill,
    samples: Sequence[NDArray[np.uint32]],
    pad: int,
) -> None:
    """One file of safetensors, written in order: the library would need all of it in memory."""
    first, end = layout.edges[split : split + 2].tolist()
    short = max(layout.n_rows, layout.row_length, end - first) <= 1 << 16
    locations = np.dtype("<u2" if short else "<u4")
    n = spill.n_entries(split)
    header = _header(
        tokens=("I64", (layout.n_rows, layout.row_length), 8),
        locations=("U16" if short else "U32", (n, 3), locations.itemsize),
        activations=("F16", (n,), 2),
    )
    with (folder / f"{first}_{end - 1}.safetensors").open("wb") as file:
        file.write(header)
        for tokens in _padded(layout, samples, pad):
            file.write(tokens.tobytes())
        for entries in spill.entries(split):
            file.write(entries["location"].astype(locations).tobytes())
        for entries in spill.entries(split):
            file.write(entries["act"].tobytes())


def _header(**tensors: tuple[str, tuple[int, ...], int]) -> bytes:
    """The beginning of a safetensors file. tensors: type, shape and bytes of a value."""
    tensor_table, at = {}, 0
    for name, (dtype, shape, size) in tensors.items():
        end = at + int(np.prod(shape)) * size
        tensor_table[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, end]}
        at = end
    text = json.dumps(tensor_table).encode()
    text += b" " * (-len(text) % 8)  # so that the tensors begin at a multiple of their size
    return len(text).to_bytes(8, "little") + text


def _padded(
    layout: CacheLayout, samples: Sequence[NDArray[np.uint32]], pad: int
) -> Iterator[NDArray[np.int64]]:
    """The tokens of all rows, one after the other, in pieces that are whole windows."""
    for tokens, n_windows in zip(samples, np.diff(layout.first).tolist(), strict=True):
        piece = np.full(n_windows * layout.window, pad, "<i8")
        piece[: len(tokens)] = tokens
        yield piece
    left = layout.n_rows * _WINDOWS_PER_ROW - int(layout.first[-1])
    yield np.full(left * layout.window, pad, "<i8")


def _write_samples(file: Path, layout: CacheLayout, names: Sequence[str]) -> None:
    n = len(names)
    rows, positions = layout.places(np.arange(n), np.zeros(n, np.int64))
    pq.write_table(pa.table([list(names), rows, positions, layout.n_tokens], _SAMPLES), file)


def _write_config(file: Path, layout: CacheLayout, about: Mapping[str, object]) -> None:
    """The fields of delphi's CacheConfig; its reader needs `model_name` alone, for a tokenizer."""
    config = {
        "dataset_repo": "",
        "dataset_split": "",
        "dataset_name": "",
        "dataset_column": "",
        "batch_size": 1,
        "cache_ctx_len": layout.row_length,
        "n_tokens": layout.n_rows * layout.row_length,
        "n_splits": layout.n_splits,
        **about,
        "example_ctx_len": layout.window,
    }
    file.write_text(json.dumps(config, indent=4, ensure_ascii=False) + "\n", encoding="utf-8")
