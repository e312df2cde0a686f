"""Samples as vectors in every space, in memory, and kept in a folder for the next time."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

from selection.activations.prefixes import sorted_by_tokens
from selection.core.hashing import content_id
from selection.core.sparse import concatenate, empty, take
from selection.data.samples import Samples
from selection.interactive.reader import Reader
from selection.records import Rendered, SparseRows
from selection.rendering.renderer import render_key
from selection.representation.lexical import lexical_rows, lexical_terms
from selection.representation.represent import represent_heads

SpaceKind = Literal["sae", "tokens", "words"]


@dataclass(frozen=True, eq=False)
class Vectors:
    """The vectors of n samples in each space.

    samples:  what they are of, in the same order.
    reader:   what made them.
    spaces:   kinds of the spaces, the reader's own SAE among them.
    rendered: the samples as the model read them.
    rows:     for each space n sparse rows; a sample without content tokens has empty ones.
    """

    samples: Samples
    reader: Reader
    spaces: tuple[SpaceKind, ...]
    rendered: Sequence[Rendered]
    rows: tuple[SparseRows, ...]

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.samples)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """What explanations call the spaces: the hookpoint, `tokens`, `words`."""
        own = str(self.reader.hookpoint)
        return tuple(own if kind == "sae" else kind for kind in self.spaces)

    def terms(self, space: int) -> Mapping[int, str]:
        """Column -> token or word, for the columns of these samples; empty for an SAE."""
        kind = self.spaces[space]
        if kind == "sae" or not self.rendered:
            return {}
        return lexical_terms(kind, self.rendered, self.reader.renderer)

    def token_counts(self) -> NDArray[np.int64]:
        """(n,) tokens of each sample after the reader's `max_length`."""
        limit = self.reader.renderer.settings["max_length"]
        return np.array([min(each.n_full, limit) for each in self.rendered], np.int64)


def make_vectors(
    samples: Samples,
    reader: Reader,
    spaces: Sequence[SpaceKind],
    folder: Path | None,
    *,
    known: "Vectors | None" = None,
    progress: bool,
) -> Vectors:
    """Vectors of the samples in every space, those of the SAE reused where the folder has them.

    known: whose vectors are reused too; the samples then stay in their order, as exemplars do.
    """
    rendered = reader.render(list(samples.conversations()))
    rows = []
    for kind in spaces:
        if kind == "sae":
            kept = _Kept(None if folder is None else folder / reader.representation_id)
            if known is not None:
                kept.remember(_keys(known.rendered), known.rows[known.spaces.index("sae")])
            in_order = known is not None
            rows.append(_sae_rows(rendered, reader, kept, in_order=in_order, progress=progress))
        else:
            rows.append(lexical_rows(kind, rendered, reader.renderer))
    return Vectors(samples, reader, tuple(spaces), rendered, tuple(rows))


def _keys(rendered: Sequence[Rendered]) -> list[bytes]:
    """What decides each vector; empty where there are no content tokens, and so no vector."""
    return [render_key(each) if each.content_mask.any() else b"" for each in rendered]


def _sae_rows(
    rendered: Sequence[Rendered],
    reader: Reader,
    known: "_Kept",
    *,
    in_order: bool,
    progress: bool,
) -> SparseRows:
    """One row a sample. Equal renderings are run once, in units sorted by their tokens."""
    keys = _keys(rendered)
    numbers = {key: number for number, key in reversed(list(enumerate(keys))) if key}
    missing = sorted(number for key, number in numbers.items() if key not in known)
    tokens = [rendered[number].tokens for number in missing]
    if not in_order and reader.model.kind == "causal" and reader.settings.share_prefixes:
        missing = [missing[position] for position in sorted_by_tokens(tokens)]
    size = reader.settings.unit_examples
    n_tokens = sum(len(each) for each in tokens)
    with tqdm(total=n_tokens, unit="token", desc="represent", disable=not progress) as bar:
        for first in range(0, len(missing), size):
            unit = missing[first : first + size]
            parts = [rendered[number] for number in unit]
            per_batch = reader.settings.tokens_per_batch
            [(rows, _)] = represent_heads(parts, reader.activations, [reader.head], per_batch)
            known.add([keys[number] for number in unit], rows)
            bar.update(sum(len(each.tokens) for each in parts))
    return known.rows(keys, reader.coder.info.num_latents)


class _Kept:
    """Vectors by key of the rendered sample, in memory and as files of a folder.

    Every unit is one file, written beside its name and renamed, so a killed run leaves whole ones.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._parts: list[SparseRows] = []
        self._number: dict[bytes, int] = {}
        for file in sorted(folder.glob("*.npz")) if folder is not None and folder.is_dir() else ():
            with np.load(file) as kept:
                rows = SparseRows(
                    kept["indptr"], kept["latents"], kept["values"], int(kept["n_latents"])
                )
                self.remember([key.tobytes() for key in kept["keys"]], rows)

    def __contains__(self, key: bytes) -> bool:
        return key in self._number

    def remember(self, keys: Sequence[bytes], rows: SparseRows) -> None:
        """Have the vector of every key, the first of equal keys."""
        first = sum(len(part) for part in self._parts)
        for position, key in enumerate(keys):
            self._number.setdefault(key, first + position)
        self._parts.append(rows)

    def add(self, keys: Sequence[bytes], rows: SparseRows) -> None:
        """Remember the vectors of one unit, and keep them where there is a folder."""
        self.remember(keys, rows)
        if self._folder is None:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        name = content_id([key.hex() for key in keys], n_hex=24)
        temp = self._folder / f".tmp-{name}-{os.getpid()}"
        with temp.open("wb") as file:
            np.savez(
                file,
                keys=np.frombuffer(b"".join(keys), np.uint8).reshape(-1, 16),
                indptr=rows.indptr,
                latents=rows.latents,
                values=rows.values,
                n_latents=np.int64(rows.n_latents),
            )
            file.flush()
            os.fsync(file.fileno())
        temp.replace(self._folder / f"{name}.npz")

    def rows(self, keys: Sequence[bytes], n_latents: int) -> SparseRows:
        """A row for every key; the empty key has an empty row."""
        every = concatenate([empty(1, n_latents), *self._parts])
        return take(every, np.array([1 + self._number.get(key, -1) for key in keys], np.int64))
