"""Activations of a model at several hookpoints, computed once and kept for every SAE."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from selection.activations.batching import iter_activations
from selection.activations.model import ActivationModel, load_activation_model
from selection.core.errors import InputError
from selection.evaluation.labelled import LabelledPool, as_messages
from selection.models.hookpoints import Hookpoint
from selection.models.resolve import ResolvedModel
from selection.records import Rendered
from selection.rendering.renderer import Renderer
from storage.files.atomic import write_atomically

CHUNK_SAMPLES = 256
TOKENS_PER_BATCH = 4096
HELD_OUT = 20  # Every 20th chunk is kept from training.


@dataclass(frozen=True)
class KeptActivations:
    """Chunks of activations on disk: <folder>/<number>-<hookpoint>.npy, (n, d_model) float32.

    A chunk is the content tokens of CHUNK_SAMPLES samples; all its files are there or none counts.
    """

    folder: Path
    hookpoints: tuple[Hookpoint, ...]

    def file(self, number: int, hookpoint: Hookpoint) -> Path:
        """Of one chunk at one hookpoint."""
        return self.folder / f"{number:05d}-{hookpoint}.npy"

    def n_tokens(self, number: int) -> int:
        """Tokens of a chunk; 0 where it is missing or not whole."""
        files = [self.file(number, hookpoint) for hookpoint in self.hookpoints]
        if not all(file.is_file() for file in files):
            return 0
        return len(np.load(files[0], mmap_mode="r"))

    def write(self, number: int, parts: Sequence[NDArray[np.float32]]) -> None:
        """Keep a chunk, one array per hookpoint."""
        for hookpoint, part in zip(self.hookpoints, parts, strict=True):
            with_array = _saver(part)
            write_atomically(self.file(number, hookpoint), with_array)

    def numbers(self, *, held_out: bool) -> list[int]:
        """Whole chunks, for training or held out."""
        known = sorted({int(file.name[:5]) for file in self.folder.glob("*.npy")})
        return [n for n in known if (n % HELD_OUT == 0) is held_out and self.n_tokens(n)]

    def chunks(self, hookpoint: Hookpoint, *, held_out: bool) -> Iterator[Tensor]:
        """Chunks at a hookpoint, in their order."""
        for number in self.numbers(held_out=held_out):
            yield torch.from_numpy(np.load(self.file(number, hookpoint)))

    def batches(self, hookpoint: Hookpoint, batch_tokens: int, seed: int) -> Iterator[Tensor]:
        """Endless batches for training; chunks and tokens are shuffled anew in every epoch.

        The remainder of a chunk that fills no batch begins the next one.
        """
        numbers = self.numbers(held_out=False)
        if not numbers:
            raise InputError(
                "no activations are kept for training",
                file=self.folder,
                remedy=f"Keep more tokens: chunk 0 of {CHUNK_SAMPLES} samples is held out.",
            )
        left = torch.zeros(0, 0)
        for epoch in count():
            rng = np.random.default_rng([seed, epoch])
            for number in rng.permutation(numbers).tolist():
                tokens = np.load(self.file(number, hookpoint))
                mixed = torch.from_numpy(tokens[rng.permutation(len(tokens))])
                mixed = mixed if not len(left) else torch.cat([left, mixed])
                n_out = len(mixed) // batch_tokens * batch_tokens
                yield from mixed[:n_out].split(batch_tokens)
                left = mixed[n_out:].clone()


def samples_of(pool: LabelledPool, renderer: Renderer, number: int) -> list[Rendered]:
    """Samples of a chunk, rows in a random order; fewer, or none, where the pool ends."""
    order = np.random.default_rng(0).permutation(len(pool))
    rows = order[number * CHUNK_SAMPLES : (number + 1) * CHUNK_SAMPLES]
    turns = [pool.turns("full", int(row), 1)[0] for row in rows]
    return renderer.render_batch([(as_messages(each), None) for each in turns])


def activations_of(
    workspace: Path,
    hookpoints: Sequence[Hookpoint],
    model: ResolvedModel,
    dtype: str,
    pool: LabelledPool,
    renderer: Renderer,
    n_tokens: int,
) -> KeptActivations:
    """A model's activations over rows of a pool, kept; computed where they are missing."""
    kept = KeptActivations(workspace / "activations", tuple(hookpoints))
    started = time.perf_counter()
    n = keep_activations(
        kept,
        lambda: load_activation_model(
            model, kept.hookpoints, dtype=dtype, checks=workspace / "checks"
        ),
        lambda number: samples_of(pool, renderer, number),
        n_tokens,
    )
    print(f"activations: {n:,} tokens in {time.perf_counter() - started:.0f} s", flush=True)
    return kept


def keep_activations(
    kept: KeptActivations,
    load: Callable[[], ActivationModel],
    samples: Callable[[int], list[Rendered]],
    n_tokens: int,
) -> int:
    """Compute the chunks that are missing until there are `n_tokens`; returns how many there are.

    samples: of a chunk, by its number. A killed run goes on at its first missing chunk.
    """
    model, total = None, 0
    for number in count():
        if total >= n_tokens:
            break
        found = kept.n_tokens(number)
        if not found:
            rendered = samples(number)
            if not rendered:
                break
            model = model or load()
            parts = _read(model, rendered, kept.hookpoints)
            kept.write(number, parts)
            found = len(parts[0])
        total += found
    return total


def _read(
    model: ActivationModel, rendered: list[Rendered], hookpoints: Sequence[Hookpoint]
) -> list[NDArray[np.float32]]:
    positions = [model.hookpoints.index(hookpoint) for hookpoint in hookpoints]
    parts: list[list[Tensor]] = [[] for _ in positions]
    for batch in iter_activations(model, rendered, TOKENS_PER_BATCH):
        for part, position in zip(parts, positions, strict=True):
            part.append(batch.at(position).float().cpu())
    return [torch.cat(part).numpy() for part in parts]


def _saver(part: NDArray[np.float32]) -> Callable[[Path], None]:
    def save(temp: Path) -> None:
        with temp.open("wb") as file:
            np.save(file, part)

    return save
